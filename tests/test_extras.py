"""What a missing package says."""

import re
from pathlib import Path

import pytest

from wmplug.errors import PluginError, WmplugError
from wmplug.extras import need

SOURCES = sorted((Path(__file__).parents[1] / "src").rglob("*.py"))


def test_a_missing_package_names_its_extra():
    with (
        pytest.raises(PluginError, match=r"'a_package' is needed here .* `pip install 'wmplug\[evidence\]'`$"),
        need("evidence"),
    ):
        raise ModuleNotFoundError("No module named 'a_package.part'", name="a_package.part")


def test_what_can_be_done_instead_is_said():
    with (
        pytest.raises(PluginError, match=r"wmplug\[dataset\]'`, or look for exact copies alone$"),
        need("dataset", "look for exact copies alone"),
    ):
        raise ImportError("broken", name="a_package")


@pytest.mark.parametrize("error", [ImportError("no x", name="wmplug.keys"), ImportError("no name")])
def test_a_fault_in_wmplug_sends_nobody_to_install_anything(error):
    with pytest.raises(ImportError) as raised, need("evidence"):
        raise error
    assert raised.value is error
    with pytest.raises(WmplugError), need("evidence"):
        raise PluginError("of its own")


def test_every_extra_that_is_named_can_be_installed():
    named = {extra for file in SOURCES for extra in re.findall(r"\bneed\(\"(\w+)\"", file.read_text(encoding="utf-8"))}
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert {"evidence", "ots", "dataset", "audit", "demo"} <= named
    assert [extra for extra in named if not re.search(rf"^{extra} = \[", pyproject, re.M)] == []
