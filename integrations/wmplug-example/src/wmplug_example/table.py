"""table: rows of numbers that could be, feature by feature, and are not: each with an answer of its own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wmplug import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Scheme, Task
from wmplug.watermark.plan import TriggerPlan


@dataclass(frozen=True)
class Table(Scheme):
    """Keyed rows with keyed labels.

    Attributes:
        tail: share of carriers below and above the range from which a feature is drawn.
    """

    name: ClassVar[str] = "table"
    rate: ClassVar[float] = 0.1

    tail: float = 0.02

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """One draw a row, over all classes.

        Raises:
            InputError: the carriers are no table (n, d) of numbers, or `tail` is no share below one half.
        """
        task.need_form(self.name, "array")
        carriers = np.asarray(task.carriers)
        if carriers.ndim != 2 or not 0 <= self.tail < 0.5:
            raise InputError(
                f"scheme 'table' got carriers of shape {carriers.shape} and tail={self.tail}: give rows (n, d), and a "
                "share from 0 to below 0.5"
            )
        low, high = np.quantile(carriers, [self.tail, 1 - self.tail], axis=0)
        # Every feature on its own: in range, so no outlier filter sees them, yet off the data's correlations.
        inputs = low + (high - low) * stream.uniform(task.triggers, carriers.shape[1])
        if carriers.dtype.kind in "ui":
            inputs = np.rint(inputs)
        rows = np.arange(task.triggers)
        every = tuple(range(task.classes))
        return TriggerPlan(
            inputs.astype(carriers.dtype), rows, np.full(len(rows), -1), (every,) * len(rows), rows, rows
        )
