"""Changes, looked up while a set streams past, and counted."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from wmplug.dataset.records import Changes, Progress, Written
from wmplug.dataset.sources.labels import Labels
from wmplug.errors import InputError

REPORT_EVERY = 1024


class Edit(NamedTuple):
    """A changed or added record; None for a part that stays, or that the set lacks.

    Attributes:
        label: the new label as the set writes it.
        input: the new input.
    """

    label: Any
    input: Any


class Edits:
    """The changes of one copy; look records up in ascending order, each at most once.

    Messages never name these records: the choice of records is the owner's secret.

    Args:
        changes: the changes of the copy.
        labels: the classes of the set, or None if it has no labels.
        progress: called with the records read so far.
        total: their number, if known.

    Raises:
        InputError: the set cannot have one of the labels.
    """

    def __init__(self, changes: Changes, labels: Labels | None, progress: Progress | None, total: int | None) -> None:
        numbers = [*changes.labels.values(), *(added.label for added in changes.added)]
        if labels is None and any(number is not None for number in numbers):
            raise InputError("labels are changed or added, and the set has no labels: name their column with label=")
        if labels is not None and None in numbers:
            raise InputError("a changed or added record has no label, and the set's records have one: give it one")
        self._labels = {index: labels.value(number) for index, number in changes.labels.items()} if labels else {}
        self._inputs = changes.inputs
        self._touched = frozenset(changes.labels) | frozenset(changes.inputs)
        self._after: dict[int, list[Edit]] = defaultdict(list)
        for added in changes.added:
            value = labels.value(added.label) if labels is not None and added.label is not None else None
            self._after[added.after].append(Edit(value, added.input))
        self._places = sorted(self._touched | frozenset(self._after))
        self._asked = len(self._touched), len(changes.added)
        self._progress, self._total = progress or (lambda done, total: None), total
        self._read = self._met = self._added = self._changed = self._reported = 0

    def within(self, start: int, stop: int) -> Sequence[int]:
        """The indices in range(start, stop) with a change; you need not look the others up."""
        self._report(start)
        return self._places[bisect_left(self._places, start) : bisect_left(self._places, stop)]

    def at(self, index: int) -> Edit | None:
        """The edit of the record at an index, which is read now; None if it stays."""
        self._report(index)
        if index not in self._touched:
            return None
        self._met += 1
        return Edit(self._labels.get(index), self._inputs.get(index))

    @property
    def places(self) -> Sequence[int]:
        """The indices with a change, and those with records to add behind them; ascending."""
        return self._places

    def _report(self, read: int) -> None:
        if read - self._reported >= REPORT_EVERY:
            self._progress(read, self._total)
            self._reported = read

    def count_changed(self, changed: bool) -> None:
        """Count a record if it changed."""
        self._changed += changed

    def after(self, index: int) -> Sequence[Edit]:
        """The records to add behind the record at an index."""
        found = self._after.get(index, ())
        self._added += len(found)
        return found

    @property
    def adding(self) -> int:
        """Number of records to add."""
        return self._asked[1]

    def check(self, read: int) -> None:
        """Refuse changes without a record, after all records were read.

        Args:
            read: number of records read.

        Raises:
            InputError: some records to change, or to add behind, are not in the set.
        """
        self._read = read
        if (self._met, self._added) != self._asked:
            raise InputError(
                f"{self._asked[0]} changed and {self._asked[1]} added records were asked for, and the {self._read} "
                f"records of the set gave {self._met} and {self._added} a place: count the records of this set from 0"
            )
        self._progress(self._read, self._total)

    def written(self, data: Any) -> Written:
        """The summary of a whole copy."""
        return Written(data, self._read + self._added, self._changed, self._added)
