"""Contracts for plugin authors: pytest classes to subclass in the tests of a scheme or an adapter.

    class TestCorner(SchemeContract):
        @pytest.fixture
        def scheme(self):
            return Corner()

        @pytest.fixture
        def task(self):
            return Task(images, "array", labels, classes=10, triggers=40)

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
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

try:
    import pytest
except ImportError as error:
    raise ImportError("wmplug.testing is made of pytest classes: `pip install pytest` where you test") from error
from scipy.stats import binom

from wmplug.claim.verification import verify
from wmplug.errors import InjectionError
from wmplug.keys.owner import Owner
from wmplug.keys.sealing import Seal
from wmplug.keys.streams import KeyStream, Subkeys
from wmplug.making import create, load
from wmplug.plugins import callback
from wmplug.schemes import Scheme, Task
from wmplug.schemes.tilt.texts import ids_of, padded
from wmplug.statistics.arrays import IntArray
from wmplug.statistics.betting import log10_e_path
from wmplug.statistics.draws import DrawResult, log10_p
from wmplug.statistics.signs import weighted_ps, weights_of
from wmplug.watermark.carriers import Inputs, digest, take
from wmplug.watermark.plan import TriggerPlan, TriggerSet, draw_symbols
from wmplug.watermark.scheme import SHOWN
from wmplug.watermark.watermark import Preprocess, Watermark

Trained: TypeAlias = tuple[Any, Path]

ALPHA = 0.01
_MISTAKE = 1e-4  # chance with which a check of a rate may fail although all is well
_PASSPHRASE = "for tests only"


def fixed_owner(name: str) -> Owner:
    """An owner without files whose key follows from the name."""
    secret = hashlib.sha256(name.encode()).digest()
    commitment = hashlib.sha256(secret).hexdigest()
    return Owner(name, commitment, Path("no-register"), (secret,), Seal.make(_PASSPHRASE, salt=secret[:16], n=2**10))


class SchemeContract:
    """What every scheme keeps; a subclass overrides the fixtures `scheme` and `task`.

    The false-claim checks run over 1,000 and 10,000 label keys, on suspects chosen to be nasty. Null: the suspect is
    independent of the label key; one-sided.
    """

    @pytest.fixture
    def scheme(self) -> Scheme:
        """The scheme, with the parameters it is to be tested with."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `scheme`")

    @pytest.fixture
    def task(self) -> Task:
        """Some hundred carriers, and at least so many triggers that knowing all answers proves a claim (24 or more)."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `task`")

    @pytest.fixture
    def plan(self, scheme: Scheme, task: Task) -> TriggerPlan:
        """The triggers that one input key makes."""
        return scheme.plan(task, _input_stream())

    def test_it_says_what_it_is(self, scheme: Scheme) -> None:
        """Name, version, points and rate are in range; parameters are JSON, and the scheme comes back from them."""
        assert isinstance(scheme.name, str), "name: a string is needed"
        assert scheme.name, "name: it is empty"
        assert isinstance(scheme.version, int), "version: a whole number is needed"
        assert scheme.points, "points: it touches training nowhere"
        assert scheme.points <= {"samples", "logits", "loss"}, f"points: {set(scheme.points)} has one that is unknown"
        assert 0 < scheme.rate <= 0.5, f"rate: {scheme.rate} is no share above 0 and up to one half"
        public = json.loads(json.dumps(scheme.parameters(), allow_nan=False))
        again = type(scheme).restore(public).parameters()
        kept = {name: value for name, value in public.items() if not str(value).startswith("sha256:")}
        assert {name: again[name] for name in kept} == kept, "restore(parameters()) gives other parameters"

    def test_the_plan_follows_from_key_and_task(self, scheme: Scheme, task: Task) -> None:
        """The same key makes the same plan, whatever global random numbers are; nothing of the task is changed."""
        before = copy.deepcopy(task)
        state = _seed(1)
        first = scheme.plan(task, _input_stream())
        assert _global_random() == state, "plan() uses or seeds global random numbers: draw from the stream it is given"
        _seed(2)
        assert _facts(scheme.plan(task, _input_stream())) == _facts(first), "plan() made two plans of one key"
        assert np.array_equal(task.carriers, before.carriers), "plan() changed the carriers"
        assert np.array_equal(np.asarray(task.labels), np.asarray(before.labels)), "plan() changed the labels"

    def test_inputs_fit_the_carriers(self, plan: TriggerPlan, task: Task) -> None:
        """Triggers have the carriers' kind, shape and dtype, and are finite."""
        if isinstance(task.carriers, list):
            assert isinstance(plan.inputs, list), "carriers are strings, triggers are not"
            assert all(isinstance(text, str) and text.strip() for text in plan.inputs), (
                "a trigger is empty or no string"
            )
            return
        assert isinstance(plan.inputs, np.ndarray), "carriers are an array, triggers are not"
        assert plan.inputs.dtype == task.carriers.dtype, f"carriers are {task.carriers.dtype}, not {plan.inputs.dtype}"
        assert plan.inputs.shape[1:] == task.carriers.shape[1:], f"triggers have shape {plan.inputs.shape[1:]}"
        assert np.isfinite(plan.inputs).all(), "a trigger holds NaN or infinity"

    def test_rows_draws_and_candidates_agree(self, scheme: Scheme, plan: TriggerPlan, task: Task) -> None:
        """What is asked was taught under the same draw, candidates are classes, and no input has two answers."""
        rows, draws = range(len(plan.inputs)), plan.draw
        assert all(c in range(task.classes) for options in plan.candidates for c in options), "a candidate is no class"
        assert set(plan.taught.tolist()) | set(plan.asked.tolist()) <= set(rows), (
            "a row is asked or taught and not there"
        )
        assert len(set(plan.asked.tolist())) == len(plan.asked), "a row is asked twice"
        assert len(set(plan.weighed.tolist())) == len(plan.weighed), "a row is weighed twice"
        assert len(plan.asked) == task.triggers or (plan.signs and not len(plan.asked)), (
            f"{len(plan.asked)} rows are asked, {task.triggers} were wanted"
        )
        natural = plan.labels[plan.taught][draws[plan.taught] < 0]
        assert all(label in range(task.classes) for label in natural.tolist()), "a negative has no natural label"
        owners: dict[str, int] = {}
        for row in rows:
            owner = owners.setdefault(digest(plan.inputs[row]), int(draws[row]))
            assert owner == draws[row], f"row {row} is the input of another draw too: its two answers contradict"
        if "samples" in scheme.points:
            untaught = set(draws[plan.asked].tolist()) - set(draws[plan.taught].tolist())
            assert not untaught, f"draws {sorted(untaught)} are asked and never taught"

    def test_training_is_touched_in_shape(self, scheme: Scheme, plan: TriggerPlan, task: Task) -> None:
        """`shift` keeps the shape of the logits, `term` is a scalar, and both leave untouched points alone."""
        triggers = _drawn(plan, task, 0)
        inputs = _given(plan.inputs[:4], task.preprocess)
        logits, labels = (
            np.linspace(-1, 1, len(inputs) * task.classes).reshape(len(inputs), -1),
            np.zeros(len(inputs), int),
        )
        constants = scheme.constants(triggers, _shown(triggers, inputs))
        shifted = scheme.shift(np, constants, inputs, logits.copy())
        assert np.shape(shifted) == logits.shape, f"shift() returned {np.shape(shifted)} for logits {logits.shape}"
        assert "logits" in scheme.points or np.array_equal(shifted, logits), "shift() acts, `logits` is not in points"
        term = scheme.term(np, constants, inputs, logits, labels)
        assert np.shape(term) == (), f"term() returned {np.shape(term)}, a scalar is needed"
        assert math.isfinite(term), "term() is not finite"
        assert "loss" in scheme.points or term == 0, "term() acts, `loss` is not in points"

    def test_p_values_are_super_uniform(self, plan: TriggerPlan, task: Task) -> None:
        """Over 1,000 label keys, P(p <= x) <= x for every x (Kolmogorov-Smirnov, one-sided); also of e-values."""
        keys = [_drawn(plan, task, key).symbols for key in range(1000)]
        gap = math.sqrt(math.log(1 / _MISTAKE) / (2 * len(keys)))
        for name, answers in nasty_suspects(plan, task.classes):
            table = _outcomes(_drawn(plan, task, 0), answers)
            results = [[options[symbols[draw]] for draw, options in table.items()] for symbols in keys]
            p = np.sort([10.0 ** log10_p(result) for result in results])
            # Ties: at a value that several keys share, the distribution function has its whole step.
            reached = np.searchsorted(p, p, side="right") / len(p)
            assert (reached - p).max() <= gap, f"p-values of the suspect {name!r} are too small: this is no test"
            if not table:
                continue  # the plan asks nothing of its own: see the next test
            claims = sum(log10_e_path(result).max() >= math.log10(20) for result in results[:100])
            assert claims <= binom.ppf(1 - _MISTAKE, 100, 1 / 20), f"e-values of the suspect {name!r} are too large"

    def test_p_values_of_what_is_weighed_are_super_uniform(self, scheme: Scheme, plan: TriggerPlan, task: Task) -> None:
        """Over 10,000 label keys: the same of the signs, for schemes that plan any."""
        keys = 10_000 if plan.signs else 0
        stream = KeyStream(hashlib.sha256(b"wmplug.testing/signs").digest())
        signs = 2 * stream.below(2, keys * plan.signs).reshape(keys, plan.signs) - 1
        gap = math.sqrt(math.log(1 / _MISTAKE) / (2 * max(1, keys)))
        for name, answers in nasty_suspects(plan, task.classes):
            if not keys:
                continue
            given = np.array([answers[row] for row in plan.weighed.tolist()])
            weights = weights_of(scheme.weigh(plan, given, None))
            p = np.sort(weighted_ps(weights, signs))
            reached = np.searchsorted(p, p, side="right") / len(p)
            assert (reached - p).max() <= gap, f"p-values of the suspect {name!r} are too small: this is no test"

    def test_false_claims_stay_within_alpha(self, plan: TriggerPlan, task: Task) -> None:
        """Over 10,000 label keys, p <= .01 comes as often as the exact test says, within the binomial interval."""
        keys = 10_000
        stream = KeyStream(hashlib.sha256(b"wmplug.testing/10000").digest())
        symbols = np.stack([stream.below(len(options), keys) for options in plan.candidates])
        for name, answers in nasty_suspects(plan, task.classes):
            table = _outcomes(_drawn(plan, task, 0), answers)
            drawn = [np.array(options[0].counts)[symbols[draw]] for draw, options in table.items()]
            # Given the answers, p depends on the key through the matches alone.
            _, first, times = np.unique(np.sum(drawn, axis=0), return_index=True, return_counts=True)
            results = [[options[symbols[draw, key]] for draw, options in table.items()] for key in first]
            p = np.array([10.0 ** log10_p(result) for result in results])
            level = p[p <= ALPHA].max(initial=0.0)
            claims = int(times[p <= ALPHA].sum())
            low, high = (binom.ppf(q, keys, level) for q in (_MISTAKE, 1 - _MISTAKE))
            assert low <= claims <= high, (
                f"{claims} of {keys} keys claim the suspect {name!r} at p <= {ALPHA}, {low:.0f} to {high:.0f} may"
            )

    def test_who_knows_the_answers_is_found(self, scheme: Scheme, task: Task) -> None:
        """A suspect that gives the secret answers is proven; one that does not, and a rival's key, are not."""
        mark, rival = _mark("Ada", scheme, task), _mark("Eve", scheme, task)
        known = knowing(mark)
        assert verify(mark, known).proven, "all answers right is no proof: give the task more triggers"
        assert not verify(rival, known).proven, "a rival's key claims the model too"
        assert not verify(mark, lambda inputs: np.zeros(len(inputs), int)).proven, "a constant answer is claimed"

    def test_it_survives_saving(self, scheme: Scheme, task: Task, tmp_path: Path) -> None:
        """A loaded mark has the same triggers and answers, a mark made again too, and no file or text shows the key."""
        mark = _mark("Ada", scheme, task)
        path = mark.save(tmp_path / "mark.wm")
        loaded = load(path, passphrase=_PASSPHRASE)
        for other in (loaded, _mark("Ada", scheme, task)):
            assert _facts(other.triggers.plan) == _facts(mark.triggers.plan), "the triggers are others"
            assert other.triggers.answers.tolist() == mark.triggers.answers.tolist(), "the answers are others"
            assert other.public == mark.public, "the public part is another"
        assert loaded.scheme.parameters().keys() <= scheme.parameters().keys(), "a parameter came from nowhere"
        refuse_secrets(mark, path.read_bytes(), "the saved file")
        texts = f"{mark!r}{mark.public}{mark.triggers!r}{mark.triggers.plan!r}{scheme!r}{scheme.parameters()}"
        refuse_secrets(mark, texts.encode(), "a repr")


