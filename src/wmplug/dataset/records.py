"""A training set as records, whatever it is kept in: read one by one, and written again with some of them changed."""

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
        name: where it stands (file and line, path, member), for messages.
        input: a PIL image, a NumPy row or picture, or a text, as the form of the source says.
        label: number of its class, or None in a set without labels.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody wants of a record
    name: str
    input: Any
    label: int | None


@dataclass(frozen=True)
class Added:
    """A record that the set did not have.

    Attributes:
        after: index of the record that it follows; -1 puts it first.
        input: as the other records of the source.
        label: number of its class, or None in a set without labels.
    """

    after: int
    input: Any
    label: int | None


@dataclass(frozen=True)
class Changes:
    """What a marked copy has otherwise. Which records these are is the owner's secret.

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
        data: path of the copy, or the copy itself where it is kept in memory.
        count: records in the copy, added ones included.
        changed: records whose label or input is not what it was.
        added: records that the set did not have.
    """

    data: Any
    count: int
    changed: int
    added: int


class Source(Protocol):
    """A training set that can be read any number of times, in the same order each time."""

    @property
    def form(self) -> Form:
        """What the inputs are: PIL images, arrays or texts."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; empty for a set without labels.

        Finding them can cost one pass.
        """
        ...

    @property
    def count(self) -> int | None:
        """Number of records, or None before they are counted."""
        ...

    def records(self, progress: Progress | None = None) -> Iterator[Record]:
        """All records, one after the other; memory does not grow with their number.

        Args:
            progress: called with the records read and their number (None if unknown) now and then.

        Raises:
            InputError: a record cannot be read or does not fit the others; the message names it.
        """
        ...

    def picked(
        self, indices: Iterable[int], progress: Progress | None = None, *, check: bool = True
    ) -> Iterator[Record]:
        """The records at some indices in one pass, which also finds the classes if they are unknown.

        Their labels are as the set writes them: `numbered` has the numbers, when the pass has come to its end.

        Args:
            indices: ascending; taken as the pass goes on, and those behind the last record are left.
            progress: as for `records`.
            check: whether the inputs of the others are read too, lest one of them is broken.

        Raises:
            InputError: as for `records`.
        """
        ...

    def numbered(self, records: Iterable[Record]) -> list[Record]:
        """Picked records with class numbers for labels."""
        ...

    def write(self, out: Out, changes: Changes, progress: Progress | None = None) -> Written:
        """A copy with changes; other records are copied as they are, byte for byte where the format allows it.

        The copy appears at its place when it is whole, and not before.

        Args:
            out: where to; nothing may be there but an empty folder. None for a set that is kept in memory.
            changes: what the copy has otherwise.
            progress: as for `records`.

        Raises:
            InputError: the place cannot be written, is taken or is part of the set; a record cannot be read; a change
                does not fit the set. Nothing is left then.
        """
        ...
