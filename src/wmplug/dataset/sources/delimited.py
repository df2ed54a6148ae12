"""CSV and TSV with a header, by RFC 4180: quoted cells may hold delimiters, doubled quotes and line ends."""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from wmplug.dataset.sources.base import Rows, Texts
from wmplug.dataset.sources.columns import Columns, Layout, is_number
from wmplug.dataset.sources.edits import Edit
from wmplug.dataset.sources.lines import BOM, NEWLINE, Block, Lines, Places, is_utf8
from wmplug.dataset.sources.packed import decoded, endings, opened
from wmplug.errors import InputError
from wmplug.watermark.carriers import Form

_DELIMITERS = ",;\t|"
_SAMPLED = 100


class Delimited(Lines):
    """A source over one CSV or TSV file in UTF-8, with or without a byte order mark.

    Unchanged cells keep their bytes, even if other cells of the record change.

    Args:
        path: the file.
        columns: names in the header; by default the text is in `text` and the label in `label`, and without a text all
            other columns are numbers.

    Raises:
        InputError: a column does not exist, or cannot be determined.
    """

    _unending = "opens a quote that never closes: close it, or double it"
    _head_lines = 1

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path, columns.classes)
        self._delimiter, header = _header(path)
        self._width = len(header)
        self._of = Layout.choose(str(path), header, columns)
        self.form: Form = self._of.form
        self._inputs = [header.index(column) for column in self._of.inputs]
        self._labelled = None if self._of.label is None else header.index(self._of.label)
        self._header = header
        delimiter = re.escape(self._delimiter)
        self._pattern = re.compile(rf'(?:^|{delimiter})("(?:[^"]|"")*"|[^{delimiter}]*)')
        first = re.escape(self._delimiter.encode())
        self._in_quotes = re.compile(rb"(?:\A|[\r\n" + first + rb'])(")[^"]*(?:""[^"]*)*(")?')
        rows = [cells for _, cells in itertools.islice(self._parsed(), _SAMPLED)]
        self._of.check_numbers([[cells[column] for column in self._inputs] for cells in rows], str(path))
        self.taken = self._of.taken
        self._always_quoted = self._quoted()

    @property
    def _has_labels(self) -> bool:
        return self._labelled is not None

    def _refuse_repeats(self) -> None:
        self._of.refuse_repeats((dict(zip(self._header, cells, strict=True)) for cells in self._spread()), self._place)

    def _head(self, file: BufferedReader) -> bytes:
        return file.readline()

    def _quotes(self, data: bytes) -> Places:
        found = np.flatnonzero(np.frombuffer(data, np.uint8) == ord('"'))
        if _are_around(data, found, self._delimiter):
            return found
        cells = self._in_quotes.finditer(data)  # a quote inside a cell without quotes, as of inches, is a letter
        return np.array([place for cell in cells for place in (cell.start(1), cell.start(2)) if place >= 0], np.int64)

    def _is_record(self, data: bytes, starts: Places, ends: Places) -> npt.NDArray[np.bool_]:
        first, lengths = np.frombuffer(data, np.uint8)[starts], ends - starts
        found: npt.NDArray[np.bool_] = (lengths > 2) | ~np.isin(first, [NEWLINE, ord("\r")])
        return found

    def _columns(self, block: Block, inputs: bool) -> tuple[Iterable[Any], Sequence[Any]] | None:
        if (found := _reader()) is None or not _is_plain(block, self._delimiter):
            return None  # line by line, for an error with the line and the fault
        arrow, reader = found
        label = [] if self._labelled is None else [self._header[self._labelled]]
        chosen = [self._header[column] for column in self._inputs] if inputs else []
        kinds = dict.fromkeys(chosen, "string" if self.form == "text" else "float64") | dict.fromkeys(label, "string")
        try:
            table = reader.read_csv(
                arrow.BufferReader(block.data),  # arrow reads a Python file in a thread, which can wait for itself
                reader.ReadOptions(use_threads=False, block_size=len(block.data) + 1, column_names=self._header),
                reader.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
                reader.ConvertOptions(column_types=kinds, include_columns=list(kinds) or self._header, null_values=[]),
            )
        except ValueError:  # the csv module reports the line and the fault
            return None
        if len(table) != len(block.lines):
            return None
        labels = table.column(label[0]).to_pylist() if label else [None] * len(table)
        if self.form == "text":
            return (Texts(table.column(chosen[0])) if chosen else []), labels
        return (_columns_of(table, chosen) if chosen else []), labels

    def _cells(self, line: int, raw: bytes) -> Any:
        text = decoded(raw, f"{self._file}{line}")
        if '"' not in text and "\r" not in text[:-2]:
            return self._checked(text.rstrip("\r\n").split(self._delimiter), line)  # nothing else separates such cells
        try:
            # Only a lone carriage return, or a quote in a cell without quotes, gives more than one record or none.
            with _fields_up_to(len(text)):
                (cells,) = csv.reader([text], delimiter=self._delimiter, strict=True)
        except (csv.Error, ValueError) as error:
            behind = f"{self._delimiter!r} expected after '\"'" in str(error)
            fault = 'text behind a closing quote: double a quote inside of quotes (""), and one that begins a cell too'
            raise InputError(f"{self._file}{line} is not a record of a CSV: {fault if behind else error}") from error
        return self._checked(cells, line)

    def _checked(self, cells: list[str], line: int) -> list[str]:
        if len(cells) != self._width:
            raise InputError(
                f"{self._file}{line} has {len(cells)} cells, and the header has {self._width}: correct it, or leave "
                "the record out"
            )
        return cells

    def _inputs_of(self, cells: Sequence[Any], names: Sequence[str]) -> Iterable[Any]:
        if self.form == "text":
            return [row[self._inputs[0]] for row in cells]
        columns = [[row[column] for row in cells] for column in self._inputs]
        try:
            rows: npt.NDArray[np.float64] = np.array([list(map(float, column)) for column in columns]).T
        except ValueError:
            self._refuse_text(cells, names)
        return rows

    def _refuse_text(self, cells: Sequence[list[str]], names: Sequence[str]) -> NoReturn:
        name, column, cell = next(
            (name, self._header[column], row[column])
            for name, row in zip(names, cells, strict=True)
            for column in self._inputs
            if not is_number(row[column])
        )
        raise InputError(
            f"{name} has {cell!r} in the column {column}, where a number is needed: fill or drop the record, or name "
            "the columns of numbers with columns="
        ) from None

    def _label(self, cells: Any) -> Any:
        return None if self._labelled is None else cells[self._labelled]

    def _changed(self, raw: bytes, cells: Any, edit: Edit) -> bytes:
        new = list(cells)
        if edit.label is not None and self._labelled is not None:
            new[self._labelled] = edit.label
        if edit.input is not None:
            self._put(new, edit.input)
        if new == cells:
            return raw
        line = raw.decode()
        body = line.rstrip("\r\n")
        old = self._written(body, cells) or [self._cell(cell, column) for column, cell in enumerate(cells)]
        for column, cell in enumerate(new):
            if cell != cells[column]:
                quoted = old[column][:1] == '"' and (column in self._always_quoted or not self._needs(cells[column]))
                bare = not quoted and '"' in old[column][1:] and old[column][:1] != '"' != cell[:1]
                old[column] = cell if bare and not self._separates(cell) else self._cell(cell, column, quoted)
        return (self._delimiter.join(old) + line[len(body) :]).encode()

    def _put(self, cells: list[str], value: Any) -> None:
        if self.form == "text":
            if not isinstance(value, str):
                raise InputError(f"a changed or added record is a {type(value).__name__}: the set has texts")
            cells[self._inputs[0]] = value
            return
        row = np.asarray(value)
        if row.shape != (len(self._inputs),) or row.dtype.kind not in "biuf":
            raise InputError(
                f"a changed or added record has shape {row.shape} and dtype {row.dtype}: the set has rows of "
                f"{len(self._inputs)} numbers"
            )
        for column, number in zip(self._inputs, row.tolist(), strict=True):
            cells[column] = _number(number, cells[column])

    def _needs(self, cell: str) -> bool:
        """Whether a cell needs its quotes."""
        return '"' in cell or self._separates(cell)

    def _separates(self, cell: str) -> bool:
        """Whether a part of a cell would end it."""
        return bool(set(cell) & {self._delimiter, "\n", "\r"})

    def _cell(self, cell: str, column: int, quoted: bool | None = None) -> str:
        """The cell in the file's notation; quoted as given, or by default as the column usually is."""
        encoded, always = io.StringIO(), column in self._always_quoted if quoted is None else quoted
        quoting: Literal[0, 1] = csv.QUOTE_ALL if always else csv.QUOTE_MINIMAL
        # The writer quotes an empty cell that is alone in its line, and not one beside others.
        csv.writer(encoded, delimiter=self._delimiter, quoting=quoting).writerow([cell, "."])
        return encoded.getvalue().removesuffix("\r\n")[: -4 if always else -2]

    def _written(self, line: str, cells: list[str]) -> list[str] | None:
        """The cells of the line with their quotes; None for an unusual notation."""
        written: list[str] = self._pattern.findall(line)
        return written if self._delimiter.join(written) == line and len(written) == len(cells) else None

    def _quoted(self) -> frozenset[int]:
        """Columns quoted without need: a changed cell is quoted too, so that it does not stand out."""
        found = set()
        for raw, cells in itertools.islice(self._parsed(), _SAMPLED):
            for column, cell in enumerate(self._written(raw.decode().rstrip("\r\n"), cells) or ()):
                if cell[:1] == '"' and not self._needs(cells[column]):
                    found.add(column)
        return frozenset(found)


