"""Every hook is called, with the arguments it names."""

import inspect
from types import SimpleNamespace

import numpy as np
import pytest

import wmplug
from wmplug import hookspecs, plugins
from wmplug.errors import SuspectError
from wmplug.register import Register
from wmplug.schemes.random_label import RandomLabel
from wmplug.suspects.functions import CallableSuspect

HOOKS = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("wmplug_")}


class Mine(RandomLabel):
    name = "mine"


class Everything:
    """A plugin that implements every hook and keeps what it was given."""

    def __init__(self):
        self.calls = []

    @wmplug.hookimpl
    def wmplug_schemes(self):
        self.calls.append(("wmplug_schemes", {}))
        return {"mine": Mine}

    @wmplug.hookimpl
    def wmplug_adapters(self):
        self.calls.append(("wmplug_adapters", {}))
        return {"mine": lambda mark, **options: (mark, options)}

    @wmplug.hookimpl
    def wmplug_suspect(self, target, preprocess, batch_size):
        self.calls.append(("wmplug_suspect", {"target": target, "preprocess": preprocess, "batch_size": batch_size}))
        if target == "mine":
            return CallableSuspect(lambda x: np.zeros(len(x), int))
        return None

    @wmplug.hookimpl
    def wmplug_verdict(self, verdict, run):
        self.calls.append(("wmplug_verdict", {"verdict": verdict, "run": run}))

    @wmplug.hookimpl
    def wmplug_event(self, event):
        self.calls.append(("wmplug_event", {"event": event}))


@pytest.fixture
def everything(monkeypatch):
    plugin = Everything()
    registry = plugins.Registry([SimpleNamespace(name="all", value="all:all", dist=None, load=lambda: plugin)])
    monkeypatch.setattr(plugins, "registry", lambda: registry)
    return plugin


def test_all_hooks_in_the_order_of_a_users_calls(everything, owner, digits):
    Register.of(owner)
    everything.calls.clear()
    mark = wmplug.create(owner, scheme="mine", carriers=digits[0], classes=10, triggers=20)
    assert wmplug.callback("mine", mark, rate=0.1) == (mark, {"rate": 0.1})
    verdict = wmplug.verify(mark, "mine", batch_size=7)
    look = wmplug.Monitor(mark).look("mine", step=3, run={"adapter": "none"})

    asked = {"target": "mine", "preprocess": None}
    events = [call for call in everything.calls if call[0] == "wmplug_event"]
    assert [call[1]["event"]["type"] for call in events] == ["secret.committed", "triggers.committed"]
    assert everything.calls == [
        ("wmplug_schemes", {}),
        *events,
        ("wmplug_adapters", {}),
        ("wmplug_suspect", {**asked, "batch_size": 7}),
        ("wmplug_verdict", {"verdict": verdict, "run": {}}),
        ("wmplug_suspect", {**asked, "batch_size": 64}),
        ("wmplug_verdict", {"verdict": look, "run": {"step": 3, "adapter": "none"}}),
    ]
    assert {name for name, _ in everything.calls} == HOOKS.keys()
    for name, arguments in everything.calls:
        assert arguments.keys() == inspect.signature(HOOKS[name]).parameters.keys()


def test_a_target_nobody_knows_is_refused(everything, owner, digits):
    mark = wmplug.create(owner, scheme="mine", carriers=digits[0], classes=10, triggers=20)
    with pytest.raises(SuspectError, match="cannot ask 'other'"):
        wmplug.verify(mark, "other")


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_says_when_it_is_called(name):
    assert "when" in HOOKS[name].__doc__.lower() or "after" in HOOKS[name].__doc__.lower()
