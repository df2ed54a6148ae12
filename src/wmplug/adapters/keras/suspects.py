"""A Keras model, or a .keras or .h5 file, as a suspect."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import keras
import numpy as np
from scipy.special import expit

from wmplug.adapters.keras.batches import host
from wmplug.adapters.keras.single import squashes
from wmplug.errors import (
    SuspectError,
)
from wmplug.suspects.protocols import Suspect
from wmplug.tasks.classes import is_single
from wmplug.watermark.watermark import Preprocess

_SAFE_H5 = (3, 11, 3)  # CVE-2025-9905


class KerasSuspect:
    """A Keras model with one output of (n, classes) scores, or of one score each if it tells two classes apart.

    Args:
        model: asked unchanged, in inference mode; its training state stays.
        preprocess: `preprocess(input, answer) -> (x, y)`; the input itself by default.
        batch_size: inputs a forward pass.
    """

    def __init__(self, model: keras.Model, *, preprocess: Preprocess | None = None, batch_size: int = 64) -> None:
        self.description = model.name
        self.model, self.preprocess, self.batch_size = model, preprocess, batch_size

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Scores (n, classes) as NumPy; of one score each, (n, 1) or (n,), the probability of class 1.

        Raises:
            SuspectError: the model does not have exactly one output.
        """
        examples = [x if self.preprocess is None else self.preprocess(x, 0)[0] for x in inputs]
        with _inference(self.model):
            parts = [self._scores(examples[i : i + self.batch_size]) for i in range(0, len(examples), self.batch_size)]
        scores = np.concatenate(parts)
        return expit(scores.astype(np.float64)) if is_single(scores) and squashes(self.model) is False else scores

    def _scores(self, examples: list[Any]) -> Any:
        outputs = keras.tree.flatten(self.model.predict_on_batch(self._batch(examples)))
        if len(outputs) != 1:
            raise SuspectError(
                f"{self.description} has {len(outputs)} outputs, but one of scores (n, classes) is needed: wrap the "
                "model in a function that returns that one"
            )
        scores = np.asarray(outputs[0])
        return scores if scores.dtype.kind in "iuf" else scores.astype(np.float32)  # bfloat16

    def _batch(self, examples: list[Any]) -> Any:
        declared = getattr(self.model, "inputs", None) or [None]
        first = examples[0]
        if isinstance(first, Mapping):
            return {name: _stack([e[name] for e in examples], None) for name in first}
        if isinstance(first, (tuple, list)):
            return [_stack([e[i] for e in examples], None) for i in range(len(first))]
        batch = _stack(examples, declared[0] if len(declared) == 1 else None)
        struct = getattr(self.model, "_inputs_struct", None)
        return {next(iter(struct)): batch} if isinstance(struct, Mapping) and len(struct) == 1 else batch


def _stack(rows: list[Any], like: Any) -> Any:
    """Rows as one array, shaped like the model's input if that is known, in a dtype that a layer computes with."""
    array = np.stack([np.asarray(row) for row in rows])
    if like is not None:
        shape = tuple(like.shape[1:])
        if None not in shape and math.prod(shape) == array[0].size:
            array = array.reshape(len(array), *shape)
        return array.astype(host(like.dtype))
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" or array.dtype == np.uint8 else array


@contextmanager
def _inference(model: keras.Model) -> Iterator[None]:
    # On the torch backend a model is a torch module as well, whose mode its wrapped torch layers follow.
    modules = list(model.modules()) if keras.backend.backend() == "torch" else []
    modes = [(module, module.training) for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def suspect(target: Any, *, preprocess: Preprocess | None = None, batch_size: int = 64) -> Suspect | None:
    """A Keras model, or a .keras or .h5 file of a whole one, as a suspect; None for other Keras objects.

    Raises:
        SuspectError: the file is missing or cannot be loaded, or is a .h5 file of weights alone.
    """
    if isinstance(target, (str, PathLike)):
        target = _load(os.fsdecode(target))
    if not isinstance(target, keras.Model):
        return None
    return KerasSuspect(target, preprocess=preprocess, batch_size=batch_size)


def _load(path: str) -> Any:
    if path.endswith((".h5", ".hdf5")):
        _need_whole(path)
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    # Others made the file: what a damaged or hostile one raises is theirs to choose.
    except Exception as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise SuspectError(
            f"{path!r} cannot be loaded ({why}): check the path; if the model has custom "
            "classes, load it yourself (keras.saving.load_model(..., custom_objects=...)) and pass the loaded model"
        ) from error


def _need_whole(path: str) -> None:
    """Refuse a .h5 file that holds weights alone, and any where this Keras would run code from it.

    Raises:
        SuspectError: one of these.
    """
    remedy = "load it yourself (keras.saving.load_model) and pass the model"
    if tuple(int(part) for part in keras.__version__.split(".")[:3] if part.isdigit()) < _SAFE_H5:
        raise SuspectError(
            f"{path!r}: Keras {keras.__version__} ignores safe_mode for .h5 files, so this one could run code: install "
            f"keras>={'.'.join(map(str, _SAFE_H5))}, or, if you trust it, {remedy}"
        )
    try:
        import h5py

        with h5py.File(path, "r") as file:
            whole = "model_config" in file.attrs
    # Others made the file, and h5py may be missing.
    except Exception as error:
        raise SuspectError(f"{path!r} cannot be read ({type(error).__name__}: {error}): {remedy}") from error
    if not whole:
        raise SuspectError(
            f"{path!r} holds bare weights without a model: load them into your own model (load_weights) and pass that "
            "model"
        )
