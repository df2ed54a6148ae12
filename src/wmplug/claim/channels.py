"""What a suspect is asked, and how surprising its answers are: one class for each kind of draw.

`Answers` asks triggers, each draw for its own secret answer. `Pattern` asks ordinary inputs and weighs what all the
answers say about signs that the key drew. Both are under the null that the suspect is independent of the label key,
one-sided; their draws are independent of each other.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from wmplug.errors import SuspectError
from wmplug.statistics import betting, draws, signs
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.statistics.draws import DrawResult
from wmplug.suspects.protocols import Suspect
from wmplug.tasks.classes import read_answers, read_scores
from wmplug.watermark.watermark import Watermark

T = TypeVar("T")
_STRIDE = 512  # queries of an exhaustive verification between two calls of progress
_STAGES = 4  # looks at a pattern: at an eighth, a quarter, a half and all of the queries


@dataclass(frozen=True)
class Finding:
    """What one channel found.

    Attributes:
        test: in words.
        queries: spent, the failed ones included.
        failed: that gave no answer.
        of: answers among their candidates, or signs on which the answers bear.
        matches: of these, the secret ones.
        draws: completed.
        candidates: the numbers of candidates of these draws.
        log10_e: log10 of the e-value where it was left.
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


class _Questions:
    """Asks, and counts what failed."""

    def __init__(self, mark: Watermark, suspect: Suspect) -> None:
        self.mark, self.suspect = mark, suspect
        self.queries = self.failed = 0

    def put(self, rows: IntArray, read: Callable[[Any, int, str], list[T | None]]) -> list[T | None]:
        """The answers to rows of the trigger set, as `read` reads them.

        Raises:
            SuspectError: no query was answered yet, these included.
        """
        inputs = [self.mark.triggers.row(int(row)) for row in rows]
        answers, cause = ask(self.suspect, inputs, self.mark.classes, read)
        self.queries += len(inputs)
        self.failed += sum(answer is None for answer in answers)
        if self.failed == self.queries:
            raise self._all_failed(cause) from cause
        return answers

    def _all_failed(self, cause: BaseException | None) -> SuspectError:
        if isinstance(cause, SuspectError):
            return SuspectError(str(cause))
        why = (
            "all were NaN, so the weights are broken or the inputs are not what the model was trained on"
            if cause is None
            else f"last {type(cause).__name__}: {cause}"
        )
        hint = (
            "; if training used preprocess=, give the same function: load(path, preprocess=...) or create(..., "
            "preprocess=...), on the command line --preprocess module:function"
            if self.mark.preprocess is None
            else "; check that preprocess= gives what the model takes"
        )
        return SuspectError(f"{self.suspect.description} answered none of {self.queries} queries: {why}{hint}")


def ask(
    suspect: Suspect, inputs: Sequence[Any], classes: int, read: Callable[[Any, int, str], list[T | None]]
) -> tuple[list[T | None], Exception | SystemExit | None]:
    """What a suspect answers to each input, None where it gave no answer; and why it gave none.

    Args:
        suspect: who is asked.
        inputs: in the form of the carriers.
        classes: of the watermark.
        read: `read_answers` or `read_scores`.
    """
    cause: Exception | SystemExit | None = None
    answers: list[T | None] = []
    try:
        answers = _read(suspect, inputs, classes, read)
    # A suspect that calls sys.exit() has given no answer, and does not end the verification.
    except (Exception, SystemExit) as error:
        cause = error
        for one in inputs:
            # A failed query is dropped whatever its answer would have been, so the null is untouched.
            try:
                answers += _read(suspect, [one], classes, read)
            except (Exception, SystemExit) as error:
                answers.append(None)
                # What cannot be read says more than what was raised on the way to it.
                cause = cause if isinstance(cause, SuspectError) else error
    return answers, cause


def _read(
    suspect: Suspect, inputs: Sequence[Any], classes: int, read: Callable[[Any, int, str], list[T | None]]
) -> list[T | None]:
    answers = read(suspect.answer(inputs), classes, suspect.description)
    if len(answers) != len(inputs):
        raise SuspectError(
            f"{suspect.description} gave {len(answers)} answers for {len(inputs)} inputs: return one label or one row "
            "of scores for each"
        )
    return answers


