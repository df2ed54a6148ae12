"""A function as a suspect."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np

from wmplug.errors import SuspectError
from wmplug.statistics.arrays import to_numpy


class CallableSuspect:
    """A function from inputs to labels or scores.

    The function gets one array (n, ...) if inputs are arrays, else a list of n strings or pictures, at most
    `batch_size` at a time.
    """

    def __init__(self, function: Callable[[Any], Any], batch_size: int = 64) -> None:
        self.description = getattr(function, "__qualname__", type(function).__name__)
        self._function, self._batch_size = function, batch_size

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Ask in batches and join the answers."""
        parts = []
        for start in range(0, len(inputs), self._batch_size):
            part = list(inputs[start : start + self._batch_size])
            told = self._function(np.stack(part) if isinstance(part[0], np.ndarray) else part)
            answers = told if _needs_no_array(told) else to_numpy(told)
            alone = isinstance(answers, np.ndarray) and answers.ndim == 0
            if alone or len(answers) != len(part):
                what = f"a single {type(told).__name__}" if alone else f"{len(answers)} answers"
                raise SuspectError(
                    f"{self.description} returned {what} for {len(part)} input{'s'[: len(part) > 1]}: return "
                    f"one label or one row of scores for each, a list or array of length {len(part)}"
                )
            parts.append(answers)
        return _joined(parts)


def _needs_no_array(answers: Any) -> bool:
    """Whether these are answers that an array would change: a table with names, or rankings, or None among others."""
    if not isinstance(answers, (list, tuple)):
        return hasattr(answers, "columns")
    return any(one is None or isinstance(one, Mapping) or _is_ranking(one) for one in answers)


def _is_ranking(answer: Any) -> bool:
    return isinstance(answer, (list, tuple)) and any(isinstance(one, Mapping) for one in answer)


def _joined(parts: list[Any]) -> Any:
    if len(parts) == 1:
        return parts[0]
    if all(hasattr(part, "columns") for part in parts):
        return import_module(type(parts[0]).__module__.partition(".")[0]).concat(parts)  # pandas, polars
    if any(isinstance(part, (list, tuple)) for part in parts):
        return [one for part in parts for one in part]
    return np.concatenate(parts)
