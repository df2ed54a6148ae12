"""combined-served: a trigger set in the model and the key's decisions in its answers, under independent draws.

Training teaches the triggers, which a stolen, fine-tuned or pruned copy keeps. The served model answers by the key
where it is unsure, which a clone learns. One verdict: twice the smaller of two exact p-values, the average of two
e-values.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Plan, Point
from wmplug.schemes.combined import after, trigger_set_of
from wmplug.schemes.served import Served


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
        trigger_set_of(self.trigger_set)

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """The trigger set's plan, followed by the rows and signs of served answers.

        Raises:
            InputError: the brief does not fit one of the two.
        """
        first, second = trigger_set_of(self.trigger_set).plan(brief, stream), super().plan(brief, stream)
        return after(first, second, first.lessons)
