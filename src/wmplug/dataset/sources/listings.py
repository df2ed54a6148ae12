"""Lists with one record a line, which follow the records of a set to other classes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from wmplug.dataset.sources.tells import spread, told_by

TOKEN = re.compile(r"[^\s,;|\"'()\[\]{}<>=]+")
_CELL = re.compile(r"[^,;|\t\"]+")
Facts: TypeAlias = "Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]"  # old and new sums by the unit's name


class Unit(NamedTuple):
    """A file of the set that holds records.

    Attributes:
        name: its path in the set.
        group: name of its class, or "" where it holds records of many.
    """

    name: str
    group: str = ""


SEVERAL = Unit("several")


def tokens_of(line: str) -> set[str]:
    """What can be a name in a line: words, cells, and the line."""
    return {line.strip(), *TOKEN.findall(line), *(cell.strip() for cell in _CELL.findall(line))} - {""}


def _named_in(line: str, units: Mapping[str, Unit]) -> tuple[str, Unit] | None:
    """The token of a line that names a unit, the longest of them, and the unit."""
    found = [(token, units[token]) for token in tokens_of(line) if token in units]
    return max(found, key=lambda one: len(one[0]), default=None)


@dataclass(frozen=True)
class Listing:
    """A list with one record a line.

    Attributes:
        lines: its lines, with their ends.
        named: of each line the token that names a unit, and the unit; None for a head or an empty line.
        delimiter: what separates its cells, or "" if it has nothing else.
        by_class: values of the columns that repeat the class, by column and class.
    """

    lines: list[str]
    named: list[tuple[str, Unit] | None]
    delimiter: str
    by_class: Mapping[int, Mapping[str, str]]

    @classmethod
    def read(cls, text: str, units: Mapping[str, Unit], groups: set[str]) -> Listing:
        """The list in a text.

        Raises:
            ValueError: the text is no list that can follow records to other classes; the message says why.
        """
        lines = text.splitlines(keepends=True)
        named = [_named_in(line, units) for line in lines]
        if any(found is None and line.strip() for line, found in zip(lines[1:], named[1:], strict=True)):
            raise ValueError("and has other lines too")
        if any(found and found[1] is SEVERAL for found in named):
            raise ValueError("by names that several have")
        listed = [(line.rstrip("\r\n"), *found) for line, found in zip(lines, named, strict=True) if found]
        for line, token, unit in listed:
            rest = line.replace(token, "", 1)
            if token in rest or Path(unit.name).name in rest:
                raise ValueError("twice in a line")
            if any(units[other] != unit for other in tokens_of(rest) if other in units):
                raise ValueError("several in a line")
        tokens, order = [token for _, token, _ in listed], [unit.group for _, _, unit in listed]
        if _sorting(tokens) is None and 1 < len(set(order)) == _runs(order) < len(order):
            raise ValueError("class after class, in no order that can be kept")
        if all(line == token for line, token, _ in listed):
            return cls(lines, named, "", {})
        for delimiter in (",", "\t", ";", "|", " "):
            cells = [_cells(line, delimiter) for line, _, _ in listed]
            if len({len(row) for row in cells}) == 1 and len(cells[0]) > 1:
                return cls(lines, named, delimiter, _of_classes(cells, tokens, order, groups))
        raise ValueError("in lines of different parts")

    def moved(self, names: Mapping[str, str], facts: Facts) -> str:
        """The list with the new names and sums of its records, in the order that it had."""
        listed = []
        for line, found in zip(self.lines, self.named, strict=True):
            if found is not None:
                listed.append(self._moved(line.rstrip("\r\n"), *found, names, facts))
        order = _sorting([found[0] for found in self.named if found])
        if order is not None:
            listed.sort(key=lambda one: order(one[0]))
        new = iter(line for _, line in listed)
        return "".join(
            line if found is None else next(new) + line[len(line.rstrip("\r\n")) :]
            for line, found in zip(self.lines, self.named, strict=True)
        )

    def _moved(self, line: str, token: str, unit: Unit, names: Mapping[str, str], facts: Facts) -> tuple[str, str]:
        for kind, value in facts.get(unit.name, ({}, {}))[0].items():
            line = _replaced(line, value, facts[unit.name][1][kind])
        if unit.name not in names:
            return token, line
        new = names[unit.name]
        if self.by_class:
            cells = _cells(line, self.delimiter)
            for column, values in self.by_class.items():
                cells[column] = values.get(new.partition("/")[0], cells[column])
            line = self.delimiter.join(cells)
        renamed = _renamed(token, unit.name, new)
        return renamed, line.replace(token, renamed, 1)


def _of_classes(
    cells: Sequence[Sequence[str]], tokens: Sequence[str], order: Sequence[str], groups: set[str]
) -> dict[int, dict[str, str]]:
    """The columns that repeat the class, with their value of each class.

    Raises:
        ValueError: a column speaks of the class in another way.
    """
    found, words = {}, {group.lower() for group in groups}
    for column, values in enumerate(zip(*cells, strict=True)):
        if all(token in value for token, value in zip(tokens, values, strict=True)) or len(set(values)) == 1:
            continue
        pairs = set(zip(order, values, strict=True))
        if len(pairs) == len(set(order)):
            found[column] = dict(pairs)
        elif words & {word.lower() for value in set(values) for word in re.findall(r"\w+", value)}:
            raise ValueError("and speaks of their classes")
        elif len(pairs) == len(set(values)) <= len(values) / 2:
            raise ValueError("with values that belong to single classes")
        elif why := told_by(spread(zip(order, values, strict=True))):
            raise ValueError(f"with values that tell their classes ({why})")
    return found


def _cells(line: str, delimiter: str) -> list[str]:
    """The cells of a line with their quotes."""
    part = re.escape(delimiter)
    return re.findall(rf'(?:^|{part})("(?:[^"]|"")*"(?={part}|$)|[^{part}]*)', line)


def _runs(values: Sequence[str]) -> int:
    return sum(one != other for one, other in zip(["", *values], values, strict=False))


def _natural(text: str) -> list[Any]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", text)]


def _sorting(keys: Sequence[str]) -> Callable[[str], Any] | None:
    """The order that a list is in."""
    for order in (str, _natural):
        if all(order(one) <= order(other) for one, other in itertools.pairwise(keys)):  # type: ignore[operator]
            return order
    return None


def _renamed(token: str, old: str, new: str) -> str:
    """A token that names a unit, by its new name."""
    for part in (str, lambda name: Path(name).name, lambda name: Path(name).stem):
        if token.endswith(part(old)):
            return token.removesuffix(part(old)) + part(new)
    return token


def _replaced(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<![\w.]){re.escape(old)}(?![\w.])", lambda _: new, text) if old != new else text


def resummed(text: str, units: Mapping[str, Unit], facts: Facts) -> str:
    """A text with the new sums of units; a size belongs to the unit that is named nearest to it."""
    sizes: dict[str, dict[str, str]] = {}
    for name, (old, new) in facts.items():
        sizes.setdefault(old["size"], {})[name] = new["size"]
        for kind, value in old.items():
            if kind != "size":
                text = _replaced(text, value, new[kind])
    spots = sorted((found.start(), units[found[0]].name) for found in TOKEN.finditer(text) if found[0] in units)
    parts, done = [], 0
    for found in re.finditer(r"(?<![\w.])[0-9]+(?![\w.])", text):
        if (choices := sizes.get(found[0])) and spots:
            _, nearest = min(spots, key=lambda spot: abs(spot[0] - found.start()))
            parts += [text[done : found.start()], choices.get(nearest, found[0])]
            done = found.end()
    return "".join([*parts, text[done:]])
