"""combined: a trigger set against theft and tilt against cloning, in one watermark and under independent draws.

A stolen, fine-tuned or pruned copy keeps the triggers; a clone trained on answers keeps the tilt. One verdict: twice
the smaller of two exact p-values, the average of two e-values.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Scheme, Task
from wmplug.schemes.logo import Logo
from wmplug.schemes.random_label import RandomLabel
from wmplug.schemes.tilt import Tilt
from wmplug.watermark.carriers import join
from wmplug.watermark.plan import TriggerPlan

_SETS: Mapping[str, type[Scheme]] = {"random-label": RandomLabel, "logo": Logo}


@dataclass(frozen=True)
class Combined(Tilt):
    """Trigger set and tilt.

    Attributes:
        trigger_set: `random-label` or `logo`, with its default parameters.
        share: of trigger samples among all that are injected; the rest are blends.
    """

    name: ClassVar[str] = "combined"
    rate: ClassVar[float] = 0.24

    trigger_set: Literal["random-label", "logo"] = "random-label"
    share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trigger_set not in _SETS:
            raise InputError(f"trigger_set={self.trigger_set!r}: choose {' or '.join(map(repr, _SETS))}")
        if not (isinstance(self.share, (int, float)) and 0 < self.share < 1):
            raise InputError(f"share={self.share!r}: a share of the injected samples above 0 and below 1 is needed")

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """The trigger set's plan, then tilt's: its rows and draws come after.

        Raises:
            InputError: the task does not fit one of the two.
        """
        first = _SETS[self.trigger_set]().plan(task, stream)
        second = super().plan(task, stream)
        rows = len(first.inputs)
        # A row that is listed twice comes twice as often: triggers keep their share among the blends.
        times = self.share / (1 - self.share) * len(second.taught) / len(first.taught)
        return dataclasses.replace(
            second,
            inputs=join(first.inputs, second.inputs),
            draw=np.concatenate([first.draw, second.draw]),
            labels=np.concatenate([first.labels, second.labels]),
            candidates=first.candidates + second.candidates,
            asked=first.asked,
            taught=np.concatenate(
                [
                    np.tile(first.taught, max(1, round(times))),
                    np.tile(rows + second.taught, max(1, round(1 / times))),
                ]
            ),
            weighed=rows + second.weighed,
        )
