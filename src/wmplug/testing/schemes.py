"""The contract of a scheme: a pytest class to subclass in a plugin author's tests.

    class TestCorner(SchemeContract):
        @pytest.fixture
        def scheme(self):
            return Corner()

        @pytest.fixture
        def brief(self):
            return Brief(images, "array", Classes(10), labels, triggers=40)

All keys here are fixed, so that a test that passes today passes tomorrow; they protect nothing.
"""

import base64
import copy
import hashlib
import json
import math
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from wmplug.claim.verification import verify
from wmplug.keys.owner import Owner
from wmplug.keys.sealing import Seal
from wmplug.keys.streams import KeyStream, Subkeys
from wmplug.making import create, load
from wmplug.schemes import Adds, Answers, Brief, Plan, Scheme, Shifts, Weighs
from wmplug.schemes.tilt.texts import ids_of, padded
from wmplug.statistics.betting import log10_e_path
from wmplug.statistics.draws import DrawResult, log10_p
from wmplug.statistics.signs import weighted_ps, weights_of
from wmplug.tasks.base import Said, Task
from wmplug.tasks.classes import Classes
from wmplug.watermark.carriers import Inputs, digest, take
from wmplug.watermark.plan import TriggerSet, draw_symbols
from wmplug.watermark.scheme import SHOWN, constants_of
from wmplug.watermark.watermark import Preprocess, Watermark

ALPHA = 0.01
_MISTAKE = 1e-4  # probability that a check of a rate fails although the scheme is right
_PASSPHRASE = "for tests only"


def fixed_owner(name: str) -> Owner:
    """An owner without files whose key follows from the name."""
    secret = hashlib.sha256(name.encode()).digest()
    commitment = hashlib.sha256(secret).hexdigest()
    return Owner(name, commitment, Path("no-register"), (secret,), Seal.make(_PASSPHRASE, salt=secret[:16], n=2**10))


