"""The vectors: each verifier says of each what stands beside it, and they are what make.py writes."""

import ast
import filecmp
import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from wmplug.register import checking, receipts

VECTORS = Path(__file__).parents[1] / "vectors" / "register"
CASES = sorted(file.parent.name for file in VECTORS.glob("*/expect.json"))
LEVELS = ("inconclusive", "flagged")
SOURCES = Path(checking.__file__).parent


def expected(name):
    return json.loads((VECTORS / name / "expect.json").read_bytes())


def checked(name):
    folder, receipt = VECTORS / name, VECTORS / name / "receipt.json"
    given = [receipts.read(receipt)] if receipt.exists() else []
    return checking.check(
        folder, receipts=given, now=datetime.fromisoformat(expected(name)["now"].replace("Z", "+00:00"))
    )


def told(report, level):
    found = [one for one in report.findings if one.level == level]
    return sorted(one.code if one.seq is None else f"{one.code}@{one.seq}" for one in found)


@pytest.mark.parametrize("name", CASES)
def test_check_says_what_is_expected(name):
    report, wanted = checked(name), expected(name)
    refused = [(one.code, one.seq) for one in report.findings if one.level == "refused"]
    assert refused == ([] if wanted["ok"] else [(wanted["code"], wanted["first_bad"])])
    assert report.ok == wanted["ok"] == name.endswith("_ok")
    assert (report.entries, report.attested) == (wanted["entries"], wanted["attested"])
    assert told(report, "inconclusive") == sorted(wanted["inconclusive"])
    assert told(report, "flagged") == sorted(wanted["flagged"])


@pytest.fixture(scope="module")
def answers():
    """What the second verifier says of all vectors."""
    command = [sys.executable, "-I", VECTORS / "verify.py", *(VECTORS / name for name in CASES)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {answer["case"]: answer for answer in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", CASES)
def test_the_second_verifier_says_the_same(name, answers):
    for what in ("ok", "first_bad", "class", "entries", "attested", "inconclusive"):
        assert answers[name][what] == expected(name)[what], what


def test_the_second_verifier_shares_nothing_with_the_first():
    nodes = list(ast.walk(ast.parse((VECTORS / "verify.py").read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "cryptography"}


def test_the_vectors_are_what_make_writes(tmp_path):
    subprocess.run([sys.executable, VECTORS / "make.py", tmp_path], check=True)
    made = {file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.is_file()}
    kept = {file.relative_to(VECTORS) for name in CASES for file in (VECTORS / name).rglob("*") if file.is_file()}
    assert made == kept
    assert filecmp.cmpfiles(tmp_path, VECTORS, sorted(map(str, made)), shallow=False)[1:] == ([], [])


def test_there_is_a_vector_for_every_code():
    assert len(CASES) >= 60
    names = ("statements", "ledger", "reading", "ordering", "checking")
    sources = "".join((SOURCES / f"{name}.py").read_text() for name in names)
    where = r'refuse\(|_corrupt\(entry, |code(?:, why)? ?= ?|code = .* else |(?:find|Finding)\(\s*"\w+", '
    codes = set(re.findall(f'(?:{where})"([a-z-]+)"', sources)) - {"anchors-unchecked"}  # without the extra
    shown = {expected(name)["code"] for name in CASES}
    shown |= {one.partition("@")[0] for name in CASES for level in LEVELS for one in expected(name)[level]}
    assert len(codes) > 30
    assert codes <= shown, codes - shown
