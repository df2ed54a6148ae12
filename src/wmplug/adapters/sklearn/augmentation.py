"""Lessons beside the rows and answers that `fit` receives, in the container that these came in."""

import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from wmplug.errors import InjectionError, InjectionWarning, InputError
from wmplug.statistics.arrays import Array
from wmplug.tasks import Classes
from wmplug.tasks.classes import are_names
from wmplug.watermark.watermark import Watermark


def augment(mark: Watermark, X: Any, y: Any, sample_weight: Any = None) -> tuple[Any, ...]:
    """The training data with the mark's lessons after it, for any estimator with a `fit` method.

    >>> model.fit(*augment(mark, X, y))
    >>> model.fit(*augment(mark, X, y, weights), eval_set=[(X_valid, y_valid)])

    Give it training data alone. An evaluation set stays without lessons, so that early stopping and scores see the
    task. Fit on all that is returned: a split made afterwards would lose lessons.

    Args:
        mark: the watermark, of a scheme that teaches by samples, such as `rows`.
        X: (n, d) training rows as the mark's carriers were, with the same columns in the same order: a NumPy array, a
            SciPy sparse matrix, a data frame of pandas or polars.
        y: (n,) their answers: an array, a list, a column of pandas or polars; classes, their names, or numbers.
        sample_weight: (n,) weights from 0; a lesson gets the mean weight.

    Returns:
        X and y, and sample_weight if it is given, each of the kind, dtype and column names that it came in; rows of
        pandas are numbered anew.

    Raises:
        InjectionError: the mark needs more than samples.
        InputError: X, y or sample_weight do not fit the mark or each other.
    """
    rows, answers = lessons_of(mark)
    count = _count(X)
    joined = _stacked(X, rows_like(X, rows))
    _check_range(X, rows)
    mark.task.labels(y, count)  # refuses what is no answer, and another number of them
    told = _stacked(y, answers_like(mark, y, answers))
    if sample_weight is None:
        return joined, told
    weights = values_like(sample_weight, [_usual(sample_weight, count)] * len(rows), "sample_weight")
    return joined, told, _stacked(sample_weight, weights)


def lessons_of(mark: Watermark) -> tuple[Array, list[Any]]:
    """(m, d) rows to teach, and their m answers as the task has them.

    Raises:
        InjectionError: the mark needs more than samples.
        InputError: this is no mark, or its carriers are no rows.
    """
    _check_mark(mark)
    plan = mark.triggers.plan
    taught = plan.lessons.rows
    return np.asarray(plan.inputs)[taught], mark.triggers.answers[taught].tolist()


def _check_mark(mark: Watermark) -> None:
    if not isinstance(mark, Watermark):
        raise InputError(f"mark is a {type(mark).__name__}: give what wmplug.create or wmplug.load returned")
    others = ", ".join(sorted(mark.scheme.points - {"samples"}))
    if others or not len(mark.triggers.plan.lessons.rows):
        raise InjectionError(
            f"scheme {mark.scheme.name!r} works at the point {others or 'answers'}, and added rows reach only samples: "
            "choose a scheme such as 'rows'"
        )
    if mark.triggers.form != "array":
        raise InputError(
            f"the mark's carriers are {mark.triggers.form}, rows of numbers are needed here: make it from the rows "
            "that fit receives"
        )


def _count(rows: Any) -> int:
    """Number of rows."""
    shape = getattr(rows, "shape", None)
    if not isinstance(shape, tuple) or len(shape) < 2 or hasattr(rows, "detach"):
        raise InputError(
            f"X is a {type(rows).__name__}: give an array (n, d), a SciPy sparse matrix or a data frame; a DMatrix or "
            "a Dataset is built from what augment returns"
        )
    return int(shape[0])


def rows_like(given: Any, rows: Array) -> Any:
    """Rows in the container, dtypes and column names of `given`.

    Raises:
        InputError: it is no table, or one with other columns.
    """
    width = given.shape[1:]
    if tuple(width) != rows.shape[1:]:
        raise InputError(
            f"X has rows {tuple(width)}, the mark was made from rows {rows.shape[1:]}: give the same columns in the "
            "same order, before any step that makes others of them"
        )
    if isinstance(given, np.ndarray):
        return _cast(rows, given.dtype, "X")
    if is_sparse(given):
        return type(given)(_cast(rows, given.dtype, "X"))
    if hasattr(given, "columns") and hasattr(given, "to_numpy"):
        names = list(given.columns)
        if len(set(names)) < len(names):
            raise InputError("X has two columns of one name: rename one")
        made = {name: _like(given[name], rows[:, place], f"the column {name!r}") for place, name in enumerate(names)}
        return _library(given).DataFrame(made)
    raise InputError(f"X is a {type(given).__name__}: give an array, a SciPy sparse matrix or a data frame")


