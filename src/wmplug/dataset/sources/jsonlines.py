"""JSON Lines: one object in each line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wmplug.dataset.sources.base import Whole
from wmplug.dataset.sources.columns import Columns, Layout
from wmplug.dataset.sources.edits import Edit
from wmplug.dataset.sources.lines import BOM, NEWLINE, Block, Lines, Places, decoded, is_utf8
from wmplug.errors import InputError
from wmplug.watermark.carriers import Form

_SAMPLED, _IN_BLOCK = 100, 5
_SPACES = re.compile(r"[ \t\r\n]*")


class Style(NamedTuple):
    """The notation of objects, so that changed ones do not stand out."""

    ascii: bool
    spaced: bool
    slashes: bool  # escaped, as by pandas and PHP

    def dump(self, value: Any) -> str:
        """A value as text."""
        separators = (", ", ": ") if self.spaced else (",", ":")
        encoded = json.dumps(value, ensure_ascii=self.ascii, separators=separators)
        return encoded.replace("/", "\\/") if self.slashes else encoded


class Objects(Whole):
    """The inputs of decoded objects, whose first fields are texts or numbers."""

    def __init__(self, rows: Sequence[Any], width: int, texts: bool) -> None:
        self._rows, self._width, self._texts = rows, width, texts

    def __iter__(self) -> Iterator[Any]:
        return iter(self[range(len(self._rows))])

    def __getitem__(self, rows: Sequence[int]) -> list[Any]:
        if self._texts:
            return [self._rows[row].input0 for row in rows]
        from msgspec.structs import astuple

        return [np.array(astuple(self._rows[row])[: self._width]) for row in rows]


class JsonLines(Lines):
    """A source over one JSON Lines file in UTF-8.

    Args:
        path: the file.
        columns: the keys; by default the text is under `text` and the label under `label`. Numbers are under a key
            each, or under one key as an array.

    Raises:
        InputError: a key is missing, or cannot be found.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(path, columns.classes)
        self._needed: tuple[str, ...] = ()
        self._said = list(itertools.islice((cells for _, cells in self._parsed() if cells), _SAMPLED))
        if not self._said:
            raise InputError(f"{path} has no records: give the file that training reads")
        keys = list(dict.fromkeys(key for cells in self._said for key in cells))  # the first may lack some
        self._of = Layout.choose(str(path), keys, columns)
        self._needed, self._first = self._of.needed, self._said[0]
        self.form: Form = self._of.form
        self.taken = self._of.taken
        first = itertools.islice(self._parsed(), _SAMPLED)  # in which no needed key may lack
        self._written = [(raw.decode().strip(), cells) for raw, cells in first]
        self._of.check_numbers([[cells[key] for key in self._of.inputs] for cells in self._said], str(path))

    @property
    def _has_labels(self) -> bool:
        return self._of.label is not None

    def _head(self, file: BufferedReader) -> bytes:
        return file.read(len(BOM)) if file.peek(len(BOM))[: len(BOM)] == BOM else b""

    def _quotes(self, data: bytes) -> Places:
        return np.arange(0)  # none: a line end inside a text is escaped

    def _is_record(self, data: bytes, starts: Places, ends: Places) -> npt.NDArray[np.bool_]:
        found = np.frombuffer(data, np.uint8)[starts] > ord(" ")
        for place in np.flatnonzero(~found):
            found[place] = not data[starts[place] : ends[place]].isspace()
        return found

    def _columns(self, block: Block, inputs: bool) -> tuple[Iterable[Any], Sequence[Any]] | None:
        if self._of.label is None and b'"label"' in block.data:
            self._refuse_late_labels(block)
        if self._fast is None or not _is_plain(block):
            return None
        try:
            rows = self._fast[inputs].decode_lines(block.data)
        except (ValueError, RecursionError):  # the json module reports the line and the fault, or reads it
            return None
        if len(rows) != len(block.lines):
            return None
        labels = [None] * len(rows) if self._of.label is None else [row.label for row in rows]
        if not inputs:
            return [], labels
        if self.form == "text" or not self._of.is_nested(self._first):
            return Objects(rows, len(self._of.inputs), self.form == "text"), labels
        names = map(partial(self._name, block.lines), range(len(rows)))
        cells = ({self._of.inputs[0]: row.input0} for row in rows)
        return map(self._of.input_of, cells, names), labels

    def _refuse_repeats(self) -> None:
        self._of.refuse_repeats(self._spread(), self._place)

    def _refuse_late_labels(self, block: Block) -> None:
        for line, raw in block.rows():
            if "label" in self._cells(line, raw):
                raise InputError(
                    f"{self._file}{line} has a label, and the first {len(self._said)} records have none: give each "
                    "record one, or take it out"
                )

    @cached_property
    def _fast(self) -> tuple[Any, Any] | None:
        """Decoders of msgspec for the label alone, and for all that is needed; None where it cannot read the input."""
        try:
            import msgspec
        except ImportError:
            return None
        kind: Any = float  # some files write 1 for 1.0
        if self.form == "text":
            kind = str
        elif self._of.is_nested(self._first):
            kind = Any
        inputs = {f"input{place}": key for place, key in enumerate(self._of.inputs)}
        label = {} if self._of.label is None else {"label": self._of.label}
        alone = msgspec.defstruct("Alone", [(name, Any) for name in label], rename=label, gc=False)
        kinds = [*((name, kind) for name in inputs), *((name, Any) for name in label)]
        whole = msgspec.defstruct("Whole", kinds, rename=inputs | label, gc=False)
        return msgspec.json.Decoder(alone), msgspec.json.Decoder(whole)

    def _cells(self, line: int, raw: bytes) -> Any:
        name = f"{self._file}{line}"
        text = decoded(raw, name)
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{name} is not JSON ({error}): correct it, or leave the record out") from error
        if not isinstance(cells, dict):
            raise InputError(f"{name} is a {type(cells).__name__}: write an object with the same keys in each line")
        for key in self._needed:
            if key not in cells:
                raise InputError(f"{name} has no {key}, and other records have one: add it, or leave the record out")
        return cells

    def _inputs_of(self, cells: Sequence[Any], names: Sequence[str]) -> Iterable[Any]:
        return map(self._of.input_of, cells, names)

    def _label(self, cells: Any) -> Any:
        return None if self._of.label is None else cells[self._of.label]

    def _changed(self, raw: bytes, cells: Any, edit: Edit) -> bytes:
        new = self._of.edited(cells, edit, str(self._path))
        text, places = raw.decode(), values_in(raw.decode())
        for key in sorted((key for key in new if new[key] != cells[key]), key=places.__getitem__, reverse=True):
            start, end = places[key]
            text = text[:start] + self._style_like(raw, cells).dump(new[key]) + text[end:]
        return text.encode()

    def _added(self, edit: Edit) -> bytes:
        self._of.refuse_to_add(str(self._path))
        return self._style.dump(self._of.edited(self._first, edit, "the added record")).encode()

    def _style_like(self, raw: bytes, cells: Any) -> Style:
        """The notation of one record, where that shows it; else that of most."""
        text = raw.decode().strip()
        if self._style.dump(cells) == text:
            return self._style
        found = style_of([(text, cells)])
        return found if found.dump(cells) == text else self._style

    @cached_property
    def _style(self) -> Style:
        found = [(raw.decode().strip(), self._cells(line, raw)) for line, raw in self._scattered(_IN_BLOCK)]
        return style_of([*self._written, *found])


