"""Arrays in an .npz file, inputs read block by block."""

from __future__ import annotations

import math
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from wmplug.dataset.records import Out, Written
from wmplug.dataset.sources.base import Base, Chunk
from wmplug.dataset.sources.borders import border
from wmplug.dataset.sources.columns import Columns
from wmplug.dataset.sources.edits import Edits
from wmplug.dataset.sources.pairs import fitting
from wmplug.dataset.sources.tells import LONG, refuse_tells, spread
from wmplug.dataset.sources.whole import Growing, whole_file
from wmplug.errors import InputError
from wmplug.keys.files import PIECE

_INPUTS, _LABELS = (
    ("x", "x_train", "images", "inputs", "carriers", "data"),
    ("y", "y_train", "labels", "label", "target"),
)


class Zipped(Base):
    """A source over two arrays of an .npz file; the labels are kept in memory, other arrays are copied.

    Args:
        path: the file.
        columns: names of the arrays: one of texts (n,) or of inputs (n, ...), by default x, images, ..., and one of
            labels (n,), whole numbers or names, by default y, labels, ...

    Raises:
        InputError: the file is damaged, or its arrays do not fit.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(str(path), columns.classes)
        self._path, self._keep = path, columns.keep_files
        asked = columns.of_input
        with self._reading("its directory"), zipfile.ZipFile(path) as opened:
            held = [name.removesuffix(".npy") for name in opened.namelist()]
            inputs = asked or [name for name in _INPUTS if name in held]
            labels = [columns.label] if columns.label is not None else [name for name in _LABELS if name in held]
            if not inputs or len(asked) > 1 or not {inputs[0], *labels[:1]} <= set(held):
                raise InputError(
                    f"{path} holds {', '.join(held)}: name the inputs with columns=[...] and the labels with label=..."
                )
            self._input, self._label = inputs[0], labels[0] if labels else None
            with opened.open(f"{self._input}.npy") as file:
                self._shape, self._dtype = _header(file, f"{self._input} in {path}")
            self._values: list[Any] | None = None
            if self._label is not None:
                with opened.open(f"{self._label}.npy") as file:
                    if _shape(file)[2].hasobject:
                        raise InputError(
                            f"the labels {self._label} in {path} are Python objects, which are not unpickled: save "
                            "them as texts or whole numbers, for example with labels.astype(str)"
                        )
                with opened.open(f"{self._label}.npy") as file:
                    found = npy.read_array(cast("Any", file), allow_pickle=False)
                self._values, self._label_dtype = found.tolist(), found.dtype
        self.count: int = self._shape[0]
        self.form = "text" if self._dtype.kind == "U" else "array"
        if self._values is not None and (found.ndim != 1 or len(found) != self.count):
            raise InputError(f"{path} has {self.count} inputs and labels of shape {found.shape}: each record needs one")

    @property
    def _has_labels(self) -> bool:
        return self._values is not None

    def _refuse_repeats(self) -> None:
        if self._values is None:
            return
        super()._refuse_repeats()
        rows, lists = spread(range(self.count)), {}
        for name, found in self._arrays_beside():
            if len(found) == self.count:
                if found.shape == self._scored and found.dtype.kind in "biuf":
                    found = np.argmax(found, 1)  # of each record the class that the scores name
                said = [(self._values[row], str(found[row].tolist())) for row in rows]
                refuse_tells(said, f"the rows of {name} in {self._path}", "leave that array out")
            elif found.ndim == 1 and found.dtype.kind in "iu":
                lists[name] = set(found.tolist())
        said = [(self._values[row], " ".join(name for name in lists if row in lists[name])) for row in rows]
        refuse_tells(said, f"the numbers of rows in {', '.join(lists)} in {self._path}", "leave such arrays out")

    @property
    def _scored(self) -> tuple[int, int]:
        """The shape of scores of all classes."""
        return self.count, len(self.classes)

    def _arrays_beside(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """The arrays beside inputs and labels that are short enough, row by row, to speak of single records.

        Raises:
            InputError: one holds Python objects, which nobody can judge, and the owner did not ask to keep it.
        """
        with self._reading("its arrays"), zipfile.ZipFile(self._path) as opened:
            for name in sorted(
                {name[:-4] for name in opened.namelist() if name.endswith(".npy")} - {self._input, self._label}
            ):
                with opened.open(f"{name}.npy") as file:
                    shape, _, dtype = _shape(file)
                if dtype.hasobject and not self._keep:
                    raise InputError(
                        f"the array {name} in {self._path} holds Python objects, which are not unpickled and could say "
                        "the label: save texts or numbers (array.astype(str)), leave it out, or copy it as it is with "
                        "keep_files=True (--keep-files)"
                    )
                short = dtype.itemsize * math.prod(shape[1:]) <= LONG or shape == self._scored
                if shape and short and not dtype.hasobject:
                    with opened.open(f"{name}.npy") as file:
                        yield name, npy.read_array(cast("Any", file), allow_pickle=False)

    def _parts(self, inputs: bool) -> Iterator[Chunk]:
        labels = [None] * self.count if self._values is None else self._values
        if not inputs:
            yield Chunk(partial(self._name, 0), [], labels)
            return
        done = 0
        for block in self._blocks():
            stop = done + len(block)
            rows = block.tolist() if self.form == "text" else block
            yield Chunk(partial(self._name, done), rows, labels[done:stop])
            done = stop

    def _name(self, start: int, row: int) -> str:
        return f"{self._path.name}, row {start + row}"

    def _blocks(self) -> Iterator[Any]:
        row_bytes, done = self._dtype.itemsize * math.prod(self._shape[1:]), 0
        with zipfile.ZipFile(self._path) as opened, opened.open(f"{self._input}.npy") as file:
            _header(file, self._input)
            while done < self.count:
                size = min(self.count - done, max(1, PIECE // max(1, row_bytes)))
                with self._reading(f"row {done} to {done + size - 1}"):
                    data = file.read(size * row_bytes)
                    block = np.frombuffer(data, self._dtype).reshape(size, *self._shape[1:])
                yield block
                done += size

    def _copy(self, out: Out, edits: Edits) -> Written:
        with whole_file(out, self._path, self._path.name) as growing:
            with zipfile.ZipFile(self._path) as opened, zipfile.ZipFile(growing.path, "w") as made:
                for info in opened.infolist():
                    made.compression = info.compress_type
                    if info.filename.removesuffix(".npy") in (self._input, self._label):
                        continue
                    with opened.open(info) as file, made.open(info.filename, "w", force_zip64=True) as copied:
                        shutil.copyfileobj(file, copied)
                made.compression = opened.getinfo(f"{self._input}.npy").compress_type
                with made.open(f"{self._input}.npy", "w", force_zip64=True) as copied:
                    shape = self.count + edits.adding, *self._shape[1:]
                    npy.write_array_header_2_0(
                        cast("Any", copied),
                        {"descr": npy.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape},
                    )
                    values = self._write_rows(copied, edits, growing)
                if self._label is not None:
                    with made.open(f"{self._label}.npy", "w", force_zip64=True) as copied:
                        npy.write_array(cast("Any", copied), np.array(values, self._label_dtype), allow_pickle=False)
            return edits.written(growing.target)

    def _write_rows(self, copied: IO[bytes], edits: Edits, growing: Growing) -> list[Any]:
        """Write the inputs, and return the labels."""
        values: list[Any] = []
        parts = self._parts(True)
        rows = (row for part in parts for row in zip(part.names(), part.inputs, part.labels, strict=True))
        for index, (growing.at, row, value) in enumerate(rows):
            for added in edits.after(-1) if index == 0 else ():
                copied.write(self._fitting(added.input))
                values.append(added.label)
            data, new = self._fitting(row), value
            if edit := edits.at(index):
                old = data
                data = data if edit.input is None else self._fitting(edit.input)
                new = value if edit.label is None else edit.label
                edits.count_changed(data != old or new != value)
            copied.write(data)
            values.append(new)
            for added in edits.after(index):
                copied.write(self._fitting(added.input))
                values.append(added.label)
        edits.check(self.count)
        return values

    def _fitting(self, value: Any) -> bytes:
        """A row as bytes."""
        if self.form == "text":
            if not isinstance(value, str) or len(value) > self._dtype.itemsize // np.dtype("U1").itemsize:
                raise InputError(f"a changed or added record does not fit an array of {self._dtype}: save a wider one")
            return np.array(value, self._dtype).tobytes()
        row: bytes = fitting(value, self._dtype, self._shape[1:]).tobytes()
        return row

    def _reading(self, what: str) -> AbstractContextManager[None]:
        return border(f"{self._path} is damaged at {what}", "restore it")


def _header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    shape, fortran, dtype = _shape(file)
    if fortran and len(shape) > 1:
        raise InputError(f"{name} is stored column by column: save it with np.ascontiguousarray")
    if dtype.kind not in "biufU" or not shape or shape[0] == 0:
        raise InputError(f"{name} has shape {shape} and dtype {dtype}: save an array (n, ...) of numbers or texts")
    return shape, dtype


def _shape(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(cast("Any", file))
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    return read(cast("Any", file))
