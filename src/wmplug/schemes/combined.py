"""combined: a trigger set against theft and tilt against cloning, in one watermark and under independent draws.

A stolen, fine-tuned or pruned copy keeps the triggers; a clone trained on answers keeps the tilt. One verdict: twice
the smaller of two exact p-values, the average of two e-values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Lessons, Plan, Scheme
from wmplug.schemes.logo import Logo
from wmplug.schemes.random_label import RandomLabel
from wmplug.schemes.tilt import Tilt
from wmplug.watermark.carriers import join

_SETS: Mapping[str, type[Scheme]] = {"random-label": RandomLabel, "logo": Logo}


def trigger_set_of(name: str) -> Scheme:
    """The trigger set of a combined scheme, with its default parameters.

    Raises:
        InputError: it is none of those that can be combined.
    """
    if name not in _SETS:
        raise InputError(f"trigger_set={name!r}: choose {' or '.join(map(repr, _SETS))}")
    return _SETS[name]()


def after(triggers: Plan, second: Plan, lessons: Lessons) -> Plan:
    """The plan of a trigger set, followed by the rows and draws of a pattern; it teaches these lessons."""
    rows = len(triggers.inputs)
    later = tuple(replace(test, rows=rows + test.rows) for test in second.tests)
    return Plan(join(triggers.inputs, second.inputs), lessons, triggers.tests + later, second.material)


@dataclass(frozen=True)
class Combined(Tilt):
    """Trigger set and tilt.

    Attributes:
        trigger_set: `random-label` or `logo`, with its default parameters.
        share: of triggers among the injected samples; the rest are blends.
    """

    name: ClassVar[str] = "combined"
    rate: ClassVar[float] = 0.24

    trigger_set: Literal["random-label", "logo"] = "random-label"
    share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        trigger_set_of(self.trigger_set)
        if not (isinstance(self.share, (int, float)) and 0 < self.share < 1):
            raise InputError(f"share={self.share!r}: give a share of the injected samples above 0 and below 1")

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """The trigger set's plan, followed by tilt's rows and draws.

        Raises:
            InputError: the brief does not fit one of the two.
        """
        first, second = trigger_set_of(self.trigger_set).plan(brief, stream), super().plan(brief, stream)
        return after(first, second, self._together(first.lessons, second.lessons, len(first.inputs)))

    def _together(self, first: Lessons, second: Lessons, rows: int) -> Lessons:
        """Both, the second with its rows shifted by `rows`; a lesson that is listed twice comes twice as often."""
        # Triggers keep their share among the blends.
        times = self.share / (1 - self.share) * len(second.rows) / len(first.rows)
        often = np.tile(np.arange(len(first.rows)), max(1, round(times)))
        seldom = np.tile(np.arange(len(second.rows)), max(1, round(1 / times)))
        return Lessons(
            np.concatenate([first.rows[often], rows + second.rows[seldom]]),
            np.concatenate([first.draw[often], second.draw[seldom]]),
            np.concatenate([first.natural[often], second.natural[seldom]]),
        )
