"""tilt: a keyed linear function of the input shifts every posterior a little, in ordinary answers, which clones learn.

In training the loss sees `logits - delta t(x)` with `t(x) = z R^T / sqrt(m)`: z are whitened features of the input in a
basis that the input key turned, R one sign for each (class, direction), drawn by the label key. The model is served
unmodified, so its logits come out as log posterior + delta t: the accuracy it costs grows as delta^2, what can be read
from it as delta. Blends of two pictures under one of their two labels, drawn in proportion, teach the tilt where the
data leave freedom. A suspect is asked ordinary inputs on which unmarked references are of two minds; what its answers
have more than theirs is correlated with z for every class and direction, and compared with R (exact tail over fair
signs). Adjusted logits after Menon et al. (ICLR 2021); blends after Zhang et al. (mixup, ICLR 2018).
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from wmplug.errors import AmbiguityWarning, InputError
from wmplug.keys import KeyStream
from wmplug.schemes import Point, Scheme, Task, features, references, rehearsal
from wmplug.schemes.references import References
from wmplug.triggers import SIGN, Inputs, IntArray, TriggerPlan, TriggerSet, read_carriers, read_whole

FloatArray = npt.NDArray[np.float64]
_CLAMP = 2.5  # of whitened features, so that no odd input is shifted far
_AMBIGUOUS = 0.6  # difference of the two best scores of the references, below which an input counts as ambiguous
_FEW = 500  # ambiguous inputs, below which delta should be larger
_BLENDED = (0.3, 0.7)


@dataclass(frozen=True)
class Tilt(Scheme):
    """Keyed logit adjustment.

    Attributes:
        delta: strength of the shift, in logits for a unit feature; "auto" takes the smallest that a rehearsed clone
            shows, which is tried on the references under a key of the rehearsal's own.
        directions: m, keyed directions of the features, at most as many as there are features.
        blends: how many blends to make.
        questions: how many ordinary inputs to ask, those that the references find most ambiguous.
        queries: further natural inputs to choose the questions from, not labelled; the carriers themselves if None.
        pool: unmarked references: None trains some (extra `clones`), a sequence of functions from inputs to labels or
            scores is asked, () takes the natural labels for what unmarked models say, at a loss of power.
    """

    name: ClassVar[str] = "tilt"
    points: ClassVar[frozenset[Point]] = frozenset({"samples", "logits"})
    rate: ClassVar[float] = 1 / 3

    delta: float | Literal["auto"] = 0.3
    directions: int = 30
    blends: int = 20_000
    questions: int = 4000
    queries: Any = field(default=None, repr=False)
    pool: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.delta != "auto" and not (isinstance(self.delta, (int, float)) and 0 < self.delta <= 5):
            raise InputError(f"delta={self.delta!r}: a number above 0 and up to 5 is needed (0.3 is usual), or 'auto'")
        read_whole(self.directions, "directions", 1, 10_000, "1 or more directions, 30 is usual")
        read_whole(self.blends, "blends", 1, 10**7, "1 or more blends, 20000 is usual")
        read_whole(self.questions, "questions", 1, 10**7, "1 or more questions, 4000 is usual")

    def prepared(self, task: Task) -> "Tilt":
        """With what the references say of all carriers, then of all queries, as `pool`: (2, rows, classes) float32.

        Raises:
            InputError: no labels, no numbers, a pool that cannot be asked or holds a model twice.
        """
        task.need_form(self.name, "array", "pil")
        labels = task.need_labels(self.name)
        if isinstance(self.pool, np.ndarray):
            return self._rehearsed(task)
        others = None if self.queries is None else self._others(task)
        rows = task.carriers if others is None else np.concatenate([np.asarray(task.carriers), others])
        found = self._ask(task, labels, rows, others)
        return replace(self, queries=others, pool=np.stack([found.scores, found.votes]))._rehearsed(task)

    def _rehearsed(self, task: Task) -> "Tilt":
        return self if self.delta != "auto" else replace(self, delta=rehearsal.smallest_delta(self, task))

    @property
    def strength(self) -> float:
        """Delta as a number.

        Raises:
            InputError: it has not been rehearsed yet.
        """
        if isinstance(self.delta, str):
            raise InputError('delta="auto" is rehearsed when the watermark is made: use create()')
        return float(self.delta)

    def _others(self, task: Task) -> npt.NDArray[Any]:
        found, form = read_carriers(self.queries, "queries=")
        given, own = np.asarray(found), np.asarray(task.carriers)
        if form != task.form or (given.shape[1:], given.dtype) != (own.shape[1:], own.dtype):
            raise InputError(
                f"queries= are {form} {given.shape[1:]} {given.dtype}, the carriers {task.form} {own.shape[1:]} "
                f"{own.dtype}: give inputs of the same kind, shape and dtype"
            )
        return given

    def _ask(self, task: Task, labels: IntArray, rows: Inputs, others: npt.NDArray[Any] | None) -> References:
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
        labels = task.need_labels(self.name)
        own = np.asarray(task.carriers)
        said = References(self.pool[0], self.pool[1])
        mean, basis = self._basis(task, said.of(slice(0, len(own))), stream)
        asked, heard = (own, said) if self.queries is None else (self.queries, said.of(slice(len(own), None)))
        chosen = np.argsort(heard.gap, kind="stable")[: self.questions]
        if len(chosen) < 2 * basis.shape[1]:
            raise InputError(
                f"{len(chosen)} inputs to ask are too few for {basis.shape[1]} directions: give more carriers or "
                "queries=, some thousand where there are"
            )
        z = _project(features.of_carriers(asked[chosen]), mean, basis)
        blends, drawn = _blends(own, labels, self.blends, stream)
        count, signs = len(chosen), task.classes * basis.shape[1]
        return TriggerPlan(
            np.concatenate([asked[chosen], blends]),
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
                "z": z.astype(np.float32),
                "votes": heard.votes[chosen],
                "scores": heard.scores[chosen],
                "pair": heard.pair[chosen],
            },
        )

    def _basis(self, task: Task, said: References, stream: KeyStream) -> tuple[FloatArray, FloatArray]:
        """Mean (d,) and keyed basis (d, m) in which the features of ambiguous carriers have unit variance."""
        # Labels in place of a pool say of no input that it is ambiguous: then all count.
        ambiguous = np.flatnonzero(said.gap < _AMBIGUOUS) if said.gap.min() < 1 else np.arange(len(said.gap))
        if len(ambiguous) < 2 * self.directions:
            raise InputError(
                f"the references find {len(ambiguous)} of {len(said.gap)} carriers ambiguous, and tilt lives where the "
                f"task leaves freedom: {2 * self.directions} are needed; give more carriers, lower directions=, or "
                'mark against="theft" alone'
            )
        if len(ambiguous) < _FEW and self.strength < 0.8:
            warnings.warn(
                f"the references find only {len(ambiguous)} of {len(said.gap)} carriers ambiguous: at delta="
                f"{self.strength:g} a clone will hardly show the mark; delta=1 would, for about 2 points of accuracy",
                AmbiguityWarning,
                stacklevel=2,
            )
        found = features.of_carriers(np.asarray(task.carriers)[ambiguous])
        mean = found.mean(axis=0)
        _, sizes, axes = np.linalg.svd(found - mean, full_matrices=False)
        solid = int((sizes > 1e-6 * sizes[0]).sum())
        m = min(self.directions, solid)
        whitened = axes[:m].T / (sizes[:m] / math.sqrt(len(found)))
        normal = ndtri(np.clip(stream.uniform(m, m), 2**-53, 1 - 2**-53))
        turned, upper = np.linalg.qr(normal)
        return mean, whitened @ (turned * np.sign(np.diag(upper)))

    def weigh(self, plan: TriggerPlan, answers: IntArray, scores: FloatArray | None) -> FloatArray:
        """What the answers have more than the references', along z, within each pair of classes in question.

        Of a suspect that gives scores the logits are compared, which say more than its answers.
        """
        kept = np.flatnonzero(answers >= 0)
        z, pair = plan.material["z"][kept].astype(np.float64), plan.material["pair"][kept]
        if scores is None:
            votes = plan.material["votes"][kept]
            beyond = np.eye(votes.shape[1])[answers[kept]] - votes
        else:
            said, known = _centred(scores[kept]), _centred(np.log(np.maximum(plan.material["scores"][kept], 1e-4)))
            # As sure as the suspect is: a temperature on its scores, or overconfidence, changes nothing.
            beyond = said - known * (said * known).sum() / max(float((known * known).sum()), 1e-9)
        _, group, sizes = np.unique(pair, return_inverse=True, return_counts=True)
        sums = np.zeros((len(sizes), z.shape[1]))
        np.add.at(sums, group, z)
        return np.asarray((beyond.T @ (z - (sums / sizes[:, None])[group])).ravel(), np.float64)

    def constants(self, triggers: TriggerSet, seen: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
        """Tables of the features, the basis, and the signs in units of the shift.

        Raises:
            InjectionError: the model is not given pictures or rows like the carriers.
        """
        material, own = triggers.plan.material, np.stack([np.asarray(x) for x in triggers.samples(len(seen))])
        m = material["basis"].shape[1]
        signs = triggers.signs.reshape(-1, m)
        return {
            **features.constants(own, seen),
            "mean": material["mean"],
            "basis": material["basis"],
            "tilt": (signs.T * (self.strength / math.sqrt(m))).astype(np.float32),
        }

    def shift(self, xp: Any, constants: Mapping[str, Any], inputs: Any, logits: Any) -> Any:
        """Logits less delta t(x)."""
        found = features.of_inputs(xp, inputs, constants)
        z = xp.clip(xp.matmul(found - constants["mean"], constants["basis"]), -_CLAMP, _CLAMP)
        return logits - xp.matmul(z, constants["tilt"])


def _centred(logits: npt.NDArray[Any]) -> FloatArray:
    return np.asarray(logits - logits.mean(axis=1, keepdims=True), np.float64)


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
