"""What others import is declared, listed in docs/api.md, and all that the integrations and the examples need."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import wmplug

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "api.md").read_text()
LISTED = dict(re.findall(r"^## `([\w.]+)`\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
# Of a framework or an extra that the core's environment goes without.
ELSEWHERE = re.compile(r"wmplug\.(adapters|audit|dataset|serving)\b")
# What only the project's own files take beside it: the register is read, and the demo's models are trained again.
INNER = {"wmplug.register", "wmplug.training.record", "wmplug.schemes.random_label", "wmplug.cli", "wmplug.cli.demo"}


def declared(module):
    """`__all__`, from the source: importing an adapter would take its framework."""
    path = ROOT / "src" / Path(*module.split("."), "__init__.py")
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{module} declares no __all__")


def names(section):
    return re.findall(r"^\| `(\w+)`", section, re.M)


@pytest.mark.parametrize("module", sorted(set(LISTED) - {"wmplug", "wmplug.adapters.accelerate"}))
def test_the_page_lists_what_a_module_declares(module):
    assert sorted(names(LISTED[module])) == sorted(declared(module))


def test_the_page_lists_the_names_of_wmplug_itself():
    assert sorted(names(LISTED["wmplug"])) == sorted(set(wmplug.__all__) - {"__version__"})


@pytest.mark.parametrize("module", [name for name in LISTED if not ELSEWHERE.match(name)])
def test_what_is_declared_is_there(module):
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "wmplug":
            yield from ((node.module, alias.name) for alias in node.names)


DISHONEST = ROOT / "examples" / "dishonest_owner.py"  # who deceives takes whatever is there
FILES = [*ROOT.glob("integrations/*/src/**/*.py"), *({*ROOT.glob("examples/*.py")} - {DISHONEST})]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_integrations_and_examples_take_only_what_is_declared(path):
    for module, name in imports(path):
        if module not in INNER and f"{module}.{name}" not in LISTED and f"{module}.{name}" != "wmplug.cli":
            assert name in names(LISTED.get(module, "")), f"{module} does not declare {name}"


def test_there_are_files_to_look_at():
    assert len(FILES) > 10
