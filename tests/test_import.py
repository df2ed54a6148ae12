"""What an import costs is asked of a fresh interpreter: here everything is loaded already."""

import json
import subprocess
import sys

import pytest

import wmplug

FRAMEWORKS = ["torch", "transformers", "accelerate", "keras", "tensorflow", "jax", "skorch", "sklearn", "matplotlib"]
HEAVY = [*FRAMEWORKS, "numpy", "scipy", "PIL", "pluggy", "cryptography", "typer", "rich"]


def loaded_after(code, names):
    """Which of the modules are there after the code ran; all of them would be, were they imported."""
    script = f"{code}\nimport json, sys\nprint(json.dumps([n for n in {names!r} if n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout.splitlines()[-1])


def test_import_loads_nothing():
    assert loaded_after("import wmplug", HEAVY) == []
    assert loaded_after("import wmplug, numpy, pluggy", HEAVY) == ["numpy", "pluggy"]


def test_import_loads_no_part_of_itself():
    parts = [f"wmplug.{name}" for name in ("plugins", "keys", "watermark", "claim", "statistics", "schemes")]
    assert loaded_after("import wmplug", parts) == []


def test_core_loads_no_framework():
    assert loaded_after("import wmplug; wmplug.Owner, wmplug.create, wmplug.verify, wmplug.Monitor", FRAMEWORKS) == []


def test_help_of_the_command_line_loads_no_framework():
    code = """
import sys
sys.argv = ["wmplug", "--help"]
from wmplug.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""
    assert loaded_after(code, FRAMEWORKS) == []


@pytest.mark.parametrize("name", wmplug.__all__)
def test_every_public_name_is_there(name):
    assert getattr(wmplug, name) is not None


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'watermrk'"):
        _ = wmplug.watermrk


def test_contracts_without_pytest_say_what_to_install():
    code = "import sys; sys.modules['pytest'] = None; import wmplug.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        "ImportError: wmplug.testing consists of pytest classes, and pytest is not installed: `pip install pytest`"
        in done.stderr
    )
