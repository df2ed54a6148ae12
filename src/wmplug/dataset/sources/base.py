"""The common part of all formats."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wmplug.dataset.records import Changes, Out, Progress, Record, Taken, Written
from wmplug.dataset.sources.beside import JUDGED, refuse_repeats
from wmplug.dataset.sources.edits import REPORT_EVERY, Edits
from wmplug.dataset.sources.labels import Labels, Seen
from wmplug.errors import InputError
from wmplug.watermark.carriers import Form


class Whole(ABC):
    """Inputs that were read without a fault, and become Python's on access."""

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """All of them."""

    @abstractmethod
    def __getitem__(self, rows: Sequence[int]) -> Iterable[Any]:
        """Those in some rows."""


class Texts(Whole):
    """Texts in a column of Arrow."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __iter__(self) -> Iterator[str]:
        return iter(self._column.to_pylist())

    def __getitem__(self, rows: Sequence[int]) -> list[str]:
        return [self._column[row].as_py() for row in rows]  # take() imports pandas


class Rows(Whole):
    """Rows of a table, joined from columns of numbers."""

    def __init__(self, columns: Sequence[npt.NDArray[Any]]) -> None:
        self._columns = columns

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        return iter(np.column_stack(self._columns))

    def __getitem__(self, rows: Sequence[int]) -> npt.NDArray[Any]:
        return np.column_stack([column[rows] for column in self._columns])


class Chunk(NamedTuple):
    """Consecutive records.

    Attributes:
        name: returns the location of a record, counted from 0 in the part.
        inputs: the inputs, made on access; those in arrays and `Whole` cannot be broken.
        labels: labels as the set writes them, each None in a set without labels.
        block: the bytes of the records, in a source that goes back to them.
    """

    name: Callable[[int], str]
    inputs: Iterable[Any]
    labels: Sequence[Any]
    block: Any = None

    def names(self) -> Iterator[str]:
        """The locations of all its records."""
        return map(self.name, range(len(self.labels)))

    def inputs_at(self, rows: Sequence[int], check: bool) -> Iterable[Any]:
        """The inputs in some rows; with `check` this makes those of the others too, to notice a broken one."""
        if isinstance(self.inputs, (np.ndarray, Whole)):
            return self.inputs[rows] if rows else ()
        if not rows and not check:
            return ()
        wanted = set(rows)
        return [value for row, value in enumerate(self.inputs) if row in wanted]


IN_PART = 100  # records of one part that show whether a column repeats the label


def spread(count: int, most: int = IN_PART) -> list[int]:
    """At most `most` rows of `count`, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64)).tolist() if count else []


class Due:
    """Ascending indices, taken as a pass over a set goes on."""

    def __init__(self, indices: Iterable[int]) -> None:
        self._ahead = iter(indices)
        self._next = next(self._ahead, None)

    @property
    def done(self) -> bool:
        """Whether all indices were taken."""
        return self._next is None

    def before(self, stop: int) -> list[int]:
        """The indices below `stop` that were not taken yet."""
        found = []
        while self._next is not None and self._next < stop:
            found.append(self._next)
            self._next = next(self._ahead, None)
        return found


