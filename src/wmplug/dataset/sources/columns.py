"""The columns of a table that hold the input and the label, and their contents."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from wmplug.dataset.records import Taken
from wmplug.dataset.sources.beside import refuse_repeats
from wmplug.dataset.sources.edits import Edit
from wmplug.dataset.sources.packed import AS_TEXTS, decoded
from wmplug.dataset.sources.pictures import read_picture, write_like
from wmplug.errors import InputError
from wmplug.watermark.carriers import Form

Cells = Mapping[str, Any]
_COUNTED = 8  # rows after which a column that goes up by one is no coincidence
_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # the last from Parquet, the others from CSV
_IDENTIFIER = re.compile(r"(.*[_ ])?(id|idx|index|uid|uuid|guid|rowid|key)", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """The columns and classes that the owner of a set names; None for those to be found, if they exist.

    Attributes:
        text: column of the texts.
        label: column of the labels.
        columns: columns of the numbers that make the input.
        classes: names of the classes in the order of their numbers, which saves the pass that finds them.
        keep_files: whether to copy files as they are that nobody can judge.
    """

    text: str | None = None
    label: str | None = None
    columns: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    keep_files: bool = False

    @property
    def of_input(self) -> list[str]:
        """The columns named for the input."""
        return [name for name in (self.text, *(self.columns or ())) if name is not None]

    def refuse(self, what: str) -> None:
        """Refuse names of columns for a set without columns.

        Raises:
            InputError: a column is named; the message contains `what`.
        """
        if named := [name for name in ("text", "label", "columns") if getattr(self, name) is not None]:
            raise InputError(f"{named[0]}= names a column, and {what}: remove the option")


@dataclass(frozen=True)
class Layout:
    """The columns of a table that matter.

    Attributes:
        names: names of all columns.
        form: kind of the inputs.
        inputs: the column of texts or of encoded pictures; columns of numbers, or one of arrays.
        label: column of the labels, or None.
        index: columns that only number the rows, as pandas writes them.
        named: columns that the owner named.
    """

    names: tuple[str, ...]
    form: Form
    inputs: tuple[str, ...]
    label: str | None
    index: tuple[str, ...] = ()
    named: tuple[str, ...] = ()

    @classmethod
    def choose(
        cls,
        place: str,
        names: Sequence[str],
        wanted: Columns,
        pictures: Sequence[str] = (),
        index: Sequence[str] = (),
    ) -> Layout:
        """The named columns, or else the usual ones.

        Args:
            place: location of the table, for messages.
            names: names of its columns.
            wanted: by default `text` and `label`, if they exist; without a text a column of pictures, else all but the
                label and an index of pandas.
            pictures: columns known to hold encoded pictures.
            index: columns known to be an index.

        Raises:
            InputError: a column does not exist or is named twice, none is left for the input, or several could be it.
        """
        text, label, columns = wanted.text, wanted.label, wanted.columns
        asked = [*wanted.of_input, *([] if label is None else [label])]
        if missing := [name for name in asked if name not in names]:
            raise InputError(f"{place} has no column {', '.join(missing)}: name one of {', '.join(names)}")
        if len(set(asked)) != len(asked) or (text is not None and columns):
            raise InputError(
                f"text={text!r}, label={label!r} and columns={columns!r} do not fit together for {place}: name one "
                "text or some numbers as the input, and another column as the label"
            )
        if label is None and "label" in names:
            label = "label"
        if text is None and columns is None and "text" in names and not pictures:
            text = "text"
        index = tuple(name for name in names if name not in asked and (name in index or _INDEX.fullmatch(name)))
        found = partial(cls, tuple(names), label=label, index=index, named=tuple(asked))
        if text is not None:
            return found("text", (text,))
        pictures = [name for name in pictures if name not in (label, *index)]
        if not columns and len(pictures) > 1:
            raise InputError(
                f"{place} has several columns of pictures ({', '.join(pictures[:8])}): name the one that models are "
                "trained on with columns= (--columns)"
            )
        columns = columns or pictures or _numbers_of(place, [name for name in names if name not in (label, *index)])
        return found("pil" if len(columns) == 1 and columns[0] in pictures else "array", tuple(columns))

    @property
    def taken(self) -> tuple[Taken, ...]:
        """What each column was taken for."""
        kinds = {"text": "text", "pil": "picture", "array": "numbers"}
        roles = dict.fromkeys(self.index, "index, left as it is") | dict.fromkeys(self.inputs, kinds[self.form])
        if self.label is not None:
            roles[self.label] = "label"
        return tuple(
            Taken(name, roles.get(name, "left as it is"), self._why(name, roles.get(name))) for name in self.names
        )

    def _why(self, name: str, role: str | None) -> str:
        if name in self.named:
            return "you named it"
        if role is None:
            return "it is neither the input nor the label"
        if name in self.index:
            return "pandas writes its row numbers so"
        usual = {"text": "text", "label": "label"}.get(role)
        return f"it is called {usual}" if usual else "it holds pictures" if role == "picture" else "no text column"

    def check_numbers(self, rows: Sequence[Sequence[Any]], place: str) -> None:
        """Refuse numbers that nobody named, and that only count the rows.

        Args:
            rows: the inputs of the first records, cell by cell.
            place: location of the table.

        Raises:
            InputError: a column holds texts, or counts the rows.
        """
        if self.form != "array" or self.named[:1] == self.inputs[:1]:
            return
        columns = dict(zip(self.inputs, zip(*rows, strict=True), strict=True)) if rows else {}
        if texts := [name for name, column in columns.items() if _holds_texts(column)]:
            raise InputError(self._unnamed(place, columns, texts))
        if len(rows) < _COUNTED or len(self.inputs) < 2:
            return
        for name, column in columns.items():
            if column[1:] and _counts(column):
                raise _unclear(place, name, f"counts the rows ({column[0]}, {column[1]}, {column[2]}, ...)")

    def _unnamed(self, place: str, columns: Mapping[str, Sequence[Any]], texts: Sequence[str]) -> str:
        """What to name where columns of texts were taken for numbers."""
        length = {name: sum(len(str(cell)) for cell in columns[name]) for name in columns}
        text = max(texts, key=length.__getitem__)
        others = [name for name in columns if name != text]
        label = min(others, key=lambda name: len(set(map(repr, columns[name]))), default=None)
        named = {"text": text} | ({"label": label} if self.label is None and label is not None else {})
        python = ", ".join(f"{option}={name!r}" for option, name in named.items())
        command = " ".join(f"--{option} {shlex.quote(name)}" for option, name in named.items())
        return (
            f"{place} has the columns {', '.join(self.names[:12])}, of which {', '.join(texts[:8])} "
            f"{'hold' if len(texts) > 1 else 'holds'} texts and none is called text: name yours, such as {python} "
            f"({command}), or the columns of numbers with columns= (--columns)"
        )

    def refuse_repeats(self, rows: Iterable[Cells], place: str) -> None:
        """Refuse to change labels beside what repeats them, judged by rows from all over a set; see `beside`."""
        if self.label is None:
            return
        if self.form == "array":
            refuse_repeats(rows, self.label, self.inputs, place)
            return
        beside = ({name: value for name, value in row.items() if name not in self.inputs} for row in rows)
        refuse_repeats(beside, self.label, (), place)

    def is_nested(self, cells: Cells) -> bool:
        """Whether one column holds the numbers of a record as an array."""
        return self.form == "array" and _is_array_column([cells[column] for column in self.inputs])

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns that every record has."""
        return self.inputs if self.label is None else (*self.inputs, self.label)

    def input_of(self, cells: Cells, name: str) -> Any:
        """The input of a record.

        Raises:
            InputError: a cell holds something else; the message has its location, `name`.
        """
        values = [cells[column] for column in self.inputs]
        if self.form == "pil":
            return read_picture(_picture_bytes(values[0], name), name)
        if self.form == "text":
            if isinstance(values[0], bytes):
                return decoded(values[0], name, AS_TEXTS)
            if not isinstance(values[0], str):
                raise InputError(
                    f"{name} has {values[0]!r:.60} as {self.inputs[0]}, where a text is needed: correct it, "
                    "or leave the record out"
                )
            return values[0]
        try:
            row = np.array(values[0] if _is_array_column(values) else values)
        except ValueError:
            row = np.array(None)
        if row.dtype.kind not in "biuf":
            shown = next(
                (f"{value!r:.60}" for value in values if isinstance(value, (str, type(None)))), "a ragged list"
            )
            raise InputError(
                f"{name} has {shown} among {', '.join(self.inputs[:8])}, where numbers are needed: fill or drop the "
                "record, or name the columns of numbers with columns="
            )
        # Some files write 1 for 1.0, and the rows of a set must not differ in kind.
        return row.astype(np.float64) if row.ndim == 1 and row.dtype.kind in "iu" and not _is_typed(values) else row

    def edited(self, cells: Cells, edit: Edit, name: str) -> dict[str, Any]:
        """The cells of a record with another label or input.

        Raises:
            InputError: the input does not fit the set.
        """
        new = dict(cells)
        if edit.label is not None and self.label is not None:
            new[self.label] = edit.label
        if edit.input is None:
            return new
        if self.form == "pil":
            before = cells[self.inputs[0]]
            return {
                **new,
                self.inputs[0]: {**before, "bytes": write_like(_picture_bytes(before, name), edit.input, name)},
            }
        if self.form == "text":
            if not isinstance(edit.input, str):
                raise InputError(f"a changed or added record is a {type(edit.input).__name__}: the set has texts")
            return {**new, self.inputs[0]: edit.input}
        row, shape = np.asarray(edit.input), self.input_of(cells, name).shape
        if row.shape != shape or row.dtype.kind not in "biuf":
            raise InputError(
                f"a changed or added record has shape {row.shape} and dtype {row.dtype}: the set has numbers of shape "
                f"{shape}"
            )
        values = [row.tolist()] if _is_array_column([cells[column] for column in self.inputs]) else row.tolist()
        return {
            **new,
            **{column: _like(cells[column], value) for column, value in zip(self.inputs, values, strict=True)},
        }

    def refuse_to_add(self, place: str) -> None:
        """Refuse added records where columns would stay empty.

        Raises:
            InputError: the table has other columns than those of input and label.
        """
        if left := [name for name in self.names if name not in self.needed]:
            raise InputError(
                f"the scheme adds records to {place}, and the values of {', '.join(left[:8])} are unknown: choose a "
                "scheme that adds none, or a set without these columns"
            )