class Answers(_Questions):
    """Triggers, draw after draw.

    Args:
        mark: the watermark.
        suspect: who is asked.
        limit: most queries.
        exhaustive: ask all rows of a draw, and all draws; otherwise one row each, until the target.
    """

    def __init__(self, mark: Watermark, suspect: Suspect, limit: int, exhaustive: bool) -> None:
        super().__init__(mark, suspect)
        self.exhaustive = exhaustive
        # A second query to a draw says less than a first to another, and a draw once looked at is not asked again.
        self.groups = mark.triggers.groups if exhaustive else [group[:1] for group in mark.triggers.groups]
        self.limit = min(limit, sum(len(group) for group in self.groups))
        self.results: list[DrawResult] = []

    def affordable(self, target: float) -> int:
        """How many draws to ask next; never more than a perfect suspect needs, unless all are wanted."""
        groups = self.groups[len(self.results) :]
        within = int(np.searchsorted(np.cumsum([len(g) for g in groups]), self.limit - self.queries, side="right"))
        if self.exhaustive or not within:
            return min(within, _STRIDE)
        if len(self.results) and self.log10_e() >= target:
            return 0
        draws, candidates = self.mark.triggers.plan.draw, self.mark.triggers.plan.candidates
        ahead = [(len(candidates[draws[group[0]]]), len(group)) for group in groups[:within]]
        fewest = betting.fewest_to(self.results, target, ahead)
        if fewest is None and not self.results:
            return within  # so small a set, or so few queries, can still be evidence
        # None: out of reach even if all that is left matched, so the queries are better saved.
        return fewest or 0

    def ask(self, units: int) -> None:
        """Ask the next draws."""
        start = len(self.results)
        self.take(units, self.put(np.concatenate(self.groups[start : start + units]), read_answers))

    def take(self, units: int, answers: Sequence[int | None]) -> None:
        """Score answers to the next draws."""
        start = len(self.results)
        bounds = np.cumsum([len(group) for group in self.groups[start : start + units]])[:-1]
        parts = [list(part) for part in np.split(np.array(answers, dtype=object), bounds)]
        self.results += self.mark.score(start, parts)

    def log10_e(self) -> float:
        """Where the e-process stands; 0.0 before the first draw."""
        return betting.log10_e(self.results)

    def enough(self, target: float) -> int | None:
        """Queries after which the e-value had reached 10**target."""
        spent = np.cumsum([len(group) for group in self.groups[: len(self.results)]])
        reached = np.flatnonzero(betting.log10_e_path(self.results) >= target)
        return int(spent[reached[0]]) if len(reached) else None

    def finding(self) -> Finding:
        """By the exact test if exhaustive, else by the e-process."""
        path = betting.log10_e_path(self.results)
        grouped = any(sum(r.counts) > 1 for r in self.results)
        return Finding(
            test=("exact group" if grouped else "exact in-set") if self.exhaustive else "anytime e-process",
            queries=self.queries,
            failed=self.failed,
            of=sum(r.in_set for r in self.results),
            matches=sum(r.matches for r in self.results),
            draws=len(self.results),
            candidates=frozenset(r.k for r in self.results),
            log10_e=float(path[-1]) if len(path) else 0.0,
            # Ville bounds how high the path ever climbs: a p-value. The e-value is where it was left.
            log10_p=draws.log10_p(self.results) if self.exhaustive else -float(path.max(initial=0.0)),
        )


class Pattern(_Questions):
    """Ordinary inputs, in a few stages that grow.

    The stages share their signs, so their e-values are averaged, with 0 for those not reached: an e-value whenever one
    stops (Vovk & Wang 2021).

    Args:
        mark: the watermark.
        suspect: who is asked.
        limit: most queries.
        exhaustive: ask all at once.
    """

    def __init__(self, mark: Watermark, suspect: Suspect, limit: int, exhaustive: bool) -> None:
        super().__init__(mark, suspect)
        self.exhaustive = exhaustive
        self.rows = mark.triggers.plan.weighed
        self.limit = min(limit, len(self.rows))
        parts = [0] if exhaustive else range(_STAGES - 1, -1, -1)
        self.stages = sorted({max(1, self.limit >> halvings) for halvings in parts})
        self.said: list[int | FloatArray | None] = []
        self._looks: list[float] = []
        self._weights = np.zeros(mark.triggers.plan.signs, np.int64)

    def affordable(self, target: float) -> int:
        """How many inputs to ask next."""
        if not self.limit or (self._looks and self.log10_e() >= target):
            return 0
        due = next((stage for stage in self.stages if stage > self.queries), self.queries)
        return min(_STRIDE, due - self.queries)

    def ask(self, units: int) -> None:
        """Ask the next inputs; weigh all so far where a stage ends."""
        self.said += self.put(self.rows[self.queries : self.queries + units], read_scores)
        if self.queries in self.stages:
            self._weights = signs.weights_of(self.mark.scheme.weigh(self.mark.triggers.plan, *self._heard()))
            self._looks.append(signs.weighted_log10_e(self._weights, self.mark.triggers.signs))

    def _heard(self) -> tuple[IntArray, FloatArray | None]:
        """(n,) answers, -1 where there is none, and (n, classes) log probabilities if every answer came with them."""
        answers = [-1 if a is None else int(a) if isinstance(a, int) else int(a.argmax()) for a in self.said]
        silent = np.full(self.mark.classes, np.nan)
        rows = [silent if a is None else a for a in self.said]
        scores = None if any(isinstance(row, int) for row in rows) else np.array(rows, np.float64)
        return np.array(answers, np.int64), scores

    def log10_e(self) -> float:
        """Where the average over stages stands; 0.0 before the first."""
        if not self._looks:
            return 0.0
        return float(np.logaddexp.reduce(np.array(self._looks) * math.log(10))) / math.log(10) - math.log10(
            len(self.stages)
        )

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
