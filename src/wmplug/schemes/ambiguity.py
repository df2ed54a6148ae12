"""Inputs that could be answered either way: unmarked references find their two likeliest classes about as likely.

No key has a part in the choice. What the references said is a parameter of the scheme, so the key follows from it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.schemes import Brief, Choices
from wmplug.schemes.tilt import references
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import Inputs, sameness


def pool_of(pool: Any, brief: Brief, scheme: str) -> npt.NDArray[Any]:
    """(n, classes) probabilities of the carriers: those given, or those of references trained without each.

    Args:
        pool: the given ones, or None.
        brief: the carriers and their labels.
        scheme: name of the scheme that asks.

    Raises:
        InputError: labels are missing, or the pool has another shape or holds no probabilities.
    """
    labels, classes = brief.need_labels(scheme), brief.need_classes(scheme)
    if pool is None:
        return references.trained(brief.carriers, labels, classes).scores
    return given_pool(pool, len(brief.carriers), classes, "carriers")


def given_pool(pool: Any, count: int, classes: int, what: str) -> npt.NDArray[Any]:
    """(count, classes) probabilities that the user gave for so many inputs.

    Raises:
        InputError: they have another shape, or are no probabilities.
    """
    shape = (count, classes)
    if np.shape(pool) != shape:
        raise InputError(
            f"pool= has shape {np.shape(pool)}: give the probabilities {shape} of the {what} from unmarked "
            "references, or leave pool= out to have references trained"
        )
    given = np.asarray(pool)
    if not references.are_probabilities(given):
        raise InputError(
            "pool= has rows that are not probabilities: give the mean of softmax outputs of unmarked references, or "
            "leave pool= out to have references trained"
        )
    return given


def in_doubt(pool: References, labels: IntArray, inputs: Inputs) -> IntArray:
    """Rows whose label is one of their two likeliest, among inputs that occur once; the most ambiguous first."""
    # Two labels on an input that occurs twice would reveal the draw.
    _, number, times = np.unique([sameness(one) for one in inputs], return_inverse=True, return_counts=True)
    rows = np.flatnonzero((_best(pool) == labels[:, None]).any(axis=1) & (times[number] == 1))
    return rows[np.argsort(pool.gap[rows], kind="stable")]


def most_isolated(inputs: Inputs, rows: IntArray, count: int) -> IntArray:
    """At most `count` of the rows: if there are more, those farthest from their nearest neighbours among all inputs."""
    return rows if len(rows) <= count else rows[np.argsort(-_isolation(inputs, rows), kind="stable")[:count]]


def coins(pool: References, rows: IntArray) -> Choices:
    """One draw a row, numbered in order, between its two likeliest classes."""
    every = np.arange(len(rows))
    options = tuple((int(low), int(high)) for low, high in np.sort(_best(pool)[rows], axis=1))
    return Choices(every, every, options)


def _best(pool: References) -> IntArray:
    """(n, 2) the two most likely classes."""
    return np.argsort(pool.scores, axis=1, kind="stable")[:, -2:]


def _isolation(inputs: Inputs, rows: IntArray) -> npt.NDArray[Any]:
    """(k,) distance of some of the inputs to their nearest neighbours among all."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.neighbors import NearestNeighbors

    if isinstance(inputs, list):
        features = TfidfVectorizer(sublinear_tf=True).fit_transform(inputs)
    else:
        features = references.scaled(inputs, len(inputs)).reshape(len(inputs), -1)
    distances, _ = NearestNeighbors(n_neighbors=2).fit(features).kneighbors(features[rows])
    return np.asarray(distances[:, 1])