def _numbers_of(place: str, columns: list[str]) -> list[str]:
    """Columns of numbers that nobody named.

    Raises:
        InputError: there is none, or one has the name of an identifier.
    """
    if not columns:
        raise InputError(f"{place} has nothing but labels: name the text with text= or the numbers with columns=")
    for name in columns if len(columns) > 1 else ():
        if _IDENTIFIER.fullmatch(name):
            raise _unclear(place, name, "has the name of an identifier")
    return columns


def _unclear(place: str, name: str, why: str) -> InputError:
    return InputError(
        f"the column {name} of {place} {why}, and could be a number that models learn from: name the columns that they "
        "learn from with columns= (--columns)"
    )


def _holds_texts(column: Sequence[Any]) -> bool:
    """Whether most of the cells that are not empty are texts other than numbers."""
    cells = [cell for cell in column if cell is not None and cell != ""]
    texts = [cell for cell in cells if isinstance(cell, (str, bytes)) and not is_number(cell)]
    return 2 * len(texts) > len(cells)


def is_number(cell: str | bytes) -> bool:
    """Whether a cell of text is a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _counts(column: Sequence[Any]) -> bool:
    """Whether whole numbers go up by one from row to row."""
    try:
        numbers = [float(value) for value in column]
    except (TypeError, ValueError):
        return False
    return all(number.is_integer() for number in numbers) and set(np.diff(numbers).tolist()) == {1.0}


def _is_typed(values: Sequence[Any]) -> bool:
    return any(isinstance(value, (np.ndarray, np.generic)) for value in values)


def _is_array_column(values: Sequence[Any]) -> bool:
    return len(values) == 1 and isinstance(values[0], (list, np.ndarray))


def _like(before: Any, value: Any) -> Any:
    """Numbers as the set writes them: a whole number stays whole."""
    if isinstance(before, list):
        return [_like(old, new) for old, new in zip(before, value, strict=True)]
    if before == value:
        return before
    return int(value) if isinstance(before, int) and float(value).is_integer() else float(value)


def _picture_bytes(cell: Any, name: str) -> bytes:
    """The bytes of a picture in a table, which holds the bytes or the path of a file."""
    if isinstance(cell, Mapping):
        if cell.get("bytes") is not None:
            return bytes(cell["bytes"])
        if cell.get("path") is not None:
            try:
                with open(cell["path"], "rb") as file:
                    return file.read()
            except OSError as error:
                raise InputError(
                    f"{name} is the picture {cell['path']}, which cannot be read ({error.strerror}): restore it"
                ) from error
    raise InputError(f"{name} holds a {type(cell).__name__} instead of a picture: leave the record out")
