"""E-process over draws: a bet on the suspect that you may look at, and stop, after every draw.

The null is that of `draws`: the suspect is independent of the label key, one-sided. E-values are base-10 logarithms.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from wmplug.statistics.arrays import FloatArray
from wmplug.statistics.draws import _LN10, DrawResult

# 128 Gauss-Legendre nodes integrate polynomials up to degree 255 exactly: the mixture over bets is then the closed form
# of the uniform prior for up to 255 one-query draws. Beyond that it stays an exact e-process, as any fixed weights do.
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(128)


_BETS: FloatArray = (_POINTS + 1.0) / 2.0


_LOG_WEIGHTS: FloatArray = np.log(_WEIGHTS / _WEIGHTS.sum())


# E-process: valid at any stopping time


def log10_e_path(*tests: Sequence[DrawResult]) -> FloatArray:
    """E-process after each draw, a test martingale under the null (one-sided).

    A bet a > 1 multiplies its wealth by ``k a^counts[symbol] / sum_s a^counts[s]``, which has expectation exactly 1
    when the symbol is uniform. Bets are parametrised by the success probability p that they are best for,
    ``a = p (k-1) / (1-p)``, and mixed uniformly over p in (1/k, 1). For one query a draw and equal k this is
    ``integral of p^h (1-p)^(n-h) dp / (1-1/k)`` over the chance of the same answers.

    By Ville's inequality (Ville 1939) the chance that the path ever reaches 1/alpha is at most alpha, so you may stop
    there. Look at it **after whole draws only**: inside a partly asked group, the counts so far are not a martingale
    step, and a maximum over them voids the bound.

    Args:
        *tests: completed draws in the order in which they were asked, fixed without a look at the answers. If the same
            draws come more than once, counted in several ways, the result is the average, a test martingale as well.

    Returns:
        ``(draws,)`` float64, log10 of the e-value after each draw.
    """
    return _average([np.cumsum(_log_factors(draws), axis=0) for draws in tests]) / _LN10


def log10_e(*tests: Sequence[DrawResult]) -> float:
    """E-value after all draws: the last of `log10_e_path`, under the same null and side.

    Args:
        *tests: completed draws, once or more often.

    Returns:
        log10 of the e-value; 0.0 (an e-value of 1) for no draws.
    """
    if not any(tests):
        return 0.0
    return float(_average([_log_factors(draws).sum(axis=0)[None, :] for draws in tests])[0]) / _LN10


def log10_e_of(matches: int, answers: int, k: int) -> float:
    """`log10_e` where each draw has one query and `k` candidates: the counts alone determine it.

    Args:
        matches: answers that were the secret symbol, at most `answers`.
        answers: answers among the candidates.
        k: number of candidates.

    Returns:
        log10 of the e-value; 0.0 for no answers.
    """
    if not answers:
        return 0.0
    wealth = matches * np.log1p(_BETS * (k - 1)) + (answers - matches) * np.log1p(-_BETS)
    return float(_log_mixture(wealth[None, :])[0]) / _LN10


def fewest_to(
    tests: Sequence[Sequence[DrawResult]], target_log10: float, remaining: Sequence[tuple[int, int]]
) -> int | None:
    """The smallest number of further draws after which the e-value can reach a target.

    In the best case, every answer to come is the secret symbol. A batch of that many draws therefore never asks more
    than one-by-one queries would.

    Args:
        tests: completed draws, once or more often, as `log10_e` takes them.
        target_log10: log10 of the e-value to reach.
        remaining: ``(k, size)`` of each draw to come, in order: its candidates and its queries.

    Returns:
        A number of draws in ``range(len(remaining) + 1)``; 0 if the e-value has reached the target already; None if
        all of them together cannot be enough.

    Raises:
        StatisticsError: k < 2 or size < 0 in remaining.
    """
    best = [DrawResult(0, (size,) + (0,) * (k - 1)) for k, size in remaining]
    ahead = _log_factors(best)
    wealth = [np.cumsum(np.vstack([_log_factors(draws).sum(axis=0), ahead]), axis=0) for draws in tests]
    reached = np.flatnonzero(_average(wealth) >= target_log10 * _LN10)
    return int(reached[0]) if reached.size else None


def _log_factors(draws: Sequence[DrawResult]) -> FloatArray:
    """The factor of each draw for each bet's wealth: (len(draws), bets), natural log."""
    factors: dict[DrawResult, FloatArray] = {}
    for draw in draws:
        if draw not in factors:
            factors[draw] = _log_factor(draw)
    return np.array([factors[draw] for draw in draws], dtype=np.float64).reshape(len(draws), _BETS.size)


def _log_factor(draw: DrawResult) -> FloatArray:
    log_a = (np.log1p(_BETS * (draw.k - 1)) - np.log1p(-_BETS)) / draw.unit
    total = np.full(_BETS.size, -np.inf)
    for value, times in Counter(draw.counts).items():
        total = np.logaddexp(total, math.log(times) + value * log_a)
    return np.asarray(math.log(draw.k) + draw.matches * log_a - total, dtype=np.float64)


def _average(log_wealths: Sequence[FloatArray]) -> FloatArray:
    """The mean over tests of the mean over bets, natural log."""
    found = np.logaddexp.reduce([_log_mixture(one) for one in log_wealths], axis=0)
    return np.asarray(found - math.log(len(log_wealths)), dtype=np.float64)


def _log_mixture(log_wealth: FloatArray) -> FloatArray:
    return np.asarray(np.logaddexp.reduce(log_wealth + _LOG_WEIGHTS, axis=1), dtype=np.float64)
