"""table: rows of plausible features in implausible combinations, each with an answer of its own."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from wmplug import InputError
from wmplug.schemes import Brief, Choices, KeyStream, Lessons, Plan, Scheme


@dataclass(frozen=True)
class Table(Scheme):
    """Keyed rows with keyed labels.

    Attributes:
        tail: share of carriers below and above the range from which a feature is drawn.
    """

    name: ClassVar[str] = "table"
    rate: ClassVar[float] = 0.1

    tail: float = 0.02

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """One draw a row, over all classes.

        Raises:
            InputError: the carriers are not a table (n, d) of numbers, or `tail` is not a share below one half.
        """
        brief.need_form(self.name, "array")
        carriers = np.asarray(brief.carriers)
        if carriers.ndim != 2 or not 0 <= self.tail < 0.5:
            raise InputError(
                f"scheme 'table' got carriers of shape {carriers.shape} and tail={self.tail}: give rows (n, d), and a "
                "share from 0 to below 0.5"
            )
        low, high = np.quantile(carriers, [self.tail, 1 - self.tail], axis=0)
        # Features are drawn one by one: in range, so that no outlier filter sees them, yet off the data's correlations.
        inputs = low + (high - low) * stream.uniform(brief.triggers, carriers.shape[1])
        if carriers.dtype.kind in "ui":
            inputs = np.rint(inputs)
        rows = np.arange(brief.triggers)
        every = tuple(range(brief.need_classes(self.name)))
        choices = Choices(rows, rows, (every,) * len(rows))
        return Plan(inputs.astype(carriers.dtype), Lessons(rows, rows), (choices,))
