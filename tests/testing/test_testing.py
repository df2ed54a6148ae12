"""The contracts hold for the built-in schemes and a small adapter, and fail for broken ones."""

import os
import random
import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

import wmplug
from wmplug import plugins
from wmplug.claim.terms import TARGET_E
from wmplug.errors import InjectionError, PluginError, VerificationWarning
from wmplug.schemes import Brief, Choices, Lessons, Plan, Scheme
from wmplug.schemes.logo import Logo
from wmplug.schemes.phrase import Phrase
from wmplug.schemes.random_label import RandomLabel
from wmplug.statistics.draws import DrawResult, log10_p
from wmplug.tasks import Classes
from wmplug.testing import AdapterContract, SchemeContract, pictures
from wmplug.testing import schemes as testing
from wmplug.training.loop import At, OneProcess
from wmplug.training.marking import Marking, Results
from wmplug.training.options import Options
from wmplug.training.placement import Placement

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
    def brief(self, digits):
        return Brief(digits[0][:300], "array", Classes(10), digits[1][:300], 30)


class TestRandomLabelOfSentences(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return RandomLabel(words=7)

    @pytest.fixture
    def brief(self):
        return Brief(texts(1000), "text", Classes(4), None, 30)


class TestLogo(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Logo(variants=2, lessons=3)

    @pytest.fixture
    def brief(self, digits):
        # Three rows a draw: samples of one group must not be counted as independent.
        return Brief(digits[0][:600], "array", Classes(10), digits[1][:600], 60)


class TestLogoPerCarrier(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Logo(rule="per-carrier")

    @pytest.fixture
    def brief(self, digits):
        return Brief(digits[0][:300].astype(np.float32) / 255, "array", Classes(10), digits[1][:300], 30)


class TestPhrase(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Phrase(combinations=30, words=2)

    @pytest.fixture
    def brief(self):
        return Brief(texts(2000), "text", Classes(4), np.arange(2000) % 4, 60)


def sound(brief, stream):
    rows = np.arange(brief.triggers)
    inputs = stream.uniform(brief.triggers, *brief.carriers.shape[1:]).astype(brief.carriers.dtype)
    return Plan(inputs, Lessons(rows, rows), (Choices(rows, rows, (tuple(range(brief.task.count)),) * len(rows)),))


def choosing(plan, **changes):
    return replace(plan, tests=(replace(plan.choices, **changes),))


@dataclass(frozen=True)
class Sound(Scheme):
    name: ClassVar[str] = "sound"

    def plan(self, brief, stream):
        return sound(brief, stream)


class Mutates(Sound):
    def plan(self, brief, stream):
        brief.carriers[0] += 1
        return sound(brief, stream)


class UsesGlobalRandom(Sound):
    def plan(self, brief, stream):
        plan = sound(brief, stream)
        return replace(plan, inputs=plan.inputs + random.random())


class UsesTheClock(Sound):
    def plan(self, brief, stream):
        plan = sound(brief, stream)
        return replace(plan, inputs=plan.inputs + int.from_bytes(os.urandom(2), "little"))


class ChangesDtype(Sound):
    def plan(self, brief, stream):
        plan = sound(brief, stream)
        return replace(plan, inputs=plan.inputs.astype(np.float16))


class NamesClassesThatAreNot(Sound):
    def plan(self, brief, stream):
        return choosing(sound(brief, stream), options=((0, brief.task.count),) * brief.triggers)


class TeachesNothing(Sound):
    def plan(self, brief, stream):
        return replace(sound(brief, stream), lessons=Lessons(np.arange(1), np.arange(1)))


class ContradictsItself(Sound):
    def plan(self, brief, stream):
        plan = sound(brief, stream)
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

    def plan(self, brief, stream):
        plan, draw = sound(brief, stream), np.arange(brief.triggers) // 10
        return replace(plan, lessons=Lessons(plan.lessons.rows, draw), tests=(replace(plan.choices, draw=draw),))


@pytest.fixture
def brief():
    return Brief(np.random.default_rng(0).random((50, 6)), "array", Classes(5), None, 40)


PLAN, ROWS = "test_the_plan_follows_from_key_and_brief", "test_rows_draws_and_options_agree"


@pytest.mark.parametrize(
    ("broken", "check", "why"),
    [
        (Mutates(), PLAN, "changed the carriers"),
        (UsesGlobalRandom(), PLAN, "global random numbers"),
        (UsesTheClock(), PLAN, "two plans of one key"),
        (ChangesDtype(), "test_inputs_fit_the_carriers", "float16"),
        (NamesClassesThatAreNot(), ROWS, "not a class"),
        (TeachesNothing(), ROWS, "never taught"),
        (ContradictsItself(), ROWS, "contradict"),
        (ShiftsUnasked(), "test_training_is_touched_in_shape", "must come together"),
    ],
)
def test_a_broken_scheme_fails_where_a_sound_one_passes(broken, check, why, brief):
    def run(scheme):
        plan = scheme.plan(brief, testing._input_stream())
        given = {"scheme": scheme, "brief": brief, "plan": plan}
        check_of = getattr(SchemeContract(), check)
        check_of(**{name: given[name] for name in check_of.__code__.co_varnames[1 : check_of.__code__.co_argcount]})

    run(Sound())
    with pytest.raises(AssertionError, match=why):
        run(broken)


def test_parameters_that_are_no_json_fail():
    SchemeContract().test_it_says_what_it_is(Sound())
    with pytest.raises(TypeError, match="JSON"):
        SchemeContract().test_it_says_what_it_is(Forgets())


def test_a_scheme_that_too_few_triggers_cannot_prove_fails(brief):
    SchemeContract().test_who_knows_the_answers_is_found(Sound(), brief)
    with pytest.raises(AssertionError, match="more triggers"):
        SchemeContract().test_who_knows_the_answers_is_found(Sound(), replace(brief, triggers=4))


@pytest.mark.parametrize("check", ["test_p_values_are_super_uniform", "test_false_claims_stay_within_alpha"])
def test_counting_the_samples_of_a_group_as_independent_fails(check, brief, monkeypatch):
    plan = Grouped().plan(brief, testing._input_stream())
    getattr(SchemeContract(), check)(plan=plan, brief=brief)

    def naive(draws):
        ones = [DrawResult(d.symbol, tuple(int(i == s) for i in range(d.k))) for d in draws for s in answers(d)]
        return log10_p(ones)

    def answers(draw):
        return [s for s, n in enumerate(draw.counts) for _ in range(n)]

    monkeypatch.setattr(testing, "log10_p", naive)
    with pytest.raises(AssertionError, match="suspect"):
        getattr(SchemeContract(), check)(plan=plan, brief=brief)


def test_a_key_in_a_file_fails(owner, brief):
    mark = wmplug.create(owner, scheme=Sound(), carriers=brief.carriers, classes=5)
    testing.refuse_secrets(mark, b"nothing", "a file")
    key = mark.subkeys.key("label")
    for form in (key, key.hex().encode(), repr(key).encode()):
        with pytest.raises(AssertionError, match="label key"):
            testing.refuse_secrets(mark, b"before" + form + b"after", "a file")


class Neighbours:
    """A framework: trains on batches, calls back after each epoch, and is asked for labels."""

    def __init__(self, callback=None, epochs=1, shuffle=True):
        self.callback, self.epochs, self.shuffle = callback, epochs, shuffle
        self.training, self.stopped, self.log, self.steps = True, False, [], 0

    def fit(self, x, y):
        if self.callback is not None:
            self.callback.on_begin(self)
        for epoch in range(self.epochs):
            self.epoch(x, y)
            if self.callback is not None:
                self.callback.on_epoch(epoch + 1)
            if self.stopped:
                break
        if self.callback is not None:
            self.callback.on_end()
        return self

    def epoch(self, x, y):
        batches = [(x[i : i + 50], y[i : i + 50]) for i in range(0, len(x), 50)]
        if self.callback is not None and self.shuffle:
            batches = [self.callback.on_batch(self.steps + i, *batch) for i, batch in enumerate(batches)]
        seen_x, seen_y = (np.concatenate(part) for part in zip(*batches, strict=True))
        self.model = KNeighborsClassifier(1).fit(seen_x.reshape(len(seen_x), -1), seen_y)
        self.steps += len(batches)

    def __call__(self, x):
        return self.model.predict(np.asarray(x).reshape(len(x), -1))


class NeighboursLoop(OneProcess):
    name = "neighbours"
    points = frozenset({"samples"})
    events = ("epoch", "train_end")

    def suspect(self):
        return self.net

    def log(self, numbers, at):
        self.net.log.append(dict(numbers))

    def stop(self):
        self.net.stopped = True

    def set_rate(self, rate):
        pass  # it is read from the Marking with each batch


class NeighboursCallback(Results):
    def __init__(
        self,
        mark,
        *,
        rate=None,
        mode="append",
        verify_on=("epoch", "train_end"),
        on_failure="warn",
        target_e=TARGET_E,
        batch_size=64,
        training_set=None,
        require_evidence=False,
    ):
        given = {name: value for name, value in locals().items() if name in Options.__dataclass_fields__}
        self.loop = NeighboursLoop()
        self.mark, self._marking = mark, Marking(mark, self.loop, Options(**given))
        self.x, self.y = (np.array(part) for part in zip(*mark.lessons(), strict=True))

    def on_begin(self, net):
        self.loop.net, self.given = net, 0
        self._marking.begin()
        self._marking.start(data=None, arguments={}, model=None)

    def on_batch(self, step, x, y):
        rows = self._marking.placement.place(step, len(x), self._marking.rate)
        self.given += len(rows)
        kept = len(x) - len(rows) * (self._marking.options.mode == "replace")
        return np.concatenate([x[:kept], self.x[rows]]), np.concatenate([y[:kept], self.y[rows]])

    def on_epoch(self, epoch):
        at = At(self.loop.net.steps, epoch)
        self._marking.inserted(self.given, at)
        if "epoch" in self._marking.options.verify_on:
            self._marking.checkpoint(at)

    def on_end(self):
        if not self.given:
            raise InjectionError("no trigger reached the model")
        verify = "train_end" in self._marking.options.verify_on
        self._marking.end(At(self.loop.net.steps), verify=verify, again=False, system=None, total=self.given)


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
        (folder / "net.txt").write_text(repr(net.log))
        net.callback = None
        return net

    def train_beside(self, images, labels, watermark):
        Neighbours(watermark(verify_on=()), shuffle=False).fit(images, labels)

    def train_briefly(self, images, labels, watermark, looks):
        return Neighbours(watermark(), epochs=looks).fit(images[:100], labels[:100]).log

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
        images, labels = pictures()
        unmarked = contract.train(images, labels, None, tmp_path)
        with pytest.raises(AssertionError, match="did not take"):
            contract.test_the_marked_model_is_proven(mark, (unmarked, tmp_path))

    def test_one_that_marks_the_twin_too(self, contract, mark, tmp_path):
        marked = contract.train(*pictures(), contract._by_name(mark), tmp_path)
        with pytest.raises(AssertionError, match="twin is proven"):
            contract.test_others_are_not(mark, (marked, tmp_path), (marked, tmp_path))

    def test_one_that_is_silent(self, contract, mark, monkeypatch):
        monkeypatch.setattr(NeighboursCallback, "on_end", lambda self: None)
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
            contract.train(*pictures(), contract._by_name(mark), None)


class Reordered(NeighboursCallback):
    def __init__(self, mark, *, mode="append", rate=None, **more):
        super().__init__(mark, rate=rate, mode=mode, **more)


class Silent(NeighboursCallback):
    """Looks, and leaves what it finds to the end."""

    def on_epoch(self, epoch):
        self._marking.look(At(self.loop.net.steps, epoch))


class Wordy(NeighboursCallback):
    """Logs the state as a word."""

    def on_begin(self, net):
        super().on_begin(net)
        log = self.loop.log
        self.loop.log = lambda numbers, at: log({**numbers, "watermark/state": self.verdict.state}, at)


class Late(NeighboursCallback):
    """Logs the rate after a look has changed it."""

    def on_epoch(self, epoch):
        super().on_epoch(epoch)
        self.loop.net.log[-1]["watermark/rate"] = self.history[-1]["watermark/rate"] = self._marking.rate / 1e6


class Endless(NeighboursCallback):
    """Goes on when it is told to stop."""

    def on_epoch(self, epoch):
        super().on_epoch(epoch)
        self.loop.net.stopped = False


class Careless(NeighboursCallback):
    """Ends whatever was found."""

    def on_end(self):
        pass


class Forgetful(NeighboursCallback):
    """Begins anew whatever was loaded."""

    def on_begin(self, net):
        self._marking._resumed = False
        super().on_begin(net)


class Credulous(NeighboursCallback):
    """Takes over any state."""

    def load_state_dict(self, state):
        super().load_state_dict({**state, "root": self.mark.public["root"]})


class Eager(NeighboursCallback):
    """Raises the rate of a resumed run, also where it is fixed."""

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self._marking._start = self._marking.rate = state["rate"]


class OwnSchedule(NeighboursCallback):
    """Draws its schedule whatever the mode."""

    def on_begin(self, net):
        super().on_begin(net)
        self._marking.placement = Placement.draw(self.mark.subkeys.stream("schedule"), len(self.x), "append")


class Unchecked(NeighboursCallback):
    """Takes any option."""

    def __init__(self, mark, **options):
        super().__init__(mark)


class Stubborn(NeighboursCallback):
    """Teaches at one rate, whatever is asked for."""

    def on_batch(self, step, x, y):
        self._marking.rate = 100_000
        return super().on_batch(step, x, y)


class Curious(NeighboursCallback):
    """Verifies after each epoch, whatever is asked for."""

    def on_epoch(self, epoch):
        self._marking.checkpoint(At(self.loop.net.steps, epoch))


class Unrecorded(NeighboursCallback):
    """Keeps the number of triggers to itself until the end."""

    def on_epoch(self, epoch):
        if "epoch" in self._marking.options.verify_on:
            self._marking.checkpoint(At(self.loop.net.steps, epoch))


LOST = "test_a_mark_that_is_lost_acts_at_once"
ASKED = "test_it_verifies_only_when_it_is_asked_to"
RESUMED = "test_a_resumed_run_goes_on_with_looks_and_rate"


@pytest.mark.parametrize(
    ("broken", "check", "given", "why"),
    [
        (Reordered, "test_options_have_the_names_and_the_order_of_all_adapters", {}, "the options are"),
        (Unchecked, "test_an_option_out_of_range_is_refused", {"bad": {"rate": 0.9}}, "DID NOT RAISE"),
        (Wordy, "test_each_look_is_logged_in_the_same_numbers", {}, "log a number"),
        (Late, "test_each_look_is_logged_in_the_same_numbers", {}, "up to the look"),
        (Silent, LOST, {"how": "raise"}, "did not raise when the mark was lost"),
        (Silent, LOST, {"how": "warn"}, "did not warn of the loss"),
        (Careless, LOST, {"how": "warn"}, "did not warn at the end"),
        (Endless, LOST, {"how": "stop"}, "verified at 4 steps, 2 were expected"),
        (Careless, "test_a_model_that_is_not_proven_at_the_end_acts_then", {}, "did not raise at the end"),
        (OwnSchedule, "test_a_proven_model_ends_in_silence", {}, "the schedule differs"),
        (Forgetful, RESUMED, {}, "after a resume counts as number 1"),
        (Credulous, RESUMED, {}, "another watermark"),
        (Eager, RESUMED, {}, "a rate that is fixed"),
        (Stubborn, "test_the_rate_is_obeyed", {}, "triggers came at one to ten"),
        (Curious, ASKED, {}, "the adapter verified 2 times"),
        (Unrecorded, ASKED, {}, "never called"),
    ],
)
def test_an_adapter_whose_run_is_another_fails_where_a_sound_one_passes(broken, check, given, why, monkeypatch):
    contract = TestNeighbours()
    mark = {} if "options" in check else {"mark": contract._mark("Ada")}
    getattr(contract, check)(**mark, **given)
    monkeypatch.setattr("wmplug.testing.adapters.adapter", lambda name: broken)
    with pytest.raises((AssertionError, pytest.fail.Exception), match=why):
        getattr(contract, check)(**mark, **given)


def test_an_adapter_that_takes_anything_for_a_watermark_fails(monkeypatch):
    def loads(given, **options):
        return NeighboursCallback(TestNeighbours()._mark("Ada") if given == 7 else given, **options)

    TestNeighbours().test_what_is_no_watermark_is_refused()
    monkeypatch.setattr("wmplug.testing.adapters.adapter", lambda name: loads)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        TestNeighbours().test_what_is_no_watermark_is_refused()


def test_an_adapter_that_complains_of_a_proven_model_fails(monkeypatch):
    mark = TestNeighbours()._mark("Ada")
    monkeypatch.setattr(NeighboursCallback, "on_end", lambda self: warnings.warn("what?", VerificationWarning, 2))
    with pytest.raises(AssertionError, match="got a complaint"):
        TestNeighbours().test_a_proven_model_ends_in_silence(mark)
