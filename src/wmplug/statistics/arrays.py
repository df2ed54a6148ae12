"""Arrays: the types that the house shares, and one of whatever a framework returned."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]


def to_numpy(value: Any) -> Array:
    """An array of whatever a framework returned (torch tensors on any device included)."""
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()
    try:
        return np.asarray(value)
    except TypeError:  # NumPy has no bfloat16
        return np.asarray(value.float())
