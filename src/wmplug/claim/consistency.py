"""Whether the numbers of a verdict can come from its own counts.

Who writes a verdict by hand, or edits one, chooses its numbers. The counts determine the e-value and the p-value where
each draw has one answer and all draws have one number of candidates, and bound them elsewhere. So a verdict that says
more than its counts is found out; one whose counts are invented is not. The null is that of `statistics.draws`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from wmplug.claim.channels import WITH_SCORES as SCORES
from wmplug.claim.verdict import Part, Verdict
from wmplug.errors import StatisticsError
from wmplug.statistics import betting, combination, draws

_IN_SET, _GROUP, _PROCESS = "exact in-set", "exact group", "anytime e-process"
_SIGNS, _STAGES = "exact weighted signs", "anytime weighted signs"
_CHOICES = {_IN_SET: False, _GROUP: False, _PROCESS: True}
_ANYTIME = {
    **_CHOICES,
    **{f"{name}{SCORES}": anytime for name, anytime in _CHOICES.items()},
    _SIGNS: False,
    _STAGES: True,
}
_COUNTED = 10**6  # answers; beyond it the tail is bounded instead of summed
_MOST = 10**12  # for any count
_TWICE = math.log10(2)
_CLOSE = 1e-6  # relative, beyond 1: the last digits depend on libm


@dataclass(frozen=True)
class _Limits:
    """Lowest and highest log10 of the e-value and of the p-value of one channel."""

    log10_e: tuple[float, float]
    log10_p: tuple[float, float]


def contradictions(verdict: Verdict) -> list[str]:
    """What in a verdict cannot be, each with the numbers; empty if the counts bear all of it out.

    Args:
        verdict: a verdict from any source.
    """
    try:
        if found := list(_counts(verdict)):
            return found
        weights = [*([0.0] if verdict.looks == 1 else []), _weight(verdict.looks)]  # a single test has no weight
        return min((list(_numbers(verdict, weight)) for weight in weights), key=len)
    except (TypeError, ValueError, ArithmeticError, StatisticsError) as error:
        return [f"its numbers cannot be compared ({type(error).__name__}: {error})"]


def _weight(look: int) -> float:
    return float(combination.weighted_log10(0.0, look))


def _counts(verdict: Verdict) -> Iterator[str]:
    parts = _parts(verdict)
    if unknown := [part.test for part in parts if part.test not in _ANYTIME]:
        yield f"test {unknown[0]!r} is none of wmplug's"
        return
    asked = [part.test for part in parts if part.queries]
    if verdict.parts and verdict.test != (test := f"twice the smaller p of {' and '.join(asked)}"):
        yield f"test {verdict.test!r} is not that of its parts, {test!r}"
    anytime = {_ANYTIME[part.test] for part in parts}
    if anytime != {verdict.p_is == "anytime"}:
        yield f"p_is {verdict.p_is!r} does not fit the test {verdict.test!r}"
    if min(verdict.looks, verdict.keys) < 1:
        yield f"{verdict.looks} looks and {verdict.keys} keys: both are counted from 1"
    if verdict.queries > verdict.triggers:
        yield f"{verdict.queries} queries of a set of {verdict.triggers} triggers"
    if verdict.enough is not None and not 1 <= verdict.enough <= verdict.queries:
        yield f"{verdict.enough} queries were enough, of {verdict.queries}"
    if largest := [n for n in (verdict.triggers, verdict.draws, *verdict.candidates) if n > _MOST]:
        yield f"{largest[0]} is more than any test has"
    if verdict.candidates and verdict.candidates[0] < 2:
        yield f"{verdict.candidates[0]} candidates: a draw has 2 or more"
    for name in ("queries", "failed"):
        if sum(getattr(part, name) for part in parts) != getattr(verdict, name):
            yield f"{getattr(verdict, name)} {name}, and its parts have others"
    if (parts[0].of, parts[0].matches) != (verdict.in_set, verdict.matches):
        yield f"{verdict.matches} of {verdict.in_set}, and its first part has {parts[0].matches} of {parts[0].of}"
    for i, part in enumerate(parts):
        yield from _counts_of(part, verdict.draws if i == 0 else None, verdict.candidates)


def _parts(verdict: Verdict) -> tuple[Part, ...]:
    """The results of its channels; of a single one, with the e-value and the p-value of the verdict."""
    own = Part(
        test=verdict.test,
        queries=verdict.queries,
        failed=verdict.failed,
        of=verdict.in_set,
        matches=verdict.matches,
        log10_e=verdict.log10_e,
        log10_p=verdict.log10_p,
    )
    for part in verdict.parts:
        whole = (part.queries, part.failed, part.of, part.matches)
        if not all(isinstance(n, int) and n >= 0 for n in whole):
            raise TypeError(f"counts {whole} of a part")
        if not math.isfinite(part.log10_e) or not part.log10_p <= 0.0:
            raise ValueError(f"log10_e = {part.log10_e}, log10_p = {part.log10_p} of a part")
    return verdict.parts or (own,)


def _counts_of(part: Part, drawn: int | None, candidates: tuple[int, ...]) -> Iterator[str]:
    signs = part.test in (_SIGNS, _STAGES)
    if not part.matches <= part.of or not part.failed <= part.queries:
        yield f"{part.matches} matches of {part.of}, {part.failed} of {part.queries} queries failed"
    if not signs and part.of > part.queries - part.failed:
        yield f"{part.of} answers to {part.queries} queries, {part.failed} of them failed"
    if drawn is not None and not part.test.startswith(_GROUP) and part.of > drawn:
        yield f"{part.of} {'signs' if signs else 'answers'} of {drawn} draws"
    if not signs and drawn is not None and drawn > part.queries:
        yield f"{drawn} draws in {part.queries} queries"
    if part.of and not candidates:
        yield f"{part.of} answers among no candidates"


def _numbers(verdict: Verdict, weight: float) -> Iterator[str]:
    """Contradictions of e-value and p-value, if this weight of a look went into the e-value."""
    parts, tried = _parts(verdict), math.log10(verdict.tries)
    average, shared = verdict.log10_e + tried - weight, math.log10(len(parts)) + tried
    for i, part in enumerate(parts):
        own = part if verdict.parts else replace(part, log10_e=average)
        limits = _limits(own, verdict.draws if i == 0 else None, verdict.candidates)
        stated = "log10_e" if own.log10_e == part.log10_e else "log10_e before its discounts"
        yield from _outside(stated, own.log10_e, limits.log10_e, own)
        if verdict.parts:
            yield from _outside("log10_p", own.log10_p, limits.log10_p, own)
        else:
            low, high = (min(0.0, one + tried) for one in limits.log10_p)
            yield from _outside("log10_p", verdict.log10_p, (low, high), own)
    if verdict.parts:
        mean = combination.average_log10_e([part.log10_e for part in parts])
        if not _close(average, mean):
            yield f"log10_e = {verdict.log10_e:.6g} is not the average of its parts after {verdict.tries} tries"
        smaller = min(0.0, min(part.log10_p for part in parts) + shared)
        if not _close(verdict.log10_p, smaller):
            yield f"log10_p = {verdict.log10_p:.6g} does not follow from its parts, which give {smaller:.6g}"
    yield from _enough(verdict, parts[0], math.log10(verdict.target_e) + shared)


def _limits(part: Part, drawn: int | None, candidates: tuple[int, ...]) -> _Limits:
    """What the counts of a channel leave room for, before all discounts."""
    n, h = part.of, part.matches
    if part.test == _SIGNS:  # no bet wins more than twice the stake on a sign, and p is that of these signs at least
        return _Limits((-math.inf, h * math.log10(2)), (-h * math.log10(2), 0.0))
    if part.test == _STAGES:  # an earlier stage may have had other signs; of a second channel their number is unknown
        most = math.inf if drawn is None else drawn * math.log10(2)
        return _Limits((-math.inf, most), (last := -max(0.0, min(part.log10_e, most)), last))
    fewest, most_k = (candidates[0], candidates[-1]) if candidates else (2, 2)
    if part.test.endswith(SCORES):
        return _scored(part, n if drawn is None else drawn, candidates)
    if part.test == _GROUP or n > _COUNTED:  # a draw is worth its number of candidates at most
        best = min(h, n if drawn is None else drawn) * math.log10(most_k)
        return _Limits((-math.inf, best), (-best, 0.0))
    # A match is worth more, and is rarer, the more candidates there are; a miss costs the same.
    low_e, high_e = (betting.log10_e_of(h, n, k) for k in (fewest, most_k))
    if part.test == _PROCESS:  # the highest point lies between the last, and that of all matches first
        top, last = betting.log10_e_of(h, h, most_k), min(part.log10_e, high_e)
        return _Limits((low_e, high_e), (-max(0.0, top), -max(0.0, last)))
    low_p, high_p = (draws.log10_binomial_sf(h, n, 1 / k) for k in (most_k, fewest))
    return _Limits((low_e, high_e), (low_p, high_p))


def _scored(part: Part, drawn: int, candidates: tuple[int, ...]) -> _Limits:
    """Of what scores add, the counts tell the most alone; half of the e-value, and twice the p-value, are theirs."""
    alone = _limits(replace(part, test=part.test.removesuffix(SCORES)), drawn, candidates)
    most = drawn * math.log10(candidates[-1]) if candidates else 0.0
    least, last = alone.log10_e[0] - _TWICE, -max(0.0, min(part.log10_e, most))
    most_p = last if part.test.startswith(_PROCESS) else min(0.0, alone.log10_p[1] + _TWICE)
    return _Limits((least, most), (-most, most_p))


def _enough(verdict: Verdict, part: Part, target: float) -> Iterator[str]:
    """Whether the e-value can have reached its target after so many queries."""
    if verdict.enough is None:
        return
    worth = verdict.enough if part.test.endswith(SCORES) else min(verdict.enough, part.matches)
    best = worth * math.log10(max(verdict.candidates, default=1))
    if best < target - _CLOSE * max(1.0, target):
        yield f"{verdict.enough} queries were enough for log10_e = {target:.6g}, and allow {best:.6g} at most"


def _outside(name: str, value: float, limits: tuple[float, float], part: Part) -> Iterator[str]:
    low, high = limits
    if low <= value <= high or _close(value, low) or _close(value, high):
        return
    room = f"{low:.6g}" if _close(low, high) else f"{max(low, -1e308):.6g} to {high:.6g}"
    room = f"at most {high:.6g}" if math.isinf(low) else room
    yield f"{name} = {value:.6g} of {part.test}, and {part.matches} matches of {part.of} give {room}"


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_CLOSE, abs_tol=_CLOSE)
