"""mixed: close calls, which no filter tells from natural inputs, beside a few random-label triggers.

The few are asked first: a draw over all classes proves most, so a plain copy needs the fewest queries, and they
survive pruning best. Where a filter or an ensemble hides them, the close calls are left.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Choices, Lessons, Plan
from wmplug.schemes.close_calls import CloseCalls
from wmplug.schemes.random_label import RandomLabel
from wmplug.watermark.carriers import join


@dataclass(frozen=True)
class Mixed(CloseCalls):
    """Close calls and random labels.

    Attributes:
        share: of random-label triggers.
    """

    name: ClassVar[str] = "mixed"
    usual: ClassVar[int] = 160

    share: float = 0.375

    def __post_init__(self) -> None:
        if not (isinstance(self.share, (int, float)) and 0 < self.share < 1):
            raise InputError(f"share={self.share!r}: give a share of the triggers above 0 and below 1")

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """Random-label triggers, then close calls, each a draw.

        Raises:
            InputError: the brief does not fit one of the two, or the triggers are too few for both.
        """
        few = round(self.share * brief.triggers)
        if not 0 < few < brief.triggers:
            raise InputError(f"triggers={brief.triggers}: share={self.share} leaves none of one kind; give more")
        first = RandomLabel().plan(replace(brief, triggers=few), stream)
        second = super().plan(replace(brief, triggers=brief.triggers - few), stream)
        rows = np.arange(brief.triggers)
        return Plan(
            join(first.inputs, second.inputs),
            Lessons(rows, rows),
            (Choices(rows, rows, first.options + second.options),),
        )
