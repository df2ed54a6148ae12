"""combined-served: a trigger set in the model and the key's decisions in its answers, under independent draws.

Training teaches the triggers, which a stolen, fine-tuned or pruned copy keeps. The served model answers by the key
where it is unsure, which a clone learns. One verdict: twice the smaller of two exact p-values, the average of two
e-values.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Plan, Point
from wmplug.schemes.combined import TRIGGER_SETS
from wmplug.schemes.served import Served
from wmplug.watermark.carriers import join


@dataclass(frozen=True)
class CombinedServed(Served):
    """Trigger set and served answers.

    Attributes:
        trigger_set: `random-label` or `logo`, with its default parameters.
    """

    name: ClassVar[str] = "combined-served"
    points: ClassVar[frozenset[Point]] = frozenset({"samples", "answers"})

    trigger_set: Literal["random-label", "logo"] = "random-label"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trigger_set not in TRIGGER_SETS:
            raise InputError(f"trigger_set={self.trigger_set!r}: choose {' or '.join(map(repr, TRIGGER_SETS))}")

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """The trigger set's plan, followed by the rows and signs of served answers.

        Raises:
            InputError: the brief does not fit one of the two.
        """
        first, second = TRIGGER_SETS[self.trigger_set]().plan(brief, stream), super().plan(brief, stream)
        rows = len(first.inputs)
        later = tuple(replace(test, rows=rows + test.rows) for test in second.tests)
        return Plan(join(first.inputs, second.inputs), first.lessons, first.tests + later, second.material)
