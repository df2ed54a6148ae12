"""`datasets.Dataset`, one saved to disk, and `datasets.IterableDataset`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wmplug.dataset.records import Out, Written
from wmplug.dataset.sources.arrow import Arrow, Batch
from wmplug.dataset.sources.borders import border
from wmplug.dataset.sources.columns import Columns
from wmplug.dataset.sources.edits import Edits
from wmplug.dataset.sources.whole import Growing, whole_folder
from wmplug.errors import InputError
from wmplug.extras import need

with need("dataset"):
    import datasets
    import pyarrow as pa
    from datasets.table import InMemoryTable

_BATCH = 256  # rows, each of which can be a picture of some megabytes


class HuggingFace(Arrow):
    """A source over one split; its copy is a folder as by `save_to_disk`, or without `out` a Dataset in memory.

    Args:
        data: a Dataset, the folder of a saved one, or an IterableDataset that yields the same each time.
        columns: as for `Arrow`.

    Raises:
        InputError: the data have several splits, or cannot be read.
    """

    def __init__(self, data: Any, columns: Columns) -> None:
        self._folder = Path(data) if isinstance(data, (str, Path)) else None
        self._data: Any = _loaded(self._folder) if self._folder else data
        if isinstance(self._data, dict):
            raise InputError(
                f"the set has the splits {', '.join(self._data)}: mark one of them, data[{next(iter(self._data))!r}]"
            )
        if isinstance(self._data, datasets.Dataset):
            self.count = len(self._data)
        features = self._data.features
        self._rows = self._data.with_format("arrow")
        schema = features.arrow_schema if features else next(self._rows.iter(1)).schema
        super().__init__(str(self._folder or "the set"), schema, columns)

    def _tables(self, columns: Sequence[str] | None) -> Iterator[Batch]:
        rows = self._rows if columns is None else self._rows.select_columns(list(columns))
        start = 0
        schema = self._schema if columns is None else pa.schema(map(self._schema.field, columns))
        tables = rows.iter(_BATCH)
        while (table := self._next(tables, start)) is not None:
            if not table.schema.equals(schema):
                table = self._cast(table, schema, start)
            yield Batch(self._place, start, table)
            start += len(table)

    def _next(self, tables: Iterator[pa.Table], start: int) -> pa.Table | None:
        with border(f"{self._place} has rows from {start} on that do not fit together", "correct them"):
            return next(tables, None)

    def _cast(self, table: pa.Table, schema: pa.Schema, start: int) -> pa.Table:
        fault = f"{self._place}, rows {start} to {start + len(table) - 1} do not fit the first row"
        with border(fault, "write all rows alike"):
            return table.select(schema.names).cast(schema)

    def _copy(self, out: Out, edits: Edits) -> Written:
        info = self._data.info.copy()
        if out is None and self._folder is None and isinstance(self._data, datasets.Dataset):
            tables = [table for _, table in self._edited(edits, Growing(Path(), Path()))]
            made = datasets.Dataset(InMemoryTable(pa.concat_tables(tables)), info=info, split=self._data.split)
            return edits.written(made)
        with whole_folder(out, self._folder) as growing:
            rows = (
                growing.path / "rows" / "rows.arrow"
            )  # not in the folder itself: `datasets` refuses to save beside it
            rows.parent.mkdir()
            with pa.ipc.new_stream(rows, self._schema) as writer:
                for _, table in self._edited(edits, growing):
                    writer.write_table(table)
            with _quiet():
                datasets.Dataset.from_file(str(rows), info=info, split=self._data.split).save_to_disk(growing.path)
            shutil.rmtree(rows.parent)
            return edits.written(growing.target)


def _loaded(folder: Path) -> Any:
    with border(f"{folder} is not a whole set as by save_to_disk", "restore it"):
        return datasets.load_from_disk(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars: the caller shows one."""
    if datasets.are_progress_bars_disabled():
        yield
        return
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.enable_progress_bars()
