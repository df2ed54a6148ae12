"""The queries that a key decided last, so that near copies of one are told the same.

A copy under noise may fall to another cell, or leave the model surer. Who asks many copies and takes the majority would
hear the model's own answer then. Whether a query is a copy depends on no key: it lies nearer to a remembered one than a
third of what natural inputs of the task usually lie apart.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.schemes import cells
from wmplug.statistics.arrays import BoolArray, FloatArray, IntArray
from wmplug.watermark.carriers import Inputs, take

NEAR = 5.0  # gaps by which a copy's two classes may lie behind its best one
_PART = 3.0  # of the usual distance
_SEEN = 1000  # natural inputs, from which that is taken
_FLOATS, _BYTES = 2**20, 2**26  # of features, which are compared each time, and of inputs: at most


@dataclass(eq=False)
class Query:
    """A decided query.

    Attributes:
        input: in the form of the carriers.
        pair: the two classes, the lower first.
        logged: the customer for whom the log holds it; None until it does.
    """

    input: Any = field(repr=False)
    pair: tuple[int, int]
    logged: str | None = None


class Copies:
    """Up to `most` decided queries, fewer where they are large; of several threads.

    Args:
        natural: natural inputs of the task.
        material: the cells of the watermark, see `schemes.cells`.
        most: how many to remember, 0 for none.
    """

    def __init__(self, natural: Inputs, material: Mapping[str, npt.NDArray[Any]], most: int) -> None:
        self._material, self._lock = material, threading.Lock()
        some = cells.features(take(natural, np.arange(min(_SEEN, len(natural)))), material)
        self._near = (_usual(some) / _PART) ** 2
        size = natural[0].nbytes if isinstance(natural, np.ndarray) else max(map(len, natural))
        self._most = min(most, _FLOATS // some.shape[1], _BYTES // size)
        self._features = np.empty((self._most, some.shape[1]), np.float32)
        self._queries: list[Query] = []
        self._next = 0

    def resolve(
        self, inputs: Inputs, pairs: IntArray, decided: BoolArray, probabilities: FloatArray, reach: float
    ) -> list[tuple[int, Query]]:
        """The decided rows, each with the query as which it is: its own, or the one that it is a copy of.

        Args:
            inputs: n queries in the form of the carriers.
            pairs: (n, 2) the two likeliest classes of each, the lower first.
            decided: (n,) whether the key decides the query whatever was asked before.
            probabilities: (n, classes) of the served model.
            reach: by how much both classes of a copy may lie behind its best one.
        """
        found, least = [], probabilities.max(axis=1) - reach
        with self._lock:
            for row, value in enumerate(cells.features(inputs, self._material)):
                known = self._nearest(value)
                if known is not None and probabilities[row, list(known.pair)].min() >= least[row]:
                    found.append((row, known))
                elif decided[row]:
                    low, high = pairs[row].tolist()
                    found.append((row, self._kept(Query(inputs[row], (low, high)), value)))
        return found

    def _nearest(self, value: npt.NDArray[np.float32]) -> Query | None:
        """The remembered query of which this is a copy."""
        if not self._queries:
            return None
        squares = np.square(self._features[: len(self._queries)] - value).sum(axis=1)
        place = int(squares.argmin())
        return self._queries[place] if squares[place] < self._near or not squares[place] else None

    def _kept(self, query: Query, value: npt.NDArray[np.float32]) -> Query:
        if self._most:
            self._queries[self._next : self._next + 1] = [query]
            self._features[self._next] = value
            self._next = (self._next + 1) % self._most
        return query


def _usual(values: npt.NDArray[np.float32]) -> float:
    """The median distance of natural inputs to the nearest other."""
    norms = np.square(values).sum(axis=1)
    squares = norms[:, None] + norms - 2 * values @ values.T
    np.fill_diagonal(squares, np.inf)
    nearest = float(np.median(squares.min(axis=1, initial=np.inf)))
    return float(np.sqrt(max(0.0, nearest))) if np.isfinite(nearest) else 0.0
