"""A suspect that returns losses alone."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.statistics.arrays import to_numpy


def scores_of_losses(function: Callable[[Any, npt.NDArray[np.int64]], Any], classes: int) -> Callable[[Any], Any]:
    """A suspect of which only losses are told, as one that gives scores: it is asked once for each class.

    Args:
        function: from inputs and labels (n,) int64 to cross-entropy losses (n,), in nats.
        classes: of the task.

    Returns:
        A function from inputs to (n, classes) log probabilities.
    """

    def scores(inputs: Any) -> npt.NDArray[Any]:
        told = [to_numpy(function(inputs, np.full(len(inputs), label, np.int64))) for label in range(classes)]
        return -np.stack(told, axis=1).astype(np.float64)

    return scores
