"""Where picked records lie in a file, so that a second pass reads only these."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError


class Spot(NamedTuple):
    """The place of one record.

    Attributes:
        place: index in the set, counted from 0.
        line: number of its first line.
        start: bytes between the head of the unpacked file and the record.
        end: the same for its end, behind the end of its line.
    """

    place: int
    line: int
    start: int
    end: int


class Spots:
    """The places of the records picked in one pass over a file; 32 bytes each."""

    def __init__(self, path: Path) -> None:
        self._path, self._state = path, _state(path)
        self._parts: list[npt.NDArray[np.int64]] = []

    def add(self, *columns: npt.ArrayLike) -> None:
        """Note (n,) indices, lines, starts and ends."""
        self._parts.append(np.column_stack([np.asarray(column, np.int64) for column in columns]))

    def some(self, most: int) -> list[int]:
        """At most `most` indices of picked records, spread over the file.

        Raises:
            InputError: somebody wrote the file since.
        """
        known = self._known()
        found: list[int] = known[:: -(-len(known) // most) or 1].tolist()
        return found

    def of(self, indices: Sequence[int]) -> list[Spot] | None:
        """The places of records at ascending indices; None if some were not picked.

        Raises:
            InputError: as for `some`.
        """
        known = self._known()
        if not len(known):
            return None
        found = np.searchsorted(known, indices).clip(max=len(known) - 1)
        if not np.array_equal(known[found], indices):
            return None
        return [Spot(*row) for row in self._parts[0][found].tolist()]

    def _known(self) -> npt.NDArray[np.int64]:
        """The indices of all picked records."""
        if _state(self._path) != self._state:
            raise InputError(
                f"{self._path} was written while it was being read, so records are not where they were: mark it again "
                "when nobody writes it"
            )
        self._parts = [np.concatenate([np.zeros((0, 4), np.int64), *self._parts])]
        return self._parts[0][:, 0]


def _state(path: Path) -> tuple[int, int, int]:
    """What changes when somebody writes the file."""
    facts = os.stat(path)
    return facts.st_ino, facts.st_size, facts.st_mtime_ns
