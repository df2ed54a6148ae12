"""Schemes that mark a training set: the records they choose, the versions they publish, the questions for a suspect.

Such a scheme does not touch training: its `points` are empty. The key's draws are written into the published set, so
that every model trained on the set is marked, in any framework.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wmplug.dataset.records import Changes, Record
from wmplug.errors import InputError
from wmplug.schemes import Point, Scheme
from wmplug.schemes.tilt import references
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.watermark.carriers import Inputs
from wmplug.watermark.plan import Pattern, Plan, TriggerSet

SURE = 3.0  # log odds beyond which a record counts no more


@dataclass(frozen=True, eq=False)
class Sample:
    """The part of a training set from which the records to mark are chosen.

    Attributes:
        inputs: n of them, small: pictures at most 32 pixels a side, texts cut to 4,096 characters.
        labels: (n,) given classes.
        classes: of the task.
    """

    inputs: Inputs = field(repr=False)
    labels: IntArray = field(repr=False)
    classes: int

    @cached_property
    def said(self) -> References:
        """The answers to each record of unmarked references that were not trained on it."""
        return references.trained(self.inputs, self.labels, self.classes)


@dataclass(frozen=True)
class DatasetScheme(Scheme):
    """Base of the schemes that mark a training set.

    Attributes:
        copy: name of the licensee whose copy is marked; another name gives other draws on the same records.
    """

    points: ClassVar[frozenset[Point]] = frozenset()
    rate: ClassVar[float] = 0.01  # default share of records that are marked, or added
    most: ClassVar[int] = 2000  # records, beyond which more would prove no more
    relabels: ClassVar[bool] = False  # whether records get other labels
    adds: ClassVar[bool] = False  # whether records are added

    copy: str = ""

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "DatasetScheme"]:
        """At most `count` rows of the sample as carriers, and this scheme with the facts that it needs of them.

        It gets no key: the choice, and the references' answers to it, are part of the watermark's identity.

        Raises:
            InputError: the sample does not fit the scheme.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no chosen")

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """The changes to publish; they may depend on the scheme's parameters, on nothing else of it.

        Args:
            triggers: the watermark's, made from these records, with the plan's material.
            records: the chosen records, whole, in the order of the carriers.
            count: number of records in the set.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no changes")


def pattern_of(plan: Plan) -> Pattern:
    """The pattern of a plan that has one.

    Raises:
        InputError: the plan has no pattern.
    """
    if plan.pattern is None:
        raise InputError(
            "this plan has no signs, so its answers cannot be weighed: make the mark with a scheme that weighs, such "
            "as twins"
        )
    return plan.pattern


def odds(scores: npt.NDArray[Any], labels: IntArray) -> FloatArray:
    """(n,) log odds of the labels, from log probabilities (n, classes), which hardly move near certainty."""
    own = np.clip(scores[np.arange(len(labels)), labels].astype(np.float64), math.log(1e-4), math.log1p(-1e-4))
    return np.asarray(own - np.log1p(-np.exp(own)), np.float64)


def surer_of_second(plan: Plan, answers: IntArray, scores: FloatArray | None) -> tuple[IntArray, FloatArray]:
    """Records with answers to both versions, and the suspect's gain in confidence from the first to the second.

    Args:
        plan: its pattern asks two versions of each record, one after the other.
        answers: as `Weighs.weigh` is given them.
        scores: as `Weighs.weigh` is given them; without them an answer counts one.

    Returns:
        (k,) numbers of the records, and (k,) differences of the log odds of their labels, or of their matches.
    """
    asked = len(answers) // 2 * 2
    labels, said = pattern_of(plan).natural[:asked], answers[:asked]
    sure = (said == labels).astype(np.float64) if scores is None else odds(scores[:asked], labels)
    heard = np.flatnonzero((said.reshape(-1, 2) >= 0).all(axis=1))
    return heard, (sure[1::2] - sure[::2])[heard]


def like_records(images: npt.NDArray[Any], records: npt.NDArray[Any], first: bool) -> npt.NDArray[Any]:
    """Pictures (n, H, W, C) in the shape of the records that `channels_last` made them from."""
    return np.ascontiguousarray(np.moveaxis(images, -1, 1) if first else images).reshape(-1, *records.shape[1:])
