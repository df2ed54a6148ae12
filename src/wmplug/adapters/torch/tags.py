"""Tags: numbers in place of labels, which show where each example went in a collated batch."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from wmplug.schemes.tilt.texts import LABELS
from wmplug.statistics.arrays import IntArray

PADDING = -1
_MASKED = -100
_FIRST_TAG = 1_000_003  # no class, length or position of a batch is likely to be as large


def tagged(examples: Sequence[Any]) -> list[Any] | None:
    """Copies of examples with a number of their own in place of the label.

    Args:
        examples: of a dataset; None stays None, since some collators drop it.

    Returns:
        As many; None if the label of one is not found, or is not one whole number.
    """
    made: list[Any] = []
    for tag, example in enumerate(examples, _FIRST_TAG):
        made.append(None if example is None else with_label(example, tag))
        if made[-1] is None and example is not None:
            return None
    return made


def with_label(example: Any, label: int) -> Any:
    """A copy of an example with another label of the same kind; None if it has no label that is one whole number."""
    if isinstance(example, Mapping):
        name = next((name for name in LABELS if name in example), None)
        value = None if name is None else _like(example[name], label)
        return None if value is None else {**example, name: value}
    if isinstance(example, (tuple, list)) and len(example) == 2:
        value = _like(example[1], label)
        if value is None:
            return None
        kind: Any = type(example)
        return kind(example[0], value) if hasattr(example, "_fields") else kind((example[0], value))
    return None


def _like(value: Any, label: int) -> Any:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return label
    if isinstance(value, (np.integer, np.ndarray)) and value.dtype.kind in "iu" and value.size == 1:
        wide = value.dtype.itemsize >= 4
        return np.asarray(value).dtype.type(label) * np.ones_like(value) if wide else None
    if isinstance(value, torch.Tensor) and value.numel() == 1 and value.dtype in (torch.int32, torch.int64):
        return torch.full_like(value, label)
    return None


def places_in(batch: Any, count: int) -> IntArray | None:
    """Which of `count` tagged examples each row of a batch is.

    Args:
        batch: collated from `tagged` examples.
        count: number of these.

    Returns:
        (rows,) positions of examples, each any number of times, and PADDING for rows that the collator added and
        masked (-100); None if the batch does not show them beyond doubt.
    """
    found: IntArray | None = None
    for leaf in _leaves(batch):
        array = _whole_numbers(leaf)
        if array is None or not len(array) or array.max() < _FIRST_TAG or array.max() >= _FIRST_TAG + count:
            continue
        places = np.where(array == _MASKED, PADDING, array - _FIRST_TAG)
        if places.min() < PADDING:
            continue
        if found is not None and not np.array_equal(found, places):
            return None
        found = places
    return found


def _whole_numbers(leaf: Any) -> IntArray | None:
    if isinstance(leaf, torch.Tensor):
        flat = leaf.ndim == 1 or (leaf.ndim == 2 and leaf.shape[1] == 1)
        whole = flat and not (leaf.is_floating_point() or leaf.is_complex() or leaf.dtype == torch.bool)
        return leaf.detach().cpu().reshape(-1).numpy().astype(np.int64) if whole else None
    if isinstance(leaf, np.ndarray):
        return leaf.reshape(-1).astype(np.int64) if leaf.ndim == 1 and leaf.dtype.kind in "iu" else None
    if isinstance(leaf, (list, tuple)) and leaf and all(isinstance(n, (int, np.integer)) for n in leaf):
        return np.array(leaf, np.int64)
    return None


def _leaves(batch: Any) -> Iterator[Any]:
    if isinstance(batch, (torch.Tensor, np.ndarray)):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _leaves(part)
    elif isinstance(batch, (list, tuple)):
        yield batch
        for part in batch:
            yield from _leaves(part)
    elif dataclasses.is_dataclass(batch):
        for field in dataclasses.fields(batch):
            yield from _leaves(getattr(batch, field.name))
    elif hasattr(batch, "__dict__"):
        for part in vars(batch).values():
            yield from _leaves(part) if isinstance(part, (torch.Tensor, np.ndarray, Mapping, list, tuple)) else ()
