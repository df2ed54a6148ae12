"""Unmarked references: the answers of models that never saw the key to the owner's inputs.

A pattern in a suspect's answers is measured relative to the answers of unmarked models, on the inputs that these find
hardest to decide. References need no key and come before it; their digest is part of the watermark's identity, from
which the key is derived. So a pool that holds a marked model would have led to another mark.
"""

import contextlib
import functools
import importlib.util
import io
import os
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.keys.files import write_new
from wmplug.statistics.arrays import IntArray, to_numpy
from wmplug.watermark.carriers import Inputs, digest, join

Float32Array = npt.NDArray[np.float32]
Predict: TypeAlias = Callable[[Any], Any]
Learner: TypeAlias = Callable[[Any, Any, int, int], Predict]
_LAYERS = ((128, 64), (200,), (64, 64, 64))
_EPOCHS, _FOLDS = 12, 4
_LINEAR = ((1, 10.0), (2, 30.0), (1, 100.0))  # words in a row, inverse of the regularisation
_TERMS, _STEPS = 20_000, 60
_HELD: "dict[str, References]" = {}
_MOST_HELD = 4


@dataclass(frozen=True)
class References:
    """The answers of unmarked models to n inputs.

    Attributes:
        scores: (n, classes) float32, the models' mean probabilities.
        votes: (n, classes) float32, the share of models that answer each class.
        answers: (models, n) the class that each model answers, if the user gave the models and each was asked
            everything.
    """

    scores: Float32Array = field(repr=False)
    votes: Float32Array = field(repr=False)
    answers: IntArray | None = field(repr=False, default=None)

    @property
    def gap(self) -> Float32Array:
        """(n,) difference of the two largest scores: small if the task leaves freedom."""
        best = np.sort(self.scores, axis=1)
        return np.asarray(best[:, -1] - best[:, -2], np.float32)

    @property
    def pair(self) -> IntArray:
        """(n,) a number for the unordered pair of the two classes that score highest."""
        best = np.sort(np.argsort(self.scores, axis=1, kind="stable")[:, -2:], axis=1)
        return np.asarray(best[:, 0] * self.scores.shape[1] + best[:, 1], np.int64)

    def of(self, rows: slice | IntArray) -> "References":
        """The references' answers to some of the inputs."""
        return References(self.scores[rows], self.votes[rows])


def of_models(
    models: Sequence[Callable[[Any], Any]], inputs: Inputs, classes: int, batch_size: int = 256
) -> References:
    """Ask models of the user's.

    Args:
        models: functions from inputs to labels (n,) or scores (n, classes), logits or probabilities.
        inputs: n of them.
        classes: of the task.
        batch_size: inputs a call.

    Raises:
        InputError: a model answers in another shape, or two of them are the same.
    """
    answers = []
    for number, model in enumerate(models):
        try:
            parts = [
                np.atleast_1d(to_numpy(model(inputs[i : i + batch_size]))) for i in range(0, len(inputs), batch_size)
            ]
        except Exception as error:  # the model is the user's own and may raise anything
            raise InputError(
                f"model {number} of pool= failed on {batch_size} inputs in the carriers' form ({type(error).__name__}: "
                f"{error}): give functions from such inputs to labels or scores"
            ) from error
        answers.append(_probabilities(np.concatenate(parts), len(inputs), classes, number))
    if len({digest(one) for one in answers}) < len(answers):
        raise InputError("pool= holds one model twice, whose answers would count double: give each once")
    scores = np.stack(answers)
    return replace(_reduced(scores), answers=scores.argmax(axis=2))


def of_array(pool: npt.NDArray[Any], count: int, classes: int) -> References:
    """References from an array that was kept before.

    Raises:
        InputError: it belongs to other inputs, or to another task.
    """
    if pool.shape != (2, count, classes) or pool.dtype.kind != "f":
        raise InputError(
            f"pool= is an array {pool.shape} {pool.dtype}, but these carriers and queries need (2, {count}, {classes}) "
            "floats: give the array that was kept, with the same carriers= and queries=, which were chosen before any "
            "model carried the watermark"
        )
    if not are_probabilities(pool):
        raise InputError(
            "pool= is an array whose rows are not probabilities: give the array that mark.scheme.pool held"
        )
    return References(pool[0], pool[1])


