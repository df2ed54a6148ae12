"""The registry: what is found by name, and that a broken plugin harms nobody but itself."""

import re
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

import wmplug
from wmplug import plugins
from wmplug.errors import PluginError, SuspectError
from wmplug.plugins import PluginWarning, Registry
from wmplug.schemes.random_label import RandomLabel
from wmplug.suspects.targets import as_suspect


class Mine(RandomLabel):
    name = "mine"


class Good:
    @wmplug.hookimpl
    def wmplug_schemes(self):
        return {"mine": Mine}


class Misspelt:
    @wmplug.hookimpl
    def wmplug_scheme(self):
        return {"other": Mine}


class Unmarked(Good):
    def wmplug_adapters(self):
        return {}


class WrongArgument:
    @wmplug.hookimpl
    def wmplug_verdict(self, verdict, colour): ...


class Empty:
    pass


class Wrapper:
    @wmplug.hookimpl(wrapper=True)
    def wmplug_schemes(self):
        return (yield)


class Raises:
    @wmplug.hookimpl
    def wmplug_schemes(self):
        raise ZeroDivisionError("in the plugin")

    wmplug_suspect = wmplug.hookimpl(lambda self, target: 1 / 0)
    wmplug_verdict = wmplug.hookimpl(lambda self, verdict: 1 / 0)


class NoMapping:
    @wmplug.hookimpl
    def wmplug_schemes(self):
        return [Mine]


class Again(Good):
    @wmplug.hookimpl
    def wmplug_schemes(self):
        return {"logo": Mine}


def point(name, load, distribution=None):
    dist = None if distribution is None else SimpleNamespace(name=distribution, version="1.0")
    return SimpleNamespace(name=name, value=f"{name}:hooks", dist=dist, load=load)


def stop(error):
    def load():
        raise error

    return load


GOOD = point("good", Good, "good-dist")


