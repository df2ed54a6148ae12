"""A fitted estimator, a pipeline or a search as a suspect."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from wmplug.adapters.sklearn.augmentation import rows_like
from wmplug.errors import SuspectError
from wmplug.statistics.arrays import Array
from wmplug.suspects.protocols import Suspect
from wmplug.tasks.base import Task
from wmplug.watermark.watermark import Preprocess


class EstimatorSuspect:
    """A fitted estimator, asked by `predict_proba` if it has that, else by `predict`.

    Args:
        model: asked unchanged.
        preprocess: `preprocess(input, answer) -> (x, y)`; the input itself by default.
        like: a table of no rows with the columns and dtypes that `model` was fitted with; by default a data frame of
            pandas if the model knows names of columns, else an array.
        task: of the watermark, if it is known: a class that the model never saw then has probability 0.
    """

    def __init__(
        self, model: Any, *, preprocess: Preprocess | None = None, like: Any = None, task: Task | None = None
    ) -> None:
        self.description = type(model).__name__
        self.model, self.preprocess, self.like, self.task = model, preprocess, like, task

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Probabilities (n, classes), labels (n,) or numbers (n,) for n rows."""
        examples = [row if self.preprocess is None else self.preprocess(row, 0)[0] for row in inputs]
        rows = self._table(np.stack([np.asarray(example) for example in examples]))
        known = getattr(self.model, "classes_", None)
        places = None if known is None else self._places(known)
        if places is None or not hasattr(self.model, "predict_proba"):
            return _labels(self.model.predict(rows), known)
        scores = np.asarray(self.model.predict_proba(rows), np.float64)
        every = np.zeros((len(scores), max(places) + 1 if self.task is None else self._count()))
        every[:, places] = scores
        return every

    def _places(self, known: Any) -> list[int] | None:
        """The class of each column of scores; None if they cannot be told."""
        if isinstance(known, list):  # of several outputs
            return None
        if self.task is not None:
            found = self.task.labels(known, len(known))
            return None if found is None or not hasattr(self.task, "count") else [int(one) for one in found]
        return list(range(len(known))) if np.array_equal(known, np.arange(len(known))) else None

    def _count(self) -> int:
        return int(getattr(self.task, "count", 0))

    def _table(self, rows: Array) -> Any:
        if self.like is not None:
            return rows_like(self.like, rows)
        names = getattr(self.model, "feature_names_in_", None)
        if names is None or len(names) != rows.shape[1]:
            return rows
        try:
            import pandas
        except ImportError:
            return rows
        return pandas.DataFrame(rows, columns=names)


def _labels(told: Any, known: Any) -> Any:
    """What `predict` returned; whole classes in floats as integers."""
    array = np.asarray(told)
    if known is None or array.dtype.kind != "f" or (array != np.round(array)).any():
        return told
    return array.astype(np.int64)


def suspect(
    target: Any, *, preprocess: Callable[[Any, Any], Any] | None = None, batch_size: int = 64
) -> Suspect | None:
    """A fitted estimator as a suspect; None for objects without `predict`.

    Raises:
        SuspectError: it is not fitted.
    """
    if not callable(getattr(target, "predict", None)):
        return None
    own = getattr(target, "as_suspect", None)
    try:
        if isinstance(target, BaseEstimator):
            check_is_fitted(target)
    except NotFittedError as error:
        raise SuspectError(f"cannot ask this {type(target).__name__}: it is not fitted: call fit first") from error
    return own() if own is not None else EstimatorSuspect(target, preprocess=preprocess)
