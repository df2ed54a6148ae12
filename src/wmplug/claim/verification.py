"""Ask a suspect, score the answers, state the verdict.

The null of every number here: the suspect is independent of the owner's label key. One-sided, matches beyond chance.
"""

import dataclasses
import math
import numbers
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from wmplug import plugins
from wmplug.claim.channels import Answers, Finding, Pattern
from wmplug.claim.verdict import Part, Verdict, state_of
from wmplug.errors import InputError
from wmplug.statistics import combination
from wmplug.suspects.protocols import Suspect
from wmplug.suspects.targets import as_suspect
from wmplug.watermark.carriers import read_whole
from wmplug.watermark.watermark import Watermark

TARGET_E = 1e6


def verify(
    mark: Watermark,
    suspect: Any,
    *,
    target_e: float = TARGET_E,
    max_queries: int | None = None,
    batch_size: int = 64,
    exhaustive: bool = False,
    keys: int = 1,
    rows: Collection[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Test one suspect, black box.

    By default queries are spent one draw after the other, one query each, until the e-value reaches its target or no
    longer can (the p-value is then one over the largest E on the way, valid at any stopping time: Ville 1939); where
    ordinary inputs are weighed too, they come after, in stages that grow. `exhaustive` asks every trigger and every
    ordinary input and gives the exact p-value. Of two channels the e-value is the average, p twice the smaller.

    Args:
        mark: the watermark.
        suspect: a torch module, a transformers model, pipeline or checkpoint folder, a Keras model or .keras file, a
            `Suspect`, or a function from inputs to labels (n,) or scores (n, classes).
        target_e: e-value at which the verdict is `proven`; a false claim has probability at most 1/target_e.
        max_queries: ask no more than this.
        batch_size: inputs a forward pass; a `Suspect` has its own.
        exhaustive: ask all triggers.
        keys: keys or watermarks tried for this claim, this one included. The e-value is divided by it and the p-value
            multiplied, at most to 1 (Bonferroni); the state is that of the discounted e-value.
        rows: ask only draws that lie among these rows of the trigger set (leave out what was spent: `fresh`).
        progress: called with (queries answered, queries at most).

    Raises:
        SuspectError: nothing can be asked, every query failed, or the answers are of another task.
        InputError: mark is none, or target_e, max_queries, batch_size or keys is out of range.
    """
    check_mark(mark, suspect)
    check_target(target_e)
    batch_size = read_whole(batch_size, "batch_size", 1, 2**31, "give at least 1")
    keys = read_whole(keys, "keys", 1, 2**31, "count the keys or watermarks that were tried, this one included")
    mark = mark if rows is None else only(mark, rows)
    session = Session(mark, as_suspect(suspect, mark, batch_size=batch_size), max_queries, exhaustive, keys)
    session.ask(target_e, progress)
    verdict = session.verdict(target_e)
    plugins.registry().tell("wmplug_verdict", verdict=verdict, run={})
    return verdict


def fresh(mark: Watermark, spent: Collection[int]) -> list[int]:
    """The rows to ask that are not spent, in order.

    A draw of which one row is spent is left out whole: who saw that row's answer knows the answer of the others.
    """
    gone = set(spent)
    return [row for group in mark.triggers.groups if gone.isdisjoint(group.tolist()) for row in group.tolist()]


def only(mark: Watermark, rows: Collection[int]) -> Watermark:
    """The same watermark, asking only draws that lie among `rows`.

    Raises:
        InputError: none does.
    """
    return dataclasses.replace(mark, triggers=mark.triggers.only(rows))


def asked(mark: Watermark, verdict: Verdict, rows: Collection[int] | None = None) -> list[int]:
    """The rows that a verification spent.

    Args:
        mark: the watermark.
        verdict: that `verify` gave.
        rows: as `verify` was given them.
    """
    groups = (mark if rows is None else only(mark, rows)).triggers.groups
    spent = groups if verdict.p_is == "exact" else [group[:1] for group in groups]
    # Ordinary inputs come last and give nothing away.
    queries = verdict.parts[0].queries if verdict.parts else verdict.queries
    return [row for group in spent for row in group.tolist()][:queries]


def judge(
    mark: Watermark, suspect: Suspect, answers: Sequence[int | None], *, target_e: float = TARGET_E, keys: int = 1
) -> Verdict:
    """The exact verdict on answers that were given before, one for each row the watermark asks, in order.

    Args:
        mark: the watermark.
        suspect: that gave them.
        answers: None for a query that failed.
        target_e: as in `verify`.
        keys: as in `verify`.
    """
    session = Session(mark, suspect, None, exhaustive=True, keys=keys)
    session.pattern, channel = None, session.answers
    if channel is None:
        raise InputError(f"scheme {mark.scheme.name!r} asks for no single answers, so there are none to judge")
    channel.queries, channel.failed = len(answers), sum(answer is None for answer in answers)
    channel.take(len(channel.groups), answers)
    return session.verdict(target_e)


def check_mark(mark: Any, suspect: Any) -> None:
    """Raise InputError unless it is a watermark."""
    if isinstance(mark, Watermark):
        return
    if isinstance(suspect, Watermark):
        raise InputError("suspect and watermark are swapped: verify(mark, suspect)")
    if isinstance(mark, (str, os.PathLike)):
        raise InputError(f"mark={os.fspath(mark)!r} is a path: open the watermark first, wmplug.load(path)")
    raise InputError(f"mark is a {type(mark).__name__}: give a watermark, from wmplug.create or wmplug.load")


def check_target(target_e: float) -> None:
    """Raise InputError unless it is a number above 1."""
    if not (isinstance(target_e, numbers.Real) and math.isfinite(target_e) and target_e > 1):
        raise InputError(f"target_e={target_e!r}: give a number above 1; 1e6 is usual")


def _is_attested(evidence: Mapping[str, Any]) -> bool:
    """A salt of a token, and of an authority that is not a laboratory's own."""
    return evidence["salt"] is not None and not evidence.get("lab", False)


class Session:
    """The questions put to one suspect, through all channels that the watermark has."""

    def __init__(self, mark: Watermark, suspect: Suspect, max_queries: int | None, exhaustive: bool, keys: int) -> None:
        self.mark, self.suspect, self.exhaustive, self.keys = mark, suspect, exhaustive, keys
        plan = mark.triggers.plan
        most = len(mark.triggers)
        least = len(mark.triggers.groups[0]) if exhaustive and len(plan.asked) else 1
        wanted = most if max_queries is None else max_queries
        limit = read_whole(wanted, "max_queries", least, 2**63, f"the first answer alone takes {least}")
        self.answers = Answers(mark, suspect, limit, exhaustive) if len(plan.asked) else None
        left = limit - (0 if self.answers is None else self.answers.limit)
        self.pattern = Pattern(mark, suspect, left, exhaustive) if plan.signs else None

    @property
    def channels(self) -> list[Answers | Pattern]:
        """Those that have anything to ask, the cheaper first."""
        return [channel for channel in (self.answers, self.pattern) if channel is not None and channel.limit]

    def ask(self, target_e: float, progress: Callable[[int, int], None] | None = None) -> None:
        """Ask until the verdict is reached, or nothing is left."""
        channels = self.channels
        for channel in channels:
            while (units := channel.affordable(self._share(target_e))) > 0:
                channel.ask(units)
                if progress is not None:
                    progress(sum(c.queries for c in channels), sum(c.limit for c in channels))
            if not self.exhaustive and self.log10_e() - math.log10(self.keys) >= math.log10(target_e):
                return

    def _share(self, target_e: float) -> float:
        """log10 of what one channel must reach alone, for all of them together to reach the target."""
        return math.log10(target_e) + math.log10(self.keys) + math.log10(len(self.channels))

    def log10_e(self) -> float:
        """Of the average over channels; a channel that was not begun counts 1."""
        return combination.average_log10_e([channel.log10_e() for channel in self.channels])

    def verdict(self, target_e: float, step: int | None = None, look: int | None = None) -> Verdict:
        """What the answers so far are worth; `look` counts how often this key was looked at in a run."""
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
            suspect=self.suspect.description,
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
            enough=None if self.answers is None else self.answers.enough(self._share(target_e)),
            attested=None if (evidence := self.mark.public.get("evidence")) is None else _is_attested(evidence),
            parts=tuple(_part(one) for one in found) if len(found) > 1 else (),
        )


def _part(finding: Finding) -> Part:
    named = {f.name: getattr(finding, f.name) for f in dataclasses.fields(Part)}
    return Part(**named)
