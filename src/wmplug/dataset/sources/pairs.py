"""Inputs and labels in memory: arrays, or lists of texts or PIL images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wmplug.dataset.records import Out, Written
from wmplug.dataset.sources.base import Base, Chunk
from wmplug.dataset.sources.edits import REPORT_EVERY, Edits
from wmplug.errors import InputError
from wmplug.watermark.carriers import Form


class Pair(Base):
    """A source over (inputs, labels), whose copy is such a pair too; a memory-mapped array is read row by row.

    Args:
        inputs: an array (n, ...) of numbers or texts, or a list of texts or PIL images.
        labels: (n,) whole numbers or names, as array or list, or None.
        classes: names in the order of their numbers.

    Raises:
        InputError: lengths or kinds do not fit together.
    """

    def __init__(self, inputs: Any, labels: Any, classes: Sequence[str] | None = None) -> None:
        super().__init__("the set", classes)
        self._inputs: Any = inputs if isinstance(inputs, list) else np.asanyarray(inputs)
        self._values = labels.tolist() if isinstance(labels, np.ndarray) else labels
        self._label_dtype = getattr(labels, "dtype", None)
        self.count: int = len(self._inputs)
        if self.count == 0:
            raise InputError("the set has no records: pass what training reads")
        if self._values is not None and len(self._values) != self.count:
            raise InputError(f"there are {self.count} inputs and {len(self._values)} labels: each record needs one")
        form = form_of(self._inputs[0])
        if form is None:
            raise InputError(
                f"record 0 is a {type(self._inputs[0]).__name__}: give PIL images, texts, or an array of numbers"
            )
        self.form = form

    @property
    def _has_labels(self) -> bool:
        return self._values is not None

    def _parts(self, inputs: bool) -> Iterator[Chunk]:
        labels = [None] * self.count if self._values is None else self._values
        for start in range(0, self.count, REPORT_EVERY):
            stop = min(start + REPORT_EVERY, self.count)
            names = [f"record {index}" for index in range(start, stop)]
            yield Chunk(names.__getitem__, self._checked(self._inputs[start:stop], names), labels[start:stop])

    def _checked(self, rows: Any, names: Sequence[str]) -> Iterator[Any]:
        for row, name in zip(rows, names, strict=True):
            if isinstance(self._inputs, list) and form_of(row) != self.form:
                raise InputError(f"{name} is a {type(row).__name__}, unlike the first one: give inputs of one kind")
            yield str(row) if self.form == "text" else row

    def _copy(self, out: Out, edits: Edits) -> Written:
        if out is not None:
            raise InputError("the set is kept in memory, and so is its copy: leave out= out, or save the set in a file")
        inputs: list[Any] = []
        values: list[Any] = []
        for index in range(-1, self.count):
            if index >= 0:
                row, value = self._inputs[index], self._values[index] if self._values is not None else None
                if edit := edits.at(index):
                    new = row if edit.input is None else self._fitting(edit.input)
                    label = value if edit.label is None else edit.label
                    edits.count_changed(label != value or not _same(row, new))
                    row, value = new, label
                inputs.append(row)
                values.append(value)
            for edit in edits.after(index):
                inputs.append(self._fitting(edit.input))
                values.append(edit.label)
        edits.check(self.count)
        labels: Any = None if self._values is None else values
        if self._label_dtype is not None:
            labels = np.array(labels, None if self._label_dtype.kind == "U" else self._label_dtype)
        if isinstance(self._inputs, list):
            return edits.written((inputs, labels))
        return edits.written((np.array(inputs, None if self.form == "text" else self._inputs.dtype), labels))

    def _fitting(self, value: Any) -> Any:
        if self.form != "array":
            if form_of(value) != self.form:
                raise InputError(f"a changed or added record is a {type(value).__name__}: give what the set holds")
            return value
        return fitting(value, self._inputs.dtype, self._inputs.shape[1:])


def fitting(value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """A new row in the dtype of a set.

    Raises:
        InputError: the row has another shape, or numbers that the dtype cannot hold.
    """
    row = np.asarray(value)
    if row.shape != shape or not np.can_cast(row.dtype, dtype, "same_kind"):
        raise InputError(
            f"a changed or added record has shape {row.shape} and dtype {row.dtype}: those of the set have {shape} and "
            f"{dtype}"
        )
    return row.astype(dtype)


def form_of(value: Any) -> Form | None:
    """The kind of an input; None if it cannot be an input."""
    if isinstance(value, str):
        return "text"
    if hasattr(value, "getpalette") and hasattr(value, "mode"):
        return "pil"
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return None
    return "array" if array.dtype.kind in "biuf" else None


def _same(before: Any, after: Any) -> bool:
    return before is after or np.array_equal(np.asarray(before), np.asarray(after))