@pytest.mark.parametrize(
    ("load", "cause"),
    [
        (stop(ImportError("no module of mine")), "ImportError: no module of mine"),
        (stop(SystemExit("needs a newer Python")), "SystemExit: needs a newer Python"),
        (Misspelt, "unknown hook 'wmplug_scheme'"),
        (Unmarked, "wmplug_adapters is never called: put @wmplug.hookimpl"),
        (WrongArgument, "colour"),
        (Empty, "implements none of the hooks"),
        (Wrapper, "hook wrapper"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_a_plugin_that_does_not_load_is_left_out_and_an_error_if_asked_for(load, cause, first):
    bad = point("bad", load, "bad-dist")
    with pytest.warns(PluginWarning, match="'bad' of bad-dist 1.0: .*" + re.escape(cause)):
        registry = Registry([bad, GOOD] if first else [GOOD, bad])
    assert registry.scheme("mine") is Mine
    assert registry.manager.get_plugin("bad") is None
    assert list(registry.broken) == ["bad"]
    with pytest.raises(PluginError, match="'bad' is broken and was left out .bad-dist 1.0: .*" + re.escape(cause)):
        registry.adapter("bad")
    # A scheme it would have offered: nobody can know, so the message names every broken plugin.
    with pytest.raises(PluginError, match=r"no scheme 'other'.*The plugin 'bad' is broken"):
        registry.scheme("other")


@pytest.mark.parametrize(("load", "cause"), [(Raises, "ZeroDivisionError"), (NoMapping, "return a mapping from names")])
def test_a_hook_that_raises_or_returns_nonsense_leaves_the_others_alone(load, cause):
    registry = Registry([point("bad", load, "bad-dist"), GOOD])
    with pytest.warns(PluginWarning, match=f"'bad' of bad-dist 1.0, wmplug_schemes: .*{cause}"):
        assert registry.scheme("mine") is Mine
    with pytest.raises(PluginError, match=f"'bad' is broken.*{cause}"):
        registry.scheme("bad")


def test_a_listener_that_raises_does_not_end_a_training(owner, digits, monkeypatch):
    registry = Registry([point("bad", Raises, "bad-dist")])
    monkeypatch.setattr(plugins, "registry", lambda: registry)
    mark = wmplug.create(owner, scheme=RandomLabel(), carriers=digits[0], classes=10, triggers=20)
    with pytest.warns(PluginWarning) as caught:
        verdict = wmplug.verify(mark, lambda x: [0] * len(x))
    assert verdict.state == "inconclusive"
    assert [str(w.message).split(":")[0].split(", ")[1] for w in caught] == ["wmplug_suspect", "wmplug_verdict"]


def test_a_suspect_error_of_a_plugin_reaches_the_user():
    class Knows:
        @wmplug.hookimpl
        def wmplug_suspect(self, target):
            raise SuspectError("this endpoint is down")

    with pytest.raises(SuspectError, match="is down"):
        Registry([point("knows", Knows)]).suspect("x", None, 1)


def test_a_suspect_that_cannot_be_asked_names_its_plugin():
    class Returns:
        @wmplug.hookimpl
        def wmplug_suspect(self, target):
            return 3.5

    with pytest.raises(PluginError, match="'returns' returned a float for 'x', which cannot be asked: return an obj"):
        Registry([point("returns", Returns)]).suspect("x", None, 1)


def test_a_name_offered_twice_names_both():
    twice = Registry([GOOD, point("also", Good, "also-dist")])
    with pytest.raises(PluginError, match=r"'mine' is offered twice, by also-dist 1\.0 and by good-dist 1\.0"):
        twice.scheme("mine")
    with pytest.raises(PluginError, match=r"'logo' is offered twice, by wmplug itself and by again-dist 1\.0"):
        Registry([point("again", Again, "again-dist")]).scheme("phrase")


def test_two_plugins_of_one_name_keep_the_first():
    with pytest.warns(
        PluginWarning, match="'good' of rival-dist 1.0: .*good-dist 1.0 already has a plugin of that name"
    ):
        registry = Registry([GOOD, point("good", Again, "rival-dist")])
    assert registry.scheme("mine") is Mine


def test_a_scheme_must_have_the_name_it_is_offered_by():
    class Other:
        @wmplug.hookimpl
        def wmplug_schemes(self):
            return {"yours": Mine}

    with pytest.raises(PluginError, match="its `name` must be 'yours'"):
        Registry([point("other", Other)]).scheme("yours")


@pytest.mark.parametrize(("asked", "meant"), [("logos", "logo"), ("randomlabel", "random-label"), ("phrse", "phrase")])
def test_a_name_that_nobody_offers_gets_the_nearest(asked, meant):
    with pytest.raises(PluginError, match=f"no scheme '{asked}'; did you mean '{meant}'. There are: "):
        Registry([]).scheme(asked)
    with pytest.raises(
        PluginError, match=r"no scheme '\?\?'\. There are: canaries, close-calls, combined, [a-z, -]+, tilt, twins\.$"
    ):
        Registry([]).scheme("??")


@pytest.mark.parametrize("name", plugins.SCHEMES)
def test_built_in_schemes_are_found(name):
    assert Registry([]).scheme(name).name == name


@pytest.mark.parametrize("path", [*plugins.ADAPTERS.values(), *plugins.SUSPECTS.values()])
def test_a_missing_framework_says_which_extra(path, monkeypatch):
    module = path.partition(":")[0]
    framework = module.split(".")[2]
    for name in list(sys.modules):
        if name.startswith("wmplug.adapters.") or name.partition(".")[0] == framework:
            monkeypatch.delitem(sys.modules, name)
    hide(monkeypatch, framework, "torch")
    with pytest.raises(PluginError, match=rf"which is not installed here: `pip install 'wmplug\[{framework}\]'`"):
        plugins.load(path)
    pyproject = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert re.search(rf"^{framework} = \[", pyproject, re.M), "there is such an extra"


def hide(monkeypatch, *names):
    class Hidden:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name.partition(".")[0] in names:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in names:
        for loaded in [n for n in sys.modules if n.partition(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setattr(sys, "meta_path", [Hidden, *sys.meta_path])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("import own_plugin.not_there", "ModuleNotFoundError: No module named 'own_plugin.not_there'"),
        ("from own_plugin import absent", "cannot import name 'absent'"),
        ("1 / 0", "ZeroDivisionError"),
        ("", "has no attribute 'Thing'"),
    ],
)
def test_a_fault_of_a_plugins_own_is_not_called_a_missing_framework(source, why, tmp_path, monkeypatch):
    package = tmp_path / "own_plugin"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "adapter.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("own_plugin", "own_plugin.adapter"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(PluginError, match="a missing package is not the reason .*" + re.escape(why)) as raised:
        plugins.load("own_plugin.adapter:Thing")
    assert "install" not in str(raised.value)


def test_a_plugins_missing_framework_is_named(tmp_path, monkeypatch):
    (tmp_path / "needs_much.py").write_text("import a_framework_that_is_not_here")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"needs 'a_framework_that_is_not_here', .* `pip install 'a_framework"):
        plugins.load("needs_much:Thing")


def test_tracing_goes_to_standard_error_and_only_when_asked_for(monkeypatch, capsys):
    monkeypatch.setenv("WMPLUG_TRACE", "1")
    assert Registry([GOOD]).scheme("mine") is Mine
    out, err = capsys.readouterr()
    assert out == ""
    assert "wmplug_schemes [hook]" in err
    assert "finish wmplug_schemes --> [{'mine':" in err
    monkeypatch.delenv("WMPLUG_TRACE")
    assert Registry([GOOD]).scheme("mine") is Mine
    assert capsys.readouterr() == ("", "")


def test_installed_entry_points_are_read(monkeypatch):
    monkeypatch.setattr(metadata, "entry_points", lambda group: [GOOD] if group == "wmplug" else [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Registry().scheme("mine") is Mine


def test_looking_up_a_scheme_imports_no_framework():
    code = (
        "import sys; from wmplug import plugins; plugins.Registry([]).scheme('random-label'), plugins.adapter;"
        "print([m for m in ('torch', 'keras', 'transformers', 'accelerate', 'pytest') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_keras_without_its_backend_is_told_of_backends(monkeypatch):
    def missing(module):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(plugins.importlib, "import_module", missing)
    with pytest.raises(PluginError, match="set KERAS_BACKEND to one that is") as raised:
        plugins.load(plugins.SUSPECTS["keras"])
    assert "wmplug[" not in str(raised.value)


def test_a_listener_that_exits_ends_nothing():
    class Quits:
        @wmplug.hookimpl
        def wmplug_verdict(self, verdict):
            sys.exit(0)

    registry = Registry([point("quits", lambda: Quits())])
    with pytest.warns(PluginWarning, match="SystemExit"):
        registry.tell("wmplug_verdict", verdict=None, run={})


def of(*packages):
    """An object one of whose bases comes from each of these packages."""
    bases = [type(f"From{package.title()}", (), {"__module__": f"{package}.inside"}) for package in packages]
    return type("Both", tuple(bases), {})()


@pytest.fixture
def families(monkeypatch):
    """Two built-in families, the first of which knows nothing; with what they were asked."""
    asked = []

    def suspect(name, knows):
        def ask(target, preprocess, batch_size):
            asked.append(name)
            return SimpleNamespace(description=name, answer=len) if knows else None

        return ask

    module = SimpleNamespace(one=suspect("one", False), two=suspect("two", True), three=suspect("three", False))
    monkeypatch.setitem(sys.modules, "families_here", module)
    monkeypatch.setattr(plugins, "SUSPECTS", {name: f"families_here:{name}" for name in ("one", "two", "three")})
    return asked


def test_a_family_that_cannot_ask_leaves_it_to_the_next(families):
    registry = Registry([])
    assert registry.suspect(of("two", "one"), None, 8).description == "two"
    assert families == ["one", "two"]
    assert registry.suspect(of("one", "three"), None, 8) is None
    assert registry.suspect(of("elsewhere"), None, 8) is None
    assert families == ["one", "two", "one", "three"]


def test_who_was_asked_is_said_at_the_end(families, monkeypatch):
    class Knows:
        @wmplug.hookimpl
        def wmplug_suspect(self, target):
            return None

    monkeypatch.setattr(plugins, "registry", lambda: registry)
    registry = Registry([point("toys", Knows)])
    with pytest.raises(
        SuspectError, match=r"none of these knows: plugin 'toys', adapter 'one', adapter 'three'\. Give"
    ):
        as_suspect(of("three", "one"), SimpleNamespace(preprocess=None))
    registry = Registry([])
    with pytest.raises(SuspectError, match="none of these knows: no plugin and no adapter"):
        as_suspect(object(), SimpleNamespace(preprocess=None))


@pytest.mark.parametrize(
    ("files", "name", "found"),
    [
        (["config.json"], "out", ["transformers"]),
        (["adapter_config.json"], "out", ["transformers"]),
        (["config.json"], "out.keras", ["transformers"]),
        (["weights"], "out", []),
        (None, "model.keras", ["keras"]),
        (None, "model.h5", ["keras"]),
        (None, "model.weights.h5", []),
        (None, "model.pt", []),
    ],
)
@pytest.mark.parametrize("kind", [str, Path])
def test_whose_files_these_are(tmp_path, files, name, found, kind):
    path = tmp_path / name
    if files is None:
        path.touch()
    else:
        path.mkdir()
        for file in files:
            (path / file).touch()
    assert plugins.families(kind(path)) == found
