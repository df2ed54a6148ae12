"""Files in which a record is one line or a few: read and copied verbatim, in blocks of many records."""

from __future__ import annotations

import itertools
import os
import shutil
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from wmplug.dataset.records import Out, Progress, Record, Written
from wmplug.dataset.sources.base import IN_PART, Base, Chunk, Due, spread
from wmplug.dataset.sources.beside import JUDGED
from wmplug.dataset.sources.columns import Layout
from wmplug.dataset.sources.edits import Edit, Edits
from wmplug.dataset.sources.packed import endings, opened, writing
from wmplug.dataset.sources.spots import Spot, Spots
from wmplug.dataset.sources.whole import Growing, whole_file
from wmplug.errors import InputError

BOM = b"\xef\xbb\xbf"
NEWLINE = 10
_BLOCK, _LONGEST = 1 << 20, 1 << 26
_SHORT = 1000  # records in a block, from which on it saves time to count them first

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Whole records, and other lines between them.

    Attributes:
        at: bytes between the head of the file and these.
        data: the bytes of all.
        starts: offset in them of the start of each record.
        ends: offset of its end, behind the end of its line.
        lines: number of its first line in the file, counted from 1.
        quotes: offsets of the quotes, where these matter.
    """

    at: int
    data: bytes
    starts: Places
    ends: Places
    lines: Places
    quotes: Places

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Line and bytes of each record."""
        for line, start, end in zip(self.lines.tolist(), self.starts.tolist(), self.ends.tolist(), strict=True):
            yield line, self.data[start:end]