def are_probabilities(array: npt.NDArray[Any]) -> bool:
    """Whether each row, along the last axis, is a distribution."""
    numbers = array.dtype.kind in "iuf" and np.isfinite(array).all()
    return bool(numbers and np.allclose(array.sum(axis=-1), 1, atol=1e-3) and array.min() >= 0)


def of_labels(labels: IntArray, classes: int) -> References:
    """The natural labels in place of a pool; they do not show where the task leaves freedom."""
    certain = np.eye(classes, dtype=np.float32)[labels]
    return References(certain, certain)


def trained(inputs: Inputs, labels: IntArray, classes: int, others: Inputs | None = None) -> References:
    """Train a pool, each member without a quarter of the inputs, and ask each about the inputs that it has not seen.

    A model is confident on its training inputs, so the confidence of unmarked models is measured on other inputs
    (cross-fitting, Chernozhukov et al. 2018). Three small convolutional networks a quarter for pictures if torch is
    installed, else three perceptrons of scikit-learn; for texts three linear models of tf-idf, each on a bootstrap.
    The result is kept in the cache folder, WMPLUG_CACHE. With `others` this process alone keeps it: it decides what a
    suspect is asked, and the owner could write into the folder.

    Args:
        inputs: n inputs of numbers, or n texts.
        labels: (n,) their classes.
        classes: of the task.
        others: further inputs, not labelled, which all models are asked about.

    Returns:
        References for the inputs, then for the others.

    Raises:
        InputError: neither torch nor scikit-learn is installed.
    """
    own = inputs if isinstance(inputs, list) else np.asarray(inputs)
    kind, learners = _learners(own)
    every = join(own, others)
    name = digest([digest(every), digest(labels), str(classes), str(len(own)), kind])
    keep = _kept if others is None else _held
    return keep(name, lambda: _cross_fitted(scaled(every, len(own)), labels, classes, learners))


def _cross_fitted(every: Float32Array, labels: IntArray, classes: int, learners: Sequence[Learner]) -> References:
    scores = np.full((len(learners) * _FOLDS, len(every), classes), np.nan, np.float32)
    for number in range(len(scores)):
        fold, kind = divmod(number, len(learners))
        learn = learners[kind]
        unseen = np.random.default_rng(kind).permutation(len(labels))[fold::_FOLDS]
        mine = np.setdiff1d(np.arange(len(labels)), unseen)
        rows = np.concatenate([unseen, np.arange(len(labels), len(every))])
        if not len(rows):
            continue
        if (labels[mine] == labels[mine][:1]).all():  # one class only, which learners refuse
            scores[number, rows] = np.eye(classes, dtype=np.float32)[labels[mine][0]] if len(mine) else 1 / classes
            continue
        try:
            scores[number, rows] = learn(every[mine], labels[mine], classes, number)(every[rows])
        except ValueError as error:
            raise InputError(
                f"unmarked references cannot be trained on these {len(labels)} inputs of {len(set(labels.tolist()))} "
                f"classes ({error}): give more of each class, or pool=, the answers of unmarked models of your own"
            ) from error
    return _reduced(scores)


def _held(name: str, make: Callable[[], References]) -> References:
    """The result of this process, or a new one."""
    if name not in _HELD:
        _HELD[name] = make()
        for old in list(_HELD)[:-_MOST_HELD]:
            del _HELD[old]
    return _HELD[name]


