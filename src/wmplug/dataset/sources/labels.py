"""Labels as a set writes them, and their class numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from wmplug.errors import InputError

CLASSES_AT_MOST = 100_000
_FEW, _SPARSE = 1000, 10
_USUAL = frozenset((99, 999, 9999, 99999, 127, 255, 32767, 65535, 2**31 - 1))  # written where a number is missing
_DIGITS = 20  # a longer number is not a class
_NONE = frozenset(
    ("na", "n/a", "nan", "null", "none", "?", "-", "unlabeled", "unlabelled", "unsup", "no label", "no_label")
)  # what people write for "no label"


@dataclass(frozen=True)
class Labels:
    """The classes of a set.

    Attributes:
        names: names of the classes in the order of their numbers.
        values: the classes as the set writes them.
        numbers: numbers of the classes, by these values.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]
    numbers: dict[Any, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", {value: number for number, value in enumerate(self.values)})

    def number(self, value: Any, name: str) -> int:
        """The class number of a label as the set writes it.

        Raises:
            InputError: it is none of the classes; the message has its location, `name`.
        """
        check_label(value, name)
        try:
            number: int = self.numbers[value]
        except (KeyError, TypeError):
            raise InputError(f"{name} has the label {value!r}, which is not among {self._shown()}") from None
        return number

    def all(self, values: Sequence[Any], names: Iterable[str]) -> list[int]:
        """The class numbers of many labels; see `number`."""
        try:
            return [self.numbers[value] for value in values]
        except (KeyError, TypeError):
            return [self.number(value, name) for value, name in zip(values, names, strict=True)]

    def value(self, number: int) -> Any:
        """The class with a number, as the set writes it.

        Raises:
            InputError: no class has this number.
        """
        if not 0 <= number < len(self.values):
            raise InputError(
                f"a changed or added record has the class {number}: give one of the set's {len(self.values)}"
            )
        return self.values[number]

    def _shown(self) -> str:
        more = ", ..." if len(self.names) > 12 else ""
        return f"the {len(self.names)} classes {', '.join(self.names[:12])}{more}: correct it, or give all classes"


class Seen:
    """The different labels of a set, collected in one pass.

    Args:
        classes: the names in the order of their numbers, if known.
        numbers: as for `labels_of`.
        labelled: whether the set has a place for labels.

    Attributes:
        enough: whether more labels would add nothing.
    """

    def __init__(self, classes: Sequence[str] | None, numbers: bool, labelled: bool = True) -> None:
        self._classes, self._numbers = classes, numbers
        self._values: dict[Any, str] = {}  # with the first record of each
        self._known: Labels | None = None
        self._without: str | None = None  # the first record without a label
        self.enough = not labelled

    def add(self, values: Sequence[Any], names: Iterable[str]) -> None:
        """Note labels, with the location of each.

        Raises:
            InputError: a record lacks a label, a label is none of the known classes, or there are too many different
                ones for classes.
        """
        if self._known:
            self._known.all(values, names)
        elif not self.enough:
            self._add(values, names)

    def _add(self, values: Sequence[Any], names: Iterable[str]) -> None:
        if None in values and self._without is None:
            names = list(names)
            self._without = names[list(values).index(None)]
        if self._without is not None:
            if not self._values and all(value is None for value in values):
                return  # so far nobody has one
            check_label(None, self._without)
        if self._classes is not None:
            self._known, self.enough = labels_of(values[:1], self._classes, numbers=self._numbers), True
            self._known.all(values, names)
            return
        first = next(iter(self._values), values[0])
        try:
            fresh = set(values) - self._values.keys()
            if set(map(type, values)) == {type(first)}:
                if not fresh:
                    return
                places = sorted(values.index(value) for value in fresh)
                named = list(itertools.islice(names, places[-1] + 1))
                values, names = [values[place] for place in places], [named[place] for place in places]
        except TypeError:  # a list, for which `check_label` raises the error
            pass
        for value, name in zip(values, names, strict=True):
            check_label(value, name)
            if type(value) is not type(first):
                raise InputError(
                    f"{name} has the label {value!r}, and the first record {first!r}: labels of different kinds are "
                    "mixed, write all of them alike"
                )
            self._values.setdefault(value, name)
            if len(self._values) > CLASSES_AT_MOST:
                raise InputError(
                    f"{name} has label number {len(self._values):,} that differs from all others: name the column that "
                    "holds classes"
                )

    def found(self) -> Labels | None:
        """The classes; None for a set without labels.

        Raises:
            InputError: one of the labels could mean that a record has none.
        """
        if self.enough or not self._values:
            return self._known
        _refuse_none(self._values, self._numbers)
        return labels_of(self._values, numbers=self._numbers)


def check_label(value: Any, name: str) -> None:
    """Refuse a value that cannot be a label.

    Raises:
        InputError: it is missing, or neither a text nor a whole number.
    """
    if value is None or value == "" or value != value:
        raise InputError(f"{name} has no label: give it one, or leave the record out")
    if not isinstance(value, (str, int)) and not (isinstance(value, float) and value.is_integer()):
        raise InputError(f"{name} has the label {value!r}: give a text or a whole number")


def _refuse_none(values: Mapping[Any, str], numbers: bool) -> None:
    """Refuse a label that many sets write for records that nobody labelled: it may be a class of its own, or not.

    That is the only negative number, but for the two classes -1 and 1; a number far above all others, such as 255 after
    0, 1 and 2; and words such as "n/a".

    Args:
        values: the location of one record of each label.
        numbers: as for `labels_of`.

    Raises:
        InputError: there is such a label.
    """
    kind = type(next(iter(values)))
    numeric = kind is not bool and (numbers or kind is not str) and all(map(_whole, values))
    if numeric:
        odd = [value for value in values if int(value) < 0] or _far(values)
        if len(odd) != 1 or sorted(map(int, values)) == [-1, 1]:
            return
    else:
        odd = [value for value in values if isinstance(value, str) and value.strip().lower() in _NONE]
    if odd and len(values) > 1:
        named = [str(value) for value in sorted(values, key=int if numeric else str)]
        shown = ", ".join(named[:12]) + (", ..." if len(named) > 12 else "")
        raise InputError(
            f"{values[odd[0]]} has the label {odd[0]!r} (the labels are {shown}), which can be a class or mean that "
            "nobody labelled it: leave such records out, or name all classes with classes= (--classes)"
        )


def _far(values: Iterable[Any]) -> list[Any]:
    """The one number far above all others, if these leave none out."""
    *others, last = sorted(values, key=int)
    counted = [int(value) - int(others[0]) for value in others] if others else []
    if not others or int(others[0]) > 1 or counted != list(range(len(others))):
        return []
    usual = int(last) in _USUAL and int(last) > 2 * len(others)
    return [last] if usual or int(last) >= _SPARSE * len(others) else []


def labels_of(values: Iterable[Any], classes: Sequence[str] | None = None, *, numbers: bool = True) -> Labels:
    """Classes from the different labels of a set.

    Whole numbers from 0 on, also if written as text, are class numbers already, unless they are large and most of them
    are missing. All other labels get numbers in ascending order.

    Args:
        values: different labels of one kind, as the set writes them; with `classes` one of them is enough.
        classes: the names in the order of their numbers, if known.
        numbers: whether digits are class numbers; False if they are names.

    Raises:
        InputError: a class is named twice.
    """
    distinct = list(values)
    kind = type(distinct[0]) if distinct else str
    numeric = kind is not bool and (numbers or kind is not str) and all(map(_whole, distinct))
    if classes is not None:
        names = tuple(classes)
        if len(set(names)) != len(names) or not names:
            raise InputError(f"{len(names)} classes of which {len(set(names))} differ: name each class once")
        if kind is bool or (numeric and distinct and not any(map(_whole, names))):
            return Labels(names, tuple(kind(number) for number in range(len(names))))
        return Labels(names, names if kind is str else tuple(map(_cast(kind), names)))
    if kind is bool:
        return Labels(("False", "True"), (False, True))
    if numeric and distinct and min(map(int, distinct)) >= 0 and _counted(max(map(int, distinct)) + 1, len(distinct)):
        upto = range(max(map(int, distinct)) + 1)
        return Labels(tuple(map(str, upto)), tuple(map(kind, upto)))
    ordered = sorted(distinct, key=int) if numeric else sorted(distinct)
    return Labels(tuple(str(int(value)) if numeric else value for value in ordered), tuple(ordered))


def _counted(upto: int, different: int) -> bool:
    """Whether numbers below `upto` count classes; codes, such as of postal districts, leave most of them out."""
    return upto <= _FEW or upto <= min(_SPARSE * different, CLASSES_AT_MOST)


def _cast(kind: type) -> Any:
    def cast(name: str) -> Any:
        try:
            return kind(name)
        except ValueError as error:
            raise InputError(
                f"the labels of the set are numbers, and the class {name!r} is not: name the classes as the set writes "
                "them"
            ) from error

    return cast


def _whole(value: Any) -> bool:
    if isinstance(value, str):
        # "01" is a name: as the number 1 it would be written back in other bytes.
        digits = value.removeprefix("-")
        return len(digits) < _DIGITS and digits.isdecimal() and digits.isascii() and str(int(digits)) == digits
    return True