def _is_plain(block: Block) -> bool:
    """Whether each record is UTF-8 and fills its own line from brace to brace."""
    if not is_utf8(block.data):
        return False
    data, last = np.frombuffer(block.data, np.uint8), block.ends - 1
    for end in (NEWLINE, ord("\r")):  # the end of the file may have neither
        last = last - (data[last] == end)
    return bool((data[block.starts] == ord("{")).all() and (data[last] == ord("}")).all())


def values_in(text: str) -> dict[str, tuple[int, int]]:
    """The span of the value of each key of an object; for a doubled key that of the last value, which counts."""
    decoder = json.JSONDecoder(parse_int=str, parse_float=str)
    found: dict[str, tuple[int, int]] = {}
    at = text.index("{") + 1
    while (quote := _next(text, at)) < len(text) and text[quote] == '"':
        key, behind = decoder.raw_decode(text, quote)
        start = _next(text, _next(text, behind) + 1)
        _, end = decoder.raw_decode(text, start)
        found[key] = start, end
        at = _next(text, end) + 1
    return found


def _next(text: str, at: int) -> int:
    """The first place from there on that is not a space."""
    found = _SPACES.match(text, at)
    return found.end() if found else at


def style_of(written: Iterable[tuple[str, Any]]) -> Style:
    """The style of most objects, from their texts and values."""
    pairs = list(written)
    styles = itertools.starmap(Style, itertools.product((True, False), repeat=3))
    return max(styles, key=lambda style: sum(style.dump(value) == text for text, value in pairs))
