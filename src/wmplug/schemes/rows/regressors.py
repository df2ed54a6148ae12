"""Unmarked references for numbers: what regressions that never saw the key predict, and how far they usually miss."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from wmplug.errors import InputError
from wmplug.statistics.arrays import Array, FloatArray, to_numpy

_FOLDS = 4
_TREES = 50
_NORMAL = 1.4826  # standard deviations of a normal distribution in one median absolute deviation
Fitted: TypeAlias = Callable[[Array], Any]


def trained(rows: Array, labels: FloatArray, others: Array) -> tuple[FloatArray, float]:
    """Predictions of a forest, boosted trees and a linear model for other rows, and the deviation of their residuals.

    Each model is trained four times, each time without a quarter of the rows, whose residuals count (cross-fitting,
    Chernozhukov et al. 2018).

    Args:
        rows: (n, d) the table.
        labels: (n,) its numbers.
        others: (m, d) rows to predict.

    Returns:
        (m,) mean predictions; and the deviation, from the median absolute residual, in the labels' unit.

    Raises:
        InputError: scikit-learn is not installed, or the rows are too few.
    """
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise InputError(
            "training unmarked references needs scikit-learn, which is not installed: pip install 'wmplug[clones]', or "
            "give pool=[unmarked models of your own]"
        ) from error
    if len(rows) < 2 * _FOLDS:
        raise InputError(f"{len(rows)} rows are too few to train unmarked references: give some hundred")
    folds = np.random.default_rng(0).permutation(len(rows)) % _FOLDS
    told, missed = [], np.zeros(len(rows))
    for fold in range(_FOLDS):
        inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        models = [_fitted(model, rows[inside], labels[inside]) for model in _models(fold)]
        told += [model(others) for model in models]
        missed[outside] = labels[outside] - np.mean([model(rows[outside]) for model in models], axis=0)
    return np.mean(told, axis=0), deviation(missed)


def of_models(
    models: Sequence[Callable[[Any], Any]], rows: Array, labels: FloatArray, others: Array
) -> tuple[FloatArray, float]:
    """The same of models of the user's.

    Raises:
        InputError: a model returns anything but one finite number for each row.
    """
    told = []
    for number, model in enumerate(models):
        try:
            found = np.asarray(to_numpy(model(np.concatenate([rows, others]))), np.float64).reshape(-1)
        except Exception as error:  # the model is the user's own and may raise anything
            raise InputError(f"model {number} of pool= failed ({type(error).__name__}: {error}): {_HELP}") from error
        if len(found) != len(rows) + len(others) or not np.isfinite(found).all():
            raise InputError(f"model {number} of pool= gave no finite number for some rows: {_HELP}")
        told.append(found)
    mean = np.mean(told, axis=0)
    return mean[len(rows) :], deviation(labels - mean[: len(rows)])


def deviation(residuals: FloatArray) -> float:
    """Their standard deviation if they were normal, from the median; of residuals that are mostly 0 the usual one.

    Raises:
        InputError: all are 0.
    """
    found = _NORMAL * float(np.median(np.abs(residuals))) or float(np.sqrt(np.mean(np.square(residuals))))
    if not found > 0:
        raise InputError("unmarked references predict every label exactly, so nothing is free: give other labels")
    return found


def _models(seed: int) -> list[Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=seed)
    return [forest, HistGradientBoostingRegressor(random_state=seed), make_pipeline(StandardScaler(), Ridge())]


def _fitted(model: Any, rows: Array, labels: FloatArray) -> Fitted:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ill-conditioned columns are the table's own
        model.fit(rows, labels)
    return lambda asked: np.asarray(model.predict(asked), np.float64)


_HELP = "give functions from an array (n, d) to (n,) numbers"