class SchemeContract:
    """The contract of a scheme; a subclass overrides the fixtures `scheme` and `brief`.

    The false-claim checks run over 1,000 and 10,000 label keys, on suspects chosen to be nasty. Null: the suspect is
    independent of the label key; one-sided.
    """

    @pytest.fixture
    def scheme(self) -> Scheme:
        """The scheme, with the parameters under test."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `scheme`")

    @pytest.fixture
    def brief(self) -> Brief:
        """Some hundred carriers, and enough triggers for a proof by all answers (24 or more)."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `brief`")

    @pytest.fixture
    def plan(self, scheme: Scheme, brief: Brief) -> Plan:
        """The plan that one input key makes."""
        return scheme.plan(brief, _input_stream())

    def test_it_says_what_it_is(self, scheme: Scheme) -> None:
        """Name, version, points and rate are in range; parameters are JSON, and the scheme comes back from them."""
        assert isinstance(scheme.name, str), "name: a string is needed"
        assert scheme.name, "name: it is empty"
        assert isinstance(scheme.version, int), "version: a whole number is needed"
        assert scheme.points, "points: empty, so nothing would be taught"
        assert scheme.points <= {"samples", "logits", "loss", "answers"}, (
            f"points: {set(scheme.points)} holds an unknown one"
        )
        assert 0 < scheme.rate <= 0.5, f"rate: {scheme.rate} is not a share above 0 and up to one half"
        public = json.loads(json.dumps(scheme.parameters(), allow_nan=False))
        again = type(scheme).restore(public).parameters()
        kept = {name: value for name, value in public.items() if not str(value).startswith("sha256:")}
        assert {name: again[name] for name in kept} == kept, "restore(parameters()) gives other parameters"

    def test_the_plan_follows_from_key_and_brief(self, scheme: Scheme, brief: Brief) -> None:
        """The same key makes the same plan, with any global random numbers; the brief stays unchanged."""
        before = copy.deepcopy(brief)
        state = _seed(1)
        first = scheme.plan(brief, _input_stream())
        assert _global_random() == state, "plan() uses or seeds global random numbers: draw from the stream it is given"
        _seed(2)
        assert facts_of(scheme.plan(brief, _input_stream())) == facts_of(first), "plan() made two plans of one key"
        assert np.array_equal(brief.carriers, before.carriers), "plan() changed the carriers"
        assert np.array_equal(np.asarray(brief.labels), np.asarray(before.labels)), "plan() changed the labels"

    def test_inputs_fit_the_carriers(self, plan: Plan, brief: Brief) -> None:
        """Triggers have the carriers' kind, shape and dtype, and are finite."""
        if isinstance(brief.carriers, list):
            assert isinstance(plan.inputs, list), "carriers are strings, triggers are not"
            assert all(isinstance(text, str) and text.strip() for text in plan.inputs), (
                "a trigger is empty or not a string"
            )
            return
        assert isinstance(plan.inputs, np.ndarray), "carriers are an array, triggers are not"
        assert plan.inputs.dtype == brief.carriers.dtype, (
            f"carriers are {brief.carriers.dtype}, not {plan.inputs.dtype}"
        )
        assert plan.inputs.shape[1:] == brief.carriers.shape[1:], f"triggers have shape {plan.inputs.shape[1:]}"
        assert np.isfinite(plan.inputs).all(), "a trigger holds NaN or infinity"

    def test_rows_draws_and_options_agree(self, scheme: Scheme, plan: Plan, brief: Brief) -> None:
        """Asked rows share their draw with taught ones, options are answers, and no input has two answers."""
        rows, draws, taught = range(len(plan.inputs)), plan.draw, plan.lessons.rows
        asked = np.zeros(0, np.int64) if plan.choices is None else plan.choices.rows
        options = () if plan.choices is None else plan.choices.options
        assert all(brief.task.belongs(c) for draw in options for c in draw), (
            "a candidate is not a class, or not another answer of the task"
        )
        assert set(taught.tolist()) | set(asked.tolist()) <= set(rows), "a row that is asked or taught does not exist"
        for test in plan.tests:
            assert len(set(test.rows.tolist())) == len(test.rows), "a row is asked twice"
        assert len(asked) == brief.triggers or plan.choices is None, (
            f"{len(asked)} rows are asked, {brief.triggers} were wanted"
        )
        natural = plan.natural[taught][draws[taught] < 0]
        assert all(brief.task.belongs(answer) for answer in natural.tolist()), "a negative has no natural answer"
        owners: dict[str, int] = {}
        for row in rows:
            owner = owners.setdefault(digest(plan.inputs[row]), int(draws[row]))
            assert owner == draws[row], f"row {row} is the input of another draw too: its two answers contradict"
        if "samples" in scheme.points:
            untaught = set(draws[asked].tolist()) - set(draws[taught].tolist())
            assert not untaught, f"draws {sorted(untaught)} are asked and never taught"

    def test_training_is_touched_in_shape(self, scheme: Scheme, plan: Plan, brief: Brief) -> None:
        """`shift` keeps the shape of the logits, `term` is a scalar, and each exists if its point is declared."""
        assert ("logits" in scheme.points) == isinstance(scheme, Shifts), (
            "shift() and `logits` in points must come together"
        )
        assert ("answers" in scheme.points) == isinstance(scheme, Answers), (
            "told() and `answers` in points must come together"
        )
        assert ("loss" in scheme.points) == isinstance(scheme, Adds), "term() and `loss` in points must come together"
        if not scheme.points & {"logits", "loss"}:
            return
        triggers, classes = _drawn(plan, brief, 0), brief.need_classes(scheme.name)
        inputs = _given(plan.inputs[:4], brief.preprocess)
        logits = np.linspace(-1, 1, len(inputs) * classes).reshape(len(inputs), -1)
        constants = constants_of(scheme, triggers, _shown(triggers, inputs))
        if isinstance(scheme, Shifts):
            shifted = scheme.shift(np, constants, inputs, logits.copy())
            assert np.shape(shifted) == logits.shape, f"shift() returned {np.shape(shifted)} for logits {logits.shape}"
        if isinstance(scheme, Adds):
            term = scheme.term(np, constants, inputs, logits, np.zeros(len(inputs), int))
            assert np.shape(term) == (), f"term() returned {np.shape(term)}: return a scalar"
            assert math.isfinite(term), "term() is not finite"

    def test_p_values_are_super_uniform(self, plan: Plan, brief: Brief) -> None:
        """Over 1,000 label keys, P(p <= x) <= x for every x (Kolmogorov-Smirnov, one-sided); also of e-values."""
        keys = [_drawn(plan, brief, key).symbols for key in range(1000)]
        gap = math.sqrt(math.log(1 / _MISTAKE) / (2 * len(keys)))
        for name, answers in nasty_suspects(plan, brief.task):
            table = _outcomes(_drawn(plan, brief, 0), answers)
            results = [[options[symbols[draw]] for draw, options in table.items()] for symbols in keys]
            p = np.sort([10.0 ** log10_p(result) for result in results])
            # Ties: at a value that several keys share, the distribution function takes its whole step.
            reached = np.searchsorted(p, p, side="right") / len(p)
            assert (reached - p).max() <= gap, (
                f"p-values of the suspect {name!r} are too small: they are not super-uniform"
            )
            if not table:
                continue  # the plan asks nothing of its own: see the next test
            claims = sum(log10_e_path(result).max() >= math.log10(20) for result in results[:100])
            assert claims <= binom.ppf(1 - _MISTAKE, 100, 1 / 20), f"e-values of the suspect {name!r} are too large"

    def test_p_values_of_what_is_weighed_are_super_uniform(self, scheme: Scheme, plan: Plan, brief: Brief) -> None:
        """Over 10,000 label keys: the same for the signs, if the scheme plans any."""
        if plan.pattern is None:
            return
        assert isinstance(scheme, Weighs), "the plan has a pattern, and the scheme lacks weigh()"
        keys, count = 10_000, plan.pattern.signs
        stream = KeyStream(hashlib.sha256(b"wmplug.testing/signs").digest())
        signs = 2 * stream.below(2, keys * count).reshape(keys, count) - 1
        gap = math.sqrt(math.log(1 / _MISTAKE) / (2 * keys))
        for name, answers in nasty_suspects(plan, brief.task):
            spoken = [Said(answers[row]) for row in plan.pattern.rows.tolist()]
            weights = weights_of(scheme.weigh(plan, *brief.task.arrays(spoken)))
            p = np.sort(weighted_ps(weights, signs))
            reached = np.searchsorted(p, p, side="right") / len(p)
            assert (reached - p).max() <= gap, (
                f"p-values of the suspect {name!r} are too small: they are not super-uniform"
            )

    def test_false_claims_stay_within_alpha(self, plan: Plan, brief: Brief) -> None:
        """Over 10,000 label keys, p <= .01 is as frequent as the exact test predicts, within the binomial interval."""
        keys = 10_000
        stream = KeyStream(hashlib.sha256(b"wmplug.testing/10000").digest())
        symbols = np.stack([stream.below(len(options), keys) for options in plan.options])
        for name, answers in nasty_suspects(plan, brief.task):
            table = _outcomes(_drawn(plan, brief, 0), answers)
            drawn = [np.array(options[0].counts)[symbols[draw]] for draw, options in table.items()]
            # Given the answers, p depends on the key through the matches alone.
            _, first, times = np.unique(np.sum(drawn, axis=0), return_index=True, return_counts=True)
            results = [[options[symbols[draw, key]] for draw, options in table.items()] for key in first]
            p = np.array([10.0 ** log10_p(result) for result in results])
            level = p[p <= ALPHA].max(initial=0.0)
            claims = int(times[p <= ALPHA].sum())
            low, high = (binom.ppf(q, keys, level) for q in (_MISTAKE, 1 - _MISTAKE))
            assert low <= claims <= high, (
                f"{claims} of {keys} keys claim the suspect {name!r} at p <= {ALPHA}, {low:.0f} to {high:.0f} are "
                "expected"
            )

    def test_who_knows_the_answers_is_found(self, scheme: Scheme, brief: Brief) -> None:
        """A suspect that returns the secret answers is proven; a constant one, and a rival's key, are not."""
        mark, rival = _mark("Ada", scheme, brief), _mark("Eve", scheme, brief)
        suspect = knowing(mark)
        assert verify(mark, suspect).proven, "all answers right are not a proof: give the task more triggers"
        assert not verify(rival, suspect).proven, "a rival's key claims the model too"
        constant = alphabet(mark.triggers.plan, brief.task)[0]
        assert not verify(mark, lambda inputs: [constant] * len(inputs)).proven, "a constant answer is claimed"

    def test_it_survives_saving(self, scheme: Scheme, brief: Brief, tmp_path: Path) -> None:
        """A loaded mark, and one made again, has the same triggers and answers, and no file or text shows the key."""
        mark = _mark("Ada", scheme, brief)
        path = mark.save(tmp_path / "mark.wm")
        loaded = load(path, passphrase=_PASSPHRASE)
        for other in (loaded, _mark("Ada", scheme, brief)):
            assert facts_of(other.triggers.plan) == facts_of(mark.triggers.plan), "the triggers differ"
            assert other.task == mark.task, "the task differs"
            assert other.triggers.answers.tolist() == mark.triggers.answers.tolist(), "the answers differ"
            assert other.public == mark.public, "the public part differs"
        assert loaded.scheme.parameters().keys() <= scheme.parameters().keys(), "a parameter came from nowhere"
        refuse_secrets(mark, path.read_bytes(), "the saved file")
        texts = f"{mark!r}{mark.public}{mark.triggers!r}{mark.triggers.plan!r}{scheme!r}{scheme.parameters()}"
        refuse_secrets(mark, texts.encode(), "a repr")


