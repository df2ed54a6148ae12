"""Carriers: reading, checking, JSON, and digests."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import rfc8785

from wmplug.errors import InputError
from wmplug.statistics.arrays import IntArray, off_device

Form = Literal["array", "pil", "text"]


Inputs: TypeAlias = npt.NDArray[Any] | list[str]


def as_given(value: Any, form: Form) -> Any:
    """A copy of one input or carrier, in the form in which its owner would give it to a model."""
    if isinstance(value, str):
        return value
    if form == "array":
        return value.copy()
    from PIL import Image

    return Image.fromarray(value.copy())


def take(inputs: Inputs, rows: IntArray) -> Inputs:
    """The inputs in some rows, in this order."""
    return [inputs[row] for row in rows.tolist()] if isinstance(inputs, list) else inputs[rows]


def rounded(array: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Numbers in a dtype: of whole numbers the nearest."""
    if dtype.kind == "f" or array.dtype == dtype:
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(array), limits.min, limits.max), dtype)


def join(first: Inputs, second: Inputs | None) -> Inputs:
    """Inputs of one kind, one after the other."""
    if second is None:
        return first
    if isinstance(first, list) and isinstance(second, list):
        return first + second
    return np.concatenate([np.asarray(first), np.asarray(second)])


def input_to_json(value: Any) -> dict[str, Any]:
    """One input as JSON: a text, or an array by dtype, shape and its bytes (little-endian, base64)."""
    if isinstance(value, str):
        return {"text": value}
    array = np.ascontiguousarray(value)
    array = array.astype(array.dtype.newbyteorder("<"))
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "data": base64.b64encode(array.tobytes()).decode(),
    }


def input_from_json(document: Mapping[str, Any]) -> Any:
    """The input that `input_to_json` was given."""
    if "text" in document:
        return str(document["text"])
    data = base64.b64decode(document["data"], validate=True)
    return np.frombuffer(data, np.dtype(document["dtype"])).reshape(document["shape"])


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


def sameness(value: npt.NDArray[Any] | str) -> str:
    """What inputs share that are the same to a model: their digest, with minus zero as zero."""
    if isinstance(value, str) or value.dtype.kind != "f":
        return digest(value)
    return digest(value + value.dtype.type(0))


def read_carriers(carriers: Any, what: str = "carriers") -> tuple[Inputs, Form]:
    """Carriers as one array or one list of strings.

    Args:
        carriers: an array or torch tensor (n, ...), a sequence of equally shaped ones, of PIL pictures of one size
            and mode, or of strings.
        what: their name in errors.

    Raises:
        InputError: the carriers are empty, or differ in shape, dtype or kind.
    """
    if hasattr(
        carriers, "to_numpy"
    ):  # indexing a pandas Series uses its labels, which are out of order after a shuffle
        carriers = carriers.to_numpy()
    carriers = off_device(carriers, what)
    sequence = hasattr(carriers, "__len__") and hasattr(carriers, "__getitem__")
    if not sequence or isinstance(carriers, (str, bytes, Mapping)) or getattr(carriers, "ndim", 1) == 0:
        raise InputError(f"{what} are a {type(carriers).__name__}: give a list or an array of inputs")
    if len(carriers) == 0:
        raise InputError(f"there are no {what}: give inputs such as the model is trained on")
    if isinstance(carriers, np.ndarray) and carriers.dtype.kind not in "UO":
        return _checked(carriers, what), "array"
    rows = [off_device(carriers[i], what) for i in range(len(carriers))]
    if all(isinstance(row, str) for row in rows):
        return [_encodable(str(row), what) for row in rows], "text"
    return _stack(rows, what)


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
            f"{what} differ in shape, dtype or kind ({some}): bring pictures to one with image_size=, others yourself"
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
        raise InputError(f"{what} hold a text that is not Unicode ({error.reason}): remove or repair it") from None
    return text
