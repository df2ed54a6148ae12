"""Arrow tables from any format: read in batches, changed by taking rows from new ones."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from wmplug.dataset.sources.base import Base, Chunk, Rows, Texts, spread
from wmplug.dataset.sources.borders import border
from wmplug.dataset.sources.columns import Columns, Layout
from wmplug.dataset.sources.edits import Edit, Edits
from wmplug.dataset.sources.lines import Places, is_utf8
from wmplug.dataset.sources.packed import AS_TEXTS, decoded
from wmplug.dataset.sources.whole import Growing
from wmplug.extras import need

with need("dataset"):
    import pyarrow as pa

BATCH_BYTES = 1 << 24
_RUN = 8  # rows, from which on a slice costs less than they do one by one
_ROWS = 100  # that show whether a column counts them


class Arrow(Base):
    """A source over tables of one schema; follows the notes of `datasets` on pictures and classes.

    Args:
        place: location of the set, for messages.
        schema: schema of the tables.
        columns: by default the text is in `text` and the label in `label`; numbers are in columns of their own, in one
            of arrays, or in one of encoded pictures.

    Raises:
        InputError: a column does not exist, or cannot be determined.
    """

    def __init__(self, place: str, schema: pa.Schema, columns: Columns) -> None:
        super().__init__(place, columns.classes)
        self._schema = schema
        pictures = [field.name for field in schema if _holds_pictures(field.type)]
        pictures = [name for name in pictures if name != columns.text and not self._are_texts(name)]
        self._of = Layout.choose(place, schema.names, columns, pictures, _index_of(schema))
        self.form, self.taken = self._of.form, self._of.taken
        if columns.classes is None:
            self._given = _class_names(schema, self._of.label)
        if self.form == "array":
            first = [column.to_pylist() for column in self._first(self._of.inputs).columns]
            self._of.check_numbers(list(zip(*first, strict=True)), place)

    def _first(self, columns: Sequence[str]) -> pa.Table:
        """The first rows, of some columns."""
        batch = next(self._tables(columns), None)
        return (self._schema.empty_table() if batch is None else batch.table).select(columns).slice(0, _ROWS)

    def _are_texts(self, name: str) -> bool:
        """Whether a column of bytes holds texts in its first rows."""
        if not _is_binary(self._schema.field(name).type):
            return False
        cells = [cell for cell in self._first([name]).column(0).to_pylist() if cell]
        return bool(cells) and all(map(is_utf8, cells))

    @property
    def _has_labels(self) -> bool:
        return self._of.label is not None

    @abstractmethod
    def _tables(self, columns: Sequence[str] | None) -> Iterator[Batch]:
        """The rows in batches, with these columns or, for None, all."""

    def _parts(self, inputs: bool) -> Iterator[Chunk]:
        label = self._of.label
        columns = self._of.needed if inputs else [] if label is None else [label]
        for batch in self._tables(columns or None):
            if len(batch.table):
                with border(
                    f"{batch.place} has labels or inputs that Python cannot hold", "save plain numbers or texts"
                ):
                    labels = [None] * len(batch.table) if label is None else _values(batch, label)
                    chunk = Chunk(batch.name, self._inputs(batch) if inputs else [], labels)
                yield chunk

    def _refuse_repeats(self) -> None:
        names, inputs = self._of.names, () if self._of.form == "array" else self._of.inputs
        if len(set(names)) == len(names):
            structs = [field for field in self._schema if pa.types.is_struct(field.type)]
            pictures = [field.name for field in structs if _holds_pictures(field.type)]
            beside = [name for name in names if name in pictures or name not in inputs]
            self._of.refuse_repeats(self._spread(beside, pictures), self._place)

    def _refuse_to_add(self) -> None:
        self._of.refuse_to_add(self._place)

    def _path_of(self, picture: str) -> str:
        """The column to read for the paths of pictures, if their bytes can be left out."""
        return picture

    def _spread(self, columns: Sequence[str], pictures: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Some rows, spread over the set; of pictures their paths."""
        for batch in self._tables([self._path_of(name) if name in pictures else name for name in columns]):
            table = batch.table
            for name in pictures:
                path = table.select([name]).flatten().select([f"{name}.path"])
                table = table.drop_columns([name]).append_column(path.schema.field(0), path.column(0))
            with border(f"{batch.place} holds values that Python cannot hold", "save plain numbers or texts"):
                yield from (table.slice(row, 1).to_pylist()[0] for row in spread(len(table)))

    def _inputs(self, batch: Batch) -> Iterable[Any]:
        chosen = [batch.table.column(column) for column in self._of.inputs]
        if not any(column.null_count for column in chosen):
            if self.form == "array" and all(_is_number(column.type) for column in chosen):
                return Rows([_numbers(column) for column in chosen])
            if self.form == "text" and _is_binary(chosen[0].type):
                return _texts(chosen[0], batch)
            if self.form == "text" and (pa.types.is_string(chosen[0].type) or pa.types.is_large_string(chosen[0].type)):
                return _texts(chosen[0], batch)
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
            size = len(batch.table)
            new = [_New(edit, 0, 0) for edit in (edits.after(-1) if count == 0 and size else ())]
            for index in edits.within(count, count + size):
                row = index - count
                if edit := edits.at(index):
                    new.append(_New(edit, row, None))
                new += [_New(edit, row, row + 1) for edit in edits.after(index)]
            count += size
            yield batch, self._with(batch, new, edits) if new else batch.table
        edits.check(count)

    def _with(self, batch: Batch, new: Sequence[_New], edits: Edits) -> pa.Table:
        """The rows of a batch with new ones; columns in which nothing changes stay as they are."""
        size = len(batch.table)
        places, stands = np.arange(size, size + len(new)), np.array([one.before is None for one in new])
        order = np.arange(size)  # order of the rows, new ones behind those of the batch
        order[[one.like for one in new if one.before is None]] = places[stands]
        if not stands.all():
            order = np.insert(order, [one.before for one in new if one.before is not None], places[~stands])
        rows = np.array([one.like for one in new])
        with border(f"some rows of {batch.place} cannot be taken out", "save it with plain types"):
            old = pa.Table.from_arrays(
                [_taken(column.chunks, rows) for column in batch.table.columns], schema=batch.table.schema
            )
        made = self._made(old, [one.edit for one in new], batch.place)
        names = old.column_names
        other = [place for place, column in enumerate(made.columns) if not column.equals(old.column(place))]
        before, after = old.select(other), made.select(other)
        for place in np.flatnonzero(stands).tolist():
            edits.count_changed(not after.slice(place, 1).equals(before.slice(place, 1)))
        columns = [
            self._taken(column, made.column(place), order, names[place])
            if place in other or len(order) > size
            else column
            for place, column in enumerate(batch.table.columns)
        ]
        return pa.Table.from_arrays(columns, schema=batch.table.schema)

    def _taken(self, old: pa.ChunkedArray, new: pa.ChunkedArray, order: Places, name: str) -> pa.Array:
        """Rows of a column, new ones behind the old, in an order."""
        fault = f"changed and added records do not fit the column {name} of {self._place}, which holds {old.type}"
        with border(fault, "save it as plain texts or with a wider index"):
            return _taken([*old.chunks, *new.chunks], order)

    def _made(self, like: pa.Table, edits: Sequence[Edit], name: str) -> pa.Table:
        """Rows like others, but for their edits."""
        old = like.select(self._of.needed).to_pylist()
        new = [self._of.edited(cells, edit, name) for cells, edit in zip(old, edits, strict=True)]
        for column in self._of.needed:
            place = like.schema.get_field_index(column)
            field = like.schema.field(place)
            fault = f"a changed or added record does not fit the column {column} of {self._place}, which holds "
            with border(f"{fault}{field.type}", "save it with a wider type"):
                values = [cells[column] for cells in new]
                if _is_binary(field.type):
                    values = [value.encode() if isinstance(value, str) else value for value in values]
                if _is_number(field.type) or pa.types.is_list(field.type):
                    cells = pa.array(values).cast(field.type)  # which refuses to cut off digits
                else:
                    cells = pa.array(values, type=field.type)
                like = like.set_column(place, field, cells)
        return like


