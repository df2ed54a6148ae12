"""Classes: an answer is one of k. Reads the labels and scores of a suspect."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import log_expit

from wmplug.errors import InputError, SuspectError
from wmplug.statistics.arrays import FloatArray, IntArray, off_device, read_whole, to_numpy
from wmplug.tasks.base import Call, Said, Task

_LEAST = 1e-4  # probability below which a suspect's certainty is noise
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_SUM = 1e-2  # by which the shares of a soft label may miss 1


@dataclass(frozen=True)
class Classes(Task):
    """One of `count` classes, numbered from 0.

    Attributes:
        count: number of classes, at least 2.
        names: their names, in order; empty without names. Answers and labels may then be names.

    Raises:
        InputError: the number is below 2, or the names are not so many different texts.
    """

    name: ClassVar[str] = "classes"
    call: ClassVar[Call] = "classify"

    count: int
    names: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        """Check the number of classes, and their names."""
        count = read_whole(self.count, "classes", 2, 2**31, "a classifier of at least 2 classes is needed")
        object.__setattr__(self, "count", count)
        object.__setattr__(self, "names", tuple(self.names))
        if self.names and not (len(self.names) == len(set(self.names)) == count and all(map(_is_name, self.names))):
            raise InputError(f"{len(self.names)} names for {count} classes: give one text for each, all different")

    def __str__(self) -> str:
        """The first and the last class."""
        return f"0 to {self.count - 1}"

    def facts(self) -> dict[str, Any]:
        """The number of classes, and their names if they have any."""
        return {"classes": self.count, **({"class_names": list(self.names)} if self.names else {})}

    @classmethod
    def restore(cls, facts: Mapping[str, Any]) -> "Classes":
        """The task with this number of classes."""
        return cls(facts["classes"], tuple(facts.get("class_names", ())))

    @classmethod
    def named(cls, labels: Any, count: int | None = None) -> "Classes":
        """The task of labels that are names, numbered in alphabetical order.

        Args:
            labels: names, such as those of the carriers.
            count: number of classes, if it is known.

        Raises:
            InputError: there are fewer or more names than classes.
        """
        names = sorted({str(label) for label in labels})
        if count not in (None, len(names)):
            raise InputError(
                f"the labels hold {len(names)} names ({', '.join(names[:5])}), and classes={count}: give all names in "
                "the order of the model's classes, classes=[NAME, ...]"
            )
        return cls(len(names), tuple(names))

    def belongs(self, answer: Any) -> bool:
        """Whether this is one of the classes."""
        return isinstance(answer, (int, np.integer)) and bool(0 <= answer < self.count)

    def read(self, outputs: Any, n: int, who: str) -> list[Said | None]:
        """One class for each input, with the log probabilities of all if the suspect returns scores; None for NaN.

        Args:
            outputs: (n,) integer labels, or True and False; (n, k) the k < classes likeliest labels, best first; or
                (n, classes) scores, of which the largest counts. Scores count as probabilities if none is below 0 and
                they sum to 1, else as logits. Of two classes, one score an input, (n,) floats or (n, 1), is that of
                class 1: its probability if all lie from 0 to 1, else its logit against class 0. If the classes have
                names, also n names, or what a pipeline returns: {label, score}, or a list of these or of names, for
                each input. A table whose columns are these names, such as a DataFrame of scores, is read by its names.
                Integers are read as names, such as -1 and 1, where these mean no other class. None among others is no
                answer.
            n: number of inputs asked.
            who: description of the suspect, for the error.

        Raises:
            SuspectError: the shape or the number of classes differs, the outputs are not numbers, or all of several are
                names of other classes.
        """
        outputs = self.ordered(outputs, getattr(outputs, "columns", ()))
        if getattr(getattr(outputs, "dtype", None), "kind", "") in {"U", "O"}:
            outputs = outputs.tolist()
        if isinstance(outputs, (list, tuple)) and len(outputs) == n and any(one is None for one in outputs):
            told = [one for one in outputs if one is not None]
            found = iter(self.read(told, len(told), who) if told else [])
            return [None if one is None else next(found) for one in outputs]
        outputs = self._numbered(outputs, who)
        array = _read(both_scores(to_numpy(outputs)) if self.count == 2 else outputs, self.count, who)
        if len(array) != n:
            raise SuspectError(
                f"{who} gave {len(array)} answers for {n} inputs, one answer for each is needed: return one label or "
                "one row of scores for each"
            )
        if array.ndim == 1:
            return [Said(self._written.get(int(label), int(label))) for label in array]
        bad: npt.NDArray[np.bool_] = np.asarray(np.isnan(array).any(axis=1))
        best, scores = array.argmax(axis=1), _log_probabilities(array, bad)
        return [None if b else Said(int(label), row) for b, label, row in zip(bad, best, scores, strict=True)]

    def ordered(self, outputs: Any, names: Sequence[str]) -> Any:
        """Scores (n, classes) by their names, if these are the names of the classes; else the outputs unchanged."""
        places = {str(name): place for place, name in enumerate(names)}
        if not self.names or len(names) != self.count or set(places) != set(self.names):
            return outputs
        array = to_numpy(outputs)
        by_name = array.ndim == 2 and array.dtype.kind in "iuf" and array.shape[1] == self.count
        return array[:, [places[name] for name in self.names]] if by_name else outputs

    @property
    def _written(self) -> Mapping[int, int]:
        """The classes by the whole numbers that name them, such as -1 and 1, if none of these numbers another class."""
        if not all(map(_WHOLE.fullmatch, self.names)):
            return {}
        found = {int(name): number for number, name in enumerate(self.names)}
        return found if all(found.get(number, number) == number for number in range(self.count)) else {}

    def _numbered(self, outputs: Any, who: str) -> Any:
        """Names as numbers, -1 for one that is none of the task's; numbers as they are."""
        first = outputs[0] if isinstance(outputs, (list, tuple)) and outputs else None
        if not isinstance(first, (str, Mapping)) and not (isinstance(first, (list, tuple)) and _is_ranking(first)):
            return outputs
        if not self.names:
            raise SuspectError(
                f"{who} answered {first!r}, a name, and the watermark knows no names of classes: make it with "
                "classes=[NAME, ...], or wrap the suspect in a function that returns numbers"
            )
        try:
            answers = [_scored(one) for one in outputs]
            numbers = _ranked(answers, self.names)
        except (KeyError, TypeError, ValueError) as error:
            raise SuspectError(
                f"{who} answered {first!r}, among others that differ or cannot be read ({type(error).__name__}: "
                f"{error}): return a name, {{label, score}} or a list of these for each input"
            ) from error
        if len(answers) > 1 and all(answers) and not any(set(answer) & set(self.names) for answer in answers):
            raise SuspectError(
                f"{who} answered {first!r}, and none of its {len(answers)} answers names a class of the watermark "
                f"({', '.join(self.names[:8])}): wrap it in a function that returns these names, or their numbers"
            )
        return numbers

    def favour(self, said: Said, options: Sequence[int]) -> FloatArray | None:
        """(k,) log probability of each option, from 0 at 1e-4 and below to 1 at certainty; None without scores."""
        if said.scores is None:
            return None
        return np.asarray(1 - said.scores[list(options)] / np.log(_LEAST), np.float64)

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
        return read_labels(_numbers(given, self.names), count, self.count)

    def shown(self, answer: Any) -> str:
        """The class's name, or its number."""
        return self.names[answer] if self.names and self.belongs(answer) else str(int(answer))


