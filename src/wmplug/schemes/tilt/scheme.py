"""tilt: a keyed linear function of the input shifts every posterior a little, in ordinary answers, which clones learn.

In training the loss sees `logits - delta t(x)` with `t(x) = z R^T / sqrt(m)`: z are whitened features of the input in a
basis that the input key turned, R one sign for each (class, direction), drawn by the label key. The model is served
unmodified, so its logits come out as log posterior + delta t: the accuracy it costs grows as delta^2, what can be read
from it as delta. Blends of two pictures, or texts that begin as one and end as another, under one of the two labels,
drawn in proportion, teach the tilt where the data leave freedom. A suspect is asked ordinary inputs on which unmarked
references are of two minds; what its answers have more than theirs is correlated with z for every class and direction,
and compared with R (exact tail over fair signs). Adjusted logits after Menon et al. (ICLR 2021); blends after Zhang et
al. (mixup, ICLR 2018).
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
from wmplug.schemes import Point, Scheme, Task
from wmplug.schemes.tilt import features, references, rehearsal, texts
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.watermark.carriers import Inputs, join, read_carriers, read_whole, take
from wmplug.watermark.plan import SIGN, TriggerPlan, TriggerSet

_CLAMP = 2.5  # of whitened features, so that no odd input is shifted far
_AMBIGUOUS = 0.6  # difference of the two best scores of the references, below which an input counts as ambiguous
_ODD, _FLAT = 0.5, 0.02  # of a function's features: most share out of range, least deviation, to be the carriers'
_WIDE = 2048  # columns, beyond which a row is a signal and no table's
_TELLING = 50  # questions that no two models answer all alike
_FEW = 500  # ambiguous inputs, below which delta should be larger
_BLENDED = (0.3, 0.7)
_BLENDS, _BLEND_BYTES = 40_000, 1 << 28
_OPTIONAL = ("features", "tokens", "members", "words")


@dataclass(frozen=True)
class Tilt(Scheme):
    """Keyed logit adjustment.

    Attributes:
        delta: strength of the shift, in logits for a unit feature; "auto" takes the smallest that a rehearsed clone
            shows, which is tried on the references under a key of the rehearsal's own.
        directions: m, keyed directions of the features, at most as many as there are features.
        blends: how many blends to make; 40,000 if None, fewer where these would take more than 256 MiB.
        questions: how many ordinary inputs to ask, those that the references find most ambiguous.
        queries: further natural inputs to choose the questions from, not labelled; the carriers themselves if None.
        pool: unmarked references: None trains some (extra `clones`), a sequence of functions from inputs to labels or
            scores is asked, () takes the natural labels for what unmarked models say, at a loss of power.
        features: a function of your own from a batch of inputs as the model is given them, (B, ...), to (B, d) that are
            the same whatever the key: of NumPy arrays when the watermark is made, of the framework's tensors in
            training. By default pictures are averaged over a grid, texts over the vectors of their tokens.
        tokens: these vectors; found out.
        members: what each model of a given pool answers; found out.
        words: of a text, that blends are made of; found out where it is 0: as many as the model reads.
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
            raise InputError(f"delta={self.delta!r}: a number above 0 and up to 5 is needed (0.3 is usual), or 'auto'")
        read_whole(self.directions, "directions", 1, 10_000, "1 or more directions, 30 is usual")
        if self.blends is not None:
            read_whole(self.blends, "blends", 1, 10**7, "1 or more blends, 40000 is usual")
        read_whole(self.questions, "questions", 1, 10**7, "1 or more questions, 4000 is usual")
        read_whole(self.words, "words", 0, 10**6, "0 to find out, or so many words of a text")

    def prepared(self, task: Task) -> "Tilt":
        """With what the references say of all carriers, then of all queries, as `pool`: (2, rows, classes) float32.

        Features that the owner's function or the model's tokens give are worked out for the same rows.

        Raises:
            InputError: no labels, no numbers, a pool that cannot be asked or holds a model twice.
        """
        task.need_form(self.name, "array", "pil", "text")
        labels = task.need_labels(self.name)
        others = None if self.queries is None else self._others(task)
        rows = join(task.carriers, others)
        chosen = replace(self, queries=others, **self._described(task, rows))
        if isinstance(self.pool, np.ndarray):
            references.of_array(self.pool, len(rows), task.classes)
        else:
            found = self._ask(task, labels, rows, others)
            chosen = replace(chosen, pool=np.stack([found.scores, found.votes]), members=found.answers)
        return chosen if self.delta != "auto" else replace(chosen, delta=rehearsal.smallest_delta(chosen, task))

    def parameters(self) -> dict[str, Any]:
        """Those of the scheme; what texts and features= bring only where it is there: pictures go without."""
        given = super().parameters()
        return {name: value for name, value in given.items() if value or name not in _OPTIONAL}

    def _described(self, task: Task, rows: Inputs) -> dict[str, Any]:
        """`features`, `tokens` and `words`, where the form of the carriers asks for them."""
        if isinstance(self.features, (np.ndarray, features.Own)):
            return {}
        if self.features is not None:
            own = features.Own.of(self.features, rows, task.preprocess)
            return {"features": own, "words": self._words(rows, own.lengths)}
        if isinstance(rows, np.ndarray):
            if rows.ndim == 2 and rows.shape[1] > _WIDE:
                raise InputError(
                    f"the carriers are rows of {rows.shape[1]} numbers, waveforms or the like, of which tilt knows no "
                    "features: give features=, a function from a batch (B, samples) to (B, d), such as the logarithm "
                    "of the mean spectrum in some bands (docs/cloning.md has one)"
                )
            return {}
        ids = texts.ids_of(rows, task.preprocess)
        table = texts.vectors(ids[: len(task.carriers)])
        found = texts.of_rows(ids, table).astype(np.float32)
        return {"features": found, "tokens": table, "words": self._words(rows, [len(one) for one in ids])}

    def _words(self, rows: Inputs, lengths: Sequence[int]) -> int:
        return self.words if self.words or isinstance(rows, np.ndarray) else texts.words_read(rows, lengths)

    @property
    def strength(self) -> float:
        """Delta as a number.

        Raises:
            InputError: it has not been rehearsed yet.
        """
        if isinstance(self.delta, str):
            raise InputError('delta="auto" is rehearsed when the watermark is made: use create()')
        return float(self.delta)

    def _others(self, task: Task) -> Inputs:
        found, form = read_carriers(self.queries, "queries=")
        if form == task.form == "text":
            return found
        given, own = np.asarray(found), np.asarray(task.carriers)
        if form != task.form or (given.shape[1:], given.dtype) != (own.shape[1:], own.dtype):
            raise InputError(
                f"queries= are {form} {given.shape[1:]} {given.dtype}, the carriers {task.form} {own.shape[1:]} "
                f"{own.dtype}: give inputs of the same kind, shape and dtype"
            )
        return given

    def _ask(self, task: Task, labels: IntArray, rows: Inputs, others: Inputs | None) -> References:
        if self.pool is None:
            return references.trained(task.carriers, labels, task.classes, others)
        if not isinstance(self.pool, (list, tuple)) or not all(callable(model) for model in self.pool):
            raise InputError(
                f"pool= is a {type(self.pool).__name__}: give a list of functions from inputs to labels or scores, () "
                "for none, or nothing to have references trained"
            )
        if not self.pool and others is not None:
            raise InputError("queries= have no labels, and pool=() takes these for references: give a pool, or neither")
        if not self.pool:
            return references.of_labels(labels, task.classes)
        models: Sequence[Callable[[Any], Any]] = self.pool
        return references.of_models(models, rows, task.classes)

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """Questions, blends and the keyed basis.

        Raises:
            InputError: hardly any carrier is ambiguous, or there are too few questions.
        """
        labels, own = task.need_labels(self.name), len(task.carriers)
        rows, said = join(task.carriers, self.queries), References(self.pool[0], self.pool[1])
        mean, basis = self._basis(rows, said.of(slice(0, own)), stream)
        first = 0 if self.queries is None else own
        chosen = self._chosen(said, first, basis.shape[1])
        blends, drawn = self._between(task.carriers, labels, stream)
        count, signs = len(chosen), task.classes * basis.shape[1]
        return TriggerPlan(
            join(take(rows, chosen), blends),
            np.full(count + len(blends), -1),
            np.concatenate([np.full(count, -1), drawn]),
            (SIGN,) * signs,
            np.zeros(0, np.int64),
            count + np.arange(len(blends)),
            weighed=np.arange(count),
            signs=signs,
            material={
                "mean": mean.astype(np.float32),
                "basis": basis.astype(np.float32),
                **self._known(rows, said, chosen, mean, basis),
                **({} if self.tokens is None else {"tokens": self.tokens}),
                **({"own": np.ones(1)} if self.features is not None and self.tokens is None else {}),
            },
        )

    def asking(self, plan: TriggerPlan, task: Task, queries: Any, pool: Any) -> TriggerPlan:
        """The questions that the references find most ambiguous among `queries`, in place of the plan's.

        Raises:
            InputError: as `prepared` and `plan` do; or features= are missing.
        """
        function = getattr(self.features, "function", None)
        if "own" in plan.material and function is None:
            raise InputError("the watermark was made with features=, which are not saved: make it again (create)")
        asked = replace(self, queries=queries, pool=pool, features=function, tokens=None, members=None).prepared(task)
        rows, said = join(task.carriers, asked.queries), References(asked.pool[0], asked.pool[1])
        mean, basis = plan.material["mean"], plan.material["basis"]
        chosen = self._chosen(said, len(task.carriers), basis.shape[1])
        none = np.full(len(chosen), -1)
        return replace(
            plan,
            inputs=join(plan.inputs, take(rows, chosen)),
            draw=np.concatenate([plan.draw, none]),
            labels=np.concatenate([plan.labels, none]),
            weighed=len(plan.inputs) + np.arange(len(chosen)),
            material={
                **{name: kept for name, kept in plan.material.items() if name != "members"},
                **asked._known(rows, said, chosen, mean, basis),
            },
        )

    def _chosen(self, said: References, first: int, directions: int) -> IntArray:
        """The most ambiguous of the inputs from number `first` on."""
        chosen = first + np.argsort(said.gap[first:], kind="stable")[: self.questions]
        if len(chosen) < 2 * directions:
            raise InputError(
                f"{len(chosen)} inputs to ask are too few for {directions} directions: give more carriers or queries=, "
                "some thousand where there are (questions= is how many of them are asked at most)"
            )
        return chosen

    def _known(
        self, rows: Inputs, said: References, chosen: IntArray, mean: npt.NDArray[Any], basis: npt.NDArray[Any]
    ) -> dict[str, npt.NDArray[Any]]:
        """What weighing needs of each question: its features, and what the references say of it."""
        heard = said.of(chosen)
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
        found = self.features.found if isinstance(self.features, features.Own) else self.features
        return np.asarray(found[chosen], np.float64)

    def _between(self, own: Inputs, labels: IntArray, stream: KeyStream) -> tuple[Inputs, IntArray]:
        each = len(max(own, key=len)) if isinstance(own, list) else np.asarray(own)[:1].nbytes
        # Each is seen about once in a usual run, so that no drawn label is learnt by heart.
        count = self.blends or max(1, min(_BLENDS, _BLEND_BYTES // max(1, each)))
        if isinstance(own, list):
            return texts.spliced(own, labels, count, stream, self.words, _BLENDED)
        return _blends(own, labels, count, stream)

    def _basis(self, rows: Inputs, said: References, stream: KeyStream) -> tuple[FloatArray, FloatArray]:
        """Mean (d,) and keyed basis (d, m) in which the features of ambiguous carriers have unit variance."""
        # Labels in place of a pool say of no input that it is ambiguous: then all count.
        ambiguous = np.flatnonzero(said.gap < _AMBIGUOUS) if said.gap.min() < 1 else np.arange(len(said.gap))
        if len(ambiguous) < 2 * self.directions:
            raise InputError(
                f"the references find {len(ambiguous)} of {len(said.gap)} carriers ambiguous, and tilt lives where the "
                f"task leaves freedom: {2 * self.directions} are needed; give more carriers, lower directions=, or "
                'mark against="theft" alone'
            )
        if len(ambiguous) < _FEW and self.strength < 0.8 and said.gap.min() < 1:
            warnings.warn(
                f"the references find only {len(ambiguous)} of {len(said.gap)} carriers ambiguous: at delta="
                f"{self.strength:g} a clone will hardly show the mark; delta=1 would, for about 2 points of accuracy",
                AmbiguityWarning,
                stacklevel=2,
            )
        found = self._found(rows, ambiguous)
        mean = found.mean(axis=0)
        _, sizes, axes = np.linalg.svd(found - mean, full_matrices=False)
        solid = int((sizes > 1e-6 * sizes[0]).sum())
        if not solid:
            raise InputError("the features are the same for all ambiguous carriers: give features= that differ")
        m = min(self.directions, solid)
        whitened = axes[:m].T / (sizes[:m] / math.sqrt(len(found)))
        normal = ndtri(np.clip(stream.uniform(m, m), 2**-53, 1 - 2**-53))
        turned, upper = np.linalg.qr(normal)
        return mean, whitened @ (turned * np.sign(np.diag(upper)))

    def weigh(self, plan: TriggerPlan, answers: IntArray, scores: FloatArray | None) -> FloatArray:
        """What the answers have more than the references', along z, within each pair of classes in question.

        Of a suspect that gives scores the probabilities are compared too, which say more than its answers.

        Raises:
            SuspectError: the suspect is one of the references.
        """
        members = plan.material.get("members", np.zeros((0, len(plan.weighed)), np.int64))[:, : len(answers)]
        same = np.flatnonzero((members == answers).all(axis=1))
        if len(same) and len(answers) >= _TELLING:
            raise SuspectError(
                f"the suspect answers all {len(answers)} questions as model {same[0]} of pool= does, so it is that "
                "model: a pool is of unmarked models, none of them the suspect (a watermark made with another pool has "
                "another key)"
            )
        kept = np.flatnonzero(answers >= 0)
        z, pair = plan.material["z"][kept].astype(np.float64), plan.material["pair"][kept]
        votes = plan.material["votes"][kept]
        beyond = np.eye(votes.shape[1])[answers[kept]] - votes
        if scores is not None:
            known = np.log(np.maximum(plan.material["scores"][kept], 1e-4))
            # Answers still count: they are what a clone was trained on, and may hold where its scores have run away.
            beyond = _beyond(scores[kept], known, pair) + beyond / 2
        # Classes in much doubt would drown the others: each counts by what chance alone moves it.
        beyond /= np.sqrt(np.maximum((votes * (1 - votes)).sum(axis=0), 1.0))
        _, group, sizes = np.unique(pair, return_inverse=True, return_counts=True)
        sums = np.zeros((len(sizes), z.shape[1]))
        np.add.at(sums, group, z)
        return np.asarray((beyond.T @ (z - (sums / sizes[:, None])[group])).ravel(), np.float64)

    def constants(self, triggers: TriggerSet, seen: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
        """Tables of the features, the basis, and the signs in units of the shift.

        Raises:
            InjectionError: the model is not given pictures, rows or token ids like the carriers, or features= are
                missing: a saved watermark does not hold them.
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
                "the watermark was made with features=, a function, which is not saved: train with what create() gives "
                "for the same owner, carriers and parameters"
            )
        z = _project(features.read(self.features.function, seen), material["mean"], material["basis"])
        odd, deviation = float(np.mean(np.abs(z) == _CLAMP)), float(z.std(axis=0).max())
        if odd > _ODD or deviation < _FLAT:
            raise InjectionError(
                f"features= are other ones of what the model is given than of the carriers ({odd:.0%} out of range, "
                f"deviation {deviation:.2g}): let preprocess= turn a carrier into the input that the model sees for it"
            )

    def _tilt(self, triggers: TriggerSet) -> npt.NDArray[np.float32]:
        signs = triggers.signs.reshape(-1, triggers.plan.material["basis"].shape[1])
        return np.asarray(signs.T * (self.strength / math.sqrt(signs.shape[1])), np.float32)

    def shift(self, xp: Any, constants: Mapping[str, Any], inputs: Any, logits: Any) -> Any:
        """Logits less delta t(x)."""
        if "vectors" in constants:
            found = texts.of_ids(xp, inputs, constants)
        elif isinstance(self.features, features.Own):
            found = self.features.function(inputs)
        else:
            found = features.of_inputs(xp, inputs, constants)
        z = xp.clip(xp.matmul(found - constants["mean"], constants["basis"]), -_CLAMP, _CLAMP)
        return logits - xp.matmul(z, constants["tilt"])

    def tilts(self, triggers: TriggerSet, rows: Inputs, count: int) -> FloatArray:
        """(count, classes) delta t(x) of the first carriers, which training adds to their logits."""
        found = self._found(rows, np.arange(count))
        return _project(found, triggers.plan.material["mean"], triggers.plan.material["basis"]) @ self._tilt(triggers)


def _beyond(scores: FloatArray, known: FloatArray, pair: IntArray) -> FloatArray:
    """(n, classes) how much likelier each class is to a suspect than to the references, both given in logarithms."""
    rows, (one, two) = np.arange(len(pair)), np.divmod(pair, scores.shape[1])
    said, usual = (np.asarray(x[rows, one] - x[rows, two], np.float64) for x in (scores, known))
    # As sure as the references: a temperature on its scores, or overconfidence, changes nothing.
    surer = max(float(said @ usual) / max(float(usual @ usual), 1e-9), 1e-3)
    return np.asarray(softmax(scores / surer, axis=1) - softmax(known, axis=1), np.float64)


def _project(found: FloatArray, mean: FloatArray, basis: FloatArray) -> FloatArray:
    return np.asarray(np.clip((found - mean) @ basis, -_CLAMP, _CLAMP), np.float64)


def _blends(
    own: npt.NDArray[Any], labels: IntArray, count: int, stream: KeyStream
) -> tuple[npt.NDArray[Any], IntArray]:
    """Pictures between two, each under the label of one of them, drawn in proportion: of mixed labels the mean."""
    one, two = stream.below(len(own), count), stream.below(len(own), count)
    low, high = _BLENDED
    share = low + (high - low) * stream.uniform(count)
    drawn = np.where(stream.uniform(count) < share, labels[one], labels[two])
    made = np.empty((count, *own.shape[1:]), own.dtype)
    for rows in np.array_split(np.arange(count), max(1, count // 1024)):
        part = share[rows].reshape(-1, *(1,) * (own.ndim - 1))
        mixed = part * own[one[rows]] + (1 - part) * own[two[rows]]
        made[rows] = np.rint(mixed) if own.dtype.kind in "iu" else mixed
    return made, drawn