def alphabet(plan: Plan, task: Task) -> list[Any]:
    """What a model of the task may answer: all classes, or else the options or targets of the plan."""
    if isinstance(task, Classes):
        return list(range(task.count))
    if plan.pattern is not None and plan.pattern.targets:
        return list(dict.fromkeys(answer for pair in plan.pattern.targets for answer in pair))
    return list(dict.fromkeys(option for draw in plan.options for option in draw))


def nasty_suspects(plan: Plan, task: Task) -> Iterator[tuple[str, Mapping[int, Any]]]:
    """Answers, row by row, of suspects that never saw the key and are as biased as a model can be."""
    answers = alphabet(plan, task)
    bits = {row: int(digest(plan.inputs[row])[:8], 16) for test in plan.tests for row in test.rows.tolist()}
    first = {row: plan.options[plan.draw[row]][0] if plan.draw[row] >= 0 else answers[0] for row in bits}
    yield "always the same class", dict.fromkeys(bits, next(iter(first.values())))
    yield "two classes only", {row: answers[bit % 2] for row, bit in bits.items()}
    yield "copies a bit of the trigger", {row: answers[bit % len(answers)] for row, bit in bits.items()}
    yield "the same for neighbours", {row: answers[i // 5 % len(answers)] for i, row in enumerate(bits)}
    yield "the first candidate", first
    if plan.pattern is not None and plan.pattern.targets:
        usual = {row: plan.natural[row] for row in bits}
        yield "what the references say", usual
        yield (
            "what the references say, or a target",
            {row: answers[bit % len(answers)] if bit % 3 else usual[row] for row, bit in bits.items()},
        )


def knowing(mark: Watermark) -> Callable[[Sequence[Any]], Any]:
    """A suspect that knows every secret answer and sign, and returns the first answer for anything else.

    It returns scores (n, classes) if the answers are classes, else the answers themselves.
    """
    plan, answers, task = mark.triggers.plan, mark.triggers.answers, mark.task
    asked = plan.secret.tolist()
    if not isinstance(task, Classes):
        known = {digest(plan.inputs[row]): answers[row] for row in asked}
        other = alphabet(plan, task)[0]
        return lambda inputs: [known.get(digest(value), other) for value in inputs]
    scores = {digest(plan.inputs[row]): _sure(int(answers[row]), task.count) for row in asked}
    if plan.pattern is not None and isinstance(mark.scheme, Shifts):
        rows = plan.pattern.rows
        weighed = _given(take(plan.inputs, rows), mark.preprocess)
        constants = constants_of(mark.scheme, mark.triggers, _shown(mark.triggers, weighed[:SHOWN]))
        level = np.zeros((len(weighed), task.count))
        learnt = level - mark.scheme.shift(np, constants, weighed, level)
        scores.update((digest(plan.inputs[row]), 20 * score) for row, score in zip(rows, learnt, strict=True))
    if plan.pattern is not None and isinstance(mark.scheme, Answers):
        told = zip(plan.pattern.rows.tolist(), mark.scheme.told(mark.triggers).tolist(), strict=True)
        scores.update((digest(plan.inputs[row]), _sure(answer, task.count)) for row, answer in told)
    return lambda inputs: np.array([scores.get(digest(value), _sure(0, task.count)) for value in inputs])


def _sure(answer: int, classes: int) -> npt.NDArray[np.float64]:
    scores = np.zeros(classes)
    scores[answer] = 20.0
    return scores


def refuse_secrets(mark: Watermark, data: bytes, where: str) -> None:
    """Fail if `data` holds one of the mark's subkeys, in bytes, hexadecimal or base64."""
    for purpose in ("input", "label", "schedule", "disclosure"):
        key = mark.subkeys.key(purpose)
        forms = (key, key.hex().encode(), base64.b64encode(key).rstrip(b"="), repr(key)[2:-1].encode())
        assert not any(form in data for form in forms), f"{where} holds the {purpose} key"


def _mark(owner: str, scheme: Scheme, brief: Brief) -> Watermark:
    # TriggerSet.row and create() agree on pictures, so PIL carriers are tested as the arrays that they become.
    return create(
        fixed_owner(owner),
        scheme=scheme,
        carriers=brief.carriers,
        labels=brief.labels,
        task=brief.task,
        triggers=brief.triggers,
        preprocess=brief.preprocess,
        allow_weak=True,
    )


def _global_random() -> bytes:
    return pickle.dumps((random.getstate(), np.random.get_state()))


def _seed(seed: int) -> bytes:
    random.seed(seed)
    np.random.seed(seed)
    return _global_random()


def _input_stream() -> KeyStream:
    return Subkeys.derive(hashlib.sha256(b"wmplug.testing").digest(), "input").stream("input")


def _drawn(plan: Plan, brief: Brief, key: int) -> TriggerSet:
    stream = Subkeys.derive(hashlib.sha256(f"wmplug.testing/{key}".encode()).digest(), "label").stream("label")
    return TriggerSet(plan, brief.form, brief.task, draw_symbols(stream, plan.options))


def _outcomes(triggers: TriggerSet, answers: Mapping[int, Any]) -> dict[int, list[DrawResult]]:
    """Draw -> its result with each of its candidates as the secret one, in the order of asking."""
    outcomes = {}
    for group in triggers.groups:
        result = triggers.count(group, [Said(answers[row]) for row in group.tolist()])
        outcomes[int(triggers.plan.draw[group[0]])] = [replace(result, symbol=s) for s in range(result.k)]
    return outcomes


def _shown(triggers: TriggerSet, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The first samples as the inputs of a model that takes carriers unchanged."""
    samples = triggers.samples(SHOWN)
    return inputs if isinstance(samples[0], str) else np.stack([np.asarray(x) for x in samples]).astype(np.float64)


def _given(inputs: Inputs, prepare: Preprocess | None) -> npt.NDArray[Any]:
    """Inputs as a model would get them; texts as token ids, if `prepare` makes them."""
    if isinstance(inputs, np.ndarray):
        return inputs.astype(np.float64)
    if prepare is None:
        return np.zeros((len(inputs), 3))
    return padded(ids_of(inputs, prepare))


def facts_of(plan: Plan) -> list[Any]:
    """Everything in which one plan may differ from another, except material."""
    rows = [plan.draw, plan.natural, plan.lessons.rows, *(test.rows for test in plan.tests)]
    return [digest(plan.inputs), plan.options, *(row.tolist() for row in rows)]
