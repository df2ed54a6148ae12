"""Classes: an answer is one of k. Reads the labels and scores of a suspect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit

from wmplug.errors import InputError, SuspectError
from wmplug.statistics.arrays import FloatArray, IntArray, off_device, read_whole, to_numpy
from wmplug.tasks.base import Call, Said, Task

_LEAST = 1e-4  # probability below which a suspect's certainty is noise
_SUM = 1e-2  # by which the shares of a soft label may miss 1


@dataclass(frozen=True)
class Classes(Task):
    """One of `count` classes, numbered from 0.

    Attributes:
        count: number of classes, at least 2.
    """

    name: ClassVar[str] = "classes"
    call: ClassVar[Call] = "classify"

    count: int

    def __post_init__(self) -> None:
        """Check the number of classes."""
        count = read_whole(self.count, "classes", 2, 2**31, "a classifier of at least 2 classes is needed")
        object.__setattr__(self, "count", count)

    def __str__(self) -> str:
        """The first and the last class."""
        return f"0 to {self.count - 1}"

    def facts(self) -> dict[str, Any]:
        """The number of classes."""
        return {"classes": self.count}

    @classmethod
    def restore(cls, facts: Mapping[str, Any]) -> "Classes":
        """The task with this number of classes."""
        return cls(facts["classes"])

    def belongs(self, answer: Any) -> bool:
        """Whether this is one of the classes."""
        return isinstance(answer, (int, np.integer)) and bool(0 <= answer < self.count)

    def read(self, outputs: Any, n: int, who: str) -> list[Said | None]:
        """One class for each input, with the log probabilities of all if the suspect returns scores; None for NaN.

        Args:
            outputs: (n,) integer labels, (n, k) the k < classes likeliest labels, best first, or (n, classes) scores,
                of which the largest counts. Scores count as probabilities if none is below 0 and they sum to 1, else
                as logits. Of two classes, one score an input, (n,) floats or (n, 1), is that of class 1: its
                probability if all lie from 0 to 1, else its logit against class 0.
            n: number of inputs asked.
            who: description of the suspect, for the error.

        Raises:
            SuspectError: the shape or the number of classes differs, or the outputs are not numbers.
        """
        array = _read(both_scores(to_numpy(outputs)) if self.count == 2 else outputs, self.count, who)
        if len(array) != n:
            raise SuspectError(
                f"{who} gave {len(array)} answers for {n} inputs, one answer for each is needed: return one label or "
                "one row of scores for each"
            )
        if array.ndim == 1:
            return [Said(int(label)) for label in array]
        bad: npt.NDArray[np.bool_] = np.asarray(np.isnan(array).any(axis=1))
        best, scores = array.argmax(axis=1), _log_probabilities(array, bad)
        return [None if b else Said(int(label), row) for b, label, row in zip(bad, best, scores, strict=True)]

    def misfit(self, said: Said, who: str) -> SuspectError | None:
        """The error for a class outside the task; None for a negative class, which counts as no answer."""
        if said.answer < self.count:
            return None
        return SuspectError(
            f"{who} answered class {said.answer}, so it has {said.answer + 1} or more, the watermark was made for "
            f"{self.count} classes, {self}: it is another task, or wrap it in a function that maps its "
            "classes to the owner's"
        )

    def arrays(self, said: Sequence[Said | None]) -> tuple[IntArray, FloatArray | None]:
        """(n,) classes, -1 for a failed query; and (n, classes) log probabilities if every answer has scores, or None.

        Log probabilities are at least log 1e-4, and NaN for a failed query.
        """
        classes = [-1 if s is None else s.answer if s.scores is None else int(s.scores.argmax()) for s in said]
        silent = np.full(self.count, np.nan)
        rows = [silent if s is None else s.scores for s in said]
        scores = None if any(row is None for row in rows) else np.array(rows, np.float64)
        return np.array(classes, np.int64), scores

    def labels(self, given: Any, count: int) -> IntArray | None:
        """(count,) int64 classes of the carriers, or None.

        Raises:
            InputError: the labels are soft or multi-label targets, have another length, or are not classes.
        """
        return read_labels(given, count, self.count)

    def shown(self, answer: Any) -> str:
        """The class's number."""
        return str(int(answer))


def count_of(task: Task, who: str) -> int:
    """Number of classes, for code that works with classes alone.

    Raises:
        InputError: the task is another one.
    """
    if isinstance(task, Classes):
        return task.count
    raise InputError(
        f"{who} fits answers that are classes, the watermark's answers are {task.name!r}: give a watermark of classes"
    )


def class_of(label: Any, classes: int) -> int | None:
    """The class that a label names; None for a label of another kind, such as several labels or a number to regress.

    Args:
        label: a whole number; or (classes,) shares from 0 that sum to 1, one-hot or soft, of which the largest counts;
            or, of two classes, one number from 0 to 1, the share of class 1. Axes of length 1 do not count.
        classes: number of classes; 0 if unknown, so that only a whole number names one.
    """
    try:
        array = to_numpy(label)
    except (ValueError, TypeError):  # rows of different lengths, or no dense tensor
        return None
    if array.dtype.kind not in "iuf" or array.size not in (1, classes):
        return None
    if array.size == 1:
        value = array.item()
        return value if array.dtype.kind != "f" else int(value > 0.5) if classes == 2 and 0 <= value <= 1 else None
    shares = array.astype(np.float64).ravel()
    # Half precision moves a sum by less than this, a second label by far more.
    return int(shares.argmax()) if shares.min() >= 0 and abs(shares.sum() - 1) < _SUM else None


