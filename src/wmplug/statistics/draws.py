"""How surprising a suspect's answers are, if it never met the owner's label key.

**The null**, everywhere below: the suspect is independent of the label key. Each secret symbol was drawn uniformly
from its ``k`` candidates, so the distribution of the matches given the suspect's answers is known exactly, however
biased or correlated those answers are. All tests are one-sided: matches beyond chance.

**The unit is a draw**: one secret symbol, with the one or several queries whose answers it decides. The samples of one
draw are never counted as independent of each other.

Probabilities and e-values come as base-10 logarithms (float64), because a p-value of 1e-5000 is no float.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from wmplug.errors import StatisticsError

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_LN10 = math.log(10.0)
# 128 Gauss-Legendre nodes integrate polynomials up to degree 255 exactly: the mixture over bets is then the closed form
# of the uniform prior for up to 255 one-query draws. Beyond that it stays an exact e-process, as any fixed weights do.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(128)
_BETS: FloatArray = (_POINTS + 1.0) / 2.0
_LOG_WEIGHTS: FloatArray = np.log(_WEIGHTS / _WEIGHTS.sum())


@dataclass(frozen=True)
class DrawResult:
    """What the statistics see of one draw, once all of its queries are answered.

    Attributes:
        symbol: index of the secret candidate, in ``range(k)``.
        counts: ``(k,)`` how many of the suspect's answers were candidate s; answers outside the candidates are not
            counted, and all zeros means that no answer was among them.

    Raises:
        StatisticsError: fewer than two candidates, a negative count, or a symbol that is not among the candidates.
    """

    symbol: int
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        """Reject what no draw can produce."""
        try:
            counts = tuple(map(operator.index, self.counts))
            symbol = operator.index(self.symbol)
        except TypeError as error:
            raise StatisticsError(
                f"a draw needs an integer symbol and integer counts, got {self!r}: pass counts, not scores"
            ) from error
        if len(counts) < 2:
            raise StatisticsError(f"a draw from {len(counts)} candidate(s) proves nothing: give at least 2")
        if min(counts) < 0:
            raise StatisticsError(f"counts are numbers of answers, got {counts}: none may be negative")
        if not 0 <= symbol < len(counts):
            raise StatisticsError(f"symbol {symbol} is not among {len(counts)} candidates: it is an index into counts")
        object.__setattr__(self, "counts", counts)
        object.__setattr__(self, "symbol", symbol)

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


def log10_poisson_binomial_sf(h: int, p: Sequence[float]) -> float:
    """Upper tail of a Poisson-binomial distribution, log10 P(X >= h), X a sum of independent Bernoulli(p_i).

    Under the null this is the chance of h or more matches where the number of candidates differs (p_i = 1/k_i,
    one-sided). Follows the direct convolution in Hong 2013, in log space.

    Args:
        h: matches, at most len(p); zero or less gives 0.0 (p = 1).
        p: ``(n,)`` chances of a match under the null, each in (0, 1).

    Returns:
        log10 of the probability, finite and at most 0.

    Raises:
        StatisticsError: h > n or a chance outside (0, 1).
    """
    _check_tail(h, len(p))
    chances = np.asarray(p, dtype=np.float64)
    _check_chances(chances)
    parts = ({0: math.log1p(-chance), 1: math.log(chance)} for chance in chances.tolist())
    return log_sf(log_convolution(parts), h) / _LN10


def log10_p(draws: Sequence[DrawResult]) -> float:
    """Exact in-set test over draws (exact group test where a draw has several queries).

    The statistic is T, the matches summed over draws. Given the answers, the null makes each draw contribute
    ``counts[s]`` with probability 1/k for each s, independently; p = P(T* >= T) (one-sided), by convolution. With one
    query a draw this is the binomial tail, or the Poisson-binomial (Hong 2013) where k differs. Draws without an
    in-set answer drop out. To stop early on this p voids it: use `log10_e_path` for that.

    Args:
        draws: completed draws, in any order.

    Returns:
        log10 of the p-value, finite and at most 0; 0.0 for no draws.
    """
    informative = [draw for draw in draws if any(draw.counts)]
    observed = sum(draw.matches for draw in informative)
    if len({draw.k for draw in informative}) == 1 and all(draw.in_set == 1 for draw in informative):
        return log10_binomial_sf(observed, len(informative), 1.0 / informative[0].k)
    return log_sf(log_convolution(_log_part(draw.counts) for draw in informative), observed) / _LN10


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


# E-process: valid at any stopping time


def log10_e_path(draws: Sequence[DrawResult]) -> FloatArray:
    """E-process after each draw, a test martingale under the null (one-sided).

    A bet a > 1 multiplies its wealth by ``k a^counts[symbol] / sum_s a^counts[s]``, which has expectation exactly 1
    when the symbol is uniform. Bets are parametrised by the success probability p that they are best for,
    ``a = p (k-1) / (1-p)``, and mixed uniformly over p in (1/k, 1). For one query a draw and equal k this is
    ``integral of p^h (1-p)^(n-h) dp / (1-1/k)`` over the chance of the same answers.

    By Ville's inequality (Ville 1939) the chance that the path ever reaches 1/alpha is at most alpha, so one may stop
    there. It may be looked at **after whole draws only**: inside a group that is only partly asked, the counts so far
    are no martingale step, and a maximum over them voids the bound.

    Args:
        draws: completed draws in the order in which they were asked, fixed without a look at the answers.

    Returns:
        ``(len(draws),)`` float64, log10 of the e-value after each draw.
    """
    return _log_mixture(np.cumsum(_log_factors(draws), axis=0)) / _LN10


def log10_e(draws: Sequence[DrawResult]) -> float:
    """E-value after all draws: the last of `log10_e_path`, under the same null and side.

    Args:
        draws: completed draws.

    Returns:
        log10 of the e-value; 0.0 (an e-value of 1) for no draws.
    """
    return float(_log_mixture(_log_factors(draws).sum(axis=0)[None, :])[0]) / _LN10 if draws else 0.0


def fewest_to(draws: Sequence[DrawResult], target_log10: float, remaining: Sequence[tuple[int, int]]) -> int | None:
    """How many of the next draws are needed at least until the e-value reaches a target.

    The best case: every answer to come is the secret symbol. Asking that many at once therefore never asks more than
    one-by-one would, which is how sequential queries are batched.

    Args:
        draws: completed draws.
        target_log10: log10 of the e-value to reach.
        remaining: ``(k, size)`` of each draw to come, in order: its candidates and its queries.

    Returns:
        A number of draws in ``range(len(remaining) + 1)``; 0 if the target is reached already; None if not even all
        of them can be enough.

    Raises:
        StatisticsError: k < 2 or size < 0 in remaining.
    """
    best = [DrawResult(0, (size,) + (0,) * (k - 1)) for k, size in remaining]
    now = _log_factors(draws).sum(axis=0)
    wealth = np.cumsum(np.vstack([now, _log_factors(best)]), axis=0)
    reached = np.flatnonzero(_log_mixture(wealth) >= target_log10 * _LN10)
    return int(reached[0]) if reached.size else None


def _log_factors(draws: Sequence[DrawResult]) -> FloatArray:
    """What each draw multiplies each bet's wealth by: (len(draws), bets), natural log."""
    factors: dict[DrawResult, FloatArray] = {}
    for draw in draws:
        if draw not in factors:
            factors[draw] = _log_factor(draw)
    return np.array([factors[draw] for draw in draws], dtype=np.float64).reshape(len(draws), _BETS.size)


def _log_factor(draw: DrawResult) -> FloatArray:
    log_a = np.log1p(_BETS * (draw.k - 1)) - np.log1p(-_BETS)
    total = np.full(_BETS.size, -np.inf)
    for value, times in Counter(draw.counts).items():
        total = np.logaddexp(total, math.log(times) + value * log_a)
    return np.asarray(math.log(draw.k) + draw.matches * log_a - total, dtype=np.float64)


def _log_mixture(log_wealth: FloatArray) -> FloatArray:
    return np.asarray(np.logaddexp.reduce(log_wealth + _LOG_WEIGHTS, axis=1), dtype=np.float64)