class Lines(Base):
    """A source over the lines of one file.

    Args:
        path: the file, in UTF-8.
        classes: names in the order of their numbers.
    """

    _of: Layout
    _unending = "is longer than 64 MB"
    _head_lines = 0

    def __init__(self, path: Path, classes: Sequence[str] | None) -> None:
        super().__init__(str(path), classes)
        self._path = path
        self._file = f"{path.name}, line "
        self._spots: Spots | None = None

    @abstractmethod
    def _head(self, file: BufferedReader) -> bytes:
        """The bytes before the first record; reads the file up to there."""

    @abstractmethod
    def _quotes(self, data: bytes) -> Places:
        """Offsets of the quotes that line ends can be inside of."""

    @abstractmethod
    def _is_record(self, data: bytes, starts: Places, ends: Places) -> npt.NDArray[np.bool_]:
        """Whether each of these is a record, and not an empty line."""

    @abstractmethod
    def _columns(self, block: Block, inputs: bool) -> tuple[Iterable[Any], Sequence[Any]] | None:
        """Inputs, if requested, and labels of a block; None for a block that must be read line by line."""

    @abstractmethod
    def _cells(self, line: int, raw: bytes) -> Any:
        """The content of a record."""

    @abstractmethod
    def _inputs_of(self, cells: Sequence[Any], names: Sequence[str]) -> Iterable[Any]:
        """The inputs of records."""

    @abstractmethod
    def _label(self, cells: Any) -> Any:
        """The label of a record as the file writes it, or None if records have none."""

    @abstractmethod
    def _changed(self, raw: bytes, cells: Any, edit: Edit) -> bytes:
        """A record with another input or label."""

    def _added(self, like: bytes, cells: Any, edit: Edit) -> bytes:
        """A new record, written as the one beside it is."""
        return self._changed(like, cells, edit)

    def _refuse_to_add(self) -> None:
        self._of.refuse_to_add(self._place)

    def _blocks(self, file: BinaryIO) -> Iterator[Block]:
        """The blocks of the file behind its head."""
        at, line, rest, size, more = 0, 1 + self._head_lines, b"", _BLOCK, b"."
        while more:
            more = file.read(size)
            data = rest + more
            newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE)
            if not more and data and data[-1] != NEWLINE:
                newlines = np.append(newlines, len(data) - 1)
            quotes = self._quotes(data)
            last = np.arange(len(newlines))
            if len(quotes):
                last = np.flatnonzero(np.searchsorted(quotes, newlines, "right") % 2 == 0)
            ends = newlines[last] + 1
            cut = int(ends[-1]) if len(ends) else 0
            rest, size = data[cut:], max(_BLOCK, len(data) - cut)
            lines = line + np.concatenate(([0], last + 1))
            if (not more and rest) or len(rest) > _LONGEST:
                raise InputError(f"{self._file}{lines[-1]} {self._unending}")
            line, starts = int(lines[-1]), np.concatenate(([0], ends[:-1]))[: len(ends)]
            kept = self._is_record(data, starts, ends)
            quotes = quotes[: np.searchsorted(quotes, cut)]
            yield Block(at, data[:cut], starts[kept], ends[kept], lines[:-1][kept], quotes)
            at += cut

    def _parsed(self) -> Iterator[tuple[bytes, Any]]:
        """Bytes and cells of each record."""
        with opened(self._path, text=True) as file:
            self._head(file)
            for block in self._blocks(file):
                for line, raw in block.rows():
                    yield raw, self._cells(line, raw)

    def _parts(self, inputs: bool) -> Iterator[Chunk]:
        with opened(self._path, text=True) as file:
            self._head(file)
            for block in self._blocks(file):
                if len(block.lines) == 0:
                    continue
                name = partial(self._name, block.lines)
                if found := self._columns(block, inputs):
                    yield Chunk(name, *found, block)
                    continue
                cells = [self._cells(line, raw) for line, raw in block.rows()]
                names = list(map(name, range(len(cells))))
                labels = list(map(self._label, cells))
                yield Chunk(name, self._inputs_of(cells, names) if inputs else [], labels, block)

    def picked(
        self, indices: Iterable[int], progress: Progress | None = None, *, check: bool = True
    ) -> Iterator[Record]:
        """Some records; see `Source.picked`."""
        if not check:
            return itertools.starmap(self._record, self._looked_up(list(indices)))
        self._spots = Spots(self._path)
        return super().picked(indices, progress)

    def counted(self) -> int | None:
        """Number of records; looks for the ends of short ones, if the file is not packed."""
        if self.count is None and not endings(self._path)[1]:
            with opened(self._path, text=True) as file:
                self._head(file)
                blocks = map(len, (block.lines for block in self._blocks(file)))
                first = next(blocks, 0)
                if first > _SHORT:
                    self.count = first + sum(blocks)
        return self.count

    def _note(self, part: Chunk, places: Sequence[int], rows: Sequence[int]) -> None:
        if self._spots and rows:
            block = part.block
            self._spots.add(places, block.lines[rows], block.at + block.starts[rows], block.at + block.ends[rows])

    def _record(self, index: int, line: int, raw: bytes) -> Record:
        name, cells = f"{self._file}{line}", self._cells(line, raw)
        (value,) = self._inputs_of([cells], [name])
        return Record(index, name, value, self._label(cells))

    def _looked_up(self, indices: Sequence[int]) -> Iterator[tuple[int, int, bytes]]:
        """Index, line and bytes of some records; of all others this reads only their ends, or nothing."""
        spots = self._spots and self._spots.of(indices)
        with opened(self._path, text=True) as file:
            self._head(file)
            if spots:
                at = 0
                for spot in spots:
                    _pipe(file, spot.start - at)
                    yield spot.place, spot.line, file.read(spot.end - spot.start)
                    at = spot.end
                return
            start, due = 0, Due(indices)
            for block in self._blocks(file):
                for place in due.before(start + len(block.lines)):
                    row = place - start
                    yield place, int(block.lines[row]), block.data[block.starts[row] : block.ends[row]]
                if due.done:
                    return
                start += len(block.lines)

    def _spread(self) -> Iterator[Any]:
        """The cells of some records, spread over the file."""
        if known := self._spots.some(JUDGED) if self._spots else []:
            yield from (self._cells(line, raw) for _, line, raw in self._looked_up(known))
            return
        yield from (self._cells(line, raw) for line, raw in self._scattered(IN_PART))

    def _scattered(self, most: int) -> Iterator[tuple[int, bytes]]:
        """Line and bytes of at most `most` records of each block."""
        with opened(self._path, text=True) as file:
            self._head(file)
            for block in self._blocks(file):
                for row in spread(len(block.lines), most):
                    yield int(block.lines[row]), block.data[block.starts[row] : block.ends[row]]

    def _name(self, lines: Places, row: int) -> str:
        return f"{self._file}{int(lines[row])}"  # NumPy takes long to format its own integers

    def _copy(self, out: Out, edits: Edits) -> Written:
        with whole_file(out, self._path, self._path.name) as growing:
            growing.file = self._file
            copying = writing(growing.path, growing.target, self._path, text=True)
            count = 0
            with opened(self._path, text=True) as file, copying as copied:
                copied.write(self._head(file))
                if self._spots and self.count and (spots := self._spots.of(edits.places)):
                    self._copy_beside(spots, file, copied, edits, growing)
                    edits.check(self.count)
                    return edits.written(growing.target)
                for block in self._blocks(file):
                    view, done = memoryview(block.data), 0
                    if len(block.lines):
                        growing.at = int(block.lines[0])  # nothing more precise: it could reveal a chosen record
                    if count == 0 and len(block.lines):
                        copied.write(view[: (done := int(block.starts[0]))])
                        first = block.data[block.starts[0] : block.ends[0]]
                        self._add(copied, edits.after(-1), first, int(block.lines[0]))
                    for index in edits.within(count, count + len(block.lines)):
                        place = index - count
                        start, end = int(block.starts[place]), int(block.ends[place])
                        copied.write(view[done:start])
                        self._write_edited(copied, block.data[start:end], int(block.lines[place]), index, edits)
                        done = end
                    copied.write(view[done:])
                    count += len(block.lines)
                edits.check(count)
            return edits.written(growing.target)

    def _copy_beside(
        self, spots: Sequence[Spot], file: BufferedReader, copied: BinaryIO, edits: Edits, growing: Growing
    ) -> None:
        """Copy what lies beside some records as it is, and these with their edits."""
        growing.file, done = f"{self._path.name}, behind MB ", 0
        for spot in spots:
            growing.at = done >> 20
            _pipe(file, spot.start - done, copied)
            self._write_edited(copied, file.read(spot.end - spot.start), spot.line, spot.place, edits)
            done = spot.end
        shutil.copyfileobj(file, copied, _BLOCK)

    def _write_edited(self, copied: BinaryIO, raw: bytes, line: int, index: int, edits: Edits) -> None:
        """Write a record with its edit, and the records added behind it."""
        new = raw
        if edit := edits.at(index):
            new = self._changed(raw, self._cells(line, raw), edit)
            edits.count_changed(new != raw)
        copied.write(new)
        behind = edits.after(index)
        if behind and not raw.endswith(b"\n"):
            copied.write(_end_of(raw))
        self._add(copied, behind, raw, line)

    def _add(self, copied: BinaryIO, edits: Iterable[Edit], like: bytes, line: int) -> None:
        """Write added records as the one beside them is written."""
        for edit in edits:
            new = self._added(like, self._cells(line, like), edit)
            copied.write(new.rstrip(b"\r\n") + _end_of(like))


def _pipe(file: BufferedReader, size: int, copied: BinaryIO | None = None) -> None:
    """Copy the next bytes of a file, or skip them."""
    if copied is None and file.seekable():
        file.seek(size, os.SEEK_CUR)
        return
    while size and (data := file.read(min(size, _BLOCK))):
        size -= len(data)
        if copied:
            copied.write(data)


def _end_of(raw: bytes) -> bytes:
    return b"\r\n" if raw.endswith(b"\r\n") else b"\n"


def is_utf8(data: bytes) -> bool:
    """Whether these bytes are text."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
