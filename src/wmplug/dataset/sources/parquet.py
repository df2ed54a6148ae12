"""Parquet: one file, or a folder of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote

from wmplug.dataset.records import Out, Written
from wmplug.dataset.sources.arrow import BATCH_BYTES, Arrow, Batch
from wmplug.dataset.sources.borders import border
from wmplug.dataset.sources.columns import Columns
from wmplug.dataset.sources.companions import Companions, Moves
from wmplug.dataset.sources.edits import Edits
from wmplug.dataset.sources.listings import Unit
from wmplug.dataset.sources.whole import whole_file, whole_folder
from wmplug.errors import InputError
from wmplug.extras import need
from wmplug.keys.files import files_of

with need("dataset"):
    import pyarrow as pa
    import pyarrow.parquet as pq

_GROUP_BYTES, _BATCH_ROWS = 1 << 26, 1 << 16
_SUMMARIES = ("_metadata", "_common_metadata")  # of a folder, as Spark and Dask write them
_FULL = (OSError,)  # of a full disk, which the growing copy reports


class Parquet(Arrow):
    """A source over Parquet files of one schema; a copy keeps schema, metadata, compression and row groups.

    It divides row groups of more than 64 MB, so that memory does not grow with them.

    Args:
        path: the file, or a folder with the files of a set.
        columns: as for `Arrow`.

    Raises:
        InputError: a file is not Parquet, or has another schema than the first.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self._path = path
        self._files = [path] if path.is_file() else [file for _, file in files_of(path) if file.suffix == ".parquet"]
        opened = map(self._open, self._files)
        first = next(opened)
        schema, self.count = first.schema_arrow, first.metadata.num_rows
        for file, other in zip(self._files[1:], opened, strict=True):
            if not other.schema_arrow.equals(schema):
                raise InputError(f"{file} has other columns than {self._files[0]}: give files of one schema")
            self.count += other.metadata.num_rows
        self._companions = Companions(path, self._others, self._units, columns.keep_files, single=False)
        self._stored = schema
        self._in_names = {file: _keys_of(file.relative_to(path)) for file in self._files}
        if len({tuple(keys) for keys in self._in_names.values()}) > 1:
            raise InputError(f"the folders of {path} name different columns (key=value): name the same in all")
        for key in self._in_names[self._files[0]]:
            schema = schema if key in schema.names else schema.append(pa.field(key, pa.string()))
        self._only_in_names = set(schema.names) - set(self._stored.names)
        super().__init__(str(path), schema, columns)
        self.taken = (*self.taken, *self._companions.taken)

    def check(self, *, relabelled: bool, added: bool) -> None:
        """Refuse columns and companions that no copy can keep true; see `Source.check`."""
        super().check(relabelled=relabelled, added=added)
        if (relabelled or added) and self._of.label is not None and self._of.label not in self._stored.names:
            raise InputError(
                f"the labels of {self._path} are in the names of its folders ({self._of.label}=...), where a changed "
                "record would lie in another file: write the label as a column, or choose a scheme that changes no "
                "label, such as twins"
            )
        self._companions.check(relabelled, added)

    def _path_of(self, picture: str) -> str:
        return f"{picture}.path"

    def _others(self) -> Iterator[tuple[str, Path]]:
        if self._path.is_dir():
            for name, file in files_of(self._path):
                if file not in self._files and name not in _SUMMARIES:
                    yield name, file

    def _units(self) -> Iterator[Unit]:
        return (Unit(file.relative_to(self._path).as_posix()) for file in self._files)

    def _open(self, file: Path) -> pq.ParquetFile:
        with border(f"{file} is not readable as Parquet", "restore it, or leave it out"):
            return pq.ParquetFile(file)

    def _tables(self, columns: Sequence[str] | None) -> Iterator[Batch]:
        for file in self._files:
            name, start = file.relative_to(self._path.parent).as_posix(), 0
            with self._open(file) as opened:
                for group in range(opened.num_row_groups):
                    facts = opened.metadata.row_group(group)
                    size = max(1, BATCH_BYTES * facts.num_rows // max(1, facts.total_byte_size))
                    asked = None if columns is None else [one for one in columns if one not in self._only_in_names]
                    asked = self._stored.names[:1] if asked == [] else asked  # for the number of rows
                    batches = opened.iter_batches(min(size, _BATCH_ROWS), [group], asked, use_threads=False)
                    while (batch := self._next(batches, name, start)) is not None:
                        yield Batch(name, start, self._with_names(batch, file, columns), (file, group))
                        start += batch.num_rows
                if start == 0:
                    yield Batch(name, 0, self._schema.empty_table(), (file, 0))

    def _with_names(self, batch: pa.RecordBatch, file: Path, columns: Sequence[str] | None) -> pa.Table:
        """The rows with the columns that are in the names of their folders."""
        table = pa.Table.from_batches([batch])
        for key, value in self._in_names[file].items():
            if key in self._only_in_names and (columns is None or key in columns):
                table = table.append_column(pa.field(key, pa.string()), pa.array([value] * len(table), pa.string()))
        return table

    def _next(self, batches: Iterator[pa.RecordBatch], name: str, start: int) -> pa.RecordBatch | None:
        with border(f"{name} is damaged after row {start}", "restore it"):
            return next(batches, None)

    def _copy(self, out: Out, edits: Edits) -> Written:
        whole = whole_folder(out, self._path) if self._path.is_dir() else whole_file(out, self._path, self._path.name)
        with whole as growing:
            for file, batches in itertools.groupby(self._edited(edits, growing), lambda pair: pair[0].part[0]):
                place = growing.path / file.relative_to(self._path) if self._path.is_dir() else growing.path
                place.parent.mkdir(parents=True, exist_ok=True)
                with self._writer(file, place) as writer:
                    for _, group in itertools.groupby(batches, lambda pair: pair[0].part):
                        for table in _joined(group):
                            table = table.select(range(len(self._stored.names)))
                            with border(f"{file} cannot be written again", "save it with plain types", passing=_FULL):
                                writer.write_table(table, row_group_size=max(1, len(table)))
            if self._path.is_dir():
                self._companions.write(growing.path, Moves(written={unit.name for unit in self._units()}))
                self._summarise(growing.path)
            return edits.written(growing.target)

    def _summarise(self, grown: Path) -> None:
        """The summaries that readers find row groups by, made again where the set has them."""
        for summary in _SUMMARIES:
            if not (self._path / summary).exists():
                continue
            with border(f"{self._path / summary} cannot be made again", "take it out of the set", passing=_FULL):
                notes: list[pq.FileMetaData] = []
                for unit in self._units() if summary == "_metadata" else ():
                    notes.append(pq.read_metadata(grown / unit.name))
                    notes[-1].set_file_path(unit.name)
                pq.write_metadata(self._stored, grown / summary, metadata_collector=notes or None)

    def _writer(self, like: Path, place: Path) -> pq.ParquetWriter:
        with self._open(like) as opened:
            facts = opened.metadata
            columns = [
                facts.row_group(0).column(place) for place in range(facts.num_columns * bool(facts.num_row_groups))
            ]
            version = {"1.0": "1.0", "2.4": "2.4"}.get(facts.format_version, "2.6")
        return pq.ParquetWriter(
            place,
            self._stored,
            version=version,
            compression={
                column.path_in_schema: column.compression.replace("UNCOMPRESSED", "NONE") for column in columns
            }
            or "snappy",
            use_dictionary=[column.path_in_schema for column in columns if column.has_dictionary_page],
        )


def _keys_of(path: Path) -> dict[str, str | None]:
    """The columns in the names of folders, as Hive writes them: label=cat."""
    pairs = [part.partition("=") for part in path.parts[:-1] if "=" in part]
    return {unquote(key): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for key, _, value in pairs}


def _joined(pairs: Iterable[tuple[Batch, pa.Table]]) -> Iterator[pa.Table]:
    """The tables of a row group, joined as far as memory allows."""
    held: list[pa.Table] = []
    size = 0
    for batch, table in pairs:
        held.append(table)
        size += batch.table.nbytes  # takes long for the other table, which consists of many slices
        if size > _GROUP_BYTES:
            yield pa.concat_tables(held)
            held, size = [], 0
    if held:
        yield pa.concat_tables(held)
