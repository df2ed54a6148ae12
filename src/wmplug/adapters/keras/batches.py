"""What a Keras batch is made of, and triggers in its schema."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from keras import ops, tree

from wmplug.errors import InputError
from wmplug.schemes.tilt.texts import INPUTS


def named(x: Any) -> dict[Any, Any]:
    """The arrays of a batch's inputs by name, by position, or under None."""
    found = dict(x) if isinstance(x, Mapping) else dict(enumerate(x)) if isinstance(x, (list, tuple)) else {None: x}
    if any(isinstance(value, (Mapping, list, tuple)) for value in found.values()):
        raise InputError("the inputs of a batch are nested deeper than one dict or list: flatten them")
    return found


def rebuild(x: Any, arrays: dict[Any, Any]) -> Any:
    """The inputs of a batch with other arrays."""
    if isinstance(x, Mapping):
        return arrays
    return type(x)(arrays.values()) if isinstance(x, (list, tuple)) else arrays[None]


def leaf(example: Any, name: Any, x: Any) -> Any:
    """What a trigger has for one of the arrays of a batch's inputs."""
    wanted = named(x)
    given = named(example)
    if given.keys() == wanted.keys():
        return given[name]
    if len(given) == len(wanted) == 1:
        return next(iter(given.values()))
    raise InputError(
        f"a trigger has inputs {list(given)}, a batch {list(wanted)}: pass preprocess=, a function from (input, "
        "answer) to (x, y) with the batch's own x"
    )


def fit(given: list[Any], shape: tuple[int | None, ...], dtype: str, where: str) -> npt.NDArray[Any]:
    """Triggers as (N, *shape) of the batch's dtype.

    Raises:
        InputError: shapes differ by more than axes of length 1, or one has integers where the other has floats.
    """
    arrays = [as_array(v) for v in given]
    made, wanted = arrays[0].shape, tuple(n for n in shape if n != 1)
    squeezed = tuple(n for n in made if n != 1)
    same = len(squeezed) == len(wanted) and all(w in (None, n) for n, w in zip(squeezed, wanted, strict=True))
    if not same or any(a.shape != made for a in arrays):
        shapes = sorted({a.shape for a in arrays})[:3]
        problem = f"has shape {', '.join(map(str, shapes))}, a batch's rows {shape}"
    elif not np.issubdtype(arrays[0].dtype, np.number) or dtype == "string":
        problem = f"is {arrays[0].dtype}, a batch {dtype}, and only numbers can be joined (turn text into ids first)"
    elif arrays[0].dtype.kind == "f" and "float" not in dtype:
        problem = f"is {arrays[0].dtype}, a batch {dtype}, which would cut it to integers"
    elif arrays[0].dtype.kind != "f" and "float" in dtype:
        problem = f"is {arrays[0].dtype}, a batch {dtype}, and wmplug does not guess the scale"
    else:
        target = made if None in shape else shape
        return np.stack(arrays).reshape(len(arrays), *target)
    raise InputError(f"a trigger's x{where} {problem}: pass preprocess=, a function from (input, answer) to (x, y)")


def as_array(value: Any) -> npt.NDArray[Any]:
    """A value as NumPy, also where it is a tensor of the backend."""
    return np.asarray(ops.convert_to_numpy(value) if ops.is_tensor(value) else value)


def host(dtype: str) -> str:
    """The dtype in which NumPy holds what is of `dtype` in Keras."""
    return dtype if dtype != "bfloat16" else "float32"


def only(value: Any, what: str) -> Any:
    """The one array in a structure; InputError if there are more or none."""
    leaves = [found for found in tree.flatten(value) if found is not None]
    if len(leaves) != 1:
        raise InputError(f"{what} {len(leaves)} arrays: one is needed, a classifier with one output and its labels")
    return leaves[0]


def primary(x: Any) -> Any:
    """The array of a batch's inputs, or of a trigger's, that features are of: by name, or else the only one."""
    return only(next((x[n] for n in INPUTS if n in x), x) if isinstance(x, Mapping) else x, "the model's inputs are")


def refuse_soft(labels: Any) -> None:
    """Raise InputError unless there is one label a row."""
    shape = tuple(labels.shape)
    if len(shape) > 2 or (len(shape) == 2 and shape[1] != 1):
        raise InputError(
            f"the labels of a batch have shape {shape}: one integer class for each row is needed (one-hot, soft and "
            "several labels are not supported yet); use sparse_categorical_crossentropy with integer labels"
        )


def refuse_misfit(output: Any, classes: int) -> None:
    """Raise InputError unless the model's output is (B, classes)."""
    shape = tuple(output.shape)
    if len(shape) != 2 or shape[1] != classes:
        raise InputError(
            f"the model's output has shape {shape}, the watermark was made for {classes} classes: make it with "
            "classes= as many as the model has, or give the model one score for each class"
        )
