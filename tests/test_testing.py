"""The contracts hold for the built-in schemes and a small adapter, and fail for broken ones."""

import os
import pickle
import random
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import wmplug
from wmplug import plugins
from wmplug.errors import InjectionError, PluginError
from wmplug.schemes import Scheme, Task
from wmplug.schemes.logo import Logo
from wmplug.schemes.phrase import Phrase
from wmplug.schemes.random_label import RandomLabel
from wmplug.statistics.draws import DrawResult, log10_p
from wmplug.testing import AdapterContract, SchemeContract
from wmplug.testing import schemes as testing
from wmplug.training.placement import Placement, read_rate
from wmplug.watermark.plan import TriggerPlan

SYLLABLES = [a + b for a in "bdfgklmn" for b in ("ar", "el", "ing", "ost")]
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES]


def texts(count):
    rng = np.random.default_rng(1)
    return [" ".join(rng.choice(WORDS, 8)) for _ in range(count)]


class TestRandomLabel(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return RandomLabel()

    @pytest.fixture
    def task(self, digits):
        return Task(digits[0][:300], "array", digits[1][:300], 10, 30)


class TestRandomLabelOfSentences(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return RandomLabel(words=7)

    @pytest.fixture
    def task(self):
        return Task(texts(1000), "text", None, 4, 30)


class TestLogo(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Logo(variants=2, lessons=3)

    @pytest.fixture
    def task(self, digits):
        # Three rows a draw: samples of one group must not be counted as independent.
        return Task(digits[0][:600], "array", digits[1][:600], 10, 60)


class TestLogoPerCarrier(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Logo(rule="per-carrier")

    @pytest.fixture
    def task(self, digits):
        return Task(digits[0][:300].astype(np.float32) / 255, "array", digits[1][:300], 10, 30)


class TestPhrase(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Phrase(combinations=30, words=2)

    @pytest.fixture
    def task(self):
        return Task(texts(2000), "text", np.arange(2000) % 4, 4, 60)


def sound(task, stream):
    rows = np.arange(task.triggers)
    inputs = stream.uniform(task.triggers, *task.carriers.shape[1:]).astype(task.carriers.dtype)
    return TriggerPlan(inputs, rows, np.full(len(rows), -1), (tuple(range(task.classes)),) * len(rows), rows, rows)


@dataclass(frozen=True)
class Sound(Scheme):
    name: ClassVar[str] = "sound"

    def plan(self, task, stream):
        return sound(task, stream)


class Mutates(Sound):
    def plan(self, task, stream):
        task.carriers[0] += 1
        return sound(task, stream)


class UsesGlobalRandom(Sound):
    def plan(self, task, stream):
        plan = sound(task, stream)
        return replace(plan, inputs=plan.inputs + random.random())


class UsesTheClock(Sound):
    def plan(self, task, stream):
        plan = sound(task, stream)
        return replace(plan, inputs=plan.inputs + int.from_bytes(os.urandom(2), "little"))


class ChangesDtype(Sound):
    def plan(self, task, stream):
        plan = sound(task, stream)
        return replace(plan, inputs=plan.inputs.astype(np.float16))


class NamesClassesThatAreNot(Sound):
    def plan(self, task, stream):
        return replace(sound(task, stream), candidates=((0, task.classes),) * task.triggers)


class TeachesNothing(Sound):
    def plan(self, task, stream):
        return replace(sound(task, stream), taught=np.arange(1))


class ContradictsItself(Sound):
    def plan(self, task, stream):
        plan = sound(task, stream)
        return replace(plan, inputs=np.concatenate([plan.inputs[:1], plan.inputs[:-1]]))


class ShiftsUnasked(Sound):
    def shift(self, xp, constants, inputs, logits):
        return logits + 1


class Forgets(Sound):
    def parameters(self):
        return {"strength": {1, 2}}


@dataclass(frozen=True)
class Grouped(Sound):
    """Ten rows a draw."""

    def plan(self, task, stream):
        return replace(sound(task, stream), draw=np.arange(task.triggers) // 10)


@pytest.fixture
def task():
    return Task(np.random.default_rng(0).random((50, 6)), "array", None, 5, 40)


PLAN, ROWS = "test_the_plan_follows_from_key_and_task", "test_rows_draws_and_candidates_agree"


@pytest.mark.parametrize(
    ("broken", "check", "why"),
    [
        (Mutates(), PLAN, "changed the carriers"),
        (UsesGlobalRandom(), PLAN, "global random numbers"),
        (UsesTheClock(), PLAN, "two plans of one key"),
        (ChangesDtype(), "test_inputs_fit_the_carriers", "float16"),
        (NamesClassesThatAreNot(), ROWS, "no class"),
        (TeachesNothing(), ROWS, "never taught"),
        (ContradictsItself(), ROWS, "contradict"),
        (ShiftsUnasked(), "test_training_is_touched_in_shape", "not in points"),
    ],
)
def test_a_broken_scheme_fails_where_a_sound_one_passes(broken, check, why, task):
    def run(scheme):
        plan = scheme.plan(task, testing._input_stream())
        given = {"scheme": scheme, "task": task, "plan": plan}
        check_of = getattr(SchemeContract(), check)
        check_of(**{name: given[name] for name in check_of.__code__.co_varnames[1 : check_of.__code__.co_argcount]})

    run(Sound())
    with pytest.raises(AssertionError, match=why):
        run(broken)


def test_parameters_that_are_no_json_fail():
    SchemeContract().test_it_says_what_it_is(Sound())
    with pytest.raises(TypeError, match="JSON"):
        SchemeContract().test_it_says_what_it_is(Forgets())


def test_a_scheme_that_too_few_triggers_cannot_prove_fails(task):
    SchemeContract().test_who_knows_the_answers_is_found(Sound(), task)
    with pytest.raises(AssertionError, match="more triggers"):
        SchemeContract().test_who_knows_the_answers_is_found(Sound(), replace(task, triggers=4))


@pytest.mark.parametrize("check", ["test_p_values_are_super_uniform", "test_false_claims_stay_within_alpha"])
def test_counting_the_samples_of_a_group_as_independent_fails(check, task, monkeypatch):
    plan = Grouped().plan(task, testing._input_stream())
    getattr(SchemeContract(), check)(plan=plan, task=task)

    def naive(draws):
        ones = [DrawResult(d.symbol, tuple(int(i == s) for i in range(d.k))) for d in draws for s in answers(d)]
        return log10_p(ones)

    def answers(draw):
        return [s for s, n in enumerate(draw.counts) for _ in range(n)]

    monkeypatch.setattr(testing, "log10_p", naive)
    with pytest.raises(AssertionError, match="suspect"):
        getattr(SchemeContract(), check)(plan=plan, task=task)


def test_a_key_in_a_file_fails(owner, task):
    mark = wmplug.create(owner, scheme=Sound(), carriers=task.carriers, classes=5)
    testing.refuse_secrets(mark, b"nothing", "a file")
    key = mark.subkeys.key("label")
    for form in (key, key.hex().encode(), repr(key).encode()):
        with pytest.raises(AssertionError, match="label key"):
            testing.refuse_secrets(mark, b"before" + form + b"after", "a file")


class Neighbours:
    """A framework: trains on batches, calls back, and is asked for labels."""

    def __init__(self, callback=None, shuffle=True):
        self.callback, self.shuffle, self.training = callback, shuffle, True

    def fit(self, x, y):
        batches = [(x[i : i + 50], y[i : i + 50]) for i in range(0, len(x), 50)]
        if self.callback is not None and self.shuffle:
            batches = [self.callback.on_batch(step, *batch) for step, batch in enumerate(batches)]
        seen_x, seen_y = (np.concatenate(part) for part in zip(*batches, strict=True))
        self.model = KNeighborsClassifier(1).fit(seen_x.reshape(len(seen_x), -1), seen_y)
        if self.callback is not None:
            self.callback.on_end(self)
        return self

    def __call__(self, x):
        return self.model.predict(np.asarray(x).reshape(len(x), -1))


class NeighboursCallback:
    def __init__(self, mark, rate=None):
        x, y = zip(*mark.lessons(), strict=True)
        self.x, self.y, self.rate = np.stack(x), np.array(y), read_rate(rate, mark.scheme.rate)[0]
        self.placement = Placement.draw(mark.subkeys.stream("schedule"), len(x), "append")
        self.given = 0

    def on_batch(self, step, x, y):
        rows = self.placement.place(step, len(x), self.rate)
        self.given += len(rows)
        return np.concatenate([x, self.x[rows]]), np.concatenate([y, self.y[rows]])

    def on_end(self, net):
        if not self.given:
            raise InjectionError("no trigger reached the model")


class Plugin:
    @wmplug.hookimpl
    def wmplug_adapters(self):
        return {"neighbours": NeighboursCallback}


@pytest.fixture(autouse=True, scope="module")
def installed():
    """Neighbours, as if a distribution offered it."""
    point = SimpleNamespace(name="toy", value="toy:plugin", dist=None, load=Plugin)
    registry = plugins.Registry([point])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "registry", lambda: registry)
        yield


class TestNeighbours(AdapterContract):
    adapter = "neighbours"

    def train(self, images, labels, watermark, folder):
        net = Neighbours(watermark and watermark(rate=0.1)).fit(images, labels)
        (folder / "net.pkl").write_bytes(pickle.dumps(net))
        return net

    def train_beside(self, images, labels, watermark):
        Neighbours(watermark(), shuffle=False).fit(images, labels)

    def mode(self, model):
        return model.training


class TestBroken:
    """The same contract, with an adapter that breaks it."""

    @pytest.fixture
    def contract(self):
        return TestNeighbours()

    @pytest.fixture
    def mark(self, contract):
        return contract._mark("Ada")

    def test_one_that_adds_nothing(self, contract, mark, tmp_path):
        images, labels = testing.pictures()
        unmarked = contract.train(images, labels, None, tmp_path)
        with pytest.raises(AssertionError, match="did not take"):
            contract.test_the_marked_model_is_proven(mark, (unmarked, tmp_path))

    def test_one_that_marks_the_twin_too(self, contract, mark, tmp_path):
        marked = contract.train(*testing.pictures(), contract._by_name(mark), tmp_path)
        with pytest.raises(AssertionError, match="twin is proven"):
            contract.test_others_are_not(mark, (marked, tmp_path), (marked, tmp_path))

    def test_one_that_is_silent(self, contract, mark, monkeypatch):
        monkeypatch.setattr(NeighboursCallback, "on_end", lambda self, net: None)
        with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
            contract.test_silence_is_an_error(mark)

    def test_one_that_leaves_the_mode(self, contract, mark, tmp_path):
        changed, twin = SimpleNamespace(training=False), SimpleNamespace(training=True)
        with pytest.raises(AssertionError, match="another mode"):
            contract.test_verifying_leaves_the_model_as_it_was(mark, (changed, tmp_path), (twin, tmp_path))

    def test_one_that_writes_the_key(self, contract, mark, tmp_path):
        with pytest.raises(AssertionError, match="wrote nothing"):
            contract.test_nothing_written_holds_the_key(mark, (None, tmp_path))
        (tmp_path / "state.json").write_text(mark.subkeys.key("schedule").hex())
        with pytest.raises(AssertionError, match="schedule key"):
            contract.test_nothing_written_holds_the_key(mark, (None, tmp_path))

    def test_one_without_a_name(self, contract, mark, monkeypatch):
        monkeypatch.setattr(TestNeighbours, "adapter", "neighbour")
        with pytest.raises(PluginError, match="did you mean 'neighbours'"):
            contract.train(*testing.pictures(), contract._by_name(mark), None)
