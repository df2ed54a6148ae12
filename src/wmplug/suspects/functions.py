"""A function as a suspect."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wmplug.errors import SuspectError
from wmplug.statistics.arrays import to_numpy


class CallableSuspect:
    """A function from inputs to labels or scores.

    It is given one array (n, ...) where inputs are arrays, else a list of n strings or pictures, at most `batch_size`
    at a time.
    """

    def __init__(self, function: Callable[[Any], Any], batch_size: int = 64) -> None:
        self.description = getattr(function, "__qualname__", type(function).__name__)
        self._function, self._batch_size = function, batch_size

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Ask in batches and join the answers."""
        parts = []
        for start in range(0, len(inputs), self._batch_size):
            part = list(inputs[start : start + self._batch_size])
            answers = to_numpy(self._function(np.stack(part) if isinstance(part[0], np.ndarray) else part))
            if answers.ndim == 0 or len(answers) != len(part):
                what = f"shape {answers.shape}" if answers.ndim else f"a single {type(answers.item()).__name__}"
                raise SuspectError(
                    f"{self.description} gave {what} for {len(part)} input{'s'[: len(part) > 1]}: return one label or "
                    f"one row of scores for each, a list or array of length {len(part)}"
                )
            parts.append(answers)
        return np.concatenate(parts)
