import json
import os
import subprocess
import sys

import pytest

PLUGIN = """
from dataclasses import dataclass
import wmplug
from wmplug.schemes import Scheme

@dataclass(frozen=True)
class Tinted(Scheme):
    '''Pictures in a keyed tint.'''
    name = "tinted"
    strength: float = 0.5

class Loop:
    '''Watermarks what Loop trains.'''
    def __init__(self, mark, speed=3, *, colour="red", **rest): ...

@wmplug.hookimpl
def wmplug_schemes():
    return {"tinted": Tinted}

@wmplug.hookimpl
def wmplug_tasks():
    return {"moods": "a_module_nobody_has:Moods"}

@wmplug.hookimpl
def wmplug_adapters():
    return {"loop": Loop}
"""


@pytest.fixture
def installed(tmp_path):
    """A folder that looks like two installed distributions: a good one and one that fails to import."""
    for name, source in (("tinted", PLUGIN), ("sorry", "import a_module_nobody_has\n")):
        (tmp_path / f"{name}_plugin.py").write_text(source)
        info = tmp_path / f"wmplug_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: wmplug-{name}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[wmplug]\n{name} = {name}_plugin\n")
    return tmp_path


def run(*words, beside=None, hidden=()):
    """The program as a process of its own, in which the modules in `hidden` cannot be imported."""
    code = (
        "import sys, importlib.machinery as m\n"
        f"hidden = {list(hidden)!r}\n"
        "find = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = classmethod(lambda c, n, *a: None if n.split('.')[0] in hidden else find(n, *a))\n"
        "from wmplug.cli import main\n"
        "try: main()\n"
        "finally: print(sorted(set(sys.modules) & {'torch', 'transformers', 'keras', 'accelerate'}), file=sys.stderr)\n"
    )
    paths = os.pathsep.join(p for p in (str(beside or ""), os.environ.get("PYTHONPATH", "")) if p)
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "160"},
    )
    assert done.returncode == 0, done.stderr
    return done


def test_schemes_say_what_they_do_and_take(terminal):
    listed = {row["name"]: row for row in terminal.json("schemes")["schemes"]}
    assert set(listed) >= {"random-label", "logo", "phrase"}
    logo = listed["logo"]
    assert logo["does"] == "A stamped logo with keyed answers."
    assert logo["parameters"]["rule"] == "per-class"
    assert logo["parameters"]["variants"] == 5
    assert logo["points"] == ["samples"]
    assert logo["from"] == "built in"
    assert "per-class" in terminal("schemes").stdout


def test_adapters_are_listed_without_their_frameworks():
    done = run("adapters", "--json", hidden=["torch", "transformers", "keras", "accelerate"])
    listed = {row["name"]: row for row in json.loads(done.stdout)["adapters"]}
    assert set(listed) >= {"torch", "accelerate", "transformers", "keras"}
    assert listed["keras"]["install"] == "pip install wmplug[keras]"
    assert "Trainer" in listed["transformers"]["does"]
    assert listed["transformers"]["parameters"]["mode"] == "append"
    assert listed["transformers"]["parameters"]["target_e"] == 1e6
    assert "mark" not in listed["transformers"]["parameters"]


def test_listing_imports_no_framework():
    for command in ("schemes", "adapters"):
        assert run(command).stderr.strip().endswith("[]")


def test_plugins_appear_with_their_distribution_and_broken_ones_with_their_cause(installed):
    done = run("schemes", "--json", beside=installed)
    listed = json.loads(done.stdout)
    tinted = next(row for row in listed["schemes"] if row["name"] == "tinted")
    assert tinted["from"] == "wmplug-tinted 1.2"
    assert tinted["does"] == "Pictures in a keyed tint."
    assert tinted["parameters"] == {"strength": 0.5}
    assert list(listed["broken"]) == ["sorry", "moods"]
    assert "a_module_nobody_has" in listed["broken"]["sorry"]
    assert "Warning" not in done.stderr
    adapters = json.loads(run("adapters", "--json", beside=installed).stdout)["adapters"]
    loop = next(row for row in adapters if row["name"] == "loop")
    assert loop["parameters"] == {"speed": 3, "colour": "red"}
    assert loop["install"] is None
    shown = run("adapters", beside=installed)
    assert "wmplug-tinted 1.2" in shown.stdout
    assert "broken plugin 'sorry': wmplug-sorry" in shown.stderr
    assert "ModuleNotFoundError" in shown.stderr


def test_the_demo_names_what_to_install(terminal, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "wmplug.cli.demo.models", raising=False)
    assert "pip install 'wmplug[demo]'" in terminal.error("demo", "--out", tmp_path / "d")
    assert not (tmp_path / "d").exists()