def are_names(labels: Any) -> bool:
    """Whether labels are texts."""
    if isinstance(labels, (str, bytes)) or not hasattr(labels, "__len__") or not len(labels):
        return False
    return _holds_texts(labels) if hasattr(labels, "dtype") else all(isinstance(label, str) for label in labels)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and bool(name)


def _holds_texts(array: Any) -> bool:
    kind = getattr(array.dtype, "kind", "O")
    return kind == "U" or (kind == "O" and len(array) > 0 and all(isinstance(one, str) for one in array))


def _is_ranking(answer: Sequence[Any]) -> bool:
    shown = all(isinstance(one, Mapping) and "label" in one for one in answer)
    return len(answer) > 0 and (shown or all(isinstance(one, str) for one in answer))


def _scored(answer: Any) -> dict[str, float]:
    """The names that one answer holds, with their scores."""
    if isinstance(answer, str):
        return {answer: 1.0}
    if isinstance(answer, Mapping) and "label" not in answer:
        return {str(name): float(score) for name, score in answer.items()}
    ranking = [answer] if isinstance(answer, Mapping) else answer
    if ranking and isinstance(ranking[0], str):
        return {name: 0.5**place for place, name in reversed([*enumerate(ranking)])}
    return {str(one["label"]): float(one.get("score", 1.0)) for one in ranking}


def _ranked(answers: Sequence[Mapping[str, float]], names: Sequence[str]) -> npt.NDArray[Any]:
    """(n, classes) scores if every answer scores every class, else (n,) the best class, -1 for none of them."""
    if all(set(answer) == set(names) for answer in answers):
        return np.array([[answer[name] for name in names] for answer in answers], np.float64)
    numbers = {name: i for i, name in enumerate(names)}
    best = [max(answer, key=lambda name: answer[name], default="") for answer in answers]
    return np.array([numbers.get(name, -1) for name in best], np.int64)


def _numbers(labels: Any, names: Sequence[str]) -> Any:
    """Labels as numbers, if they are names of classes.

    Raises:
        InputError: a label is none of the names.
    """
    if not names or not are_names(labels):
        return labels
    numbers = {name: i for i, name in enumerate(names)}
    if unknown := sorted({str(label) for label in labels} - set(numbers)):
        raise InputError(f"labels hold {unknown[0]!r}, which is none of the classes {', '.join(names[:8])}: correct it")
    return np.array([numbers[str(label)] for label in labels], np.int64)


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
    array = array.astype(np.int64) if array.dtype.kind == "b" and array.size == 1 and classes == 2 else array
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
    array = _plain(to_numpy(outputs), classes)
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


def _plain(array: npt.NDArray[Any], classes: int) -> npt.NDArray[Any]:
    """True and False as the classes 1 and 0; other labels unchanged."""
    return array.astype(np.int64) if array.ndim == 1 and array.dtype.kind == "b" and classes == 2 else array


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
        array = _plain(np.asarray(off_device(labels, "labels")), classes)
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
