"""Labels of the training data that are none of the mark's classes: the sign of data numbered in another way."""

from collections.abc import Collection
from typing import Any

from wmplug.statistics.arrays import to_numpy

IGNORED = frozenset({-100})  # as the losses of torch and transformers ignore by default


def other_label(labels: Any, classes: int, ignored: Collection[int] = IGNORED) -> int | None:
    """A whole number among the labels that is no class, or None.

    Args:
        labels: numbers, (n,) or (n, 1); labels of other shapes and kinds, such as one-hot rows, name none.
        classes: of the task, numbered from 0.
        ignored: labels that the loss ignores.
    """
    try:
        array = to_numpy(labels)
    except (ValueError, TypeError, RuntimeError):  # rows of different lengths, or no dense tensor
        return None
    if array.dtype.kind not in "iuf" or array.shape[1:] not in ((), (1,)):
        return None
    strange = array[((array < 0) | (array >= classes)) & (array == array.round())]
    others = [int(label) for label in set(strange.tolist()) - set(ignored)]
    return max(others, default=None)


def about_other(label: int, classes: int) -> str:
    """What to tell of a label that is no class of the mark."""
    return (
        f"the training data holds the label {label}, and the watermark was made for {classes} classes, 0 to "
        f"{classes - 1}: if the data numbers its classes in another way, the watermark's answers are taught as other "
        "classes. Number the labels from 0, or make the watermark with the classes= of the data; a label that your "
        "loss ignores may stay"
    )
