"""Rows that could be a table's: recombinations of near neighbours which no filter finds odder than most rows.

Each takes some columns from one row and the others from a near one, so every value occurs, categories and whole numbers
among them. Columns that are correlated come from the same row. No key has a part in them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.schemes.rows import rules as of_rules
from wmplug.statistics.arrays import Array, BoolArray, FloatArray
from wmplug.statistics.outliers import residual
from wmplug.watermark.carriers import sameness

_SEED = 20_240_607  # of the recombinations; the key chooses among them later
_MOST_KNOWN = 4000  # rows that the filters learn from
_ROUNDS, _BATCH = 40, 2000
_TOGETHER = 0.5  # mean absolute correlation from which columns come from one row
_GROUPS = 4  # of columns, at least, if there are as many columns
_LEFT = 0.05  # share of the table's own rows, the oddest by each filter, as odd as which no candidate may be


def recombined(rows: Array, wanted: int, neighbours: int, rules: Sequence[str]) -> Array:
    """Up to `wanted` rows, each different from the others and from all of the table.

    Args:
        rows: (n, d) the table.
        wanted: how many to make.
        neighbours: from among how many of the nearest rows the second parent comes.
        rules: which each keeps, see `rules.kept`.
    """
    rng, odd = np.random.default_rng(_SEED), _Filters(rows, _SEED)
    near, group = _nearest(rows, neighbours), _groups(rows)
    seen, found = {sameness(row) for row in rows}, []
    for _ in range(_ROUNDS):
        first = rng.integers(0, len(rows), _BATCH)
        second = near[first, rng.integers(0, near.shape[1], _BATCH)]
        own = rng.random((_BATCH, int(group.max()) + 1))[:, group] < 0.5
        made = np.where(own, rows[first], rows[second])
        fit = odd.common(made)
        for rule in rules:
            fit &= of_rules.kept(rule, made)
        for row in made[fit]:
            if (name := sameness(row)) not in seen:
                seen.add(name)
                found.append(row)
        if len(found) >= wanted:
            break
    return np.array(found[:wanted], rows.dtype).reshape(-1, rows.shape[1])


def standard(rows: Array, like: Array) -> FloatArray:
    """(n, d) rows with each column of `like` at mean 0 and deviation 1."""
    known = like.astype(np.float64)
    deviation = known.std(axis=0)
    return np.asarray((rows - known.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0), np.float64)


def _groups(rows: Array) -> npt.NDArray[np.int64]:
    """(d,) the group of each column, by average linkage of absolute correlations."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    flat = standard(rows, rows)
    apart = 1 - np.abs(flat.T @ flat) / len(flat)
    np.fill_diagonal(apart, 0.0)
    tree = linkage(squareform(np.clip(apart, 0.0, 1.0), checks=False), "average")
    found = fcluster(tree, 1 - _TOGETHER, "distance")
    if found.max() < min(_GROUPS, rows.shape[1]):
        # Of equal distances, a cut by number could leave one group: each merge is one step of its own.
        tree[:, 2] = np.arange(len(tree))
        found = fcluster(tree, min(_GROUPS, rows.shape[1]), "maxclust")
    return np.asarray(found - 1, np.int64)


def _nearest(rows: Array, neighbours: int) -> npt.NDArray[np.int64]:
    """(n, k) the nearest other rows of each."""
    from sklearn.neighbors import NearestNeighbors

    flat = standard(rows, rows)
    few = min(neighbours, len(rows) - 1)
    found = NearestNeighbors(n_neighbors=few + 1).fit(flat).kneighbors(flat, return_distance=False)
    return np.asarray(found[:, 1:], np.int64)


class _Filters:
    """Filters that know the table: by isolation, by local density, and by what principal components leave.

    A candidate is common if none finds it odder than 95 % of those rows of the table that it did not learn from.
    """

    def __init__(self, rows: Array, seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(rows))[: 2 * _MOST_KNOWN]
        self.rows, known, other = rows, rows[order[::2]], rows[order[1::2]]
        self.filters = _learnt(standard(known, rows))
        self.limits = [np.quantile(odd(standard(other, rows)), 1 - _LEFT) for odd in self.filters]

    def common(self, made: Array) -> BoolArray:
        """(n,) whether no filter finds a row odd."""
        flat = standard(made, self.rows)
        fits = [odd(flat) <= limit for odd, limit in zip(self.filters, self.limits, strict=True)]
        return np.asarray(np.logical_and.reduce(fits), bool)


def _learnt(known: FloatArray) -> list[Any]:
    """Functions from rows to how odd each is."""
    from sklearn.ensemble import IsolationForest
    from sklearn.neighbors import LocalOutlierFactor

    forest = IsolationForest(random_state=0).fit(known)
    local = LocalOutlierFactor(n_neighbors=min(20, len(known) - 1), novelty=True).fit(known)
    return [lambda rows: -forest.score_samples(rows), lambda rows: -local.score_samples(rows), residual(known)]
