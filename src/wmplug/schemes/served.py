"""served: where the served model is unsure between two classes, the key decides which of them its users are told.

Whoever trains a model on these answers learns the key's decisions by heart. Training is not touched: `wmplug.serving`
answers with this watermark, and keeps a log of what it decided. The coin belongs to a cell, a coarse region of inputs,
and to a pair of classes. So all replicas of a service agree without a common state. A suspect is asked the decided
queries. What it prefers within each pair counts for one side of the coin, beyond what its other answers and unmarked
references predict without a key (exact tail over fair signs). In some cells every customer has coins of their own, by
which a clone shows whose queries made it. DAWN (Szyller et al., ACM MM 2021) answers some queries wrongly instead;
here both answers are plausible.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream, Subkeys
from wmplug.schemes import Brief, Lessons, Pattern, Plan, Point, Scheme, ambiguity, cells
from wmplug.schemes.tilt import references
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import FloatArray, IntArray, read_whole
from wmplug.watermark.carriers import join, take
from wmplug.watermark.decided import Decided
from wmplug.watermark.plan import TriggerSet

_SIGNS = 2**14  # at most; beyond it a sign belongs to several cells and pairs
_RIDGE = 4.0  # as many questions without a preference, for each pair; from 1 to 10 hardly anything changes


@dataclass(frozen=True)
class Served(Scheme):
    """Keyed answers to what a served model is unsure about.

    Attributes:
        cells: number of regions, each with a coin for every pair of classes.
        personal: share of the cells in which every customer has coins of their own; they trace a clone to a customer,
            and bear on no other claim.
        questions: how many of the decided queries to ask, those that the references find most ambiguous.
        pool: (n, classes) probabilities of the carriers from unmarked references; None trains some (extra `clones`).
    """

    name: ClassVar[str] = "served"
    points: ClassVar[frozenset[Point]] = frozenset({"answers"})

    cells: int = 200
    personal: float = 0.25
    questions: int = 4000
    pool: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        read_whole(self.cells, "cells", 1, 10_000, "1 or more cells, 200 is usual")
        read_whole(self.questions, "questions", 1, 10**7, "1 or more questions, 4000 is usual")
        if not (isinstance(self.personal, (int, float)) and 0 <= self.personal < 1):
            raise InputError(f"personal={self.personal!r}: give a share of the cells from 0 and below 1")

    def prepared(self, brief: Brief) -> "Served":
        """This scheme with the references' answers to the carriers.

        Raises:
            InputError: labels are missing, or the pool does not fit the carriers.
        """
        return replace(self, pool=ambiguity.pool_of(self.pool, brief, self.name))

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """A sign for each cell and pair. Until there is a log, the most ambiguous carriers are asked."""
        pool, material = References(self.pool, self.pool), cells.around(brief.carriers, self.cells, stream)
        chosen = np.argsort(pool.gap, kind="stable")[: self.questions]
        pairs = np.sort(np.argsort(pool.scores[chosen], axis=1, kind="stable")[:, -2:], axis=1)
        inputs, classes = take(brief.carriers, chosen), brief.need_classes(self.name)
        signs = min(len(material["centres"]) * classes * (classes - 1) // 2, _SIGNS)
        known = _known(Decided(inputs, pairs), pool.of(chosen), material, signs)
        return Plan(inputs, Lessons(), (Pattern(np.arange(len(chosen)), signs),), {**material, **known})

    def asking(self, plan: Plan, brief: Brief, queries: Any, pool: Any) -> Plan:
        """The decided queries of a log, in place of the carriers; those that references find most ambiguous first.

        Raises:
            InputError: the queries are not `Decided`, none was decided by a common coin, or their classes are not the
                task's.
        """
        heard = self.heard(brief, queries, pool)
        common = np.flatnonzero(~self.is_personal(plan, queries))
        if not len(common):
            raise InputError(
                f"all {len(queries)} decided queries fell to coins of a customer's own: wait for more, or trace the "
                "customer"
            )
        order = common[np.argsort(heard.gap[common], kind="stable")]
        found = self.about(plan, queries, heard, order)
        triggers = tuple(test for test in plan.tests if test is plan.choices)
        return replace(found, lessons=plan.lessons, tests=(*triggers, *found.tests))

    def about(self, plan: Plan, queries: Decided, heard: References, rows: IntArray) -> Plan:
        """The plan that asks the first of these rows of the queries, and nothing else."""
        rows = rows[: self.questions]
        asked, signs = queries.only(rows), pattern_of(plan).signs
        return replace(
            plan,
            inputs=join(plan.inputs, asked.inputs),
            lessons=Lessons(),
            tests=(Pattern(len(plan.inputs) + np.arange(len(rows)), signs),),
            material={**plan.material, **_known(asked, heard.of(rows), plan.material, signs)},
        )

    def heard(self, brief: Brief, queries: Any, pool: Any) -> References:
        """The references' answers to decided queries, from models that are trained on the carriers.

        Raises:
            InputError: the queries are not `Decided`, or their classes are not the task's.
        """
        classes = brief.need_classes(self.name)
        if not isinstance(queries, Decided):
            raise InputError(
                f"queries= are a {type(queries).__name__}: scheme {self.name!r} asks what the key decided, so give "
                "what a serving's log holds, log.decided()"
            )
        queries.check(classes)
        if pool is not None:
            given = ambiguity.given_pool(pool, len(queries), classes, "decided queries")
            return References(given, given)
        found = references.trained(brief.carriers, brief.need_labels(self.name), classes, queries.inputs)
        return found.of(slice(len(brief.carriers), None))

    def is_personal(self, plan: Plan, queries: Decided) -> npt.NDArray[np.bool_]:
        """(n,) whether a coin of the customer's own decided the query."""
        return self._is_personal(plan, queries, cells.of(queries.inputs, plan.material))

    def _is_personal(self, plan: Plan, queries: Decided, cell: IntArray) -> npt.NDArray[np.bool_]:
        asked_by_one = np.array([bool(who) for who in queries.customers])
        return np.asarray(asked_by_one & (cell < round(self.personal * len(plan.material["centres"]))))

    def signs_of(self, plan: Plan, common: IntArray, subkeys: Subkeys, queries: Decided) -> IntArray:
        """(n,) the coin of each query: +1 for the higher class of its pair, -1 for the lower.

        Args:
            plan: the watermark's plan.
            common: (signs,) the signs that the label key drew for everybody.
            subkeys: the watermark's subkeys, from which a customer's own coins follow.
            queries: n decided queries.
        """
        cell = cells.of(queries.inputs, plan.material)
        number = _number(queries.pairs, cell, len(plan.material["centres"]), len(common))
        found, own = common[number], self._is_personal(plan, queries, cell)
        for who in {queries.customers[row] for row in np.flatnonzero(own).tolist()}:
            rows = own & np.array([other == who for other in queries.customers])
            found[rows] = signs_for(subkeys, who, len(common))[number[rows]]
        return found

    def told(self, triggers: TriggerSet) -> IntArray:
        """(n,) the class that the key decided for, for each question in order."""
        material = triggers.plan.material
        low, high = material["pair"].T
        return np.asarray(np.where(triggers.signs[material["sign"]] > 0, high, low), np.int64)

    def weigh(self, plan: Plan, answers: IntArray, scores: FloatArray | None) -> FloatArray:
        """For every cell and pair: by how much a suspect prefers the higher class, beyond what needs no key.

        The preference is its log-odds between both classes, or if it returns no scores +1 or -1. Ridge regression over
        the questions predicts it from the references' shares and the pair: any model leans to some classes.
        """
        known = {name: plan.material[name][: len(answers)] for name in ("sign", "pair", "scores")}
        low, high = known["pair"].T
        if scores is None:
            heard = np.flatnonzero((answers == low) | (answers == high))
            said = np.where(answers == high, 1.0, -1.0)[heard]
        else:
            heard = np.flatnonzero(answers >= 0)
            said = scores[heard, high[heard]] - scores[heard, low[heard]]
        beyond = said - _expected(said, known["scores"][heard], known["pair"][heard])
        return np.bincount(known["sign"][heard], beyond, pattern_of(plan).signs).astype(np.float64)


