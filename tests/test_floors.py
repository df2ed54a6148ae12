"""Imports only go down, and nothing imports itself by way of others; docs/architecture.md draws the floors.

import-linter holds the floors in the lint environment (pyproject.toml). What it cannot see is held here: strings such
as "wmplug.package.module:Name" that something imports later, circles through a package's own `__init__`, and what is
taken from `wmplug` itself, which loads its names lazily.
"""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it there

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PATH = re.compile(r"(wmplug(?:\.\w+)+)(?::\w+)?")

# What the tables of built-ins name is imported by name, as a plugin's is: to whoever asks, they are plugins. The hooks
# and the registry name types of what plugins return, and a rehearsal the type of the scheme that has it rehearsed; at
# run time nothing of that is imported.
TABLES = {"wmplug.plugins": {"SCHEMES", "TASKS", "ADAPTERS", "SUSPECTS"}}
TYPES_ONLY = {"wmplug.hookspecs", "wmplug.plugins", "wmplug.schemes.tilt.rehearsal"}
# The face of the package: it names everything and imports nothing.
FACE = {"wmplug", "wmplug.__main__"}


class Arrow(NamedTuple):
    source: str
    target: str
    line: int


def modules() -> dict[str, Path]:
    names = {".".join(path.relative_to(SOURCE).with_suffix("").parts): path for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__"): path for name, path in names.items()}


MODULES = modules()


def arrows(name: str, text: str) -> Iterator[Arrow]:
    """Every import of the module, in functions too, and every string that names another module."""
    for node in _nodes(ast.parse(text), name):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno}: a relative import hides where it goes"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [path if path in MODULES else str(node.module) for path in inner]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (path := PATH.fullmatch(node.value)):
            targets = [path[1]] if path[1] in MODULES else []
        else:
            continue
        yield from (Arrow(name, target, node.lineno) for target in targets if target.partition(".")[0] == "wmplug")


def _nodes(node: ast.AST, name: str) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if name in TYPES_ONLY and isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Assign) and {ast.unparse(t) for t in child.targets} & TABLES.get(name, set()):
            continue
        yield child
        yield from _nodes(child, name)


@cache
def all_arrows() -> list[Arrow]:
    found = (arrows(name, path.read_text(encoding="utf-8")) for name, path in MODULES.items() if name not in FACE)
    return [arrow for each in found for arrow in each if arrow.target != "wmplug"]


def floors() -> dict[str, int]:
    """Number of the floor of each part, the ground floor first, as pyproject.toml tells import-linter."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (each for each in config["contracts"] if each["type"] == "layers")
    layers = [re.split(r"\s*[|:]\s*", layer) for layer in reversed(contract["layers"])]
    return {part.removeprefix("wmplug."): number for number, layer in enumerate(layers) for part in layer}


def climbs(found: list[Arrow]) -> list[Arrow]:
    """Arrows that do not go down."""
    floor = floors()

    def part(name: str) -> str:
        return name.split(".")[1]

    return [
        arrow
        for arrow in found
        if part(arrow.source) != part(arrow.target) and floor[part(arrow.source)] <= floor[part(arrow.target)]
    ]


def circles(found: list[Arrow]) -> list[list[str]]:
    """Modules that import themselves by way of others, as paths."""
    below: dict[str, set[str]] = {}
    for arrow in found:
        below.setdefault(arrow.source, set()).add(arrow.target)
    done: set[str] = set()
    rings: list[list[str]] = []

    def walk(name: str, way: list[str]) -> None:
        if name in way:
            rings.append([*way[way.index(name) :], name])
        elif name not in done:
            for target in sorted(below.get(name, ())):
                walk(target, [*way, name])
            done.add(name)

    for name in sorted(below):
        walk(name, [])
    return rings


def test_every_part_has_a_floor():
    assert {name.split(".")[1] for name in MODULES if name not in FACE} == set(floors())


def test_imports_only_go_down():
    assert climbs(all_arrows()) == []


def test_nothing_imports_itself_by_way_of_others():
    assert circles(all_arrows()) == []


def test_only_the_command_line_uses_the_lazy_names():
    """`import wmplug` below would be an arrow to everything."""
    for name, path in MODULES.items():
        if name in FACE or name.startswith("wmplug.cli"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        taken = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "wmplug"
            for alias in node.names
        }
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "wmplug"
        }
        assert {each for each in taken if f"wmplug.{each}" not in MODULES} <= {"__version__"}, name
        assert used <= {"__version__", "__file__"}, name


@pytest.mark.parametrize(
    "text",
    [
        "import wmplug.cli.demo",
        "from wmplug.cli import demo",
        "from wmplug import cli",
        "def f():\n    with need('demo'):\n        from wmplug.cli.demo import demo",
        "HIDDEN = 'wmplug.cli.demo:demo'",
        "if TYPE_CHECKING:\n    from wmplug.cli import demo",
    ],
)
def test_an_arrow_is_seen_however_it_is_drawn(text):
    assert [arrow.target for arrow in climbs(list(arrows("wmplug.keys.owner", text)))] in (
        ["wmplug.cli.demo"],
        ["wmplug.cli"],
    )


def test_a_circle_is_seen():
    found = [Arrow("wmplug.a", "wmplug.b", 1), Arrow("wmplug.b", "wmplug.c", 1), Arrow("wmplug.c", "wmplug.a", 1)]
    assert circles(found) == [["wmplug.a", "wmplug.b", "wmplug.c", "wmplug.a"]]
    assert circles(found[:2]) == []