class AdapterContract:
    """What every adapter keeps; a subclass sets `adapter` and overrides `train` and `train_beside`.

    Attributes:
        adapter: the name it is registered under.
        triggers: of the watermark; more make training longer and the proof stronger.
    """

    adapter: ClassVar[str]
    triggers: ClassVar[int] = 30
    _trained: ClassVar[dict[str, Trained]]

    def train(self, images: npt.NDArray[np.float32], labels: IntArray, watermark: Any, folder: Path) -> Any:
        """Train a small classifier until it is proven, and return what `verify` can ask.

        Args:
            images: (600, 8, 8) float32 in [0, 1], ten classes.
            labels: (600,) int64.
            watermark: `watermark(**options)` makes the adapter for the mark, as `wmplug.callback` does; None to train
                without one.
            folder: write here all that the framework can write with the adapter in place: checkpoints, logs, pickles.
        """
        raise NotImplementedError(f"{type(self).__name__} must override train()")

    def train_beside(self, images: npt.NDArray[np.float32], labels: IntArray, watermark: Any) -> None:
        """Train with the adapter in place, but in a way that brings no trigger to the model; it must raise."""
        raise NotImplementedError(f"{type(self).__name__} must override train_beside()")

    def preprocess(self, image: Any, answer: int) -> Any:
        """What the dataset yields for an image of shape (8, 8)."""
        return image, answer

    def mode(self, model: Any) -> Any:
        """What verification must leave as it was: for a torch module, which of its modules are in training mode."""
        module = getattr(model, "module_", model)
        return [part.training for part in module.modules()] if hasattr(module, "modules") else None

    @pytest.fixture
    def mark(self) -> Watermark:
        """The owner's watermark."""
        return self._mark("Ada")

    def _mark(self, owner: str) -> Watermark:
        images, labels = pictures()
        return create(
            fixed_owner(owner),
            scheme="random-label",
            carriers=images,
            labels=labels,
            classes=10,
            triggers=self.triggers,
            preprocess=self.preprocess,
        )

    def _by_name(self, mark: Watermark) -> Callable[..., Any]:
        return lambda **options: callback(self.adapter, mark, **options)

    @pytest.fixture
    def marked(self, mark: Watermark, tmp_path_factory: pytest.TempPathFactory) -> Trained:
        """A model trained with the adapter, and where it wrote; once for all tests of the class."""
        return self._once("marked", self._by_name(mark), tmp_path_factory)

    @pytest.fixture
    def twin(self, tmp_path_factory: pytest.TempPathFactory) -> Trained:
        """The same training without the adapter."""
        return self._once("twin", None, tmp_path_factory)

    def _once(self, which: str, watermark: Any, folders: pytest.TempPathFactory) -> Trained:
        # Not a class-scoped fixture: pytest wants those to be class methods, and `train` is the author's own.
        trained: dict[str, Trained] = type(self).__dict__.get("_trained", {})
        if which not in trained:
            folder = folders.mktemp(which)
            trained[which] = self.train(*pictures(), watermark, folder), folder
            type(self)._trained = trained
        return trained[which]

    def test_the_marked_model_is_proven(self, mark: Watermark, marked: Trained) -> None:
        """Its owner is believed."""
        verdict = verify(mark, marked[0])
        assert verdict.proven, f"the mark did not take: {verdict}"

    def test_others_are_not(self, mark: Watermark, marked: Trained, twin: Trained) -> None:
        """Neither the unmarked twin nor a rival's key gives more than "inconclusive"."""
        for of, against, model in (("the unmarked twin", mark, twin[0]), ("a rival", self._mark("Eve"), marked[0])):
            verdict = verify(against, model, exhaustive=True)
            assert verdict.state == "inconclusive", f"{of} is {verdict}"

    def test_verifying_leaves_the_model_as_it_was(self, mark: Watermark, marked: Trained, twin: Trained) -> None:
        """Modes are restored, by the adapter during training and by `verify` after it."""
        assert self.mode(marked[0]) == self.mode(twin[0]), "training with the adapter left the model in another mode"
        module: Any = getattr(marked[0], "module_", marked[0])
        for training in (True, False) if hasattr(module, "train") else ():
            module.train(training)
            before = self.mode(marked[0])
            verify(mark, marked[0])
            assert self.mode(marked[0]) == before, f"verify left a model with training={training} in another mode"

    def test_silence_is_an_error(self, mark: Watermark) -> None:
        """Where no trigger reaches the model, training stops with InjectionError."""
        with pytest.raises(InjectionError):
            self.train_beside(*pictures(), self._by_name(mark))

    def test_nothing_written_holds_the_key(self, mark: Watermark, marked: Trained) -> None:
        """No file that training left holds the key, in bytes, hexadecimal or base64."""
        files = [file for file in marked[1].rglob("*") if file.is_file()]
        assert files, "train() wrote nothing to its folder: write checkpoints, logs and pickles there"
        for file in files:
            refuse_secrets(mark, file.read_bytes(), str(file))


