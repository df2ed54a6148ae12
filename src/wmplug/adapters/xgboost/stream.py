"""Lessons after the last batch of a `DataIter`, for tables larger than memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xgboost

from wmplug.adapters.sklearn.augmentation import answers_like, lessons_of, rows_like, values_like
from wmplug.errors import InputError
from wmplug.watermark.watermark import Watermark

_KNOWN = {"data", "label", "weight", "feature_names", "feature_types"}


class MarkedDataIter(xgboost.DataIter):  # type: ignore[misc]  # XGBoost's base class is untyped
    """An iterator over the batches of another, and one batch more: the mark's lessons.

    >>> train = xgboost.QuantileDMatrix(MarkedDataIter(mark, batches))
    >>> train = xgboost.ExtMemQuantileDMatrix(MarkedDataIter(mark, batches))

    It reads a batch when XGBoost asks for it, and keeps none. The lessons have the container, dtypes and names of the
    first batch, and the mean weight of all rows.

    Args:
        mark: the watermark, of a scheme that teaches by samples, such as `rows`.
        batches: gives `data` and `label`, and `weight`, names and types of features if it likes.

    Raises:
        InjectionError: the mark needs more than samples.
        InputError: it is no watermark of rows, or no iterator; in the first pass: the batches do not fit the mark, or
            hold another value for each row.
    """

    def __init__(self, mark: Watermark, batches: xgboost.DataIter) -> None:
        # First of all: XGBoost's destructor needs what this sets, also of an iterator that is refused.
        super().__init__(
            cache_prefix=getattr(batches, "cache_prefix", None), release_data=getattr(batches, "_release", True)
        )
        if not isinstance(batches, xgboost.DataIter):
            raise InputError(f"batches is a {type(batches).__name__}: give an xgboost.DataIter")
        self._mark, self._batches = mark, batches
        self._rows, self._answers = lessons_of(mark)
        self._begin()

    def _begin(self) -> None:
        self._like: dict[str, Any] = {}
        self._weight, self._count, self._given = 0.0, 0, False

    def reset(self) -> None:
        """Start again."""
        self._batches.reset()
        self._begin()

    def next(self, input_data: Callable[..., Any]) -> bool:
        """The next batch; after the last one the lessons."""
        if self._given:
            return False

        def keep(**batch: Any) -> None:
            if others := sorted(name for name in set(batch) - _KNOWN if batch[name] is not None):
                raise InputError(f"a batch has {', '.join(others)}, which lessons have no value for: leave it out")
            self._heed(batch)
            input_data(**batch)

        if self._batches.next(keep):
            return True
        if not self._like:
            return False
        self._given = True
        input_data(**self._lessons())
        return True

    def _heed(self, batch: dict[str, Any]) -> None:
        rows, label, weight = batch["data"], batch.get("label"), batch.get("weight")
        if label is None:
            raise InputError("a batch has no label: give data= and label=")
        self._mark.task.labels(label, len(rows) if not hasattr(rows, "nnz") else rows.shape[0])
        if weight is not None:
            self._weight, self._count = self._weight + float(np.sum(weight)), self._count + len(weight)
        if not self._like:  # tables of no rows: names and dtypes are kept, rows are not
            self._like = {**batch, "data": rows_like(rows, self._rows[:0]), "label": values_like(label, [], "label")}
            if weight is not None:
                self._like["weight"] = values_like(weight, [], "weight")

    def _lessons(self) -> dict[str, Any]:
        like = self._like
        rows, label = rows_like(like["data"], self._rows), answers_like(self._mark, like["label"], self._answers)
        more = {}
        if self._count:
            more["weight"] = values_like(like["weight"], [self._weight / self._count] * len(self._rows), "weight")
        return {**like, "data": rows, "label": label, **more}
