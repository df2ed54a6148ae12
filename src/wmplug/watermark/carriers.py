"""What an owner gives: carriers, labels and numbers, read and checked, and their digests."""

import hashlib
import operator
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import rfc8785

from wmplug.errors import InputError
from wmplug.statistics.arrays import IntArray, to_numpy

Form = Literal["array", "pil", "text"]


Inputs: TypeAlias = npt.NDArray[Any] | list[str]


def as_given(value: Any, form: Form) -> Any:
    """One of a set's inputs, or of a task's carriers, as its owner would hand it to a model; a copy."""
    if isinstance(value, str):
        return value
    if form == "array":
        return value.copy()
    from PIL import Image

    return Image.fromarray(value.copy())


def take(inputs: Inputs, rows: IntArray) -> Inputs:
    """Some of the inputs, in this order."""
    return [inputs[row] for row in rows.tolist()] if isinstance(inputs, list) else inputs[rows]


def join(first: Inputs, second: Inputs | None) -> Inputs:
    """Inputs of one kind, one after the other."""
    if second is None:
        return first
    if isinstance(first, list) and isinstance(second, list):
        return first + second
    return np.concatenate([np.asarray(first), np.asarray(second)])


def digest(value: npt.NDArray[Any] | list[str] | str) -> str:
    """SHA-256 in hex of an array (dtype, shape and bytes, little-endian), a string or a list of strings."""
    if isinstance(value, str):
        return hashlib.sha256(value.encode()).hexdigest()
    if isinstance(value, list):
        return hashlib.sha256(rfc8785.dumps(list(value))).hexdigest()
    array = np.ascontiguousarray(value)
    array = array.astype(array.dtype.newbyteorder("<"))
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + b"\x00" + array.tobytes()).hexdigest()


def read_carriers(carriers: Any, what: str = "carriers") -> tuple[Inputs, Form]:
    """Carriers as one array or one list of strings.

    Args:
        carriers: an array or torch tensor (n, ...), a sequence of equally shaped ones, of PIL pictures of one size
            and mode, or of strings.
        what: how the error calls them.

    Raises:
        InputError: empty, or mixed shapes, dtypes or kinds.
    """
    if hasattr(carriers, "to_numpy"):  # a pandas Series is indexed by its labels, which a shuffle leaves in disorder
        carriers = carriers.to_numpy()
    carriers = _off_device(carriers, what)
    sequence = hasattr(carriers, "__len__") and hasattr(carriers, "__getitem__")
    if not sequence or isinstance(carriers, (str, bytes, Mapping)) or getattr(carriers, "ndim", 1) == 0:
        raise InputError(f"{what} are a {type(carriers).__name__}: give a list or an array of inputs")
    if len(carriers) == 0:
        raise InputError(f"there are no {what}: give inputs such as the model is trained on")
    if isinstance(carriers, np.ndarray) and carriers.dtype.kind not in "UO":
        return _checked(carriers, what), "array"
    rows = [_off_device(carriers[i], what) for i in range(len(carriers))]
    if all(isinstance(row, str) for row in rows):
        return [_encodable(str(row), what) for row in rows], "text"
    return _stack(rows, what)


def _off_device(value: Any, what: str) -> Any:
    """A torch tensor as an array; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    try:
        return to_numpy(value)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{what} are tensors that cannot be read as arrays ({error}): give dense ones") from error


def _stack(rows: list[Any], what: str) -> tuple[Inputs, Form]:
    try:
        arrays = [np.asarray(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} cannot be read as arrays ({error}): give inputs alone, without labels") from error
    modes = [getattr(row, "mode", None) for row in rows]
    kinds = {(a.shape, str(a.dtype), mode) for a, mode in zip(arrays, modes, strict=True)}
    if len(kinds) > 1:
        some = ", ".join(sorted(f"{shape} {dtype}{f' {mode}' * bool(mode)}" for shape, dtype, mode in kinds)[:4])
        raise InputError(
            f"{what} differ in shape, dtype or kind ({some}): bring them to one, and let preprocess= do the rest"
        )
    stacked = _checked(np.stack(arrays), what)
    if modes[0] is None:
        return stacked, "array"
    from PIL import Image

    if Image.fromarray(stacked[0]).mode != modes[0]:
        raise InputError(f"{what} are pictures of mode {modes[0]!r}: convert them, for example with .convert('RGB')")
    return stacked, "pil"


def _checked(array: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    if array.dtype.kind not in "uif":
        raise InputError(f"{what} have dtype {array.dtype}: give numbers, strings or PIL pictures")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{what} hold NaN or infinity: remove those rows")
    return array


def _encodable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} hold a text that is no Unicode ({error.reason}): remove or repair it") from None
    return text


def read_labels(labels: Any, count: int, classes: int) -> IntArray | None:
    """Class labels as (n,) int64, or None.

    Raises:
        InputError: soft or multi-label targets, another length, or labels outside range(classes).
    """
    if labels is None:
        return None
    if isinstance(labels, (list, tuple)):
        labels = [_off_device(label, "labels") for label in labels]
    try:
        array = np.asarray(_off_device(labels, "labels"))
    except (ValueError, TypeError) as error:
        raise InputError(f"labels cannot be read ({error}): give one integer class for each carrier") from error
    if array.ndim == 1 and array.dtype.kind == "f":
        raise InputError(f"labels have dtype {array.dtype}, classes are whole numbers: give labels.astype(int)")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"labels have shape {array.shape} and dtype {array.dtype}: one integer class for each carrier is needed "
            "(soft targets and several labels an input are not supported yet)"
        )
    if len(array) != count:
        raise InputError(f"{len(array)} labels for {count} carriers: give one for each")
    if array.min() < 0 or array.max() >= classes:
        raise InputError(f"labels run from {array.min()} to {array.max()}, classes={classes} allows 0 to {classes - 1}")
    return array.astype(np.int64)


def read_whole(value: Any, name: str, least: int, most: int, need: str) -> int:
    """A whole number from `least` to `most`; numpy's count, True does not.

    Raises:
        InputError: anything else; the message ends with `need`.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        raise InputError(f"{name}={value!r} is a {type(value).__name__}, not a whole number: {need}") from None
    if not least <= whole <= most or isinstance(value, bool):
        raise InputError(f"{name}={value!r}: {need}")
    return whole
