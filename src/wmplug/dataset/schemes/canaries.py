"""canaries: records are added that nobody would have collected, each under a label that the key drew.

Simple, and honest about it: whoever knows which records they are removes them, and whoever looks at what was added
finds pictures of nothing, sentences that nobody would write, rows that go together by chance. A few are learned better
than many, so the share is small by default; no record that was there is touched. The trigger set of Adi et al. (USENIX
Security 2018), published in place of being trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from wmplug.dataset.records import Added, Changes, Record
from wmplug.dataset.schemes import DatasetScheme, Sample
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Task
from wmplug.schemes.pictures import Array
from wmplug.schemes.random_label import RandomLabel
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import read_whole
from wmplug.watermark.plan import TriggerPlan, TriggerSet

_CARRIERS = 500  # records that show what the others look like


@dataclass(frozen=True)
class Canaries(DatasetScheme):
    """Added records with keyed labels.

    Attributes:
        copy: whose copy is marked.
        repeats: how often each is added, at places of its own.
        pictures: the owner's own inputs in place of made ones, as many as are added, shaped like the records.
        words: words in a made-up sentence; 0 takes the records' median, between 6 and 24.
    """

    name: ClassVar[str] = "canaries"
    rate: ClassVar[float] = 0.002

    repeats: int = 1
    pictures: Any = field(default=None, repr=False)
    words: int = 0

    def __post_init__(self) -> None:
        read_whole(self.repeats, "repeats", 1, 100, "1 to 100 times each")
        RandomLabel(words=self.words)

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "Canaries"]:
        """Some records to be like."""
        return np.arange(min(_CARRIERS, len(sample.labels))), self

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """One draw a canary, over all classes; where it is added is drawn too.

        Raises:
            InputError: the owner's own inputs are too few or do not fit, or texts have too few words to make more of.
        """
        carriers = task.carriers
        if isinstance(carriers, np.ndarray) and carriers.ndim == 2 and self.pictures is None:
            inputs: Any = _rows(carriers, task.triggers, stream)
        else:
            inputs = RandomLabel(pictures=self.pictures, words=self.words).plan(task, stream).inputs
        rows, every = np.arange(task.triggers), tuple(range(task.classes))
        return TriggerPlan(
            inputs,
            rows,
            np.full(len(rows), -1),
            (every,) * len(rows),
            asked=rows,
            taught=np.zeros(0, np.int64),
            material={"place": stream.uniform(len(rows), self.repeats)},
        )

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """The canaries, scattered."""
        after = np.floor(triggers.plan.material["place"] * (count + 1)).astype(int) - 1
        answers = triggers.answers
        added = [
            Added(int(place), triggers.row(row), int(answers[row]))
            for row, places in enumerate(after)
            for place in places
        ]
        return Changes(added=sorted(added, key=lambda one: one.after))


def _rows(carriers: Array, count: int, stream: KeyStream) -> Array:
    """Rows of a table: each cell is some record's, drawn column by column."""
    made = np.empty((count, carriers.shape[1]), carriers.dtype)
    for column in range(carriers.shape[1]):
        made[:, column] = carriers[stream.below(len(carriers), count), column]
    return made
