"""Unmarked references: what models that never met the key say of the owner's inputs.

A pattern in a suspect's answers is looked for relative to what unmarked models answer anyway, and where these are of
two minds. Needs no key, so it is worked out before there is one; the digest is part of the watermark's identity, from
which the key follows: a pool that holds a model which carries the mark would have given another mark.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.suspects import to_numpy
from wmplug.triggers import Inputs, IntArray, digest

FloatArray = npt.NDArray[np.float32]
_LAYERS = ((128, 64), (100,), (64, 64, 64), (200,))
_EPOCHS = 12


@dataclass(frozen=True)
class References:
    """What unmarked models say of n inputs.

    Attributes:
        scores: (n, classes) float32, their mean probabilities.
        votes: (n, classes) float32, the share of them that answers each class.
    """

    scores: FloatArray = field(repr=False)
    votes: FloatArray = field(repr=False)

    @property
    def gap(self) -> FloatArray:
        """(n,) difference of the two largest scores: small where the task leaves freedom."""
        best = np.sort(self.scores, axis=1)
        return np.asarray(best[:, -1] - best[:, -2], np.float32)

    @property
    def pair(self) -> IntArray:
        """(n,) a number for the unordered pair of the two classes that score highest."""
        best = np.sort(np.argsort(self.scores, axis=1, kind="stable")[:, -2:], axis=1)
        return np.asarray(best[:, 0] * self.scores.shape[1] + best[:, 1], np.int64)

    def of(self, rows: slice | IntArray) -> "References":
        """Those of some of the inputs."""
        return References(self.scores[rows], self.votes[rows])


def of_models(
    models: Sequence[Callable[[Any], Any]], inputs: Inputs, classes: int, batch_size: int = 256
) -> References:
    """Ask given models.

    Args:
        models: functions from inputs to labels (n,) or scores (n, classes), logits or probabilities.
        inputs: n of them.
        classes: of the task.
        batch_size: inputs a call.

    Raises:
        InputError: a model answers in another shape, or two of them are the same.
    """
    given = []
    for number, model in enumerate(models):
        parts = [to_numpy(model(inputs[i : i + batch_size])) for i in range(0, len(inputs), batch_size)]
        given.append(_probabilities(np.concatenate(parts), len(inputs), classes, number))
    if len({digest(one) for one in given}) < len(given):
        raise InputError("pool= holds one model twice: give each once, or what they say counts double")
    return _reduced(np.stack(given))


def of_labels(labels: IntArray, classes: int) -> References:
    """The natural labels in place of a pool: they tell nothing of where the task leaves freedom."""
    certain = np.eye(classes, dtype=np.float32)[labels]
    return References(certain, certain)


def trained(inputs: Inputs, labels: IntArray, classes: int, others: Inputs | None = None) -> References:
    """Train a pool of multilayer perceptrons of four shapes, each on a random half, and ask each about the rest.

    A model that was trained on an input is sure of it; what is wanted is how sure unmarked models are that were not.

    Args:
        inputs: n inputs of numbers.
        labels: (n,) their classes.
        classes: of the task.
        others: further inputs, not labelled, which all models are asked about.

    Returns:
        Of the inputs, then of the others.

    Raises:
        InputError: scikit-learn is not installed, or the inputs are no numbers.
    """
    if isinstance(inputs, list):
        raise InputError("a pool of references for texts has to be given: pool=[functions from texts to scores]")
    every = _scaled(np.asarray(inputs), np.empty((0,)) if others is None else np.asarray(others))
    said = np.full((2 * len(_LAYERS), len(every), classes), np.nan, np.float32)
    for number, layers in enumerate(_LAYERS):
        order = np.random.default_rng(number).permutation(len(labels))
        for half in (0, 1):
            mine = order[half::2]
            model = _fitted(every[mine], labels[mine], layers, number)
            asked = np.setdiff1d(np.arange(len(every)), mine)
            found = said[2 * number + half]
            found[asked] = 0.0
            found[np.ix_(asked, model.classes_)] = model.predict_proba(every[asked])
    return _reduced(said)


def clone(inputs: npt.NDArray[Any], answers: IntArray, asked: npt.NDArray[Any]) -> IntArray:
    """What a network says of `asked` that was trained on nothing but answers to `inputs`.

    Raises:
        InputError: scikit-learn is not installed.
    """
    every = _scaled(inputs, asked)
    model = _fitted(every[: len(inputs)], answers, _LAYERS[0], 0)
    return np.asarray(model.predict(every[len(inputs) :]), np.int64)


def _fitted(inputs: FloatArray, labels: IntArray, layers: tuple[int, ...], seed: int) -> Any:
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier
    except ImportError as error:
        raise InputError(
            "unmarked references are trained with scikit-learn, which is not installed: pip install 'wmplug[clones]', "
            "or give pool=[unmarked models of your own] and a number for delta="
        ) from error
    model = MLPClassifier(layers, batch_size=min(64, len(labels)), max_iter=_EPOCHS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few epochs are meant
        return model.fit(inputs, labels)


def _reduced(said: FloatArray) -> References:
    """(models, n, classes) probabilities, NaN where a model was not asked."""
    votes = np.eye(said.shape[2], dtype=np.float32)[np.nan_to_num(said).argmax(axis=2)]
    votes[np.isnan(said)] = np.nan
    return References(np.nanmean(said, axis=0), np.nanmean(votes, axis=0))


def _scaled(inputs: npt.NDArray[Any], others: npt.NDArray[Any]) -> FloatArray:
    flat = [part.reshape(len(part), -1).astype(np.float32) for part in (inputs, others) if len(part)]
    axis = None if inputs.ndim > 2 else 0  # one scale for pictures, one a column for tables
    centre, spread = flat[0].mean(axis=axis), np.maximum(flat[0].std(axis=axis), 1e-9)
    scaled: FloatArray = np.concatenate(flat)
    scaled -= centre
    scaled /= spread
    return scaled


def _probabilities(said: npt.NDArray[Any], count: int, classes: int, number: int) -> FloatArray:
    if said.shape == (count,) and said.dtype.kind in "iu" and 0 <= said.min() <= said.max() < classes:
        return np.asarray(np.eye(classes)[said], np.float32)
    if said.shape != (count, classes) or said.dtype.kind not in "iuf" or not np.isfinite(said).all():
        raise InputError(
            f"model {number} of pool= gave {said.shape} {said.dtype} for {count} inputs: labels ({count},) below "
            f"{classes} or finite scores ({count}, {classes}) are needed"
        )
    if said.min() >= 0 and np.allclose(said.sum(axis=1), 1, atol=1e-3):
        return said.astype(np.float32)
    raised = np.exp(said - said.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)