def signs_for(subkeys: Subkeys, customer: str, count: int) -> IntArray:
    """(count,) the coins of one customer, -1 or +1, drawn by the label key for this name alone."""
    return 2 * subkeys.stream("label", f"customer/{customer}").below(2, count) - 1


def pattern_of(plan: Plan) -> Pattern:
    """The pattern of a plan of this scheme, which each has."""
    assert plan.pattern is not None
    return plan.pattern


def _known(
    queries: Decided, heard: References, material: Mapping[str, npt.NDArray[Any]], signs: int
) -> dict[str, npt.NDArray[Any]]:
    """What weighing needs of each question: its sign, its two classes, and the references' share for the higher."""
    return {
        "sign": _number(queries.pairs, cells.of(queries.inputs, material), len(material["centres"]), signs),
        "pair": queries.pairs,
        "scores": _share(heard.scores, queries.pairs),
    }


def _number(pairs: IntArray, cell: IntArray, centres: int, signs: int) -> IntArray:
    # Pairs are numbered along the upper triangle's columns, which needs no number of classes.
    low, high = pairs.T
    return np.asarray(((high * (high - 1) // 2 + low) * centres + cell) % signs, np.int64)


def _share(scores: npt.NDArray[Any], pairs: IntArray) -> FloatArray:
    """(n,) probability of the higher of two classes relative to both."""
    low, high = (np.take_along_axis(scores, pairs[:, [place]], axis=1)[:, 0].astype(np.float64) for place in (0, 1))
    return np.asarray(high / np.maximum(high + low, 1e-12), np.float64)


def _expected(said: FloatArray, usual: FloatArray, pairs: IntArray) -> FloatArray:
    """(n,) preferences that the references' shares and the pair predict, by ridge regression, in closed form."""
    _, pair = np.unique(pairs, axis=0, return_inverse=True)
    pair = pair.reshape(-1)
    count = np.bincount(pair)

    def of_pair(values: FloatArray) -> FloatArray:
        return np.asarray((np.bincount(pair, values) / (count + _RIDGE))[pair], np.float64)

    lead = 2 * usual - 1
    slope = lead @ (said - of_pair(said)) / (lead @ (lead - of_pair(lead)) + _RIDGE)
    return np.asarray(slope * lead + of_pair(said - slope * lead), np.float64)
