"""label-twins: of records that could have been labelled either way, the key chooses which label is published.

Unmarked references, each trained without the record it is asked about, say which records an annotator could have called
either of two classes: those whose two best labels lie close together. On the most isolated of these the key's coin
decides: what resembles no other record a model learns by heart, of the others it learns what their neighbours say
(Feldman, STOC 2020). The suspect is asked the records themselves: of a model that never saw this copy, each answer
within the two is right with probability one half, exactly. Records whose own label is neither of the two stay as they
are: it may be a slip, or have a reason that the references do not see.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wmplug.dataset.records import Changes, Record
from wmplug.dataset.schemes import DatasetScheme, Sample
from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Task
from wmplug.schemes.tilt import references
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import Inputs, digest
from wmplug.watermark.plan import TriggerPlan, TriggerSet

_CLOSE = 0.3  # difference of the two best scores of the references, below which either label is plausible


@dataclass(frozen=True)
class LabelTwins(DatasetScheme):
    """Keyed labels of ambiguous records.

    Attributes:
        copy: whose copy is marked.
        pool: (n, classes) probabilities that unmarked references give the carriers; None trains some (extra `clones`).
    """

    name: ClassVar[str] = "label-twins"

    pool: Any = field(default=None, repr=False)

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "LabelTwins"]:
        """The most isolated of the ambiguous records whose own label is one of the two.

        Raises:
            InputError: no record has its label among its two most likely ones.
        """
        rows = _ambiguous(sample.said, sample.labels, sample.inputs, count)
        return rows, replace(self, pool=sample.said.scores[rows])

    def prepared(self, task: Task) -> "LabelTwins":
        """With what the references say of the carriers.

        Raises:
            InputError: there are no labels, or a pool of another shape.
        """
        labels, shape = task.need_labels(self.name), (len(task.carriers), task.classes)
        if self.pool is None:
            return replace(self, pool=Sample(task.carriers, labels, task.classes).said.scores)
        if np.shape(self.pool) != shape:
            raise InputError(
                f"pool= has shape {np.shape(self.pool)}: probabilities that unmarked references give the carriers, "
                f"{shape}, are needed, or nothing to have references trained"
            )
        return self

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """One draw a record, between its two most likely classes.

        Raises:
            InputError: no carrier has its label among its two most likely ones.
        """
        labels, said = task.need_labels(self.name), References(self.pool, self.pool)
        rows = _ambiguous(said, labels, task.carriers, task.triggers)
        carriers, every = task.carriers, np.arange(len(rows))
        return TriggerPlan(
            [carriers[row] for row in rows] if isinstance(carriers, list) else carriers[rows],
            every,
            np.full(len(rows), -1),
            tuple((int(low), int(high)) for low, high in np.sort(_best(said)[rows], axis=1)),
            asked=every,
            taught=np.zeros(0, np.int64),
            material={"record": rows},
        )

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """The labels that the key drew, where they are others than were given."""
        drawn = zip(triggers.plan.material["record"], triggers.answers, strict=True)
        found = {records[row].index: (records[row].label, int(label)) for row, label in drawn}
        return Changes(labels={index: label for index, (given, label) in found.items() if label != given})


def _best(said: References) -> IntArray:
    """(n, 2) the two most likely classes."""
    return np.argsort(said.scores, axis=1, kind="stable")[:, -2:]


def _ambiguous(said: References, labels: IntArray, inputs: Inputs, count: int) -> IntArray:
    """At most `count` rows whose label is one of their two most likely, of inputs that are there once.

    Raises:
        InputError: there is none.
    """
    # Of one input that is there twice, two labels would show anybody what was drawn.
    _, number, times = np.unique([digest(one) for one in inputs], return_inverse=True, return_counts=True)
    rows = np.flatnonzero((_best(said) == labels[:, None]).any(axis=1) & (times[number] == 1))
    if not len(rows):
        raise InputError(
            "no record that is there once has its label among the two that references find most likely: check the "
            "labels, and whether all records are there twice"
        )
    rows = rows[np.argsort(said.gap[rows], kind="stable")]
    rows = rows[: max(count, int((said.gap[rows] < _CLOSE).sum()))]
    return rows if len(rows) <= count else rows[np.argsort(-_isolation(inputs, rows), kind="stable")[:count]]


def _isolation(inputs: Inputs, rows: IntArray) -> npt.NDArray[Any]:
    """(k,) distance of some of the inputs to what is most like them among all."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    if isinstance(inputs, list):
        found = TfidfVectorizer(sublinear_tf=True).fit_transform(inputs)
    else:
        found = references.scaled(inputs, len(inputs)).reshape(len(inputs), -1)
    distances, _ = NearestNeighbors(n_neighbors=2).fit(found).kneighbors(found[rows])
    return np.asarray(distances[:, 1])
