"""Filters that learn from rows and score how odd others are: larger is odder. None knows a trigger or a key."""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from wmplug.statistics.arrays import FloatArray

Matrix: TypeAlias = npt.NDArray[np.float64]
_KEPT = 0.95  # share of the variance that components explain


def distance(known: Matrix) -> Callable[[Matrix], FloatArray]:
    """Mahalanobis distance from the known rows, squared (Mahalanobis 1936)."""
    middle, inverse = known.mean(axis=0), np.linalg.pinv(np.cov(known.T))
    return lambda rows: np.einsum("ni,ij,nj->n", rows - middle, inverse, rows - middle)


def residual(known: Matrix) -> Callable[[Matrix], FloatArray]:
    """What principal components of the known rows leave unexplained (Jackson & Mudholkar 1979)."""
    middle = known.mean(axis=0)
    _, sizes, axes = np.linalg.svd(known - middle, full_matrices=False)
    explained = np.cumsum(sizes**2) / max(float((sizes**2).sum()), 1e-300)
    kept = axes[: int(np.searchsorted(explained, _KEPT)) + 1]

    def odd(rows: Matrix) -> FloatArray:
        rest = (rows - middle) - (rows - middle) @ kept.T @ kept
        return np.asarray((rest**2).sum(axis=1), np.float64)

    return odd


def nearest(known: Matrix) -> Callable[[Matrix], FloatArray]:
    """Distance from the nearest known row, squared."""
    squares = np.square(known).sum(axis=1)
    return lambda rows: (squares - 2 * rows @ known.T).min(axis=1) + np.square(rows).sum(axis=1)


ROWS: Mapping[str, Callable[[Matrix], Callable[[Matrix], FloatArray]]] = {"residual": residual, "nearest": nearest}
