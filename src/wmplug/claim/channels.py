"""How surprising a suspect's answers are: one class for each kind of test.

`ChoicesChannel` scores answers to triggers, each draw against its own secret answer. `PatternChannel` weighs the
answers to ordinary inputs, all together, against signs that the key drew. Both are under the null that the suspect is
independent of the label key, one-sided; their draws are independent of each other. Neither asks a suspect: `due`
returns the rows to ask next, `take` receives the answers.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wmplug.errors import InputError, SuspectError
from wmplug.statistics import betting, draws, signs
from wmplug.statistics.arrays import IntArray
from wmplug.statistics.draws import DrawResult
from wmplug.tasks.base import Said
from wmplug.watermark.plan import Choices, Pattern
from wmplug.watermark.scheme import Weighs
from wmplug.watermark.watermark import Watermark

_STRIDE = 512  # queries of an exhaustive verification between two calls of progress
_STAGES = 4  # looks at a pattern: at an eighth, a quarter, a half and all of the queries
_NONE = np.zeros(0, np.int64)
WITH_SCORES = " with scores"  # the end of the name of a test that heard scores


@dataclass(frozen=True)
class Finding:
    """The result of one channel.

    Attributes:
        test: the test in words.
        queries: number of queries spent, the failed ones included.
        failed: number of queries without an answer.
        of: number of answers among their candidates, or of signs on which the answers bear.
        matches: how many of these are the secret ones.
        draws: number of completed draws.
        candidates: the numbers of candidates of these draws.
        log10_e: log10 of the e-value after the last query.
        log10_p: log10 of the p-value, exact or anytime.
    """

    test: str
    queries: int
    failed: int
    of: int
    matches: int
    draws: int
    candidates: frozenset[int]
    log10_e: float
    log10_p: float


class ChoicesChannel:
    """Triggers, draw after draw: by the answers, and if there are scores, by these too.

    A model that answers otherwise may still give the secret answer a higher score than it would: one that was
    fine-tuned, or the mean with other models. The two tests share their draws, so the e-value is their average, and p
    twice the smaller. Whether there are scores is the suspect's decision, which does not see the key.

    Args:
        mark: the watermark.
        test: the choices of its plan.
        limit: largest number of queries.
        exhaustive: ask all rows of a draw, and all draws; otherwise one row each, until the target.
    """

    def __init__(self, mark: Watermark, test: Choices, limit: int, exhaustive: bool) -> None:
        self.mark, self.test, self.exhaustive = mark, test, exhaustive
        # A second query of one draw adds less evidence than a first of another, and a scored draw is never asked again.
        self.groups = test.groups if exhaustive else [group[:1] for group in test.groups]
        self.limit = min(limit, sum(len(group) for group in self.groups))
        self.queries = self.failed = 0
        self.results: list[DrawResult] = []
        self.weighed: list[DrawResult] = []
        self.scored = False

    @property
    def tests(self) -> list[list[DrawResult]]:
        """The completed draws as each test counts them."""
        return [self.results, self.weighed] if self.scored else [self.results]

    def due(self, target: float) -> IntArray:
        """The rows to ask next: only as many draws as a perfect suspect needs, or all if exhaustive."""
        start, units = len(self.results), self._affordable(target)
        return np.concatenate(self.groups[start : start + units]) if units else _NONE

    def _affordable(self, target: float) -> int:
        groups = self.groups[len(self.results) :]
        within = int(np.searchsorted(np.cumsum([len(g) for g in groups]), self.limit - self.queries, side="right"))
        if self.exhaustive or not within:
            return min(within, _STRIDE)
        if len(self.results) and self.log10_e() >= target:
            return 0
        owners = self.mark.triggers.plan.draw
        ahead = [(len(self.test.options[owners[group[0]]]), len(group)) for group in groups[:within]]
        fewest = betting.fewest_to(self.tests, target, ahead)
        if fewest is None and not self.results:
            return within  # so small a set, or so few queries, can still be evidence
        # None: the target is out of reach even if all answers to come match, so save the queries.
        return fewest or 0

    def take(self, said: Sequence[Said | None], who: str) -> SuspectError | None:
        """Score answers to the rows that were due."""
        left = iter(said)
        for group in self.groups[len(self.results) :]:
            if not (answers := list(itertools.islice(left, len(group)))):
                break
            self.results.append(self.mark.triggers.count(group, answers))
            self.weighed.append(self.mark.triggers.weigh(group, answers))
        self.queries += len(said)
        self.failed += sum(one is None for one in said)
        self.scored |= any(one is not None and one.scores is not None for one in said)
        return None

    def log10_e(self) -> float:
        """The e-process so far; 0.0 before the first draw."""
        return betting.log10_e(*self.tests)

    def enough(self, target: float) -> int | None:
        """Queries after which the e-value had reached 10**target."""
        spent = np.cumsum([len(group) for group in self.groups[: len(self.results)]])
        reached = np.flatnonzero(betting.log10_e_path(*self.tests) >= target)
        return int(spent[reached[0]]) if len(reached) else None

    def finding(self) -> Finding:
        """By the exact test if exhaustive, else by the e-process."""
        path = betting.log10_e_path(*self.tests)
        grouped = any(sum(r.counts) > 1 for r in self.results)
        test = ("exact group" if grouped else "exact in-set") if self.exhaustive else "anytime e-process"
        return Finding(
            test=test + WITH_SCORES * self.scored,
            queries=self.queries,
            failed=self.failed,
            of=sum(r.in_set for r in self.results),
            matches=sum(r.matches for r in self.results),
            draws=len(self.results),
            candidates=frozenset(r.k for r in self.results),
            log10_e=float(path[-1]) if len(path) else 0.0,
            # Ville bounds the highest point of the path, hence a p-value. The e-value is its last point.
            log10_p=self._exact() if self.exhaustive else -float(path.max(initial=0.0)),
        )

    def _exact(self) -> float:
        found = [draws.log10_p(test) for test in self.tests]
        return min(0.0, min(found) + math.log10(len(found)))


class PatternChannel:
    """Ordinary inputs, in a few stages that grow.

    The stages share their signs, so the channel averages their e-values, with 0 for stages not reached: the average is
    an e-value wherever you stop (Vovk & Wang 2021).

    Args:
        mark: the watermark.
        test: the pattern of its plan.
        limit: largest number of queries.
        exhaustive: ask all rows at once.

    Raises:
        InputError: its scheme cannot weigh answers.
    """

    def __init__(self, mark: Watermark, test: Pattern, limit: int, exhaustive: bool) -> None:
        if not isinstance(mark.scheme, Weighs):
            raise InputError(
                f"scheme {mark.scheme.name!r} plans signs but does not define weigh(): ask its author to add it"
            )
        self.mark, self.test, self.exhaustive, self.scheme = mark, test, exhaustive, mark.scheme
        self.limit = min(limit, len(test.rows))
        parts = [0] if exhaustive else range(_STAGES - 1, -1, -1)
        self.stages = sorted({max(1, self.limit >> halvings) for halvings in parts})
        self.queries = self.failed = 0
        self.said: list[Said | None] = []
        self._looks: list[float] = []
        self._weights = np.zeros(test.signs, np.int64)

    def due(self, target: float) -> IntArray:
        """The rows to ask next."""
        if not self.limit or (self._looks and self.log10_e() >= target):
            return _NONE
        due = next((stage for stage in self.stages if stage > self.queries), self.queries)
        return self.test.rows[self.queries : min(due, self.queries + _STRIDE)]

    def take(self, said: Sequence[Said | None], who: str) -> SuspectError | None:
        """Keep answers to the rows that were due, and weigh all so far at the end of a stage.

        Returns:
            The reason why an answer outside the task counts as a failed query; None if all answers fit.
        """
        task = self.mark.task
        misfits = [None if one is None else task.misfit(one, who) for one in said]
        heard = [None if misfit else one for one, misfit in zip(said, misfits, strict=True)]
        self.said += heard
        self.queries += len(heard)
        self.failed += sum(one is None for one in heard)
        if self.queries in self.stages:
            plan = self.mark.triggers.plan
            self._weights = signs.weights_of(self.scheme.weigh(plan, *task.arrays(self.said)))
            self._looks.append(signs.weighted_log10_e(self._weights, self.mark.triggers.signs))
        return next(filter(None, misfits), None)

    def log10_e(self) -> float:
        """The average over stages so far; 0.0 before the first."""
        if not self._looks:
            return 0.0
        return float(np.logaddexp.reduce(np.array(self._looks) * math.log(10))) / math.log(10) - math.log10(
            len(self.stages)
        )

    def enough(self, target: float) -> int | None:
        """None: stages are not single queries."""
        return None

    def finding(self) -> Finding:
        """By the exact tail if exhaustive, else by the average over stages."""
        bearing = np.flatnonzero(self._weights)
        mine, weights = self.mark.triggers.signs, self._weights
        return Finding(
            test="exact weighted signs" if self.exhaustive else "anytime weighted signs",
            queries=self.queries,
            failed=self.failed,
            of=len(bearing),
            matches=int((weights * mine > 0).sum()),
            draws=len(mine) if self._looks else 0,
            candidates=frozenset({2}) if self._looks else frozenset(),
            log10_e=self.log10_e(),
            log10_p=signs.weighted_log10_p(weights, mine) if self.exhaustive else min(0.0, -self.log10_e()),
        )


Channel = ChoicesChannel | PatternChannel


def channel_of(mark: Watermark, test: Choices | Pattern, limit: int, exhaustive: bool) -> Channel:
    """The channel for a test."""
    kind = ChoicesChannel if isinstance(test, Choices) else PatternChannel
    return kind(mark, test, limit, exhaustive)  # type: ignore[arg-type]