def is_single(scores: npt.NDArray[Any]) -> bool:
    """Whether these are one score an input, (n,) floats or (n, 1), as of a head that tells two classes apart."""
    return scores.dtype.kind == "f" and (scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] == 1))


def is_share(scores: npt.NDArray[Any]) -> bool:
    """Whether single scores may be probabilities: all lie from 0 to 1, NaN aside."""
    known = scores[~np.isnan(scores)]
    return bool(((known >= 0) & (known <= 1)).all())


def both_scores(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n, 2) log probabilities of single scores; any other array unchanged."""
    if not is_single(array):
        return array
    score = array.reshape(-1).astype(np.float64)
    if not is_share(score):
        return np.stack([log_expit(-score), log_expit(score)], axis=1)
    with np.errstate(divide="ignore"):
        return np.log(np.stack([1 - score, score], axis=1))


def _log_probabilities(array: npt.NDArray[Any], bad: npt.NDArray[np.bool_]) -> FloatArray:
    """(n, classes) log probabilities of scores, cut off below; bad rows have arbitrary values."""
    scores = array.astype(np.float64)
    scores[bad] = 0.0
    scores = np.clip(scores, -1e6, 1e6)
    if scores[~bad].min(initial=0.0) >= 0 and np.allclose(scores[~bad].sum(axis=1), 1, atol=1e-2):
        scores = np.log(np.maximum(scores, _LEAST))
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return np.asarray(np.maximum(scores, np.log(_LEAST)), np.float64)


def _read(outputs: Any, classes: int, description: str) -> npt.NDArray[Any]:
    array = to_numpy(outputs)
    if array.ndim == 1 and array.dtype.kind in "iu":
        return array
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise SuspectError(
            f"{description} answered with shape {array.shape} and dtype {array.dtype}: labels (n,) of integers, the "
            f"likeliest (n, k), best first, or scores (n, {classes}) are needed"
            f"{' (or one score, of class 1)' * (classes == 2)}; return one of these"
        )
    if array.dtype.kind in "iu" and _are_ranked(array, classes):
        return _scores_of_ranks(array, classes)
    if array.shape[1] != classes:
        raise SuspectError(
            f"{description} gives {array.shape[1]} scores an input, the watermark was made for {classes} classes: "
            "it is another task, or wrap it in a function that maps its classes to the owner's"
        )
    return array


def _are_ranked(array: npt.NDArray[Any], classes: int) -> bool:
    """Whether each row holds different labels, and fewer than the number of classes."""
    if not 0 < array.shape[1] < classes or array.size == 0 or array.min() < 0 or array.max() >= classes:
        return False
    ordered = np.sort(array, axis=1)
    return bool((ordered[:, 1:] != ordered[:, :-1]).all())


def _scores_of_ranks(array: npt.NDArray[Any], classes: int) -> npt.NDArray[np.float64]:
    """Probabilities that halve from rank to rank; the classes without a rank share the rest."""
    count, told = array.shape
    scores = np.full((count, classes), 0.5 ** (told + 1) / (classes - told))
    np.put_along_axis(scores, array.astype(np.int64), 0.5 ** np.arange(1, told + 1)[None], axis=1)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), np.float64)


def _are_one_hot(array: npt.NDArray[Any]) -> bool:
    return bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all())


def read_labels(labels: Any, count: int, classes: int) -> IntArray | None:
    """Class labels, (n,) integers or (n, classes) one-hot, as (n,) int64, or None.

    Raises:
        InputError: the labels are soft or multi-label targets, have another length, or lie outside range(classes).
    """
    if labels is None:
        return None
    if isinstance(labels, (list, tuple)):
        labels = [off_device(label, "labels") for label in labels]
    try:
        array = np.asarray(off_device(labels, "labels"))
    except (ValueError, TypeError) as error:
        raise InputError(f"labels cannot be read ({error}): give one integer class for each carrier") from error
    if array.shape[1:] == (classes,) and array.dtype.kind in "iuf" and _are_one_hot(array):
        array = array.argmax(axis=1)
    if array.ndim == 1 and array.dtype.kind == "f":
        raise InputError(f"labels have dtype {array.dtype}, classes are whole numbers: give labels.astype(int)")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"labels have shape {array.shape} and dtype {array.dtype}: one integer class for each carrier is needed, "
            f"or (n, {classes}) one-hot rows; of soft targets give the likeliest, labels.argmax(axis=1); several "
            "labels an input name no class"
        )
    if len(array) != count:
        raise InputError(f"{len(array)} labels for {count} carriers: give one for each")
    if array.min() < 0 or array.max() >= classes:
        raise InputError(f"labels run from {array.min()} to {array.max()}, classes={classes} allows 0 to {classes - 1}")
    return array.astype(np.int64)
