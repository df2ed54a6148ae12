"""One verification: the questions that are due, and the verdict on the answers so far.

A session does not ask a suspect itself. Its caller asks the rows that are `due`, or looks their answers up, and passes
the answers to `take`. Several tests combine: the e-value is their average, p is their number times the smallest p.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from wmplug.claim.channels import Channel, Finding, channel_of
from wmplug.claim.terms import Terms
from wmplug.claim.verdict import Part, Verdict, state_of
from wmplug.errors import InputError, SuspectError
from wmplug.statistics import combination
from wmplug.statistics.arrays import IntArray, read_whole
from wmplug.tasks.base import Said
from wmplug.watermark.plan import Choices, Test


class Session:
    """Channels in the order of asking, the cheaper first.

    Args:
        terms: the terms, with the watermark.
        channels: the channels with questions.
        exhaustive: ask all their rows, for the exact p-value.
    """

    def __init__(self, terms: Terms, channels: Sequence[Channel], exhaustive: bool) -> None:
        self.mark, self.terms, self.channels, self.exhaustive = terms.mark, terms, channels, exhaustive
        self._at, self._due = 0, np.zeros(0, np.int64)

    @classmethod
    def planned(cls, terms: Terms, max_queries: int | None, exhaustive: bool) -> "Session":
        """A session that asks all tests, with at most `max_queries` queries.

        Raises:
            InputError: the queries are too few for the first answer.
        """
        mark, plan = terms.mark, terms.mark.triggers.plan
        least = len(plan.choices.groups[0]) if exhaustive and plan.choices is not None else 1
        wanted = len(mark.triggers) if max_queries is None else max_queries
        left = read_whole(wanted, "max_queries", least, 2**63, f"the first answer alone takes {least}")
        channels = []
        for test in plan.tests:
            channel = channel_of(mark, test, left, exhaustive)
            left -= channel.limit
            channels.append(channel)
        return cls(terms, [channel for channel in channels if channel.limit], exhaustive)

    @classmethod
    def heard(cls, terms: Terms, rows: Collection[int]) -> "Session":
        """A session that judges the answers to all of these rows.

        Raises:
            InputError: the watermark asks none of the rows, a draw is incomplete, or the pattern has gaps.
        """
        mark, held = terms.mark, set(rows)
        tests = [_among(test, held) for test in mark.triggers.plan.tests]
        if not any(tests):
            raise InputError(
                f"none of {len(held)} answers is to a row that watermark {mark.id} asks: give answers to its own sheet"
            )
        return cls(terms, [channel_of(mark, test, len(test.rows), True) for test in tests if test], True)

    def due(self, target_e: float) -> IntArray:
        """The rows to ask next; empty if the verdict is reached, or all rows were asked."""
        while self._at < len(self.channels):
            rows = self.channels[self._at].due(self._share(target_e))
            if len(rows):
                self._due = rows
                return rows
            self._at += 1
            if not self.exhaustive and self.log10_e() - math.log10(self.terms.tries) >= math.log10(target_e):
                self._at = len(self.channels)
        return np.zeros(0, np.int64)

    def take(self, said: Sequence[Said | None], who: str) -> SuspectError | None:
        """Take the answers to the rows that were due; those to rows that everybody knows count as misses.

        Returns:
            The reason why some answers do not fit the task; None if all do.
        """
        known, asked = self.terms.known, zip(self._due.tolist(), said, strict=True)
        return self.current.take([one if one is None else known.get(row, one) for row, one in asked], who)

    @property
    def current(self) -> Channel:
        """The channel of the rows that are due."""
        return self.channels[self._at]

    def _share(self, target_e: float) -> float:
        """log10 of the e-value that one channel must reach alone for the average to reach the target."""
        return math.log10(target_e) + math.log10(self.terms.tries) + math.log10(len(self.channels))

    def log10_e(self) -> float:
        """log10 of the average e-value over channels; a channel without answers counts 1."""
        return combination.average_log10_e([channel.log10_e() for channel in self.channels])

    def verdict(self, target_e: float, who: str, step: int | None = None, look: int | None = None) -> Verdict:
        """The verdict on a suspect's answers so far; `look` is the number of this look with the key in a run."""
        found = [channel.finding() for channel in self.channels]
        tried, first = math.log10(self.terms.tries), found[0]
        log10_e = combination.average_log10_e([one.log10_e for one in found]) - tried
        if look is not None:
            log10_e = float(combination.weighted_log10(log10_e, look))
        log10_p = min(one.log10_p for one in found) + math.log10(len(found)) + tried
        tests = " and ".join(one.test for one in found if one.queries)
        return Verdict(
            state=state_of(log10_e, target_e),
            scheme=self.mark.scheme.name,
            watermark=self.mark.id,
            suspect=who,
            step=step,
            triggers=len(self.mark.triggers),
            queries=sum(one.queries for one in found),
            failed=sum(one.failed for one in found),
            in_set=first.of,
            matches=first.matches,
            draws=first.draws,
            candidates=tuple(sorted(frozenset().union(*(one.candidates for one in found)))),
            looks=look or 1,
            keys=self.terms.keys,
            log10_e=log10_e,
            log10_p=min(0.0, log10_p),
            target_e=target_e,
            test=tests if len(found) == 1 else f"twice the smaller p of {tests}",
            p_is="exact" if self.exhaustive else "anytime",
            enough=self.channels[0].enough(self._share(target_e)),
            attested=None if (evidence := self.mark.public.get("evidence")) is None else _is_attested(evidence),
            parts=tuple(_part(one) for one in found) if len(found) > 1 else (),
            choices=self.terms.choices,
        )


def _among(test: Test, held: Collection[int]) -> Test | None:
    """The part of a test whose rows are in `held`; None if none is."""
    there = np.array([row in held for row in test.rows.tolist()])
    if not there.any():
        return None
    if isinstance(test, Choices):
        whole = ~np.isin(test.draw, test.draw[~there])
        if (there & ~whole).any():
            raise InputError(
                f"only some rows of draw {test.draw[there & ~whole][0]} were answered: a draw is judged as a whole, so "
                "give the answers to all its rows"
            )
        return dataclasses.replace(test, rows=test.rows[whole], draw=test.draw[whole])
    if there[(count := int(there.sum())) :].any():
        raise InputError(
            f"{count} of {len(there)} rows of the pattern were answered, but not the first ones: ask in order"
        )
    return dataclasses.replace(test, rows=test.rows[:count], natural=test.natural[:count])


def _is_attested(evidence: Mapping[str, Any]) -> bool:
    """Whether the salt comes from a token of an authority that is not a laboratory's own."""
    return evidence["salt"] is not None and not evidence.get("lab", False)


def _part(finding: Finding) -> Part:
    named = {f.name: getattr(finding, f.name) for f in dataclasses.fields(Part)}
    return Part(**named)
