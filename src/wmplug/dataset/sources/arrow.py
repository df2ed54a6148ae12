"""Arrow tables, whatever they come from: read in batches, changed by taking rows from new ones."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from wmplug.dataset.sources.base import Base, Part
from wmplug.dataset.sources.columns import Columns
from wmplug.dataset.sources.edits import Edit, Edits
from wmplug.dataset.sources.whole import Growing
from wmplug.errors import InputError, PluginError

try:
    import pyarrow as pa
except ImportError as error:
    raise PluginError(f"Parquet and `datasets` need {error.name}: pip install 'wmplug[dataset]'") from error

BATCH_BYTES = 1 << 24


class Arrow(Base):
    """A source over tables of one schema; what `datasets` notes in it of pictures and classes is heeded.

    Args:
        place: of the set, for messages.
        schema: of the tables.
        text: column of the texts; by default `text`, where there is one.
        label: column of the labels; by default `label`, where there is one.
        columns: columns of numbers, one of arrays or one of encoded pictures that make the input.
        classes: names in the order of their numbers.

    Raises:
        InputError: a column is not there, or cannot be told.
    """

    def __init__(
        self,
        place: str,
        schema: pa.Schema,
        *,
        text: str | None = None,
        label: str | None = None,
        columns: Sequence[str] | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        pictures = [field.name for field in schema if _holds_pictures(field.type)]
        self._of = Columns.choose(place, schema.names, text, label, columns, pictures)
        self._schema, self.form = schema, self._of.form
        super().__init__(place, _class_names(schema, self._of.label) if classes is None else classes)

    @abstractmethod
    def _tables(self, columns: Sequence[str] | None) -> Iterator[Batch]:
        """The rows in batches, with these columns or, for None, all."""

    def _parts(self, inputs: bool) -> Iterator[Part]:
        label = self._of.label
        columns = self._of.needed if inputs else [] if label is None else [label]
        for batch in self._tables(columns or None):
            if len(batch.table):
                labels = [None] * len(batch.table) if label is None else batch.table.column(label).to_pylist()
                yield Part(batch.names(), self._inputs(batch) if inputs else [], labels)

    def _inputs(self, batch: Batch) -> Iterable[Any]:
        chosen = [batch.table.column(column) for column in self._of.inputs]
        if not any(column.null_count for column in chosen):
            if self.form == "array" and all(_is_number(column.type) for column in chosen):
                return np.column_stack([_numbers(column) for column in chosen])
            if self.form == "text" and pa.types.is_string(chosen[0].type):
                return cast("list[str]", chosen[0].to_pylist())
        rows = zip(*(column.to_pylist() for column in chosen), strict=True)
        return (
            self._of.input_of(dict(zip(self._of.inputs, row, strict=True)), name)
            for name, row in zip(batch.names(), rows, strict=True)
        )

    def _edited(self, edits: Edits, growing: Growing) -> Iterator[tuple[Batch, pa.Table]]:
        """The rows in batches, as they were and with their changes."""
        count = 0
        for batch in self._tables(None):
            growing.at = next(batch.names(), batch.place)
            places = edits.within(count, count + len(batch.table))
            like: list[int] = []  # the row of the batch that a new one is like
            new: list[Edit] = []  # what that has otherwise
            kept: list[tuple[int, int, int]] = []  # so many new rows, and behind them old ones from here to there
            changed: list[int] = []  # new rows that stand for old ones
            done = 0
            if count == 0 and len(batch.table):
                new.extend(edits.after(-1))
                like.extend([0] * len(new))
            for index in places:
                row = index - count
                kept.append((len(new), done, row))
                done = row
                if edit := edits.at(index):
                    changed.append(len(new))
                    new.append(edit)
                    done += 1
                else:
                    kept.append((len(new), row, row + 1))
                    done += 1
                new.extend(edits.after(index))
                like.extend([row] * (len(new) - len(like)))
            count += len(batch.table)
            if not new:
                yield batch, batch.table
                continue
            if len(new) > len(changed):
                self._of.refuse_to_add(self._place)
            old = batch.table.take(like)
            made = self._made(old, new, batch.place)
            for place in changed:
                edits.count_changed(not made.slice(place, 1).equals(old.slice(place, 1)))
            pieces, given = [], 0
            for upto, start, stop in [*kept, (len(new), done, len(batch.table))]:
                pieces += [made.slice(given, upto - given), batch.table.slice(start, stop - start)]
                given = upto
            yield batch, pa.concat_tables(pieces)
        edits.check(count)

    def _made(self, like: pa.Table, edits: Sequence[Edit], name: str) -> pa.Table:
        """Rows like others, but for their edits."""
        old = like.select(self._of.needed).to_pylist()
        new = [self._of.edited(cells, edit, name) for cells, edit in zip(old, edits, strict=True)]
        for column in self._of.needed:
            place = like.schema.get_field_index(column)
            field = like.schema.field(place)
            try:
                values = [cells[column] for cells in new]
                if _is_number(field.type) or pa.types.is_list(field.type):
                    cells = pa.array(values).cast(field.type)  # which refuses to cut off digits
                else:
                    cells = pa.array(values, type=field.type)
            except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
                raise InputError(
                    f"a changed or added record does not fit the column {column} of {self._place}, which holds "
                    f"{field.type}: {error}"
                ) from None
            like = like.set_column(place, field, cells)
        return like


class Batch(NamedTuple):
    """Some rows.

    Attributes:
        place: what they are part of.
        start: number of the first there, counted from 0.
        table: the rows.
        part: what a copy keeps together.
    """

    place: str
    start: int
    table: pa.Table
    part: Any = None

    def names(self) -> Iterator[str]:
        """Where each row stands."""
        return (f"{self.place}, row {row}" for row in range(self.start, self.start + len(self.table)))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _numbers(column: pa.ChunkedArray) -> Any:
    """The column as a NumPy array."""
    array = column.combine_chunks()
    if pa.types.is_boolean(array.type):
        return array.to_numpy(zero_copy_only=False)
    return np.from_dlpack(array)  # to_numpy imports pandas


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {kind.field(place).name for place in range(kind.num_fields)} == {"bytes", "path"}
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: pa.Schema, label: str | None) -> list[str] | None:
    """The names that `datasets` notes for class numbers."""
    noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    names = noted.get("info", {}).get("features", {}).get(label, {}).get("names")
    return list(map(str, names)) if isinstance(names, list) else None
