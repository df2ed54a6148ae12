"""Parquet: one file, or a folder of them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from wmplug.dataset.records import Out, Written
from wmplug.dataset.sources.arrow import BATCH_BYTES, Arrow, Batch
from wmplug.dataset.sources.edits import Edits
from wmplug.dataset.sources.whole import whole_file, whole_folder
from wmplug.errors import InputError, PluginError
from wmplug.keys.files import files_of

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise PluginError(f"Parquet needs {error.name}: pip install 'wmplug[dataset]'") from error

_GROUP_BYTES, _BATCH_ROWS = 1 << 26, 1 << 16


class Parquet(Arrow):
    """A source over Parquet files of one schema, which is kept, as are metadata, compression and row groups.

    Row groups of more than 64 MB are divided, so that memory does not grow with them.

    Args:
        path: the file, or a folder in which the files of a set lie.
        **options: as for `Arrow`.

    Raises:
        InputError: a file is no Parquet, or has another schema than the first.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        self._path = path
        self._files = [path] if path.is_file() else [file for _, file in files_of(path) if file.suffix == ".parquet"]
        opened = map(self._open, self._files)
        schema = next(opened).schema_arrow
        for file, other in zip(self._files[1:], opened, strict=True):
            if not other.schema_arrow.equals(schema):
                raise InputError(f"{file} has other columns than {self._files[0]}: a set has one schema")
        super().__init__(str(path), schema, **options)

    def _open(self, file: Path) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(file)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{file} is no Parquet that can be read: {error}") from None

    def _tables(self, columns: Sequence[str] | None) -> Iterator[Batch]:
        for file in self._files:
            name, start = file.relative_to(self._path.parent).as_posix(), 0
            with self._open(file) as opened:
                for group in range(opened.num_row_groups):
                    facts = opened.metadata.row_group(group)
                    size = max(1, BATCH_BYTES * facts.num_rows // max(1, facts.total_byte_size))
                    batches = opened.iter_batches(min(size, _BATCH_ROWS), [group], columns, use_threads=False)
                    try:
                        for batch in batches:
                            yield Batch(name, start, pa.Table.from_batches([batch]), (file, group))
                            start += batch.num_rows
                    except (pa.ArrowException, OSError) as error:
                        raise InputError(f"{name} is damaged after row {start}: {error}") from None
                if start == 0:
                    yield Batch(name, 0, self._schema.empty_table(), (file, 0))

    def _copy(self, out: Out, edits: Edits) -> Written:
        whole = whole_folder(out, self._path) if self._path.is_dir() else whole_file(out, self._path, self._path.name)
        with whole as growing:
            if self._path.is_dir():
                for name, file in files_of(self._path):
                    (growing.path / name).parent.mkdir(parents=True, exist_ok=True)
                    if file not in self._files:
                        shutil.copy2(file, growing.path / name)
            for file, batches in itertools.groupby(self._edited(edits, growing), lambda pair: pair[0].part[0]):
                place = growing.path / file.relative_to(self._path) if self._path.is_dir() else growing.path
                with self._writer(file, place) as writer:
                    for _, group in itertools.groupby(batches, lambda pair: pair[0].part):
                        for table in _joined(group):
                            writer.write_table(table, row_group_size=max(1, len(table)))
            return edits.written(growing.target)

    def _writer(self, like: Path, place: Path) -> pq.ParquetWriter:
        with self._open(like) as opened:
            facts = opened.metadata
            columns = [
                facts.row_group(0).column(place) for place in range(facts.num_columns * bool(facts.num_row_groups))
            ]
            version = {"1.0": "1.0", "2.4": "2.4"}.get(facts.format_version, "2.6")
        return pq.ParquetWriter(
            place,
            self._schema,
            version=version,
            compression={
                column.path_in_schema: column.compression.replace("UNCOMPRESSED", "NONE") for column in columns
            }
            or "snappy",
            use_dictionary=[column.path_in_schema for column in columns if column.has_dictionary_page],
        )


def _joined(pairs: Iterable[tuple[Batch, pa.Table]]) -> Iterator[pa.Table]:
    """Tables of a row group as few as fit into memory."""
    held: list[pa.Table] = []
    size = 0
    for batch, table in pairs:
        held.append(table)
        size += batch.table.nbytes  # of the other table, which is of many slices, this takes long
        if size > _GROUP_BYTES:
            yield pa.concat_tables(held)
            held, size = [], 0
    if held:
        yield pa.concat_tables(held)
