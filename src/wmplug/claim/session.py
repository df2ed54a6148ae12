"""One verification: which questions are due, and what the answers so far are worth.

It asks nobody: whoever drives it puts the rows that are `due` to a suspect, or looks them up, and lets it `take` the
answers. Of several tests the e-value is the average, p their number times the smallest.
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from wmplug.claim.channels import Channel, Finding, channel_of
from wmplug.claim.verdict import Part, Verdict, state_of
from wmplug.errors import InputError, SuspectError
from wmplug.statistics import combination
from wmplug.statistics.arrays import IntArray, read_whole
from wmplug.tasks.base import Said
from wmplug.watermark.plan import Choices, Test
from wmplug.watermark.watermark import Watermark


class Session:
    """Channels in the order of asking, the cheaper first.

    Args:
        mark: the watermark.
        channels: those that have anything to ask.
        exhaustive: hear all that they have, for the exact p-value.
        keys: tried for this claim.
    """

    def __init__(self, mark: Watermark, channels: Sequence[Channel], exhaustive: bool, keys: int) -> None:
        self.mark, self.channels, self.exhaustive, self.keys = mark, channels, exhaustive, keys
        self._at = 0

    @classmethod
    def planned(cls, mark: Watermark, max_queries: int | None, exhaustive: bool, keys: int) -> "Session":
        """To ask all tests, with so many queries at most.

        Raises:
            InputError: they are too few for the first answer.
        """
        plan = mark.triggers.plan
        least = len(plan.choices.groups[0]) if exhaustive and plan.choices is not None else 1
        wanted = len(mark.triggers) if max_queries is None else max_queries
        left = read_whole(wanted, "max_queries", least, 2**63, f"the first answer alone takes {least}")
        channels = []
        for test in plan.tests:
            channel = channel_of(mark, test, left, exhaustive)
            left -= channel.limit
            channels.append(channel)
        return cls(mark, [channel for channel in channels if channel.limit], exhaustive, keys)

    @classmethod
    def heard(cls, mark: Watermark, rows: Collection[int], keys: int) -> "Session":
        """To judge answers to these rows, all of them.

        Raises:
            InputError: none of them is asked, only a part of a draw is there, or the pattern has gaps.
        """
        held = set(rows)
        tests = [_among(test, held) for test in mark.triggers.plan.tests]
        if not any(tests):
            raise InputError(f"of {len(held)} answers none is to a row that watermark {mark.id} asks")
        return cls(mark, [channel_of(mark, test, len(test.rows), True) for test in tests if test], True, keys)

    def due(self, target_e: float) -> IntArray:
        """The rows to ask next; none where the verdict is reached, or nothing is left."""
        while self._at < len(self.channels):
            rows = self.channels[self._at].due(self._share(target_e))
            if len(rows):
                return rows
            self._at += 1
            if not self.exhaustive and self.log10_e() - math.log10(self.keys) >= math.log10(target_e):
                self._at = len(self.channels)
        return np.zeros(0, np.int64)

    def take(self, said: Sequence[Said | None], who: str) -> SuspectError | None:
        """Hear the answers to the rows that were due.

        Returns:
            Why some are of another task, where they are.
        """
        return self.current.take(said, who)

    @property
    def current(self) -> Channel:
        """The channel that hears what is due."""
        return self.channels[self._at]

    def _share(self, target_e: float) -> float:
        """log10 of what one channel must reach alone, for all of them together to reach the target."""
        return math.log10(target_e) + math.log10(self.keys) + math.log10(len(self.channels))

    def log10_e(self) -> float:
        """Of the average over channels; a channel that was not begun counts 1."""
        return combination.average_log10_e([channel.log10_e() for channel in self.channels])

    def verdict(self, target_e: float, who: str, step: int | None = None, look: int | None = None) -> Verdict:
        """What the answers of a suspect so far are worth; `look` counts how often this key was looked at in a run."""
        found = [channel.finding() for channel in self.channels]
        tried, first = math.log10(self.keys), found[0]
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
            keys=self.keys,
            log10_e=log10_e,
            log10_p=min(0.0, log10_p),
            target_e=target_e,
            test=tests if len(found) == 1 else f"twice the smaller p of {tests}",
            p_is="exact" if self.exhaustive else "anytime",
            enough=self.channels[0].enough(self._share(target_e)),
            attested=None if (evidence := self.mark.public.get("evidence")) is None else _is_attested(evidence),
            parts=tuple(_part(one) for one in found) if len(found) > 1 else (),
        )


def _among(test: Test, held: Collection[int]) -> Test | None:
    """A test of the rows that are held; None where it has none of them."""
    there = np.array([row in held for row in test.rows.tolist()])
    if not there.any():
        return None
    if isinstance(test, Choices):
        whole = ~np.isin(test.draw, test.draw[~there])
        if (there & ~whole).any():
            raise InputError(
                f"of draw {test.draw[there & ~whole][0]} only some rows were answered: a draw is judged as a whole"
            )
        return dataclasses.replace(test, rows=test.rows[whole], draw=test.draw[whole])
    if there[(count := int(there.sum())) :].any():
        raise InputError(
            f"{count} of {len(there)} rows of the pattern were answered, and not the first ones: ask in order"
        )
    return dataclasses.replace(test, rows=test.rows[:count], natural=test.natural[:count])


def _is_attested(evidence: Mapping[str, Any]) -> bool:
    """A salt of a token, and of an authority that is not a laboratory's own."""
    return evidence["salt"] is not None and not evidence.get("lab", False)


def _part(finding: Finding) -> Part:
    named = {f.name: getattr(finding, f.name) for f in dataclasses.fields(Part)}
    return Part(**named)
