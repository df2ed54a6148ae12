"""What stands beside the label of a record, in a column, a field of one, or the order: judged all over a set."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from wmplug.dataset.sources.tells import LONG, told_by
from wmplug.errors import InputError

JUDGED = 2000  # records that show whether something repeats the label
_COUNTED, _NEARLY = 8, 0.95  # records that show that one value belongs to one label, and how many of each do
_ORDERED = 40  # records that show whether all of a label follow each other
_ORDER = "the order of its records"
_PATH = ".path"  # of a picture, as `datasets` keeps it beside the bytes


def refuse_repeats(rows: Iterable[Mapping[str, Any]], label: str, inputs: Sequence[str], place: str) -> None:
    """Refuse to change labels beside what repeats them: that would name the changed records.

    Args:
        rows: the cells of records from all over a set, in its order.
        label: column of the labels.
        inputs: columns of numbers that models learn from; they say the label only if each has one value there.
        place: location of the set, for messages.

    Raises:
        InputError: a column or a field of one repeats the label, or the records are in its order.
    """
    if found := repeats(rows, label, inputs):
        left = [name for name in found if name != _ORDER]
        cures = ["leave that out of the set"] * any(not name.endswith(_PATH) for name in left)
        cures += ["save the pictures as bytes, with random names or none"] * any(name.endswith(_PATH) for name in left)
        cures += ["shuffle it"] * (_ORDER in found)
        raise InputError(
            f"{place} repeats the label in {', '.join(found[-8:])}, which would show every label that the mark "
            f"changes: {' and '.join(cures)}, or choose a scheme that changes no label, such as twins"
        )


def repeats(rows: Iterable[Mapping[str, Any]], label: str, inputs: Sequence[str]) -> list[str]:
    """Columns and fields that say the label again, and the order if that does; see `refuse_repeats`."""
    held = [
        (_shown(row[label]), {name: _shown(value) for name, value in _fields(row) if name != label}) for row in rows
    ]
    held = held[:: -(-len(held) // JUDGED)] if held else []
    sizes = Counter(value for value, _ in held)
    held = [one for one in held if sizes[one[0]] > 1]  # what one record has says nothing
    labels = [value for value, _ in held]
    if len(set(labels)) < 2:
        return []
    names = dict.fromkeys(itertools.chain.from_iterable(cells for _, cells in held))
    columns = {name: [cells.get(name, "") for _, cells in held] for name in names}
    found = [
        name
        for name, values in columns.items()
        if _repeats(labels, values) or (name not in inputs and _tells(labels, values))
    ]
    return [*found, *([_ORDER] if in_order(labels) else [])]


def in_order(labels: Sequence[Hashable]) -> bool:
    """Whether the order of records tells their labels."""
    runs = 1 + sum(one != other for one, other in itertools.pairwise(labels))
    return len(labels) >= _ORDERED and (
        runs == len(set(labels)) > 1 or bool(told_by([(label, str(place)) for place, label in enumerate(labels)]))
    )


def _fields(row: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """The cells of a record, those of nested objects one by one."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def _shown(value: Any) -> str:
    return repr(value[:LONG] if isinstance(value, (str, bytes)) else value)


def _repeats(labels: Sequence[str], values: Sequence[str]) -> bool:
    """Whether each label has one value and each value one label."""
    return len(set(values)) == len(set(labels)) == len(set(zip(labels, values, strict=True)))


def _tells(labels: Sequence[str], values: Sequence[str]) -> bool:
    """Whether values tell labels, or one value tells one label."""
    if told_by(list(zip(labels, values, strict=True))):
        return True
    by_label, by_value = Counter(labels), Counter(values)
    for (value, label), count in Counter(zip(values, labels, strict=True)).items():
        others = min(by_value[value], len(labels) - by_label[label])
        if count >= max(_COUNTED, _NEARLY * by_label[label]) and by_value[value] - count <= (1 - _NEARLY) * others:
            return True
    return False