class Batch(NamedTuple):
    """Some rows.

    Attributes:
        place: the file or set that they are part of.
        start: number of the first row there, counted from 0.
        table: the rows.
        part: number of the row group, which a copy keeps together.
    """

    place: str
    start: int
    table: pa.Table
    part: Any = None

    def names(self) -> Iterator[str]:
        """The location of each row, for messages."""
        return map(self.name, range(len(self.table)))

    def name(self, row: int) -> str:
        """The location of one row, counted from 0 in the batch."""
        return f"{self.place}, row {self.start + row}"


class _New(NamedTuple):
    """A changed or added row of a copy.

    Attributes:
        edit: the change.
        like: the row of the batch that it starts from.
        before: the row of the batch that it is inserted before; None if it replaces a row.
    """

    edit: Edit
    like: int
    before: int | None


def _taken(chunks: Sequence[pa.Array], rows: Places) -> pa.ChunkedArray:
    """Rows of arrays that follow each other.

    Long runs of rows are cut out, which copies them at once; so is a type that Arrow cannot take rows of.
    """
    ends = np.append(np.flatnonzero(np.diff(rows) != 1) + 1, len(rows))
    if len(ends) * _RUN > len(rows) or pa.types.is_dictionary(chunks[0].type):
        with suppress(pa.ArrowNotImplementedError):
            return pa.chunked_array([pa.concat_arrays(chunks).take(rows)])
    whole, starts = pa.chunked_array(chunks), [0, *ends[:-1].tolist()]
    slices = [whole.slice(int(rows[start]), end - start) for start, end in zip(starts, ends.tolist(), strict=True)]
    pieces = [piece for part in slices for piece in part.chunks]
    with suppress(pa.ArrowNotImplementedError):
        return pa.chunked_array([pa.concat_arrays(pieces)])
    return pa.chunked_array(pieces, whole.type)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def _texts(column: pa.ChunkedArray, batch: Batch) -> Texts:
    """The texts of a batch.

    Raises:
        InputError: one is not UTF-8, which Parquet does not check.
    """
    try:
        column = column.cast(pa.large_string()) if _is_binary(column.type) else column
        column.validate(full=True)
    except pa.ArrowInvalid:
        for row, text in enumerate(column.cast(pa.large_binary()).to_pylist()):
            decoded(text, batch.name(row), AS_TEXTS)
    return Texts(column)


