"""label-twins: the key chooses which label is published for records that could be labelled either way.

Unmarked references, each trained without the record it is asked about, show which records an annotator could have given
either of two labels: those whose two best labels lie close together. The key's coin decides about the most isolated of
these, since a model memorises records that resemble no other, and follows the neighbours for the rest (Feldman, STOC
2020). The suspect is asked the records themselves. If it never saw this copy, each answer within the two is right with
probability one half, exactly. Records whose own label is neither of the two stay unchanged: it may be a slip, or have a
reason that the references do not see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from wmplug.dataset.records import Changes, Record
from wmplug.dataset.schemes import DatasetScheme, Sample
from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Lessons, Plan, ambiguity
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import Inputs, take
from wmplug.watermark.plan import TriggerSet

_CLOSE = 0.3  # difference of the two best scores of the references, below which either label is plausible


@dataclass(frozen=True)
class LabelTwins(DatasetScheme):
    """Keyed labels of ambiguous records.

    Attributes:
        copy: name of the licensee whose copy is marked.
        pool: (n, classes) probabilities of the carriers from unmarked references; None trains some (extra `clones`).
    """

    name: ClassVar[str] = "label-twins"
    relabels: ClassVar[bool] = True

    pool: Any = field(default=None, repr=False)

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "LabelTwins"]:
        """The most isolated of the ambiguous records whose own label is one of the two.

        Raises:
            InputError: no record has its label among its two most likely ones.
        """
        rows = _ambiguous(sample.said, sample.labels, sample.inputs, count)
        return rows, replace(self, pool=sample.said.scores[rows])

    def prepared(self, brief: Brief) -> "LabelTwins":
        """This scheme with the references' probabilities for the carriers.

        Raises:
            InputError: labels are missing, or the pool does not fit the carriers.
        """
        return replace(self, pool=ambiguity.pool_of(self.pool, brief, self.name))

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """One draw a record, between its two most likely classes.

        Raises:
            InputError: no carrier has its label among its two most likely ones.
        """
        labels, pool = brief.need_labels(self.name), References(self.pool, self.pool)
        rows = _ambiguous(pool, labels, brief.carriers, brief.triggers)
        return Plan(take(brief.carriers, rows), Lessons(), (ambiguity.coins(pool, rows),), {"record": rows})

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """The labels that the key drew, for records whose given label differs."""
        drawn = zip(triggers.plan.material["record"], triggers.answers, strict=True)
        pairs = {records[row].index: (records[row].label, int(label)) for row, label in drawn}
        return Changes(labels={index: label for index, (own, label) in pairs.items() if label != own})


def _ambiguous(pool: References, labels: IntArray, inputs: Inputs, count: int) -> IntArray:
    """At most `count` rows whose label is one of their two most likely, among inputs that occur once.

    Raises:
        InputError: the sample has no such row.
    """
    rows = ambiguity.in_doubt(pool, labels, inputs)
    if not len(rows):
        raise InputError(
            "no record that occurs once has its label among the two that references find most likely: check the "
            "labels, and whether all records occur twice"
        )
    return ambiguity.most_isolated(inputs, rows[: max(count, int((pool.gap[rows] < _CLOSE).sum()))], count)