def _reader() -> tuple[Any, Any] | None:
    """pyarrow, and its reader of CSV; None if it is not installed."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.csv")
    except ImportError:
        return None


def _columns_of(table: Any, columns: Sequence[str]) -> Rows:
    """Columns of numbers in a table of Arrow, without missing values."""
    # to_numpy imports pandas
    return Rows([np.from_dlpack(table.column(name).combine_chunks()) for name in columns])


def _header(path: Path) -> tuple[str, list[str]]:
    """The delimiter, and the names of the columns."""
    found = []
    with opened(path, text=True) as file:
        first = decoded(file.readline().removeprefix(BOM), f"{path.name}, line 1")
    for delimiter in "\t" if endings(path)[0] in (".tsv", ".tab") else _DELIMITERS:
        try:
            cells = next(csv.reader([first], delimiter=delimiter, strict=True), [])
        except csv.Error:
            continue
        found.append((len(cells), delimiter, cells))
    width, delimiter, cells = max(found, key=lambda one: one[0], default=(0, ",", []))
    if width == 0:
        raise InputError(f"{path} has no header: put a first line into it that names the columns")
    if len(set(cells)) != width or any(is_number(cell) and not cell.isdecimal() for cell in cells):
        raise InputError(
            f"the first line of {path} is not a header ({', '.join(cells[:8])}): put a line above it that names each "
            "column once"
        )
    return delimiter, cells


def _is_plain(block: Block, delimiter: str) -> bool:
    """Whether a block is UTF-8, has quotes only around or doubled inside cells, and no lone carriage return."""
    data, quotes = block.data, block.quotes
    if not is_utf8(data) or (b"\r" in data and data.count(b"\r") != data.count(b"\r\n")):
        return False
    return _are_around(data, quotes, delimiter)


def _are_around(data: bytes, quotes: Places, delimiter: str) -> bool:
    """Whether quotes open and close cells by turns, doubled ones aside."""
    if not len(quotes):
        return True
    around = np.frombuffer(data, np.uint8)
    before, after = np.maximum(quotes[::2] - 1, 0), np.minimum(quotes[1::2] + 1, len(data) - 1)
    beside = np.zeros(256, np.bool_)
    beside[[ord(delimiter), ord('"'), NEWLINE, ord("\r")]] = True
    return bool(beside[around[before]].all() and beside[around[after]].all())


@contextmanager
def _fields_up_to(length: int) -> Iterator[None]:
    """Raise the csv module's field limit, which all its users share, for the block."""
    usual = csv.field_size_limit()
    if length <= usual:
        yield
        return
    csv.field_size_limit(length)
    try:
        yield
    finally:
        csv.field_size_limit(usual)


def _number(number: float, before: str) -> str:
    """A number in the notation of the cell it replaces; the cell itself if it holds the same number."""
    if is_number(before) and float(before) == number:
        return before
    if float(number).is_integer() and before.strip().removeprefix("-").isdecimal():
        return str(int(number))
    new, decimals = repr(float(number)), before.partition(".")[2]
    if decimals.isdecimal() and len(new.partition(".")[2]) < len(decimals) and "e" not in new:
        return f"{number:.{len(decimals)}f}"
    return new