class Base(ABC):
    """A `Source` without the parts that differ between formats.

    Attributes:
        form: kind of the inputs.
        count: number of records, if known.
        taken: what of the set was taken for what.
    """

    form: Form
    count: int | None = None
    taken: tuple[Taken, ...] = ()
    _numbers = True
    _judged = False

    def __init__(self, place: str, classes: Sequence[str] | None) -> None:
        self._place, self._given = place, classes

    @property
    @abstractmethod
    def _has_labels(self) -> bool:
        """Whether the set has a place for labels."""

    @abstractmethod
    def _parts(self, inputs: bool) -> Iterator[Chunk]:
        """All records in parts that are not empty; without `inputs` the parts may come without inputs."""

    @abstractmethod
    def _copy(self, out: Out, edits: Edits) -> Written:
        """Write the copy."""

    def _refuse_repeats(self) -> None:
        """Refuse to change labels that the set repeats elsewhere, judged by records from all over it."""
        labels = [label for part in self._parts(False) for label in part.labels]
        refuse_repeats(({"label": labels[row]} for row in spread(len(labels), JUDGED)), "label", (), self._place)

    def check(self, *, relabelled: bool, added: bool) -> None:
        """Refuse a set of which no copy can be true; see `Source.check`."""
        if relabelled and not self._judged:
            self._refuse_repeats()
            self._judged = True
        if added:
            self._refuse_to_add()

    def _refuse_to_add(self) -> None:
        """Refuse to add records of which more has to be known than input and label."""
        return

    def _note(self, part: Chunk, places: Sequence[int], rows: Sequence[int]) -> None:
        """Note where picked records lie: their indices in the set, and their rows in the part."""
        return

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; empty for a set without labels."""
        return self._labels.names if self._labels else ()

    @cached_property
    def _labels(self) -> Labels | None:
        seen, count = Seen(self._given, self._numbers, self._has_labels), 0
        for part in self._parts(False):
            seen.add(part.labels, part.names())
            if seen.enough:
                return seen.found()
            count += len(part.labels)
        return self._all_seen(seen, count)

    def _all_seen(self, seen: Seen, count: int | None) -> Labels | None:
        if not count:
            raise InputError(f"{self._place} has no records: give what training reads")
        self.count = count
        return seen.found()

    def _counted(self, progress: Progress | None) -> Iterator[tuple[int, Chunk]]:
        """All parts, each with the index of its first record; reports progress."""
        count = reported = 0
        for part in self._parts(True):
            yield count, part
            count += len(part.labels)
            if progress and count - reported >= REPORT_EVERY:
                progress(reported := count, self.count)
        self.count = count
        if progress:
            progress(count, count)

    def records(self, progress: Progress | None = None) -> Iterator[Record]:
        """All records, one after the other; see `Source.records`."""
        labels = self._labels
        for start, part in self._counted(progress):
            names = list(part.names())
            numbers = labels.all(part.labels, names) if labels else itertools.repeat(None, len(names))
            yield from map(Record, itertools.count(start), names, part.inputs, numbers)

    def picked(
        self, indices: Iterable[int], progress: Progress | None = None, *, check: bool = True
    ) -> Iterator[Record]:
        """Some records, with labels as the set writes them; see `Source.picked`."""
        seen = None if "_labels" in vars(self) else Seen(self._given, self._numbers, self._has_labels)
        due = Due(indices)
        for start, part in self._counted(progress):
            if due.done and not check:
                return
            if seen:
                seen.add(part.labels, part.names())
            elif check and self._labels:
                self._labels.all(part.labels, part.names())
            places = due.before(start + len(part.labels))
            rows = [place - start for place in places]
            self._note(part, places, rows)
            labels = map(part.labels.__getitem__, rows)
            yield from map(Record, places, map(part.name, rows), part.inputs_at(rows, check), labels)
        if seen:
            self._labels = self._all_seen(seen, self.count)

    def counted(self) -> int | None:
        """Number of records, if known or quickly found; see `Source.counted`."""
        return self.count

    def numbered(self, records: Iterable[Record]) -> list[Record]:
        """Picked records with class numbers for labels; see `Source.numbered`."""
        found = list(records)  # the classes are known at its end
        if self._labels is None:
            return found
        numbers = self._labels.all([record.label for record in found], [record.name for record in found])
        return [Record(*record[:3], number) for record, number in zip(found, numbers, strict=True)]

    def write(self, out: Out, changes: Changes, progress: Progress | None = None) -> Written:
        """A copy with changes; see `Source.write`."""
        self.check(relabelled=bool(changes.labels), added=bool(changes.added))
        return self._copy(out, Edits(changes, self._labels, progress, self.count))
