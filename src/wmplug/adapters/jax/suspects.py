"""A Flax NNX module, or a function of parameters and inputs, as a suspect."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from wmplug.adapters.jax.batches import LABELS
from wmplug.errors import SuspectError
from wmplug.statistics.arrays import Array
from wmplug.suspects.protocols import Suspect
from wmplug.watermark.watermark import Preprocess


class JaxSuspect:
    """A model that maps a batch of inputs to scores (n, classes), to labels, or to numbers.

    It is asked in batches of one size, the last one filled up, so that a compiled function is traced once.

    Args:
        predict: `predict(params, x)`, or an `nnx.Module`, which is called as `module(x)` in evaluation mode.
        params: parameters of the function. An `nnx.Module` here goes to the function in evaluation mode.
        prepare: from a list of inputs to x, a pytree of arrays (n, ...).
        batch_size: inputs a forward pass.
    """

    def __init__(
        self, predict: Any, params: Any, *, prepare: Callable[[Sequence[Any]], Any], batch_size: int = 64
    ) -> None:
        self.description = type(predict).__name__ if is_module(predict) else getattr(predict, "__name__", "predict")
        self.predict, self.params, self.prepare, self.batch_size = predict, params, prepare, batch_size

    def answer(self, inputs: Sequence[Any]) -> Array:
        """The model's outputs, joined.

        Raises:
            SuspectError: the model returned more than one array, or not one row for each input.
        """
        asked, size = self._in_evaluation(), self.batch_size
        parts = [self._part(asked, inputs[start : start + size]) for start in range(0, len(inputs), size)]
        return np.concatenate(parts)

    def _in_evaluation(self) -> Callable[[Any], Any]:
        if is_module(self.predict):
            return evaluating(self.predict)  # type: ignore[no-any-return]
        params = evaluating(self.params) if is_module(self.params) else self.params
        return lambda x: self.predict(params, x)

    def _part(self, asked: Callable[[Any], Any], inputs: Sequence[Any]) -> Array:
        missing = self.batch_size - len(inputs)
        x = jax.tree.map(lambda rows: np.concatenate([rows, rows[-1:].repeat(missing, 0)]), self.prepare(inputs))
        output = asked(jax.tree.map(jax.numpy.asarray, x))
        output = output.get("logits", output) if isinstance(output, Mapping) else getattr(output, "logits", output)
        arrays = jax.tree.leaves(output)
        if len(arrays) != 1 or getattr(arrays[0], "shape", ())[:1] != (self.batch_size,):
            shapes = ", ".join(str(getattr(array, "shape", type(array).__name__)) for array in arrays)
            raise SuspectError(
                f"{self.description} returned {shapes or 'nothing'} for {self.batch_size} inputs: let it return one "
                "array with a row of scores, a label or a number for each input"
            )
        array = np.asarray(arrays[0])
        return (array.astype(np.float32) if array.dtype.kind == "V" else array)[: len(inputs)]  # bfloat16


def is_module(target: Any) -> bool:
    """Whether this is a module of Flax NNX; Flax is not imported for the question."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(target, nnx.Module)


def evaluating(module: Any) -> Any:
    """The module in evaluation mode: another object with the same parameters, so that the given one stays as it is."""
    nnx = sys.modules["flax.nnx"]
    copy = nnx.merge(*nnx.split(module))
    copy.eval()
    return copy


def stacked(examples: Sequence[Any]) -> Any:
    """The inputs of examples (x, y), mappings with a label, or inputs alone, as a pytree of arrays (n, ...)."""
    return jax.tree.map(lambda *rows: np.stack([np.asarray(row) for row in rows]), *map(_input, examples))


def _input(example: Any) -> Any:
    if isinstance(example, (tuple, list)):
        return example[0]
    if isinstance(example, Mapping):
        left = {name: part for name, part in example.items() if name not in LABELS}
        return next(iter(left.values())) if len(left) == 1 else left
    return example


def suspect(target: Any, *, preprocess: Preprocess | None = None, batch_size: int = 64) -> Suspect | None:
    """An NNX module as a suspect; None for other objects of Flax that can be called, such as a bound linen module.

    Raises:
        SuspectError: it is a linen module without parameters.
    """
    if is_module(target):
        return JaxSuspect(
            target,
            None,
            prepare=lambda inputs: stacked([x if preprocess is None else preprocess(x, 0) for x in inputs]),
            batch_size=batch_size,
        )
    if hasattr(target, "apply") and hasattr(target, "init") and getattr(target, "scope", None) is None:
        raise SuspectError(
            f"{type(target).__name__} is a module of Flax linen, which holds no parameters: pass a function, such as "
            "`lambda x: module.apply(variables, x)`"
        )
    return None
