"""canaries: added records that nobody would have collected, each under a label that the key drew.

A simple scheme, and visible: a reader who knows which records were added can remove them, and sees pictures of nothing,
sentences that nobody would write, rows that combine by chance. A few are learned better than many, so the share is
small by default; existing records stay untouched. The trigger set of Adi et al. (USENIX Security 2018), published
instead of trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from wmplug.dataset.records import Added, Changes, Record
from wmplug.dataset.schemes import DatasetScheme, Sample
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Choices, Lessons, Plan
from wmplug.schemes.pictures import Array
from wmplug.schemes.random_label import RandomLabel
from wmplug.statistics.arrays import IntArray, read_whole
from wmplug.watermark.plan import TriggerSet

_CARRIERS = 500  # records that canaries imitate


@dataclass(frozen=True)
class Canaries(DatasetScheme):
    """Added records with keyed labels.

    Attributes:
        copy: name of the licensee whose copy is marked.
        repeats: number of times that each is added, at places of its own.
        pictures: the owner's own inputs in place of generated ones, as many as are added, shaped like the records.
        words: words in a generated sentence; 0 takes the records' median, between 6 and 24.
    """

    name: ClassVar[str] = "canaries"
    adds: ClassVar[bool] = True
    rate: ClassVar[float] = 0.002

    repeats: int = 1
    pictures: Any = field(default=None, repr=False)
    words: int = 0

    def __post_init__(self) -> None:
        read_whole(self.repeats, "repeats", 1, 100, "1 to 100 times each")
        RandomLabel(words=self.words)

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "Canaries"]:
        """Some records to imitate."""
        return np.arange(min(_CARRIERS, len(sample.labels))), self

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """One draw a canary, over all classes; its place is drawn too.

        Raises:
            InputError: the owner's own inputs are too few or do not fit, or the texts have too few words.
        """
        carriers = brief.carriers
        if isinstance(carriers, np.ndarray) and carriers.ndim == 2 and self.pictures is None:
            inputs: Any = _rows(carriers, brief.triggers, stream)
        else:
            inputs = RandomLabel(pictures=self.pictures, words=self.words).plan(brief, stream).inputs
        rows, every = np.arange(brief.triggers), tuple(range(brief.need_classes(self.name)))
        material = {"place": stream.uniform(len(rows), self.repeats)}
        return Plan(inputs, Lessons(), (Choices(rows, rows, (every,) * len(rows)),), material)

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """The canaries, scattered."""
        after = np.floor(triggers.plan.material["place"] * (count + 1)).astype(int) - 1
        answers = triggers.answers
        added = [
            Added(int(place), triggers.row(row), int(answers[row]))
            for row, places in enumerate(after)
            for place in places
        ]
        return Changes(added=sorted(added, key=lambda record: record.after))


def _rows(carriers: Array, count: int, stream: KeyStream) -> Array:
    """Rows of a table, each cell taken from a record that is drawn column by column."""
    rows = np.empty((count, carriers.shape[1]), carriers.dtype)
    for column in range(carriers.shape[1]):
        rows[:, column] = carriers[stream.below(len(carriers), count), column]
    return rows