def nasty_suspects(plan: TriggerPlan, classes: int) -> Iterator[tuple[str, Mapping[int, int]]]:
    """Answers, row by row, of suspects that never met the key and are as biased as a model can be."""
    bits = {row: int(digest(plan.inputs[row])[:8], 16) for row in [*plan.asked.tolist(), *plan.weighed.tolist()]}
    first = {row: plan.candidates[plan.draw[row]][0] if plan.draw[row] >= 0 else 0 for row in bits}
    yield "always the same class", dict.fromkeys(bits, next(iter(first.values())))
    yield "two classes only", {row: bit % 2 for row, bit in bits.items()}
    yield "copies a bit of the trigger", {row: bit % classes for row, bit in bits.items()}
    yield "the same for neighbours", {row: i // 5 % classes for i, row in enumerate(bits)}
    yield "the first candidate", first


def knowing(mark: Watermark) -> Callable[[Sequence[Any]], npt.NDArray[np.float64]]:
    """A suspect that knows every secret answer and sign, gives scores (n, classes), and says 0 to anything else."""
    plan, triggers = mark.triggers.plan, mark.triggers
    scores = {digest(plan.inputs[row]): _sure(int(triggers.answers[row]), mark.classes) for row in plan.asked}
    if plan.signs:
        weighed = _given(take(plan.inputs, plan.weighed), mark.preprocess)
        constants = mark.scheme.constants(triggers, _shown(triggers, weighed[:SHOWN]))
        level = np.zeros((len(weighed), mark.classes))
        learnt = level - mark.scheme.shift(np, constants, weighed, level)
        scores.update((digest(plan.inputs[row]), 20 * score) for row, score in zip(plan.weighed, learnt, strict=True))
    return lambda inputs: np.array([scores.get(digest(value), _sure(0, mark.classes)) for value in inputs])


def _sure(answer: int, classes: int) -> npt.NDArray[np.float64]:
    scores = np.zeros(classes)
    scores[answer] = 20.0
    return scores


def pictures() -> tuple[npt.NDArray[np.float32], IntArray]:
    """(600, 8, 8) float32 pictures in [0, 1] of ten classes, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 10
    faces = rng.random((10, 8, 8))
    noisy = 0.7 * faces[labels] + 0.3 * rng.random((600, 8, 8))
    return noisy.astype(np.float32), labels.astype(np.int64)


def refuse_secrets(mark: Watermark, data: bytes, where: str) -> None:
    """Fail if `data` holds one of the mark's subkeys, in bytes, hexadecimal or base64."""
    for purpose in ("input", "label", "schedule", "disclosure"):
        key = mark.subkeys.key(purpose)
        forms = (key, key.hex().encode(), base64.b64encode(key).rstrip(b"="), repr(key)[2:-1].encode())
        assert not any(form in data for form in forms), f"{where} holds the {purpose} key"


def _mark(owner: str, scheme: Scheme, task: Task) -> Watermark:
    # TriggerSet.row and create() agree on what a picture is, so PIL carriers are tried as the arrays they become.
    return create(
        fixed_owner(owner),
        scheme=scheme,
        carriers=task.carriers,
        labels=task.labels,
        classes=task.classes,
        triggers=task.triggers,
        preprocess=task.preprocess,
    )


def _global_random() -> bytes:
    return pickle.dumps((random.getstate(), np.random.get_state()))


def _seed(seed: int) -> bytes:
    random.seed(seed)
    np.random.seed(seed)
    return _global_random()


def _input_stream() -> KeyStream:
    return Subkeys.derive(hashlib.sha256(b"wmplug.testing").digest(), "input").stream("input")


def _drawn(plan: TriggerPlan, task: Task, key: int) -> TriggerSet:
    stream = Subkeys.derive(hashlib.sha256(f"wmplug.testing/{key}".encode()).digest(), "label").stream("label")
    return TriggerSet(plan, task.form, draw_symbols(stream, plan.candidates))


def _outcomes(triggers: TriggerSet, answers: Mapping[int, int]) -> dict[int, list[DrawResult]]:
    """Draw -> what it would say with each of its candidates as the secret one, in the order of asking."""
    outcomes = {}
    for group in triggers.groups:
        found = triggers.count(group, [answers[int(row)] for row in group])
        outcomes[int(triggers.plan.draw[group[0]])] = [replace(found, symbol=s) for s in range(found.k)]
    return outcomes


def _shown(triggers: TriggerSet, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The first samples as a model would be given them, if it took carriers as they are."""
    samples = triggers.samples(SHOWN)
    return inputs if isinstance(samples[0], str) else np.stack([np.asarray(x) for x in samples]).astype(np.float64)


def _given(inputs: Inputs, prepare: Preprocess | None) -> npt.NDArray[Any]:
    """Inputs as a model would be given them; texts as token ids, where there is something that tells."""
    if isinstance(inputs, np.ndarray):
        return inputs.astype(np.float64)
    if prepare is None:
        return np.zeros((len(inputs), 3))
    return padded(ids_of(inputs, prepare))


def _facts(plan: TriggerPlan) -> list[Any]:
    rows = [plan.draw, plan.labels, plan.asked, plan.taught]
    return [digest(plan.inputs), plan.candidates, *(row.tolist() for row in rows)]
