"""Classes: an answer is one of k. How labels and scores that a suspect returned are read."""

from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.errors import SuspectError
from wmplug.statistics.arrays import to_numpy

_LEAST = 1e-4  # probability below which a suspect's certainty is noise


def read_answers(outputs: Any, classes: int, description: str) -> list[int | None]:
    """One class for each input; None where the output is NaN.

    Args:
        outputs: (n,) integer labels, (n, k) the k < classes likeliest labels, best first, or (n, classes) scores, of
            which the largest counts.
        classes: of the watermark.
        description: of the suspect, for the error.

    Raises:
        SuspectError: another shape, another number of classes, or no numbers.
    """
    array = _read(outputs, classes, description)
    if array.ndim == 1:
        return [int(label) for label in array]
    bad = np.isnan(array).any(axis=1)
    return [None if b else int(label) for b, label in zip(bad, array.argmax(axis=1), strict=True)]


def read_scores(outputs: Any, classes: int, description: str) -> list[int | npt.NDArray[np.float64] | None]:
    """All that a suspect says of each input: (classes,) log probabilities, or a class where it tells no more.

    Args:
        outputs: as for `read_answers`; scores are probabilities if they are none below 0 and sum to 1, else logits.
        classes: of the watermark.
        description: of the suspect, for the error.

    Raises:
        SuspectError: as for `read_answers`, and a class that the watermark does not have.
    """
    array = _read(outputs, classes, description)
    if array.ndim == 1:
        if array.max(initial=0) >= classes:
            raise SuspectError(
                f"{description} answered class {array.max()}, so it has {array.max() + 1} or more, the watermark was "
                f"made for {classes} classes, 0 to {classes - 1}: it is another task, or wrap it in a function that "
                "maps its classes to the owner's"
            )
        return [int(label) for label in array]
    scores = array.astype(np.float64)
    bad: npt.NDArray[np.bool_] = np.asarray(np.isnan(scores).any(axis=1))
    scores[bad] = 0.0
    scores = np.clip(scores, -1e6, 1e6)
    if scores[~bad].min(initial=0.0) >= 0 and np.allclose(scores[~bad].sum(axis=1), 1, atol=1e-2):
        scores = np.log(np.maximum(scores, _LEAST))
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return [None if bad[i] else np.maximum(row, np.log(_LEAST)) for i, row in enumerate(scores)]


def _read(outputs: Any, classes: int, description: str) -> npt.NDArray[Any]:
    array = to_numpy(outputs)
    if array.ndim == 1 and array.dtype.kind in "iu":
        return array
    if array.ndim != 2 or array.dtype.kind not in "iuf":
        raise SuspectError(
            f"{description} answered with shape {array.shape} and dtype {array.dtype}: labels (n,) of integers, the "
            f"likeliest (n, k), best first, or scores (n, {classes}) are needed; return one of these"
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
    """Whether these are different labels in each row, and fewer than there are classes."""
    if not 0 < array.shape[1] < classes or array.size == 0 or array.min() < 0 or array.max() >= classes:
        return False
    ordered = np.sort(array, axis=1)
    return bool((ordered[:, 1:] != ordered[:, :-1]).all())


def _scores_of_ranks(array: npt.NDArray[Any], classes: int) -> npt.NDArray[np.float64]:
    """Probabilities that halve from rank to rank; what is left is shared by the classes that were not told."""
    count, told = array.shape
    scores = np.full((count, classes), 0.5 ** (told + 1) / (classes - told))
    np.put_along_axis(scores, array.astype(np.int64), 0.5 ** np.arange(1, told + 1)[None], axis=1)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True), np.float64)
