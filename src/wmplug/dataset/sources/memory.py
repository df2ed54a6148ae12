"""Sets in memory that are no pair of arrays or lists: what they are, and how to make a pair of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wmplug.dataset.sources.pairs import form_of
from wmplug.errors import InputError

_PAIR = "a set in memory is a pair (inputs, labels) of arrays or lists"
_LABELS = ("label", "labels", "target", "y", "class", "category")


def pair_of(data: Any, kinds: str) -> tuple[Any, Any]:
    """Inputs and labels of a set in memory; None for the labels of one without.

    Args:
        data: a pair (inputs, labels), or inputs.
        kinds: what a set can be, for the message.

    Raises:
        InputError: the set is something else; the message says what.
    """
    if isinstance(data, tuple) and len(data) == 2 and not hasattr(data, "_fields"):
        for name, part in zip(("inputs", "labels"), data, strict=True):
            if not isinstance(part, (list, np.ndarray)) and not (part is None and name == "labels"):
                raise InputError(f"the {name} are a {type(part).__name__}: {_PAIR}, so give {name}{_array_of(part)}")
        return data
    if not isinstance(data, (list, np.ndarray)):
        raise InputError(f"the set is a {type(data).__name__}: {_table_of(data) or f'give {kinds}'}")
    if isinstance(data, list) and data:
        _refuse_examples(data)
    return data, None


def _refuse_examples(data: Sequence[Any]) -> None:
    """Refuse a list of whole examples, or of inputs and labels."""
    first = data[0]
    if len(data) == 2 and all(isinstance(one, (list, np.ndarray)) for one in data) and len(first) == len(data[1]) > 2:
        raise InputError(f"the set is a list of two {type(first).__name__}s: {_PAIR}, so give a tuple of the two")
    if (fields := _fields_of(first)) and (len(fields) > 1 or form_of(first) is None):
        label = next((name for name in fields if name.strip("[]'.").lower() in _LABELS), fields[-1])
        own = next((name for name in fields if name != label), fields[0])
        parts = ", ".join(name.strip("[]'.") for name in fields[:8])
        of = f"of {len(first)} parts" if type(first) is tuple else f"with {parts}"
        raise InputError(
            f"record 0 is a {type(first).__name__} {of}: {_PAIR}, so give ([one{own} for one in data], "
            f"[one{label} for one in data])"
        )


def _fields_of(value: Any) -> list[str]:
    """How code takes the parts of an example."""
    if dataclasses.is_dataclass(value) or hasattr(value, "_fields"):
        names = getattr(value, "_fields", None) or [field.name for field in dataclasses.fields(value)]
        return [f".{name}" for name in names]
    if isinstance(value, Mapping):
        return [f"[{key!r}]" for key in value]
    if isinstance(value, tuple):
        return [f"[{place}]" for place in range(len(value))]
    if form_of(value) is None and type(value).__module__ != "builtins":
        return [f".{name}" for name in getattr(value, "__dict__", {}) if not name.startswith("_")]
    return []


def _array_of(part: Any) -> str:
    """The method by which data frames and tensors become arrays."""
    made = next((name for name in ("to_numpy", "numpy", "tolist") if callable(getattr(part, name, None))), "")
    return f".{made}()" if made else " as such"


def _table_of(data: Any) -> str:
    """How a table in memory becomes a Dataset; "" for something else."""
    maker = "from_dict" if isinstance(data, Mapping) else "from_pandas" if hasattr(data, "to_parquet") else ""
    return f"give datasets.Dataset.{maker}(data), or a pair (inputs, labels) of arrays or lists" if maker else ""