def _values(batch: Batch, label: str) -> list[Any]:
    """The labels of a batch; bytes are texts."""
    column = batch.table.column(label)
    if not _is_binary(column.type):
        return list(column.to_pylist())
    cells = enumerate(column.to_pylist())
    return [None if cell is None else decoded(cell, batch.name(row), AS_TEXTS) for row, cell in cells]


def _numbers(column: pa.ChunkedArray) -> Any:
    """The column as a NumPy array."""
    array = column.combine_chunks()
    if pa.types.is_boolean(array.type):
        return array.to_numpy(zero_copy_only=False)
    return np.from_dlpack(array)  # to_numpy imports pandas


def _holds_pictures(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return {kind.field(place).name for place in range(kind.num_fields)} == {"bytes", "path"}
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return any(
        judge(kind)
        for judge in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_fixed_size_binary,
        )
    )


def _index_of(schema: pa.Schema) -> list[str]:
    """The columns that pandas notes as its index."""
    noted = _noted(schema, b"pandas").get("index_columns", [])
    return [column for column in noted if isinstance(column, str)] if isinstance(noted, list) else []


def _noted(schema: pa.Schema, name: bytes) -> dict[str, Any]:
    """What a library noted about the schema; nothing if it cannot be read."""
    try:
        noted = json.loads((schema.metadata or {}).get(name, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _class_names(schema: pa.Schema, label: str | None) -> list[str] | None:
    """The names that `datasets` notes for class numbers."""
    found: Any = _noted(schema, b"huggingface")
    for key in ("info", "features", label, "names"):
        found = found.get(key) if isinstance(found, dict) else None
    return list(map(str, found)) if isinstance(found, list) else None
