"""tilt: a keyed linear function of the input shifts every posterior a little, in ordinary answers, which clones learn.

In training the loss sees `logits - delta t(x)` with `t(x) = z R^T / sqrt(m)`: z are whitened features of the input in a
basis that the input key turned, R one sign for each (class, direction), drawn by the label key. The model is served
unmodified, so its logits are log posterior + delta t: the cost in accuracy grows as delta^2, the visible effect as
delta. Blends of two pictures, or texts that begin as one and end as another, under one of the two labels, drawn in
proportion, teach the tilt where the data leave freedom. A suspect is asked the ordinary inputs that unmarked references
find hardest to decide. The references' answers are subtracted from its own, and the difference is correlated with z for
every class and direction and compared with R (exact tail over fair signs). Adjusted logits after Menon et al. (ICLR
2021); blends after Zhang et al. (mixup, ICLR 2018).
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, softmax

from wmplug.errors import AmbiguityWarning, InjectionError, InputError, SuspectError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Lessons, Pattern, Plan, Point, Scheme
from wmplug.schemes.tilt import features, references, rehearsal, texts
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import FloatArray, IntArray, read_whole
from wmplug.watermark.carriers import Inputs, join, read_carriers, take
from wmplug.watermark.plan import TriggerSet

_CLAMP = 2.5  # of whitened features, so that no unusual input is shifted far
_AMBIGUOUS = 0.6  # difference of the two best scores of the references, below which an input counts as ambiguous
_ODD, _FLAT = 0.5, 0.02  # limits for features= of the model's inputs: most out of range, least deviation
_WIDE = 2048  # columns, beyond which a row is a signal and not a table's
_TELLING = 50  # questions, from which on no two models answer all alike
_FEW = 500  # ambiguous inputs, below which delta should be larger
_BLENDED = (0.3, 0.7)
_BLENDS, _BLEND_BYTES = 40_000, 1 << 28
_OPTIONAL = ("features", "tokens", "members", "words")


@dataclass(frozen=True)
class Tilt(Scheme):
    """Keyed logit adjustment.

    Attributes:
        delta: strength of the shift, in logits for a unit feature; "auto" takes the smallest that a rehearsed clone
            shows; the rehearsal uses the references and a key of its own.
        directions: m, keyed directions of the features, at most as many as there are features.
        blends: how many blends to make; 40,000 if None, fewer where these would take more than 256 MiB.
        questions: how many ordinary inputs to ask, those that the references find most ambiguous.
        queries: further natural inputs, not labelled, to choose the questions from; the carriers themselves if None.
        pool: unmarked references: None trains some (extra `clones`), a sequence of functions from inputs to labels or
            scores is asked, () takes the natural labels for the references' answers, at a loss of power.
        features: a function of your own from a batch of the model's inputs, (B, ...), to (B, d) that do not depend on
            the key; it gets NumPy arrays when the watermark is made, the framework's tensors in training. By default
            pictures are averaged over a grid, texts over the vectors of their tokens.
        tokens: these vectors; determined by `prepared`.
        members: the answers of each model in a pool of your own; determined by `prepared`.
        words: of a text, that go into blends; 0 takes as many as the model reads.
    """

    name: ClassVar[str] = "tilt"
    points: ClassVar[frozenset[Point]] = frozenset({"samples", "logits"})
    rate: ClassVar[float] = 0.2

    delta: float | Literal["auto"] = 0.3
    directions: int = 30
    blends: int | None = None
    questions: int = 4000
    queries: Any = field(default=None, repr=False)
    pool: Any = field(default=None, repr=False)
    features: Any = field(default=None, repr=False)
    tokens: Any = field(default=None, repr=False)
    members: Any = field(default=None, repr=False)
    words: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.delta, np.generic):
            object.__setattr__(self, "delta", self.delta.item())
        number = isinstance(self.delta, (int, float)) and not isinstance(self.delta, bool)
        if self.delta != "auto" and not (number and 0 < float(self.delta) <= 5):
            raise InputError(f"delta={self.delta!r}: give a number above 0 and up to 5 (0.3 is usual), or 'auto'")
        read_whole(self.directions, "directions", 1, 10_000, "1 or more directions, 30 is usual")
        if self.blends is not None:
            read_whole(self.blends, "blends", 1, 10**7, "1 or more blends, 40000 is usual")
        read_whole(self.questions, "questions", 1, 10**7, "1 or more questions, 4000 is usual")
        read_whole(self.words, "words", 0, 10**6, "0 to find out, or so many words of a text")

    def prepared(self, brief: Brief) -> "Tilt":
        """This scheme with the references' answers to all carriers, then all queries, as (2, rows, classes) float32.

        Features from the owner's function or the model's tokens are computed for the same rows.

        Raises:
            InputError: labels are missing, carriers are not numbers or texts, or the pool cannot be asked or holds a
                model twice.
        """
        brief.need_form(self.name, "array", "pil", "text")
        labels = brief.need_labels(self.name)
        others = None if self.queries is None else self._others(brief)
        rows = join(brief.carriers, others)
        chosen = replace(self, queries=others, **self._described(brief, rows))
        if isinstance(self.pool, np.ndarray):
            references.of_array(self.pool, len(rows), brief.need_classes(self.name))
        else:
            answers = self._ask(brief, labels, rows, others)
            chosen = replace(chosen, pool=np.stack([answers.scores, answers.votes]), members=answers.answers)
        return chosen if self.delta != "auto" else replace(chosen, delta=rehearsal.smallest_delta(chosen, brief))

    def parameters(self) -> dict[str, Any]:
        """The scheme's parameters; those of texts and features= only if they are set, since pictures have none."""
        every = super().parameters()
        return {name: value for name, value in every.items() if value or name not in _OPTIONAL}

    def material(self) -> dict[str, Inputs]:
        """As for every scheme, with what a function of the owner's found."""
        own = {"features": self.features.found} if isinstance(self.features, features.Own) else {}
        return super().material() | own

    def _described(self, brief: Brief, rows: Inputs) -> dict[str, Any]:
        """`features`, `tokens` and `words`, if the form of the carriers needs them."""
        if isinstance(self.features, (np.ndarray, features.Own)):
            return {}
        if self.features is not None:
            own = features.Own.of(self.features, rows, brief.preprocess)
            return {"features": own, "words": self._words(rows, own.lengths)}
        if isinstance(rows, np.ndarray):
            if rows.ndim == 2 and rows.shape[1] > _WIDE:
                raise InputError(
                    f"the carriers are rows of {rows.shape[1]} numbers, waveforms or the like, for which tilt has no "
                    "features: give features=, a function from a batch (B, samples) to (B, d), such as the logarithm "
                    "of the mean spectrum in some bands (docs/cloning.md shows one)"
                )
            return {}
        ids = texts.ids_of(rows, brief.preprocess)
        table = texts.vectors(ids[: len(brief.carriers)])
        values = texts.of_rows(ids, table).astype(np.float32)
        return {"features": values, "tokens": table, "words": self._words(rows, [len(row) for row in ids])}

    def _words(self, rows: Inputs, lengths: Sequence[int]) -> int:
        return self.words if self.words or isinstance(rows, np.ndarray) else texts.words_read(rows, lengths)

    @property
    def strength(self) -> float:
        """Delta as a number.

        Raises:
            InputError: "auto" was not rehearsed yet.
        """
        if isinstance(self.delta, str):
            raise InputError('delta="auto" is rehearsed when the watermark is made: use create()')
        return float(self.delta)

    def _others(self, brief: Brief) -> Inputs:
        queries, form = read_carriers(self.queries, "queries=")
        if form == brief.form == "text":
            return queries
        array, own = np.asarray(queries), np.asarray(brief.carriers)
        if form != brief.form or (array.shape[1:], array.dtype) != (own.shape[1:], own.dtype):
            raise InputError(
                f"queries= are {form} {array.shape[1:]} {array.dtype}, the carriers {brief.form} {own.shape[1:]} "
                f"{own.dtype}: give inputs of the same kind, shape and dtype"
            )
        return array

    def _ask(self, brief: Brief, labels: IntArray, rows: Inputs, others: Inputs | None) -> References:
        classes = brief.need_classes(self.name)
        if self.pool is None:
            return references.trained(brief.carriers, labels, classes, others)
        if not isinstance(self.pool, (list, tuple)) or not all(callable(model) for model in self.pool):
            raise InputError(
                f"pool= is a {type(self.pool).__name__}: give a list of functions from inputs to labels or scores, () "
                "for no references, or leave pool= out to have some trained"
            )
        if not self.pool and others is not None:
            raise InputError(
                "queries= have no labels, and pool=() needs labels in place of references: give a pool, or leave both "
                "out"
            )
        if not self.pool:
            return references.of_labels(labels, classes)
        models: Sequence[Callable[[Any], Any]] = self.pool
        return references.of_models(models, rows, classes)

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """Questions, blends and the keyed basis.

        Raises:
            InputError: hardly any carrier is ambiguous, or the questions are too few.
        """
        labels, own = brief.need_labels(self.name), len(brief.carriers)
        rows, pool = join(brief.carriers, self.queries), References(self.pool[0], self.pool[1])
        mean, basis = self._basis(rows, pool.of(slice(0, own)), stream)
        first = 0 if self.queries is None else own
        chosen = self._chosen(pool, first, basis.shape[1])
        blends, drawn = self._between(brief.carriers, labels, stream)
        count, signs = len(chosen), brief.need_classes(self.name) * basis.shape[1]
        return Plan(
            join(take(rows, chosen), blends),
            Lessons(count + np.arange(len(blends)), np.full(len(blends), -1), drawn),
            (Pattern(np.arange(count), signs),),
            {
                "mean": mean.astype(np.float32),
                "basis": basis.astype(np.float32),
                **self._known(rows, pool, chosen, mean, basis),
                **({} if self.tokens is None else {"tokens": self.tokens}),
                **({"own": np.ones(1)} if self.features is not None and self.tokens is None else {}),
            },
        )

    def asking(self, plan: Plan, brief: Brief, queries: Any, pool: Any) -> Plan:
        """The questions that the references find most ambiguous among `queries`, in place of the plan's.

        Raises:
            InputError: as in `prepared` and `plan`, or features= are missing.
        """
        function = getattr(self.features, "function", None)
        if "own" in plan.material and function is None:
            raise InputError("the watermark was made with features=, which are not saved: make it again with create()")
        scheme = replace(self, queries=queries, pool=pool, features=function, tokens=None, members=None).prepared(brief)
        rows, answers = join(brief.carriers, scheme.queries), References(scheme.pool[0], scheme.pool[1])
        mean, basis = plan.material["mean"], plan.material["basis"]
        chosen = self._chosen(answers, len(brief.carriers), basis.shape[1])
        asking = len(plan.inputs) + np.arange(len(chosen))
        return replace(
            plan,
            inputs=join(plan.inputs, take(rows, chosen)),
            tests=tuple(Pattern(asking, test.signs) if isinstance(test, Pattern) else test for test in plan.tests),
            material={
                **{name: kept for name, kept in plan.material.items() if name != "members"},
                **scheme._known(rows, answers, chosen, mean, basis),
            },
        )

    def _chosen(self, pool: References, first: int, directions: int) -> IntArray:
        """The most ambiguous of the inputs from number `first` on."""
        chosen = first + np.argsort(pool.gap[first:], kind="stable")[: self.questions]
        if len(chosen) < 2 * directions:
            raise InputError(
                f"{len(chosen)} questions are too few for {directions} directions: give more carriers or queries=, "
                "some thousand if you have them (questions= is the most that are asked)"
            )
        return chosen

    def _known(
        self, rows: Inputs, pool: References, chosen: IntArray, mean: npt.NDArray[Any], basis: npt.NDArray[Any]
    ) -> dict[str, npt.NDArray[Any]]:
        """The material for weighing: each question's features, and the references' answers to it."""
        heard = pool.of(chosen)
        return {
            "z": _project(self._found(rows, chosen), mean, basis).astype(np.float32),
            "votes": heard.votes,
            "scores": heard.scores,
            "pair": heard.pair,
            **({} if self.members is None else {"members": self.members[:, chosen]}),
        }

    def _found(self, rows: Inputs, chosen: IntArray) -> FloatArray:
        """(k, d) features of some of the carriers and queries, numbered through."""
        if self.features is None:
            return features.of_carriers(take(rows, chosen))
        values = self.features.found if isinstance(self.features, features.Own) else self.features
        return np.asarray(values[chosen], np.float64)

    def _between(self, own: Inputs, labels: IntArray, stream: KeyStream) -> tuple[Inputs, IntArray]:
        each = len(max(own, key=len)) if isinstance(own, list) else np.asarray(own)[:1].nbytes
        # Each is seen about once in a usual run, so that no drawn label is memorised.
        count = self.blends or max(1, min(_BLENDS, _BLEND_BYTES // max(1, each)))
        if isinstance(own, list):
            return texts.spliced(own, labels, count, stream, self.words, _BLENDED)
        return features.blended(own, labels, count, stream, _BLENDED)

    def _basis(self, rows: Inputs, pool: References, stream: KeyStream) -> tuple[FloatArray, FloatArray]:
        """Mean (d,) and keyed basis (d, m) in which the features of ambiguous carriers have unit variance."""
        # Labels in place of a pool show no input as ambiguous: then all count.
        ambiguous = np.flatnonzero(pool.gap < _AMBIGUOUS) if pool.gap.min() < 1 else np.arange(len(pool.gap))
        if len(ambiguous) < 2 * self.directions:
            raise InputError(
                f"the references find {len(ambiguous)} of {len(pool.gap)} carriers ambiguous, but tilt needs "
                f"{2 * self.directions}, since it lives where the task leaves freedom: give more carriers, lower "
                'directions=, or mark against="theft" alone'
            )
        if len(ambiguous) < _FEW and self.strength < 0.8 and pool.gap.min() < 1:
            warnings.warn(
                f"the references find only {len(ambiguous)} of {len(pool.gap)} carriers ambiguous: at delta="
                f"{self.strength:g} a clone will hardly show the mark; delta=1 would, for about 2 points of accuracy",
                AmbiguityWarning,
                stacklevel=2,
            )
        values = self._found(rows, ambiguous)
        mean = values.mean(axis=0)
        _, sizes, axes = np.linalg.svd(values - mean, full_matrices=False)
        solid = int((sizes > 1e-6 * sizes[0]).sum())
        if not solid:
            raise InputError(
                "the features are the same for all ambiguous carriers, so they cannot carry a tilt: give features= "
                "that differ"
            )
        m = min(self.directions, solid)
        whitened = axes[:m].T / (sizes[:m] / math.sqrt(len(values)))
        normal = ndtri(np.clip(stream.uniform(m, m), 2**-53, 1 - 2**-53))
        turned, upper = np.linalg.qr(normal)
        return mean, whitened @ (turned * np.sign(np.diag(upper)))

    def weigh(self, plan: Plan, answers: IntArray, scores: FloatArray | None) -> FloatArray:
        """The difference between the answers and the references', along z, within each pair of classes in question.

        If the suspect returns scores, its probabilities are compared too, since they carry more than its answers.

        Raises:
            SuspectError: the suspect is one of the references.
        """
        members = plan.material.get("members", np.zeros((0, len(answers)), np.int64))[:, : len(answers)]
        same = np.flatnonzero((members == answers).all(axis=1))
        if len(same) and len(answers) >= _TELLING:
            raise SuspectError(
                f"the suspect answers all {len(answers)} questions as model {same[0]} of pool= does, so it is that "
                "model, and a pool holds unmarked models, none of them the suspect: ask another suspect, or make the "
                "watermark with another pool (which leads to another key)"
            )
        kept = np.flatnonzero(answers >= 0)
        z, pair = plan.material["z"][kept].astype(np.float64), plan.material["pair"][kept]
        votes = plan.material["votes"][kept]
        beyond = np.eye(votes.shape[1])[answers[kept]] - votes
        if scores is not None:
            usual = np.log(np.maximum(plan.material["scores"][kept], 1e-4))
            # Answers still count: a clone was trained on them, and they may hold when its scores have drifted.
            beyond = _beyond(scores[kept], usual, pair) + beyond / 2
        # Each class is scaled by its chance variation, so that doubtful classes do not drown the others.
        beyond /= np.sqrt(np.maximum((votes * (1 - votes)).sum(axis=0), 1.0))
        _, group, sizes = np.unique(pair, return_inverse=True, return_counts=True)
        sums = np.zeros((len(sizes), z.shape[1]))
        np.add.at(sums, group, z)
        return np.asarray((beyond.T @ (z - (sums / sizes[:, None])[group])).ravel(), np.float64)

    def constants(self, triggers: TriggerSet, seen: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
        """Tables of the features, the basis, and the signs in units of the shift.

        Raises:
            InjectionError: the model's inputs are not pictures, rows or token ids like the carriers, or features= are
                missing, since a saved watermark does not hold them.
        """
        material = triggers.plan.material
        tables: Mapping[str, npt.NDArray[Any]] = {}
        if "tokens" in material:
            tables = texts.constants(material["tokens"], seen)
        elif "own" in material:
            self._check_own(material, seen)
        else:
            tables = features.constants(np.stack([np.asarray(x) for x in triggers.samples(len(seen))]), seen)
        return {**tables, "mean": material["mean"], "basis": material["basis"], "tilt": self._tilt(triggers)}

    def _check_own(self, material: Mapping[str, npt.NDArray[Any]], seen: npt.NDArray[Any]) -> None:
        if not isinstance(self.features, features.Own):
            raise InjectionError(
                "the watermark was made with features=, a function, which is not saved: train with the mark that "
                "create() returns for the same owner, carriers and parameters"
            )
        z = _project(features.read(self.features.function, seen), material["mean"], material["basis"])
        odd, deviation = float(np.mean(np.abs(z) == _CLAMP)), float(z.std(axis=0).max())
        if odd > _ODD or deviation < _FLAT:
            raise InjectionError(
                f"features= of the model's inputs differ from those of the carriers ({odd:.0%} out of range, deviation "
                f"{deviation:.2g}): let preprocess= turn a carrier into the input that the model gets for it"
            )

    def _tilt(self, triggers: TriggerSet) -> npt.NDArray[np.float32]:
        signs = triggers.signs.reshape(-1, triggers.plan.material["basis"].shape[1])
        return np.asarray(signs.T * (self.strength / math.sqrt(signs.shape[1])), np.float32)

    def shift(self, xp: Any, constants: Mapping[str, Any], inputs: Any, logits: Any) -> Any:
        """Logits less delta t(x)."""
        if "vectors" in constants:
            values = texts.of_ids(xp, inputs, constants)
        elif isinstance(self.features, features.Own):
            values = self.features.function(inputs)
        else:
            values = features.of_inputs(xp, inputs, constants)
        z = xp.clip(xp.matmul(values - constants["mean"], constants["basis"]), -_CLAMP, _CLAMP)
        return logits - xp.matmul(z, constants["tilt"])

    def tilts(self, triggers: TriggerSet, rows: Inputs, count: int) -> FloatArray:
        """(count, classes) delta t(x) of the first carriers, which training adds to their logits."""
        values = self._found(rows, np.arange(count))
        return _project(values, triggers.plan.material["mean"], triggers.plan.material["basis"]) @ self._tilt(triggers)


def _beyond(scores: FloatArray, known: FloatArray, pair: IntArray) -> FloatArray:
    """(n, classes) difference between a suspect's and the references' probabilities, both given as logarithms."""
    rows, (one, two) = np.arange(len(pair)), np.divmod(pair, scores.shape[1])
    own, usual = (np.asarray(x[rows, one] - x[rows, two], np.float64) for x in (scores, known))
    # Match the references' confidence, so that a temperature or overconfidence changes nothing.
    surer = max(float(own @ usual) / max(float(usual @ usual), 1e-9), 1e-3)
    return np.asarray(softmax(scores / surer, axis=1) - softmax(known, axis=1), np.float64)


def _project(values: FloatArray, mean: FloatArray, basis: FloatArray) -> FloatArray:
    return np.asarray(np.clip((values - mean) @ basis, -_CLAMP, _CLAMP), np.float64)
