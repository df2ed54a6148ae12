"""JSON Lines: one object in each line."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wmplug.dataset.sources.base import Whole
from wmplug.dataset.sources.columns import Columns, Layout
from wmplug.dataset.sources.edits import Edit
from wmplug.dataset.sources.lines import BOM, NEWLINE, Block, Lines, Places, is_utf8
from wmplug.dataset.sources.packed import decoded, opened
from wmplug.errors import InputError
from wmplug.watermark.carriers import Form

_SAMPLED, _IN_BLOCK = 100, 5
_SPACES = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"[^\s,\[\]]+")


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
        self._written = [pair for raw, cells in first for pair in written(raw.decode(), cells)]
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
        style = self._style_like(raw, cells)
        return replaced(raw.decode(), cells, {key: new[key] for key in new if new[key] != cells[key]}, style).encode()

    def _refuse_to_add(self) -> None:
        super()._refuse_to_add()
        with opened(self._path, text=True) as file:
            self._head(file)
            for block in self._blocks(file):
                if self._has_only_needed(block):
                    continue
                for line, raw in block.rows():
                    if more := [key for key in self._cells(line, raw) if key not in self._needed]:
                        raise InputError(
                            f"the scheme adds records to {self._path}, and {self._file}{line} has "
                            f"{', '.join(more[:8])} too, whose values are unknown for them: choose a scheme that "
                            "adds none, or a set without these keys"
                        )

    def _has_only_needed(self, block: Block) -> bool:
        """Whether msgspec finds no other key in a block; False where it cannot read it."""
        if self._only is None or not _is_plain(block):
            return False
        try:
            return len(self._only.decode_lines(block.data)) == len(block.lines)
        except (ValueError, RecursionError):
            return False

    @cached_property
    def _only(self) -> Any:
        """A decoder of msgspec for objects without other keys; None if it is not installed."""
        try:
            import msgspec
        except ImportError:
            return None
        fields = [(f"key{place}", Any) for place in range(len(self._needed))]
        rename = {f"key{place}": key for place, key in enumerate(self._needed)}
        return msgspec.json.Decoder(
            msgspec.defstruct("Only", fields, rename=rename, gc=False, forbid_unknown_fields=True)
        )

    def _style_like(self, raw: bytes, cells: Any) -> Style:
        """The notation of one record, where that shows it; else that of most."""
        pairs = written(raw.decode(), cells)
        for style in (self._style, style_of(pairs)):
            if all(style.dump(value) == text for text, value in pairs):
                return style
        return self._style

    @cached_property
    def _style(self) -> Style:
        found = [
            pair for line, raw in self._scattered(_IN_BLOCK) for pair in written(raw.decode(), self._cells(line, raw))
        ]
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


def written(text: str, cells: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The values of an object, each with its text."""
    return [(text[start:end], cells[key]) for key, (start, end) in values_in(text).items()]


def style_of(pairs: Iterable[tuple[str, Any]]) -> Style:
    """The style of most values, from their texts."""
    known = list(pairs)
    styles = itertools.starmap(Style, itertools.product((True, False), (True, False), (False, True)))
    return max(styles, key=lambda style: sum(style.dump(value) == text for text, value in known))


def replaced(text: str, cells: Mapping[str, Any], new: Mapping[str, Any], style: Style) -> str:
    """An object with other values under some keys; all else, such as spaces and the order of keys, stays.

    Args:
        text: the object as it is written.
        cells: its values.
        new: the other values by their keys.
        style: the notation of those.
    """
    places = values_in(text)
    for key in sorted(new, key=places.__getitem__, reverse=True):
        start, end = places[key]
        old = text[start:end]
        said = style.dump(new[key])
        if style.dump(cells[key]) != old and isinstance(new[key], list):
            said = _numbers_like(old, cells[key], new[key], style)
        text = text[:start] + said + text[end:]
    return text


def _numbers_like(text: str, before: Any, after: Any, style: Style) -> str:
    """An array of numbers, spaced as another one is."""
    old, new = (_NUMBER.findall(style.dump(value)) for value in (before, after))
    if len(_NUMBER.findall(text)) != len(old) or len(old) != len(new):
        return style.dump(after)
    changes = iter(zip(old, new, strict=True))

    def other(found: re.Match[str]) -> str:
        was, becomes = next(changes)
        return found[0] if was == becomes else becomes

    return _NUMBER.sub(other, text)