def _kept(name: str, make: Callable[[], References]) -> References:
    """The kept result, or a new one that is then kept."""
    folder = Path(os.environ.get("WMPLUG_CACHE") or Path.home() / ".cache" / "wmplug")
    file = folder / f"references-{name[:32]}.npz"
    try:
        with np.load(file, allow_pickle=False) as saved:
            return References(saved["scores"], saved["votes"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        found = make()
    packed = io.BytesIO()
    np.savez(packed, scores=found.scores, votes=found.votes)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not the watermark
        folder.mkdir(parents=True, exist_ok=True)
        write_new(file, packed.getvalue(), 0o600)
    return found


def clone(inputs: Inputs, answers: IntArray, asked: Inputs, classes: int) -> IntArray:
    """(k,) the answers to `asked` of a model that was trained on nothing but answers to `inputs`.

    Raises:
        InputError: what it is trained with is not installed.
    """
    every = scaled(join(inputs, asked), len(inputs))
    _, learners = _learners(inputs)
    model = learners[0](every[: len(inputs)], answers, classes, 0)
    return np.asarray(model(every[len(inputs) :]).argmax(axis=1), np.int64)


def _learners(inputs: Inputs) -> tuple[str, Sequence[Learner]]:
    """A name that changes with the learners, and the learners."""
    text = isinstance(inputs, list)
    if not text and np.ndim(inputs) > 2 and importlib.util.find_spec("torch") is not None:
        from wmplug.schemes.networks import learners

        return "networks/1", learners()
    if importlib.util.find_spec("sklearn") is None:
        raise InputError(
            "training unmarked references needs torch (pictures) or scikit-learn, and neither is installed: pip "
            "install 'wmplug[clones]', or give pool=[unmarked models of your own] and a number for delta="
        )
    if text:
        return "linear/1", [functools.partial(_linear, *settings) for settings in _LINEAR]
    return "perceptrons/1", [functools.partial(_perceptron, layers) for layers in _LAYERS]


def _perceptron(layers: tuple[int, ...], inputs: Float32Array, labels: IntArray, classes: int, seed: int) -> Predict:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(layers, batch_size=min(64, len(labels)), max_iter=_EPOCHS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few epochs are intended
        model.fit(inputs.reshape(len(inputs), -1), labels)

    def predict(asked: Float32Array) -> Float32Array:
        scores = np.zeros((len(asked), classes), np.float32)
        scores[:, model.classes_] = model.predict_proba(asked.reshape(len(asked), -1))
        return scores

    return predict


def _linear(words: int, strength: float, inputs: Float32Array, labels: IntArray, classes: int, seed: int) -> Predict:
    """Logistic regression on tf-idf of up to so many words in a row, trained on a bootstrap of the texts."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    rows = np.random.default_rng(seed).integers(0, len(inputs), len(inputs))
    if (labels[rows] == labels[rows[0]]).all():
        rows = np.arange(len(inputs))
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, words), max_features=_TERMS, sublinear_tf=True),
        LogisticRegression(C=strength, max_iter=_STEPS),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # approximate convergence is enough
        model.fit(inputs[rows], labels[rows])

    def predict(asked: Float32Array) -> Float32Array:
        found = np.zeros((len(asked), classes), np.float32)
        found[:, model.classes_] = model.predict_proba(asked)
        return found

    return predict


def _reduced(scores: Float32Array) -> References:
    """References from probabilities (models, n, classes), NaN where a model was not asked."""
    votes = np.eye(scores.shape[2], dtype=np.float32)[np.nan_to_num(scores).argmax(axis=2)]
    votes[np.isnan(scores)] = np.nan
    return References(np.nanmean(scores, axis=0), np.nanmean(votes, axis=0))


def scaled(every: Inputs, own: int) -> npt.NDArray[Any]:
    """Pictures (n, C, H, W) or rows (n, d), standardised by the first `own`; texts unchanged."""
    if isinstance(every, list):
        return np.array(every, dtype=object)
    if every.ndim > 2:
        every = (
            every[:, None] if every.ndim == 3 else np.moveaxis(every, -1, 1) if every.shape[-1] in (1, 3, 4) else every
        )
    axis = None if every.ndim > 2 else 0  # one scale for pictures, one for each column of tables
    with np.errstate(over="ignore"):
        found = every.astype(np.float32)
        found = found if np.isfinite(found).all() else every.astype(np.float64)
        found -= found[:own].mean(axis=axis)
        found /= np.maximum(found[:own].std(axis=axis), 1e-9)
    return found.astype(np.float32, copy=False)


def _probabilities(answers: npt.NDArray[Any], count: int, classes: int, number: int) -> Float32Array:
    if answers.shape == (count,) and answers.dtype.kind in "iu" and 0 <= answers.min() <= answers.max() < classes:
        return np.asarray(np.eye(classes)[answers], np.float32)
    if answers.shape != (count, classes) or answers.dtype.kind not in "iuf" or not np.isfinite(answers).all():
        raise InputError(
            f"model {number} of pool= returned {answers.shape} {answers.dtype} for {count} inputs: return labels "
            f"({count},) below {classes} or finite scores ({count}, {classes})"
        )
    if answers.min() >= 0 and np.allclose(answers.sum(axis=1), 1, atol=1e-3):
        return answers.astype(np.float32)
    raised = np.exp(answers - answers.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True), np.float32)
