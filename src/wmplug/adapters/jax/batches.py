"""Triggers in the batches of a JAX loop. Shapes do not depend on the step, so a compiled step is not traced again."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wmplug.errors import InputError
from wmplug.statistics.arrays import Array, BoolArray, IntArray
from wmplug.tasks import Classes
from wmplug.tasks.base import Task
from wmplug.tasks.classes import class_of
from wmplug.training.placement import PPM, Placement

LABELS = ("label", "labels", "y", "target", "targets")
_PREPROCESS = "pass preprocess=, a function from (input, answer) to an example of the batches' own form"


class Parts:
    """The arrays of a batch, and which of them is the labels.

    Args:
        batch: a pytree of arrays (B, ...): (x, y), (x, y, weights), a mapping, or any other with `label`.
        label: key, position or attribute of the labels, or a tuple of these; by default the entry with a usual name,
            or the second one of a tuple or list.

    Raises:
        InputError: there are no labels there, or the arrays differ in their number of rows.
    """

    def __init__(self, batch: Any, label: Any = None) -> None:
        found, self.structure = jax.tree_util.tree_flatten_with_path(batch)
        self.paths = [tuple(map(_key, path)) for path, _ in found]
        self.arrays = [array for _, array in found]
        wanted = self._usual(batch) if label is None else label if isinstance(label, tuple) else (label,)
        places = [place for place, path in enumerate(self.paths) if path[: len(wanted)] == wanted]
        if len(places) != 1:
            raise InputError(
                f"a batch is {shown(batch)}, and {len(places)} of its arrays are at label={wanted!r}: pass label=, the "
                "key or position of its labels, or a tuple of these for a nested batch"
            )
        self.label = places[0]
        if odd := [array for array in self.arrays if not getattr(array, "shape", ())]:
            raise InputError(
                f"a batch is {shown(batch)}, and holds a {type(odd[0]).__name__} without rows: let it yield arrays "
                "(B, ...) of NumPy or JAX"
            )
        if len(sizes := {array.shape[0] for array in self.arrays}) > 1:
            raise InputError(f"the arrays of a batch have {sorted(sizes)} rows: all need the same number")

    def _usual(self, batch: Any) -> tuple[Any, ...]:
        if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
            return (1,)
        return next((path[:1] for path in self.paths if path[:1] and path[0] in LABELS), ("label",))

    @property
    def size(self) -> int:
        """Rows of the batch."""
        return int(self.arrays[0].shape[0])

    @property
    def labels(self) -> Any:
        """The labels, (B, ...)."""
        return self.arrays[self.label]

    @property
    def weights(self) -> list[int]:
        """The arrays that a tuple or list has after its labels, such as sample weights."""
        return [
            place for place, path in enumerate(self.paths) if self.paths[self.label][0] == 1 and path[0] not in (0, 1)
        ]

    def rows(self, examples: Sequence[Any]) -> list[list[Any]]:
        """What each example has for each array, the answers in place of labels; ones for `weights` that it lacks.

        Raises:
            InputError: an example has another form.
        """
        found = [self._row(example) for example in examples]
        return [list(values) for values in zip(*found, strict=True)]

    def _row(self, example: Any) -> list[Any]:
        leaves, structure = jax.tree_util.tree_flatten(example)
        if structure == self.structure:
            return list(leaves)
        if isinstance(example, (tuple, list)) and len(example) == 2:
            given, names = jax.tree_util.tree_flatten_with_path(example[0])[0], self._inputs
            own = [tuple(map(_key, path)) for path, _ in given]
            if len(own) == len(names) and (
                len(own) == 1 or own == [self.paths[place][-len(own[0]) :] for place in names]
            ):
                values = dict(zip(names, (value for _, value in given), strict=True)) | {self.label: example[1]}
                ones = {place: np.ones(self.arrays[place].shape[1:]) for place in self.weights}
                return [(values | ones)[place] for place in range(len(self.arrays))]
        raise InputError(
            f"a trigger is {shown(example)}, a batch {shown(self.structure.unflatten(self.arrays))}: {_PREPROCESS}"
        )

    @property
    def _inputs(self) -> list[int]:
        return [place for place in range(len(self.arrays)) if place != self.label and place not in self.weights]

    def asked(self, arrays: Sequence[Any]) -> Any:
        """What a model is asked of a batch with these arrays.

        Of a tuple or list it is the first part that is not the labels, of a mapping all but the labels (the entry
        itself if one is left), of another pytree all of it.
        """
        batch, top = self.structure.unflatten(arrays), self.paths[self.label][0]
        if isinstance(batch, Mapping):
            left = {name: part for name, part in batch.items() if name != top}
            return next(iter(left.values())) if len(left) == 1 else left
        if isinstance(batch, (tuple, list)) and not hasattr(batch, "_fields"):
            return next(part for place, part in enumerate(batch) if place != top)
        return batch


class Injector:
    """Adds triggers to batches.

    Args:
        examples: the pool of taught rows, prepared, with their answers: (example, answer).
        placement: which of them go where.
        task: of the answers.
        label: where the labels of a batch are, as for `Parts`.
    """

    def __init__(self, examples: Sequence[tuple[Any, Any]], placement: Placement, task: Task, label: Any) -> None:
        self.examples, self.placement, self.task, self.label = examples, placement, task, label
        self.most = 0  # rows of the largest batch so far
        self._pools: dict[Any, Any] = {}

    def join(self, batch: Any, slot: int, rate: int) -> tuple[Any, int]:
        """A batch with the triggers of its slot at its end, and their number.

        In `append` mode it grows by as many rows as any slot needs at this rate, in `replace` mode it keeps its size.
        Where a fractional rate gives the slot one trigger less than the most, the last row is the batch's own last (in
        `append` a second time).

        Args:
            batch: a pytree of arrays (B, ...) of NumPy or JAX; each stays what it is, where it is.
            slot: number of the step.
            rate: share of triggers in what the model sees, in parts per million.

        Raises:
            InputError: triggers do not fit the batch, or no batch of this size ever holds one.
        """
        parts = Parts(batch, self.label)
        if not parts.size:
            return batch, 0
        self._refuse_nothing(parts.size, rate)
        whole, rest = self.placement.share(parts.size, rate)
        taught = np.arange(whole + (rest > 0)) < self.placement.count(slot, parts.size, rate)
        first = self.placement.start(slot, parts.size, rate)[0]
        rows = self.placement.order[(first + np.arange(len(taught))) % len(self.placement.order)]
        if not len(taught):
            return batch, 0
        joined = [self._extend(parts, place, rows, taught) for place in range(len(parts.arrays))]
        return parts.structure.unflatten(joined), int(taught.sum())

    def _refuse_nothing(self, size: int, rate: int) -> None:
        # By the largest batch so far: the last of an epoch may be too small for a trigger.
        self.most = max(self.most, size)
        whole, rest = self.placement.share(self.most, rate)
        if not whole and rest <= int(self.placement.thresholds.min()):
            raise InputError(
                f"at a rate of {rate / PPM:g} a batch of {self.most} never contains a trigger: give a higher rate=, or "
                "larger batches"
            )

    def _extend(self, parts: Parts, place: int, rows: IntArray, taught: BoolArray) -> Any:
        own, append = parts.arrays[place], self.placement.mode == "append"
        pool = self._pool(parts, place)
        if not isinstance(own, jax.Array):
            own = np.asarray(own)
            return _extended(np, own, pool, rows, taught, append)
        if append and len(own.sharding.device_set) > 1:
            raise InputError(
                f"a batch of {parts.size} rows lies on {len(own.sharding.device_set)} devices, and appended triggers "
                'would not divide among them: pass mode="replace", or mark the batches before you shard them'
            )
        joined = _compiled(own, pool, rows.astype(np.int32), taught, append)
        return jax.device_put(joined, own.sharding)

    def _pool(self, parts: Parts, place: int) -> Any:
        own = parts.arrays[place]
        on = own.sharding if isinstance(own, jax.Array) else None
        key = (place, own.shape[1:], own.dtype, on)
        if key not in self._pools:
            values = parts.rows([example for example, _ in self.examples])[place]
            if place == parts.label:
                array = encoded([answer for _, answer in self.examples], values, own, self.task)
            else:
                array = fit(values, own.shape[1:], own.dtype, ".".join(map(str, parts.paths[place])))
            self._pools[key] = array if on is None else jax.device_put(array, _everywhere(on))
        return self._pools[key]


def _extended(xp: Any, own: Any, pool: Any, rows: Any, taught: Any, append: bool) -> Any:
    width = taught.shape[0]
    mask = taught.reshape(-1, *(1,) * (own.ndim - 1))
    tail = xp.where(mask, pool[rows], own[-1:])
    return xp.concatenate([own if append else own[: own.shape[0] - width], tail])


@functools.partial(jax.jit, static_argnums=4)
def _compiled(own: Any, pool: Any, rows: Any, taught: Any, append: bool) -> Any:
    return _extended(jnp, own, pool, rows, taught, append)


def _everywhere(sharding: Any) -> Any:
    """The sharding of an array of which every device of a batch has a copy.

    Raises:
        InputError: the batch is sharded in a way that does not show its mesh.
    """
    if len(sharding.device_set) == 1:
        return sharding
    if not isinstance(sharding, jax.sharding.NamedSharding):
        raise InputError(
            f"a batch lies on {len(sharding.device_set)} devices as {type(sharding).__name__}: shard it with a "
            "NamedSharding, or mark the batches before you shard them"
        )
    return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())


def encoded(answers: Sequence[Any], values: Sequence[Any], labels: Any, task: Task) -> Array:
    """(pool, ...) answers as labels of a batch.

    Args:
        answers: of the pool.
        values: the labels that the prepared examples hold.
        labels: of a batch: of classes (B,) or (B, 1) integers, (B, classes) one-hot or soft, or for two classes one
            number from 0 to 1; of other tasks (B,) or (B, 1) as the examples hold them.
        task: of the answers.

    Raises:
        InputError: the labels are of another kind, or an example holds another class than its answer.
    """
    shape, floats = tuple(labels.shape[1:]), jnp.issubdtype(labels.dtype, jnp.floating)
    alone = shape in ((), (1,))
    if not isinstance(task, Classes):
        if not (alone and floats):
            raise InputError(
                f"the labels of a batch are {labels.dtype} {tuple(labels.shape)}, the watermark's answers are "
                f"{task.name!r}: train with one float a row, (B,) or (B, 1)"
            )
        return np.asarray(values).reshape(len(values), *shape).astype(labels.dtype)
    if shape != (task.count,) and not (alone and (not floats or task.count == 2)):
        raise InputError(
            f"the labels of a batch are {labels.dtype} {tuple(labels.shape)}, but each row needs one class: train with "
            f"integers (B,), or (B, {task.count}) one-hot or soft labels (the watermark was made for {task.count} "
            "classes)"
        )
    for value, answer in zip(values, answers, strict=True):
        if class_of(value, task.count) != answer:
            raise InputError(
                f"preprocess returned the label {value!r} for the answer {answer}: it must return the given answer, "
                "because that is what the model should learn"
            )
    found = np.asarray(answers)
    found = np.eye(task.count)[found] if shape == (task.count,) and task.count > 1 else found.reshape(-1, *shape)
    return found.astype(labels.dtype)


def refuse_several(labels: Any, task: Task) -> None:
    """Refuse labels of classes whose values name no class in some row.

    Raises:
        InputError: several labels a row, or numbers to regress.
    """
    array = np.asarray(labels)
    if isinstance(task, Classes) and (array.ndim > 1 or array.dtype.kind == "f"):
        array = array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16
        if wrong := [row for row in array if class_of(row, task.count) is None]:
            raise InputError(
                f"the labels of a batch hold {np.asarray(wrong[0]).tolist()}: several labels an input and numbers to "
                f"regress are not supported; train with one integer class for each row, or {task.count} shares that "
                "sum to 1 (for two classes one number from 0 to 1 will do)"
            )


def fit(values: Sequence[Any], shape: tuple[int, ...], dtype: Any, where: str) -> Array:
    """Parts of triggers as (pool, *shape) of a batch's dtype.

    Raises:
        InputError: shapes differ by more than axes of length 1, or one has integers where the other has floats.
    """
    arrays = [np.asarray(value) for value in values]
    own, floats = arrays[0].shape, bool(jnp.issubdtype(arrays[0].dtype, jnp.floating))
    squeezed = [tuple(n for n in one if n != 1) for one in (own, shape)]
    if squeezed[0] != squeezed[1] or any(array.shape != own for array in arrays):
        problem = f"has shape {', '.join(sorted({str(array.shape) for array in arrays})[:3])}, a batch's rows {shape}"
    elif arrays[0].dtype.kind not in "iufbV":
        problem = f"is {arrays[0].dtype}, and only numbers can be joined (turn text into ids first)"
    elif floats != bool(jnp.issubdtype(dtype, jnp.floating)):
        problem = f"is {arrays[0].dtype}, a batch {dtype}, and wmplug does not guess the scale"
    else:
        return np.stack(arrays).reshape(len(arrays), *shape).astype(dtype)
    raise InputError(f"a trigger's part {where} {problem}: {_PREPROCESS}")


def shown(value: Any) -> str:
    """A batch or an example in words: its structure, and the shape of each array."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name!r}: {shown(part)}" for name, part in value.items()) + "}"
    if isinstance(value, (tuple, list)) and len(value) <= 4:
        return "(" + ", ".join(map(shown, value)) + ")"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f"{tuple(shape)}" if shape is not None else "")


def _key(entry: Any) -> Any:
    return next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name))
