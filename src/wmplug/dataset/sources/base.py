"""What reading and writing have in common in all formats."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from wmplug.dataset.records import Changes, Form, Out, Progress, Record, Written
from wmplug.dataset.sources.edits import REPORT_EVERY, Edits
from wmplug.dataset.sources.labels import Labels, Seen, check_label, labels_of
from wmplug.errors import InputError


class Part(NamedTuple):
    """Consecutive records.

    Attributes:
        names: where each stands.
        inputs: of each, made when they are asked for.
        labels: as the set writes them, each None in a set without labels.
    """

    names: Iterable[str]
    inputs: Iterable[Any]
    labels: Sequence[Any]


class Base(ABC):
    """A `Source`, but for what a format does in its own way.

    Attributes:
        form: what the inputs are.
        count: number of records, where it is known.
    """

    form: Form
    count: int | None = None
    _numbers = True

    def __init__(self, place: str, classes: Sequence[str] | None) -> None:
        self._place, self._given = place, classes

    @abstractmethod
    def _parts(self, inputs: bool) -> Iterator[Part]:
        """All records, some at a time, none of them empty; without `inputs` there need not be any."""

    @abstractmethod
    def _copy(self, out: Out, edits: Edits) -> Written:
        """Write the copy."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; empty for a set without labels."""
        return self._labels.names if self._labels else ()

    @cached_property
    def _labels(self) -> Labels | None:
        first = next(self._parts(False), None)
        if first is None:
            raise InputError(f"{self._place} has no records: give what training reads")
        if first.labels[0] is None:
            if any(label is not None for label in first.labels):
                check_label(None, next(iter(first.names)))
            return None
        if self._given is not None:
            return labels_of(first.labels[:1], self._given, numbers=self._numbers)
        seen, count = Seen(), 0
        for names, _, labels in self._parts(False):
            seen.add(labels, names)
            count += len(labels)
        self.count = count
        return labels_of(seen.values, numbers=self._numbers)

    def records(self, progress: Progress | None = None) -> Iterator[Record]:
        """All records, one after the other; see `Source.records`."""
        labels, count, told = self._labels, 0, 0
        for names, inputs, written in self._parts(True):
            named = list(names)
            numbers = labels.all(written, named) if labels else itertools.repeat(None, len(named))
            yield from map(Record, itertools.count(count), named, inputs, numbers)
            count += len(named)
            if progress and count - told >= REPORT_EVERY:
                progress(told := count, self.count)
        self.count = count
        if progress:
            progress(count, count)

    def write(self, out: Out, changes: Changes, progress: Progress | None = None) -> Written:
        """A copy with changes; see `Source.write`."""
        return self._copy(out, Edits(changes, self._labels, progress, self.count))
