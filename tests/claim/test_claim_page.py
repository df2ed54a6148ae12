"""docs/claim.md lists the choices that the code knows, as the code names them."""

import re
from pathlib import Path
from typing import get_args

from wmplug.watermark.choices import UNBOUND, Bound

PAGE = (Path(__file__).parents[2] / "docs" / "claim.md").read_text()
BINDS = re.compile(rf"(?:^|\. )({'|'.join(get_args(Bound))}): ")


def table(title):
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return rows[2:]


def test_every_choice_that_a_verdict_names_has_a_row_with_that_name():
    rows = table("Choices that a verdict names")
    assert {row[0].strip("`"): row[3].strip("`") for row in rows} == dict(UNBOUND)
    assert all(when and binds for _, when, binds, _ in rows)


def test_every_way_of_binding_is_explained_and_used():
    explained = set(re.findall(r"^- \*\*(\w+)\*\*", PAGE, re.M))
    used = {word for row in table("Choices that a verdict names") for word in BINDS.findall(row[2])}
    assert explained == used == set(get_args(Bound))


def test_the_page_promises_only_bindings_that_the_code_makes():
    """Each binding in a row is one that the sources give to that choice, and the other way round."""
    sources = "\n".join(file.read_text() for file in (Path(__file__).parents[2] / "src").rglob("*.py"))
    made = {what: set() for what in UNBOUND}
    for what, given in re.findall(r'Choice\(\s*what="(\w+)",\s*bound=([^,)]+)', sources):
        made[what] |= set(re.findall(rf'"({"|".join(get_args(Bound))})"', given))
    made["tries"] = {"paid"}  # by the number of keys
    for name, _, binds, _ in table("Choices that a verdict names"):
        assert set(BINDS.findall(binds)) == made[name.strip("`")], name
