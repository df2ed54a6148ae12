"""A path, else what a plugin knows, else module:name: one rule for every command."""

import sys
from types import SimpleNamespace

import pytest

import wmplug
from wmplug import plugins
from wmplug.errors import InputError, SuspectError
from wmplug.suspects.functions import CallableSuspect
from wmplug.suspects.targets import as_suspect, from_module, resolve

OBJECTS = """
def answers(inputs):
    return [0] * len(inputs)

class Model:
    def answer(self, inputs):
        return answers(inputs)

number = 7
"""


class Toys:
    """Knows what begins with toy:, and cannot ask toy:broken."""

    def __init__(self):
        self.asked = []

    @wmplug.hookimpl
    def wmplug_suspect(self, target, preprocess, batch_size):
        self.asked.append((target, preprocess, batch_size))
        if target == "toy:broken":
            raise SuspectError("the toy is broken")
        if isinstance(target, str) and target.startswith("toy:"):
            return CallableSuspect(lambda inputs: [1] * len(inputs), batch_size)
        return None


@pytest.fixture
def toys(monkeypatch):
    plugin = Toys()
    registry = plugins.Registry([SimpleNamespace(name="toys", value="toys:it", dist=None, load=lambda: plugin)])
    monkeypatch.setattr(plugins, "registry", lambda: registry)
    return plugin


@pytest.fixture
def objects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("objects_here", "toy"):
        (tmp_path / f"{name}.py").write_text(OBJECTS)
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return tmp_path


def test_a_path_that_exists_is_not_imported_and_no_plugin_is_asked(toys, objects):
    assert resolve("objects_here.py") == "objects_here.py"
    assert toys.asked == []


@pytest.mark.parametrize("text", ["toy://host/model", "toy:answers", "toy:no such name"])
def test_a_plugin_comes_before_module_name_and_sees_any_text(toys, objects, text):
    assert resolve(text, preprocess=len, batch_size=7) == text
    assert toys.asked == [(text, len, 7)]
    mark = SimpleNamespace(preprocess=None)
    assert as_suspect(text, mark).answer(["a", "b"]).tolist() == [1, 1]


def test_what_no_plugin_knows_is_looked_up(toys, objects):
    assert resolve("objects_here:answers")([1, 2]) == [0, 0]
    assert [target for target, *_ in toys.asked] == ["objects_here:answers"]


def test_a_plugin_that_cannot_ask_what_it_knows_is_heard(toys):
    with pytest.raises(SuspectError, match="the toy is broken"):
        resolve("toy:broken")


@pytest.mark.parametrize("text", ["https://example.org/model", "nothing", "a:", ":a", "./none.pt"])
def test_one_wording_for_what_nobody_knows(text):
    with pytest.raises(
        InputError, match=r"^MODEL '.*' is not an existing .* no installed plugin .* and it is not a module:n"
    ):
        resolve(text, what="MODEL")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("objects_here", "is not a module:name"),
        ("objects_here:gone", "cannot be found from"),
        ("objects_nowhere:gone", "cannot be found from"),
        ("objects_here:Model", "not its class"),
        ("objects_here:number", "is 7"),
    ],
)
def test_what_cannot_be_called_is_refused(objects, path, why):
    with pytest.raises(InputError, match=f"--rule .*{why}"):
        from_module(path, "--rule")


@pytest.mark.parametrize("body", ["1 / 0", "def broken(:", "raise RuntimeError('no GPU')", "assert False"])
def test_a_module_that_cannot_be_imported_is_an_input_error_with_its_cause(tmp_path, monkeypatch, body):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "breaks_here.py").write_text(f"{body}\n")
    with pytest.raises(
        InputError, match=r"--rule 'breaks_here:it': importing breaks_here .* correct that mod"
    ) as caught:
        from_module("breaks_here:it", "--rule")
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.pt", r"bare weights, a whole module or a program.*own class.*\(torch.load, torch.jit.load\)"),
        ("model.ckpt", "a .ckpt file holds bare weights, a whole module or a program"),
        ("model.safetensors", "bare weights without a model"),
    ],
)
def test_a_file_of_torch_is_not_taken_for_weights_alone(tmp_path, name, said):
    with pytest.raises(SuspectError, match="the file does not exist"):
        as_suspect(tmp_path / name, SimpleNamespace(preprocess=None))
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SuspectError, match=said):
        as_suspect(tmp_path / name, SimpleNamespace(preprocess=None))


@pytest.mark.parametrize("fault", ["raise ValueError('boom')", "import a_package_nobody_has", "1 / 0"])
def test_a_module_that_fails_is_not_called_missing(fault, tmp_path, monkeypatch):
    (tmp_path / "faulty_here.py").write_text(fault)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "faulty_here", raising=False)
    with pytest.raises(InputError, match=r"importing faulty_here from .* raised \w+Error .*: correct that module"):
        resolve("faulty_here:model")
