"""Shared array types, and conversion of framework values to arrays."""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError

Array: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]


def to_numpy(value: Any) -> Array:
    """An array from any value that a framework returned (torch tensors on any device included)."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    try:
        return np.asarray(value)
    except TypeError:  # NumPy has no bfloat16
        return np.asarray(value.float())


def off_device(value: Any, what: str) -> Any:
    """A torch tensor as an array; any other value unchanged.

    Raises:
        InputError: the tensor is not dense.
    """
    if not hasattr(value, "detach"):
        return value
    try:
        return to_numpy(value)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{what} are tensors that cannot be read as arrays ({error}): give dense ones") from error


def read_whole(value: Any, name: str, least: int, most: int, need: str) -> int:
    """A whole number from `least` to `most`; numpy integers count, True and False do not.

    Raises:
        InputError: the value is anything else; the message ends with `need`.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        raise InputError(f"{name}={value!r} is a {type(value).__name__}, not a whole number: {need}") from None
    if not least <= whole <= most or isinstance(value, bool):
        raise InputError(f"{name}={value!r}: {need}")
    return whole
