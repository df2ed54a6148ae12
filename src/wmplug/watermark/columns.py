"""Carriers and labels in what people keep them in: a data frame, a Hugging Face data set, a torch data set of pairs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wmplug.errors import InputError

LABELS = ("label", "labels", "target", "targets", "class", "y")


def columns(carriers: Any, labels: Any = None) -> tuple[Any, Any]:
    """The column of inputs and that of labels, if `carriers` hold several; else both as they are.

    Args:
        carriers: any carriers; a pandas DataFrame, a `datasets.Dataset`, a `TensorDataset`, or a sequence of pairs
            (input, class).
        labels: labels given beside them, which count.

    Raises:
        InputError: several columns could be meant.
    """
    if hasattr(carriers, "iloc") and hasattr(carriers, "columns"):
        return _of_frame(carriers, labels)
    if hasattr(carriers, "column_names") and hasattr(carriers, "features"):
        return _of_dataset(carriers, labels)
    if hasattr(carriers, "tensors") and isinstance(carriers.tensors, tuple):
        return _of_tensors(carriers.tensors, labels)
    if _holds_pairs(carriers):
        pairs = [carriers[i] for i in range(len(carriers))]
        return [x for x, _ in pairs], [y for _, y in pairs] if labels is None else labels
    return carriers, labels


def class_names(carriers: Any, labels: Any = None) -> tuple[str, ...]:
    """The names of the classes that the labels' own container states, in the order of their numbers; else empty.

    Args:
        carriers: as for `columns`. A `datasets.Dataset` states them by its ClassLabel, a frame by its categories, a
            torch data set of pairs by `classes` and `class_to_idx`, also behind a `Subset`.
        labels: as for `columns`; if given, only these are asked.
    """
    if labels is not None:
        return _stated(labels)
    if hasattr(carriers, "iloc") and hasattr(carriers, "columns"):
        named = _labels_of_frame(carriers)
        return _stated(carriers[named[0]]) if len(named) == 1 else ()
    if hasattr(carriers, "column_names") and hasattr(carriers, "features"):
        named = _labels_of_dataset(carriers)
        return _texts(getattr(carriers.features[named[0]], "names", None)) if len(named) == 1 else ()
    return _of_pairs(carriers) if _holds_pairs(carriers) else ()


def _stated(labels: Any) -> tuple[str, ...]:
    """What a column of labels states of itself: a ClassLabel of `datasets`, or the categories of pandas."""
    categories = getattr(getattr(labels, "dtype", None), "categories", None)
    names = getattr(getattr(labels, "features", None), "names", None)
    return _texts(names if categories is None else categories)


def _of_pairs(data: Any) -> tuple[str, ...]:
    while not hasattr(data, "classes") and hasattr(data, "dataset"):
        data = data.dataset
    names, numbers = _texts(getattr(data, "classes", None)), getattr(data, "class_to_idx", None)
    if isinstance(numbers, Mapping) and sorted(map(str, numbers)) == sorted(names):
        names = tuple(sorted(names, key=lambda name: numbers[name]))
    return names


def _texts(names: Any) -> tuple[str, ...]:
    listed = list(names) if hasattr(names, "__iter__") and not isinstance(names, (str, bytes)) else []
    return tuple(map(str, listed)) if len(listed) > 1 and all(isinstance(name, str) for name in listed) else ()


def _labels_of_frame(frame: Any) -> list[Any]:
    return [name for name in frame.columns if str(name).lower() in LABELS]


def _labels_of_dataset(data: Any) -> list[Any]:
    return [name for name in data.column_names if hasattr(data.features[name], "names") or name.lower() in LABELS]


def _of_frame(frame: Any, labels: Any) -> tuple[Any, Any]:
    names, named = list(frame.columns), _labels_of_frame(frame)
    texts = [name for name in names if name not in named and len(frame) and isinstance(frame[name].iloc[0], str)]
    others = [name for name in names if name not in named]
    numbers = all(getattr(frame[name].dtype, "kind", "O") in "iuf" for name in others)
    found = _labels(named, labels, lambda name: frame[name].to_numpy(), "DataFrame", names)
    if len(texts) == 1:
        return frame[texts[0]].to_numpy(), found
    if others and numbers:
        return frame[others].to_numpy(), found
    raise _unclear("DataFrame", names)


def _of_dataset(data: Any, labels: Any) -> tuple[Any, Any]:
    features, names = data.features, list(data.column_names)
    named = _labels_of_dataset(data)
    inputs = [name for name in names if name not in named]
    found = _labels(named, labels, lambda name: list(data[name]), "Dataset", names)
    if len(inputs) != 1:
        pictures = [name for name in inputs if type(features[name]).__name__ == "Image"]
        texts = [name for name in inputs if getattr(features[name], "dtype", None) in ("string", "large_string")]
        inputs = pictures or texts
    if len(inputs) != 1:
        raise _unclear("Dataset", names)
    return list(data[inputs[0]]), found


def _of_tensors(tensors: Sequence[Any], labels: Any) -> tuple[Any, Any]:
    if len(tensors) == 1:
        return tensors[0], labels
    if len(tensors) == 2:
        return tensors[0], tensors[1] if labels is None else labels
    raise InputError(f"carriers= is a TensorDataset of {len(tensors)} tensors: give the inputs alone, .tensors[0]")


def _holds_pairs(carriers: Any) -> bool:
    if isinstance(carriers, (str, bytes, np.ndarray)) or not (
        hasattr(carriers, "__len__") and hasattr(carriers, "__getitem__") and not hasattr(carriers, "keys")
    ):
        return False
    first = carriers[0] if len(carriers) else None
    return (
        isinstance(first, tuple) and len(first) == 2 and (isinstance(first[1], (int, np.integer)) or _is_one(first[1]))
    )


def _is_one(value: Any) -> bool:
    """Whether this is a whole number in an array or tensor without dimensions."""
    return hasattr(value, "ndim") and value.ndim == 0 and "int" in str(value.dtype)


def _labels(named: list[Any], given: Any, read: Callable[[Any], Any], kind: str, names: list[Any]) -> Any:
    if given is not None or not named:
        return given
    if len(named) > 1:
        raise _unclear(kind, names)
    return read(named[0])


def _unclear(kind: str, names: Sequence[Any]) -> InputError:
    return InputError(
        f"carriers= is a {kind} with the columns {', '.join(map(str, names))}, and several could be meant: give the "
        "columns, carriers=data[NAME], labels=data[NAME]"
    )
