"""Exact tests of a suspect's answers, under the null that it never met the owner's label key.

**The null**, everywhere below: the suspect is independent of the label key. Each secret symbol was drawn uniformly
from its ``k`` candidates, so the distribution of the matches given the suspect's answers is known exactly, however
biased or correlated those answers are. All tests are one-sided: matches beyond chance.

**The unit is a draw**: one secret symbol, with the query or queries whose answers it decides. The queries of one
draw never count as independent of each other.

Probabilities and e-values are base-10 logarithms (float64), because a float cannot hold a p-value of 1e-5000.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import gammaln

from wmplug.errors import StatisticsError
from wmplug.statistics.arrays import FloatArray

_LN10 = math.log(10.0)
_LARGEST_SUM = 1 << 14  # of answers in parts; beyond it the parts are coarser, so that the test stays quick


@dataclass(frozen=True)
class DrawResult:
    """The data of one draw for the statistics, once the suspect has answered all of its queries.

    Attributes:
        symbol: index of the secret candidate, in ``range(k)``.
        counts: ``(k,)`` how many of the suspect's answers were candidate s; answers outside the candidates do not
            count, and all zeros means that no answer was among them.
        unit: how much one answer counts: 1, or more where an answer counts in parts for several candidates.

    Raises:
        StatisticsError: there are fewer than two candidates, a count is negative, the unit is not positive, or the
            symbol is not among the candidates.
    """

    symbol: int
    counts: tuple[int, ...]
    unit: int = 1

    def __post_init__(self) -> None:
        """Reject what no draw can produce."""
        try:
            counts = tuple(map(operator.index, self.counts))
            symbol, unit = operator.index(self.symbol), operator.index(self.unit)
        except TypeError as error:
            raise StatisticsError(
                f"a draw needs an integer symbol and integer counts, got {self!r}: pass counts, not scores"
            ) from error
        if len(counts) < 2:
            raise StatisticsError(f"a draw from {len(counts)} candidate(s) proves nothing: give at least 2")
        if min(counts) < 0:
            raise StatisticsError(f"counts are numbers of answers, got {counts}: none may be negative")
        if unit < 1:
            raise StatisticsError(f"one answer counts {unit}: give 1 or more")
        if not 0 <= symbol < len(counts):
            raise StatisticsError(f"symbol {symbol} is not among {len(counts)} candidates: it is an index into counts")
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "symbol", symbol)
        object.__setattr__(self, "unit", unit)

    @property
    def k(self) -> int:
        """Number of candidates."""
        return len(self.counts)

    @property
    def in_set(self) -> int:
        """Number of answers that were among the candidates."""
        return sum(self.counts)

    @property
    def matches(self) -> int:
        """Number of answers that were the secret symbol."""
        return self.counts[self.symbol]


# Exact tests


def log10_binomial_sf(h: int, n: int, p0: float) -> float:
    """Upper tail of a binomial distribution, log10 P(X >= h) with X ~ Bin(n, p0).

    Under the null this is the chance of h or more matches in n in-set answers, each a draw of its own with k = 1/p0
    candidates (one-sided). Both tails are summed in log space, so the result keeps its relative precision both near
    p = 1 and far below the smallest float.

    Args:
        h: matches, at most n; zero or less gives 0.0 (p = 1).
        n: in-set answers.
        p0: chance of one match under the null, in (0, 1).

    Returns:
        log10 of the probability, finite and at most 0.

    Raises:
        StatisticsError: h > n, n < 0 or p0 outside (0, 1).
    """
    _check_tail(h, n)
    _check_chances(np.array([p0], dtype=np.float64))
    j = np.arange(n + 1, dtype=np.float64)
    # n! is left out: log_sf divides by the whole sum.
    log_pmf = j * math.log(p0) + (n - j) * math.log1p(-p0) - gammaln(j + 1.0) - gammaln(n - j + 1.0)
    return log_sf(np.asarray(log_pmf, dtype=np.float64), h) / _LN10


def log10_p(draws: Sequence[DrawResult]) -> float:
    """Exact in-set test over draws (exact group test where a draw has several queries).

    The statistic is T, the matches summed over draws. Given the answers, the null makes each draw contribute
    ``counts[s]`` with probability 1/k for each s, independently; p = P(T* >= T) (one-sided), by convolution. With one
    query a draw this is the binomial tail, or the Poisson-binomial (Hong 2013) where k differs. Draws without an
    in-set answer drop out. Answers that count in parts are rounded where there are very many, which keeps p exact.
    Stopping early on this p voids it: use `log10_e_path` to stop early.

    Args:
        draws: completed draws, in any order.

    Returns:
        log10 of the p-value, finite and at most 0; 0.0 for no draws.
    """
    informative = [draw for draw in _rounded(draws) if any(draw.counts)]
    observed = sum(draw.matches for draw in informative)
    if len({draw.k for draw in informative}) == 1 and all(draw.in_set == 1 for draw in informative):
        return log10_binomial_sf(observed, len(informative), 1.0 / informative[0].k)
    return log_sf(log_convolution(_log_part(draw.counts) for draw in informative), observed) / _LN10


def _rounded(draws: Sequence[DrawResult]) -> Sequence[DrawResult]:
    """The draws with coarser parts, if they add up to too much; whole answers stay as they are."""
    whole = sum(max(draw.counts) for draw in draws)
    if whole <= _LARGEST_SUM or any(draw.unit == 1 for draw in draws):
        return draws
    scale = _LARGEST_SUM / whole
    return [replace(draw, counts=tuple(round(scale * count) for count in draw.counts)) for draw in draws]


def _log_part(counts: tuple[int, ...]) -> dict[int, float]:
    return {value: math.log(times / len(counts)) for value, times in Counter(counts).items()}


def log_convolution(parts: Iterable[Mapping[int, float]]) -> FloatArray:
    """Log distribution of a sum of independent parts.

    Args:
        parts: each a mapping from a value (0 or more) to its natural log probability.

    Returns:
        ``(largest sum + 1,)`` natural log of the probability of each sum.
    """
    total = np.zeros(1)
    for part in parts:
        wider = np.full(total.size + max(part), -np.inf)
        for number, (value, log_chance) in enumerate(part.items()):
            window = wider[value : value + total.size]
            if number:
                np.logaddexp(window, total + log_chance, out=window)
            else:  # nothing is there yet
                np.add(total, log_chance, out=window)
        total = wider
    return total


def log_sf(log_pmf: FloatArray, h: int) -> float:
    """Upper tail, natural log of P(X >= h).

    Args:
        log_pmf: ``(n,)`` natural log of the chance of each value; needs no normalisation.
        h: zero or less gives 0.0.
    """
    if h <= 0:
        return 0.0
    lower, upper = np.logaddexp.reduce(log_pmf[:h]), np.logaddexp.reduce(log_pmf[h:])
    # From the ratio of the tails: exact to the last digits on both sides, and never above 0.
    return 0.0 - float(np.logaddexp(0.0, lower - upper))


def _check_tail(h: int, n: int) -> None:
    if n < 0 or h > n:
        raise StatisticsError(f"{h} matches in {n} answers cannot be: give matches <= answers and answers >= 0")


def _check_chances(p: FloatArray) -> None:
    if p.ndim != 1 or not bool(np.all((p > 0.0) & (p < 1.0))):
        raise StatisticsError(f"a chance of a match lies in (0, 1), got {p}: use 1/k with k >= 2 candidates")