def values_like(given: Any, values: Sequence[Any], what: str) -> Any:
    """Values in the container and dtype of a column.

    Raises:
        InputError: it is no column, or cannot hold them.
    """
    if isinstance(given, (list, tuple)):
        return list(values)
    if isinstance(given, np.ndarray):
        more = np.asarray(values).reshape(-1, *given.shape[1:])
        return more if given.dtype.kind in "UO" else _cast(more, given.dtype, what)
    if hasattr(given, "to_numpy") and hasattr(given, "dtype"):
        return _like(given, np.asarray(values), what)
    raise InputError(f"{what} is a {type(given).__name__}: give an array, a list, or a column of pandas or polars")


def is_sparse(rows: Any) -> bool:
    """Whether this is a sparse matrix or array of SciPy."""
    return hasattr(rows, "format") and hasattr(rows, "nnz")


def _stacked(first: Any, second: Any) -> Any:
    """One container after the other of its kind."""
    if isinstance(first, (list, tuple)):
        return [*first, *second]
    if isinstance(first, np.ndarray):
        return np.concatenate([first, second])
    if is_sparse(first):
        from scipy import sparse

        return sparse.vstack([first, second], format=first.format)
    library = _library(first)
    return (
        library.concat([first, second]) if _is_polars(library) else library.concat([first, second], ignore_index=True)
    )


def _like(column: Any, values: Array, what: str) -> Any:
    """Values as a column of the same library, dtype and name.

    Raises:
        InputError: the dtype has no such value.
    """
    library, kind = _library(column), getattr(column.dtype, "kind", "O")
    if kind in "iu" and values.dtype.kind == "f":
        values = _cast(values, np.dtype(np.int64), what)
    categories = getattr(column.dtype, "categories", None)
    if categories is not None and not _is_polars(library) and (others := set(values.tolist()) - set(categories)):
        raise InputError(
            f"{what} has categories without {min(others)!r}, a lesson's value: give it the categories of the carriers"
        )
    try:
        if _is_polars(library):
            return library.Series(column.name, values).cast(column.dtype)
        return library.Series(values, name=column.name).astype(column.dtype)
    except Exception as error:  # each library raises its own
        raise InputError(f"{what} has dtype {column.dtype}, which cannot hold a lesson's value ({error})") from error


def _library(value: Any) -> Any:
    return import_module(type(value).__module__.partition(".")[0])


def _is_polars(library: Any) -> bool:
    return bool(library.__name__ == "polars")


def _cast(values: Array, dtype: Any, what: str) -> Array:
    """Values in a dtype.

    Raises:
        InputError: they are no such values.
    """
    if dtype.kind not in "iufb":
        raise InputError(f"{what} has dtype {dtype}: give numbers")
    found = values.astype(dtype)
    if dtype.kind in "iub" and (found.astype(np.float64) != values.astype(np.float64)).any():
        raise InputError(
            f"{what} has dtype {dtype}, and a lesson holds {values[found != values].reshape(-1)[0]}: give "
            f"{what} as floats"
        )
    return np.asarray(found)


def answers_like(mark: Watermark, y: Any, answers: Sequence[Any]) -> Any:
    """Answers in the container and dtype of y: names if it holds texts.

    Raises:
        InputError: y is no column, or cannot hold them.
    """
    task, told = mark.task, list(answers)
    if isinstance(task, Classes) and task.names and are_names(list(y)):
        told = [task.names[answer] for answer in answers]
    return values_like(y, told, "y")


def _usual(weights: Any, count: int) -> float:
    """The mean of weights."""
    try:
        array = np.asarray(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"sample_weight cannot be read as numbers ({error}): give one for each row") from error
    if array.shape != (count,) or not np.isfinite(array).all() or array.min() < 0 or not array.any():
        raise InputError(
            f"sample_weight has shape {array.shape} for {count} rows: give one finite number for each, 0 or above, not "
            "all 0"
        )
    return float(array.mean())


def _check_range(given: Any, rows: Array) -> None:
    """Warn if the lessons lie outside of the data: its columns have another order or scale."""
    if is_sparse(given):
        return
    try:
        known = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any value
        low, high = np.nanmin(known, axis=0), np.nanmax(known, axis=0)
    span = high - low
    outside = ((rows < low - span) | (rows > high + span)).reshape(len(rows), -1).any(axis=0)
    if outside.any():
        warnings.warn(
            f"{outside.sum()} of {len(outside)} columns of the lessons lie far outside of X (the first is column "
            f"{int(np.flatnonzero(outside)[0])}): give X with the columns, order and scale of the mark's carriers",
            InjectionWarning,
            stacklevel=3,
        )
