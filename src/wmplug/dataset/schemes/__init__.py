"""Schemes that mark a training set: which records, what is published of them, what a suspect is asked later.

Such a scheme touches no training: its `points` are none. What the key drew is written into the published set, so that
whoever trains on the set is marked, in whatever framework.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wmplug.dataset.records import Changes, Record
from wmplug.schemes import Point, Scheme
from wmplug.schemes.tilt import references
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.watermark.carriers import Inputs
from wmplug.watermark.plan import TriggerPlan, TriggerSet

SURE = 3.0  # log odds beyond which one record says no more


@dataclass(frozen=True, eq=False)
class Sample:
    """What was looked at before it was decided which records to mark.

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
        """What unmarked references say of each record, none of which was trained on it."""
        return references.trained(self.inputs, self.labels, self.classes)


@dataclass(frozen=True)
class DatasetScheme(Scheme):
    """Base of the schemes that mark a training set.

    Attributes:
        copy: whose copy of the set is marked; another name gives other draws on the same records.
    """

    points: ClassVar[frozenset[Point]] = frozenset()
    rate: ClassVar[float] = 0.01  # default share of the records that are marked, or added
    most: ClassVar[int] = 2000  # records, more of which would prove no more

    copy: str = ""

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "DatasetScheme"]:
        """The rows of the sample to be carriers, at most `count`, and this scheme with what it has to know of them.

        Must not need a key: what is chosen, and what references say of it, is part of the watermark's identity.

        Raises:
            InputError: the sample does not fit the scheme.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no chosen")

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """What to publish; of the scheme itself only its parameters may matter.

        Args:
            triggers: of the watermark that was made of these records, with the plan's material.
            records: those that were chosen, whole, in the order of the carriers.
            count: of the records in the set.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no changes")


def odds(scores: npt.NDArray[Any], labels: IntArray) -> FloatArray:
    """(n,) log odds of the labels, from log probabilities (n, classes): near certainty, these hardly move."""
    own = np.clip(scores[np.arange(len(labels)), labels].astype(np.float64), math.log(1e-4), math.log1p(-1e-4))
    return np.asarray(own - np.log1p(-np.exp(own)), np.float64)


def surer_of_second(plan: TriggerPlan, answers: IntArray, scores: FloatArray | None) -> tuple[IntArray, FloatArray]:
    """Of which records both versions were heard, and how much surer the suspect is of their labels on the second.

    Args:
        plan: weighs two versions of each record, one after the other.
        answers: as `Scheme.weigh` is given them.
        scores: the same; without them an answer counts one.
    """
    asked = len(answers) // 2 * 2
    labels, said = plan.labels[:asked], answers[:asked]
    sure = (said == labels).astype(np.float64) if scores is None else odds(scores[:asked], labels)
    heard = np.flatnonzero((said.reshape(-1, 2) >= 0).all(axis=1))
    return heard, (sure[1::2] - sure[::2])[heard]


def like_records(images: npt.NDArray[Any], records: npt.NDArray[Any], first: bool) -> npt.NDArray[Any]:
    """Pictures (n, H, W, C) in the shape of the records that `channels_last` made them of."""
    return np.ascontiguousarray(np.moveaxis(images, -1, 1) if first else images).reshape(-1, *records.shape[1:])
