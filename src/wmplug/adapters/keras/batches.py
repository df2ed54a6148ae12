"""The parts of a Keras batch, and triggers in its schema."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops, tree

from wmplug.adapters.keras.single import is_single
from wmplug.errors import InputError
from wmplug.schemes.tilt.texts import INPUTS
from wmplug.tasks.classes import class_of


def named(x: Any) -> dict[Any, Any]:
    """The arrays of a batch's inputs by name, by position, or under None."""
    arrays = dict(x) if isinstance(x, Mapping) else dict(enumerate(x)) if isinstance(x, (list, tuple)) else {None: x}
    if any(isinstance(value, (Mapping, list, tuple)) for value in arrays.values()):
        raise InputError("the inputs of a batch are nested deeper than one dict or list: flatten them")
    return arrays


def rebuild(x: Any, arrays: dict[Any, Any]) -> Any:
    """The inputs of a batch with other arrays."""
    if isinstance(x, Mapping):
        return arrays
    return type(x)(arrays.values()) if isinstance(x, (list, tuple)) else arrays[None]


def leaf(example: Any, name: Any, x: Any) -> Any:
    """A trigger's part for one of the arrays of a batch's inputs."""
    wanted = named(x)
    own = named(example)
    if own.keys() == wanted.keys():
        return own[name]
    if len(own) == len(wanted) == 1:
        return next(iter(own.values()))
    raise InputError(
        f"a trigger has inputs {list(own)}, a batch {list(wanted)}: pass preprocess=, a function from (input, "
        "answer) to (x, y) with the batch's own x"
    )


def fit(values: list[Any], shape: tuple[int | None, ...], dtype: str, where: str) -> npt.NDArray[Any]:
    """Triggers as (N, *shape) of the batch's dtype.

    Raises:
        InputError: shapes differ by more than axes of length 1, or one has integers where the other has floats.
    """
    arrays = [as_array(v) for v in values]
    own, wanted = arrays[0].shape, tuple(n for n in shape if n != 1)
    squeezed = tuple(n for n in own if n != 1)
    same = len(squeezed) == len(wanted) and all(w in (None, n) for n, w in zip(squeezed, wanted, strict=True))
    if not same or any(a.shape != own for a in arrays):
        shapes = sorted({a.shape for a in arrays})[:3]
        problem = f"has shape {', '.join(map(str, shapes))}, a batch's rows {shape}"
    elif not np.issubdtype(arrays[0].dtype, np.number) or dtype == "string":
        problem = f"is {arrays[0].dtype}, a batch {dtype}, and only numbers can be joined (turn text into ids first)"
    elif arrays[0].dtype.kind == "f" and "float" not in dtype:
        problem = f"is {arrays[0].dtype}, a batch {dtype}, which would cut it to integers"
    elif arrays[0].dtype.kind != "f" and "float" in dtype:
        problem = f"is {arrays[0].dtype}, a batch {dtype}, and wmplug does not guess the scale"
    else:
        target = own if None in shape else shape
        return np.stack(arrays).reshape(len(arrays), *target)
    raise InputError(f"a trigger's x{where} {problem}: pass preprocess=, a function from (input, answer) to (x, y)")


def as_array(value: Any) -> npt.NDArray[Any]:
    """A value as NumPy, also where it is a tensor of the backend."""
    return np.asarray(ops.convert_to_numpy(value) if ops.is_tensor(value) else value)


def host(dtype: str) -> str:
    """The dtype in which NumPy holds values of Keras's `dtype`."""
    return dtype if dtype != "bfloat16" else "float32"


def only(value: Any, what: str) -> Any:
    """The one array in a structure; InputError if there are more or none."""
    leaves = [part for part in tree.flatten(value) if part is not None]
    if len(leaves) != 1:
        raise InputError(
            f"{what} {len(leaves)} arrays, but one is needed: train a classifier with one output and its labels"
        )
    return leaves[0]


def primary(x: Any) -> Any:
    """The array of a batch's or a trigger's inputs that features are computed from: by name, or else the only one."""
    return only(next((x[n] for n in INPUTS if n in x), x) if isinstance(x, Mapping) else x, "the model's inputs are")


def refuse_misshapen(labels: Any, classes: int) -> None:
    """Raise InputError unless there is one label a row: (B,), (B, 1), or (B, classes) one-hot or soft."""
    shape = tuple(labels.shape)
    if len(shape) > 2 or (len(shape) == 2 and shape[1] not in (1, classes)):
        raise InputError(
            f"the labels of a batch have shape {shape}, but each row needs one class: train with integers (B,), or "
            f"(B, {classes}) one-hot or soft labels (the watermark was made for {classes} classes)"
        )


def refuse_several(labels: Any, classes: int) -> None:
    """Raise InputError if rows of a batch's labels (B, ...), whose values are known, name no class.

    Floats (B,) of more than two classes are not looked at: Keras gives them to the loss as class numbers.
    """
    array = as_array(labels)
    shares = array.ndim == 2 and array.shape[1] == classes
    if not shares and (classes != 2 or array.dtype.kind != "f"):
        return
    if wrong := [row for row in array if class_of(row, classes) is None]:
        raise InputError(
            f"the labels of a batch hold {wrong[0].tolist()}: several labels an input and numbers to regress are not "
            f"supported; train with one integer class for each row, or {classes} shares that sum to 1 (for two classes "
            "one number from 0 to 1 will do)"
        )


def refuse_misfit(output: Any, classes: int) -> None:
    """Raise InputError unless the model's output is (B, classes), or one score a row of two classes."""
    shape = tuple(output.shape)
    if not is_single(output, classes) and (len(shape) != 2 or shape[1] != classes):
        raise InputError(
            f"the model's output has shape {shape}, the watermark was made for {classes} classes: make it with as many "
            "classes= as the model has, or give the model one score for each class"
        )
