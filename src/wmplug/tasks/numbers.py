"""Numbers: an answer is a real number, as of a regression or a forecast. Weighs a suspect's answers against references.

A trigger has two possible answers, one below and one above what unmarked references predict, and the sign that the key
drew decides which is taught. So the answers of a suspect, minus the references' predictions, bear on the signs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wmplug.errors import InputError, SuspectError
from wmplug.statistics.arrays import Array, FloatArray, off_device, to_numpy
from wmplug.tasks.base import Call, Said, Task

_ROUNDS = 30  # of the robust fit; it moves by less than rounding after about ten
_MOST = 3.0  # typical differences that one answer counts at most
_EQUAL = 1e-15  # of the largest answer, below which answers are the same but for rounding of floats
_EXACT = 1e-7  # of the typical answer, below which a difference is such rounding, of float32 too


@dataclass(frozen=True)
class Numbers(Task):
    """A real number.

    Attributes:
        unit: shown after a number, such as "kWh"; empty without one.

    Raises:
        InputError: the unit is not a text of one line.
    """

    name: ClassVar[str] = "numbers"
    call: ClassVar[Call] = "predict"

    unit: str = ""

    def __post_init__(self) -> None:
        """Check the unit."""
        if not isinstance(self.unit, str) or not (self.unit == "" or self.unit.isprintable()):
            raise InputError(f"unit={self.unit!r}: give a text of one line, such as 'kWh', or leave it out")

    def __str__(self) -> str:
        """The answers, with their unit."""
        return f"numbers ({self.unit})" if self.unit else "numbers"

    def facts(self) -> dict[str, Any]:
        """The unit, if there is one."""
        return {"unit": self.unit} if self.unit else {}

    def belongs(self, answer: Any) -> bool:
        """Whether this is a finite number; True and False are not."""
        number = isinstance(answer, (int, float, np.integer, np.floating)) and not isinstance(answer, bool)
        return bool(number and np.isfinite(answer))

    def read(self, outputs: Any, n: int, who: str) -> list[Said | None]:
        """One number for each input; None for a missing answer, which is NaN or None.

        Args:
            outputs: (n,) or (n, 1) numbers: an array, a list, a tensor on any device, a column or a table of one
                column of pandas or polars.
            n: number of inputs asked.
            who: description of the suspect, for the error.

        Raises:
            SuspectError: the outputs are names of classes, several numbers an input or infinite, or not n of them.
        """
        array = _column(outputs, who)
        if len(array) != n:
            raise SuspectError(
                f"{who} gave {len(array)} answers for {n} inputs, one answer for each is needed: return one number for "
                "each"
            )
        if np.isinf(array).any():
            raise SuspectError(
                f"{who} answered {array[np.isinf(array)][0]}, the watermark was made for finite numbers: return NaN "
                "where there is no answer"
            )
        return [None if np.isnan(one) else Said(one) for one in array.tolist()]

    def arrays(self, said: Sequence[Said | None]) -> tuple[FloatArray]:
        """(n,) the numbers, NaN for a failed query."""
        return (np.array([np.nan if one is None else one.answer for one in said], np.float64),)

    def labels(self, given: Any, count: int) -> FloatArray | None:
        """(count,) float64 natural answers of the carriers, or None.

        Raises:
            InputError: they have another length, or are no finite numbers.
        """
        if given is None:
            return None
        try:
            array = _column(off_device(given, "labels"), "labels=")
        except SuspectError as error:
            raise InputError(f"labels cannot be read as numbers ({error})") from error
        if len(array) != count:
            raise InputError(f"{len(array)} labels for {count} carriers: give one for each")
        if not np.isfinite(array).all():
            raise InputError("labels hold NaN or infinity: remove those rows from carriers and labels")
        return array

    def encode(self, answer: Any) -> float:
        """The number as JSON."""
        return float(answer)

    def shown(self, answer: Any) -> str:
        """The number to six digits, with its unit."""
        return f"{float(answer):.6g} {self.unit}".rstrip()


def beyond(answers: FloatArray, usual: FloatArray) -> FloatArray:
    """How far each answer lies above (positive) or below (negative) what unmarked references predict.

    The answers are fitted by a line in the predictions, by least squares in which far answers count less (Huber 1964;
    least absolute deviations would follow whichever sign is the more frequent). So another unit, an offset or a
    shrunken scale changes nothing. What is left is divided by its median size, and no answer counts more than three of
    these. It depends on the arguments alone, so signs that the key drew are fair against it.

    Args:
        answers: (n,) a suspect's answers, NaN for a failed query; finite otherwise, of any size.
        usual: (n,) the references' predictions, finite.

    Returns:
        (n,) from -3 to 3, 0 for a failed query; all 0 if the answers follow the predictions exactly, or are constant.
    """
    found, known = np.zeros(len(answers)), np.flatnonzero(~np.isnan(answers))
    if len(known) < 2:
        return found
    own, theirs = (_unit(np.asarray(values, np.float64)[known]) for values in (answers, usual))
    rest, slope = _unexplained(own, theirs)
    sizes = np.abs(rest)
    sizes[sizes <= _EXACT] = 0.0
    if not sizes.any():
        return found
    typical = np.median(sizes[sizes > 0])  # rounding leaves many differences at 0
    towards = -1.0 if slope < 0 else 1.0  # a suspect that answers the negative number says as much
    found[known] = towards * np.sign(rest) * np.minimum(sizes / typical, _MOST)
    return found


def _unit(values: FloatArray) -> FloatArray:
    """Values around their median, of typical size 1; all 0 if they are constant."""
    with np.errstate(under="ignore"):
        values = values / max(float(np.abs(values).max()), np.finfo(np.float64).tiny)
        values = values - np.median(values)
        sizes = np.abs(values)
        typical = float(np.median(sizes)) or float(sizes.mean())
        return values / typical if typical > _EQUAL else np.zeros(len(values))


def _unexplained(own: FloatArray, theirs: FloatArray) -> tuple[FloatArray, float]:
    """(n,) what a line in `theirs` leaves of `own`, and the slope of the line."""
    line = np.stack([theirs, np.ones(len(theirs))], axis=1)
    rest, slope, weights = own, 0.0, _MOST / np.maximum(np.abs(own), _MOST)
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        fitted = np.linalg.lstsq(line * root[:, None], own * root, rcond=None)[0]
        rest, slope = own - line @ fitted, float(fitted[0])
        sizes = np.abs(rest)
        most = max(_MOST * float(np.median(sizes)), _EXACT)
        weights = most / np.maximum(sizes, most)
    return rest, slope


def _column(outputs: Any, who: str) -> FloatArray:
    """(n,) numbers as float64.

    Raises:
        SuspectError: they are of another kind or shape.
    """
    try:
        outputs = outputs.to_numpy() if hasattr(outputs, "to_numpy") else outputs
        array = _of_objects(to_numpy(outputs))
    except (ValueError, TypeError, RuntimeError) as error:
        raise SuspectError(f"{who} answered what cannot be read as numbers ({error}): {_ONE}") from error
    if array.dtype.kind not in "iuf":
        first = array.reshape(-1)[0] if array.size else array.dtype
        raise SuspectError(
            f"{who} answered {first!r}, a class or another value, the watermark was made for numbers: it is another "
            "task, or wrap it in a function that returns numbers"
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        several = f"{array.shape[1]} outputs an input" if array.ndim == 2 else f"an array {array.shape}"
        raise SuspectError(f"{who} answered with {several}: {_ONE}")
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float64)


def _of_objects(array: Array) -> Array:
    """Numbers that came as objects, such as None among others or a decimal, as floats; other arrays unchanged."""
    if array.dtype.kind != "O" or any(isinstance(one, (str, bytes, bool, Mapping)) for one in array.reshape(-1)):
        return array
    return array.astype(np.float64)  # None becomes NaN


_ONE = "return one number for each input, (n,) or (n, 1); of several outputs choose the one that carries the watermark"
