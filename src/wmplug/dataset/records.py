"""A training set as records, in any format: read one by one, and written again with some of them changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias

from wmplug.watermark.carriers import Form

Progress: TypeAlias = Callable[[int, "int | None"], object]
Out: TypeAlias = "str | os.PathLike[str] | None"


class Record(NamedTuple):
    """One example of a training set; a tuple, because a set has millions of them and a dataclass takes thrice the time.

    Attributes:
        index: its place in the set, counted from 0.
        name: its location (file and line, path, member), for messages.
        input: a PIL image, a NumPy row or picture, or a text, by the form of the source.
        label: number of its class, or None in a set without labels.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs of a record
    name: str
    input: Any
    label: int | None


class Taken(NamedTuple):
    """What a part of a set was taken for.

    Attributes:
        part: a column, key, array, member or file of the set.
        role: its meaning.
        why: how that was found.
    """

    part: str
    role: str
    why: str


@dataclass(frozen=True)
class Added:
    """A record that the set did not have.

    Attributes:
        after: index of the record that it follows; -1 puts it first.
        input: an input like those of the source's other records.
        label: number of its class, or None in a set without labels.
    """

    after: int
    input: Any
    label: int | None


@dataclass(frozen=True)
class Changes:
    """The changes of a marked copy. The choice of records is the owner's secret.

    Attributes:
        labels: new class numbers by index of the record.
        inputs: new inputs by index of the record, in the shape and dtype of those they replace.
        added: records to insert; several after the same record keep their order.
    """

    labels: Mapping[int, int] = field(default_factory=dict)
    inputs: Mapping[int, Any] = field(default_factory=dict)
    added: Sequence[Added] = ()


@dataclass(frozen=True)
class Written:
    """A copy that was written whole.

    Attributes:
        data: path of the copy, or the copy itself if it is kept in memory.
        count: number of records in the copy, added ones included.
        changed: number of records with a new label or input.
        added: number of records that the set did not have.
    """

    data: Any
    count: int
    changed: int
    added: int


class Source(Protocol):
    """A training set that can be read any number of times, in the same order each time."""

    @property
    def form(self) -> Form:
        """The kind of the inputs: PIL images, arrays or texts."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; empty for a set without labels.

        Finding them can cost one pass.
        """
        ...

    @property
    def taken(self) -> tuple[Taken, ...]:
        """What of the set was taken for what, found before any record is read whole."""
        ...

    @property
    def count(self) -> int | None:
        """Number of records, or None before a count."""
        ...

    def counted(self) -> int | None:
        """Number of records, counted where that saves more than it costs; else as `count`.

        A sample of a set whose size is known takes fewer records out of it.
        """
        ...

    def records(self, progress: Progress | None = None) -> Iterator[Record]:
        """All records, one after the other; memory does not grow with their number.

        Args:
            progress: called now and then with the records read and their number (None if unknown).

        Raises:
            InputError: a record cannot be read or does not fit the others; the message names it.
        """
        ...

    def picked(
        self, indices: Iterable[int], progress: Progress | None = None, *, check: bool = True
    ) -> Iterator[Record]:
        """The records at some indices in one pass, which also finds the classes if they are unknown.

        Their labels are as the set writes them: `numbered` returns the numbers, once the pass has ended.

        Args:
            indices: ascending; taken as the pass goes on, and those behind the last record are ignored.
            progress: as for `records`.
            check: whether to read the inputs of the others too, to notice a broken one.

        Raises:
            InputError: as for `records`.
        """
        ...

    def numbered(self, records: Iterable[Record]) -> list[Record]:
        """Picked records with class numbers for labels."""
        ...

    def check(self, *, relabelled: bool, added: bool) -> None:
        """Refuse a set of which no copy can be true, before anything is written.

        Args:
            relabelled: whether labels change.
            added: whether records are added.

        Raises:
            InputError: a column repeats the label, or a file beside the records refers to them or is unknown.
        """
        ...

    def write(self, out: Out, changes: Changes, progress: Progress | None = None) -> Written:
        """Write a copy with changes; other records stay as they are, byte for byte if the format allows it.

        The copy appears at its place only when it is whole.

        Args:
            out: path of the copy; it must not exist, or be an empty folder. None for a set that is kept in memory.
            changes: the changes of the copy.
            progress: as for `records`.

        Raises:
            InputError: the place cannot be written, is taken or is part of the set; a record cannot be read; a change
                does not fit the set. Then nothing remains of the copy.
        """
        ...
