"""A trigger in the schema of the dataset's own examples."""

import reprlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from wmplug.errors import InputError
from wmplug.schemes.tilt.texts import LABELS
from wmplug.statistics.arrays import to_numpy
from wmplug.tasks.classes import class_of


def fit(example: Any, like: Any, classes: int = 0) -> Any:
    """The example in the schema of the dataset's own: same container, keys, kinds, shapes and dtypes.

    A class becomes one-hot where the dataset's label is one-hot or soft, and 0.0 or 1.0 where it is one number from 0
    to 1 of two classes.

    Args:
        example: a trigger, as `preprocess` made it, or (input, answer).
        like: an example of the dataset.
        classes: number of classes; 0 takes integer labels alone.

    Raises:
        InputError: it does not fit; the message shows both.
    """
    if isinstance(like, Mapping):
        return _fit_mapping(example, like, classes)
    if isinstance(like, (tuple, list)) and isinstance(example, (tuple, list)) and len(like) == len(example):
        values = [_fit_value(e, v, f"[{i}]", classes) for i, (e, v) in enumerate(zip(example, like, strict=True))]
        return type(like)(*values) if hasattr(like, "_fields") else type(like)(values)
    raise InputError(
        f"a trigger is {_show(example)}, the dataset yields {_show(like)}: pass preprocess=, a function from (input, "
        "answer) to an example of the dataset"
    )


def _fit_mapping(example: Any, like: Mapping[str, Any], classes: int) -> dict[str, Any]:
    label = next((k for k in LABELS if k in like), None)
    if isinstance(example, (tuple, list)) and len(example) == 2 and label is not None:
        inputs = [k for k in like if k != label and not np.isscalar(like[k])] or [k for k in like if k != label]
        if len(inputs) == 1:
            example = {inputs[0]: example[0], label: example[1]}
    if isinstance(example, Mapping):
        values = {(label if k in LABELS and label else k): v for k, v in example.items()}
        if all(k in values for k in like):
            return {k: _fit_value(values[k], like[k], f"[{k!r}]", classes) for k in like}
    raise InputError(
        f"a trigger is {_show(example)}, the dataset yields {_show(like)}: pass preprocess=, a function from (input, "
        "answer) to a dict with the dataset's keys"
    )


def _fit_value(value: Any, like: Any, where: str, classes: int) -> Any:
    if _is_class(value) and _is_soft(like):
        return _fit_class(int(value), like, where, classes)
    if isinstance(like, torch.Tensor):
        tensor = torch.as_tensor(np.asarray(value)) if not isinstance(value, torch.Tensor) else value
        _refuse_misfit(tensor, like, where, tensor.is_floating_point(), like.is_floating_point())
        return tensor.reshape(like.shape if tensor.numel() == like.numel() else tensor.shape).to(like.dtype)
    if isinstance(like, np.ndarray):
        array = np.asarray(value)
        _refuse_misfit(array, like, where, array.dtype.kind == "f", like.dtype.kind == "f")
        return array.reshape(like.shape if array.size == like.size else array.shape).astype(like.dtype)
    if isinstance(like, (int, np.integer)) and np.ndim(value) == 0:
        return type(like)(value)
    if isinstance(like, list) and not isinstance(value, (list, str)):
        return np.asarray(value).tolist()
    if isinstance(like, str) != isinstance(value, str) or hasattr(like, "getbands") != hasattr(value, "getbands"):
        raise InputError(
            f"a trigger's {where} is {_show(value)}, the dataset's {_show(like)}: pass preprocess=, a function from "
            "(input, answer) to an example"
        )
    return value


def _fit_class(answer: int, like: Any, where: str, classes: int) -> Any:
    """The class as a label of the dataset's kind."""
    if class_of(like, classes) is None or answer >= classes > 0:
        raise InputError(
            f"a trigger's {where} is the class {answer}, the dataset's is {reprlib.repr(like)}: several labels "
            f"an input and numbers to regress are not supported; give each example one integer class, or {classes} "
            "shares, one-hot or soft, that sum to 1 (for two classes one number from 0 to 1 will do)"
        )
    shown = to_numpy(like)
    made = np.array(answer) if shown.size == 1 else np.eye(classes)[answer]
    made = made.reshape(shown.shape).astype(shown.dtype)
    if isinstance(like, torch.Tensor):
        return torch.as_tensor(made).to(like.dtype)
    if isinstance(like, np.ndarray):
        return made
    return type(like)(made.tolist())


def _is_class(value: Any) -> bool:
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return value.ndim == 0 and to_numpy(value).dtype.kind in "iu"
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_soft(like: Any) -> bool:
    if isinstance(like, (torch.Tensor, np.ndarray)):
        return like.ndim > 0 or str(like.dtype).rpartition(".")[2].startswith(("float", "bfloat"))
    return isinstance(like, (list, tuple, float, np.floating))


def _refuse_misfit(value: Any, like: Any, where: str, floats: bool, like_floats: bool) -> None:
    shape, wanted = tuple(value.shape), tuple(like.shape)
    squeezed = [tuple(n for n in s if n != 1) for s in (shape, wanted)]
    # A sequence may have any length: the user's collator pads it.
    if not (squeezed[0] == squeezed[1] or len(shape) == len(wanted) == 1):
        problem = f"has shape {shape}, the dataset's {wanted}"
    elif floats != like_floats and len(wanted) > 0:
        problem = f"is {value.dtype}, the dataset's {like.dtype}, and wmplug does not guess the scale"
    else:
        return
    raise InputError(f"a trigger's {where} {problem}: pass preprocess=, a function from (input, answer) to an example")


def _show(example: Any) -> str:
    if isinstance(example, Mapping):
        return "{" + ", ".join(f"{k}: {_show(v)}" for k, v in example.items()) + "}"
    if isinstance(example, (tuple, list)) and len(example) <= 4:
        return "(" + ", ".join(_show(v) for v in example) + ")"
    shape = getattr(example, "shape", None)
    return type(example).__name__ + (f"{tuple(shape)}" if shape is not None else "")
