"""Tests of signs that the key drew, against scores from the suspect's answers.

**The null**, everywhere below: the suspect is independent of the label key. Each sign was drawn uniformly from -1 and
+1, independently, so the distribution of any sum of signs times scores is known exactly given the scores, whatever
their origin. All tests are one-sided. Probabilities and e-values are base-10 logarithms (float64).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp

from wmplug.errors import StatisticsError
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.statistics.draws import log_convolution, log_sf

_LN10 = math.log(10.0)
_RESOLUTION = 50  # rms of integer weights
_LARGEST_SUM = 1 << 17  # of absolute weights; beyond it the resolution falls, so that the test stays quick
# Bets relative to the rms of the weights: from one decade in 10,000 signs to certainty in a few.
_BETS = np.geomspace(0.01, 4.0, 48)


def weights_of(scores: FloatArray) -> IntArray:
    """Scores as integer weights, of root mean square 50 (less where there are very many).

    Args:
        scores: any shape, finite; a function of the suspect's answers and of nothing that the label key drew.

    Returns:
        The same shape; all zero where the scores are.

    Raises:
        StatisticsError: a score is not finite.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise StatisticsError("scores must be finite: drop failed queries by a rule that does not see the key")
    largest = float(np.abs(scores).max(initial=0.0))
    if largest == 0.0:
        return np.zeros(scores.shape, np.int64)
    relative = scores / largest
    scale = _RESOLUTION / math.sqrt(float(np.square(relative).mean()))
    scale = min(scale, _LARGEST_SUM / float(np.abs(relative).sum()))
    return np.rint(scale * relative).astype(np.int64)


def weighted_log10_p(weights: IntArray, signs: IntArray) -> float:
    """Exact tail of ``T = sum_i signs[i] weights[i]``: log10 P(T* >= T) over independent fair signs T*.

    By dynamic programming over the integers. Rigorous for any weights that the suspect's answers alone determine.

    Args:
        weights: ``(n,)`` integers, as `weights_of` makes them.
        signs: ``(n,)`` -1 or +1, drawn by the label key.

    Returns:
        log10 of the p-value, finite and at most 0; 0.0 where all weights are zero.

    Raises:
        StatisticsError: the shapes differ, weights are not integers, or a sign is neither -1 nor +1.
    """
    weights, signs = _check_weights(weights, signs)
    # A sign that agrees with its weight counts |w| instead of -|w|: counted from the bottom in halves, |w| or 0.
    sizes = np.sort(np.abs(weights[weights != 0])).tolist()  # the small first: sums stay short for longer
    half = math.log(0.5)
    agreeing = int(np.abs(weights)[weights * signs > 0].sum())
    return log_sf(log_convolution({0: half, size: half} for size in sizes), agreeing) / _LN10


def weighted_ps(weights: IntArray, signs: IntArray) -> FloatArray:
    """The p-value of `weighted_log10_p` for many vectors of signs at once.

    Args:
        weights: ``(n,)`` integers.
        signs: ``(keys, n)`` -1 or +1.

    Returns:
        ``(keys,)`` p-values, 0.0 below the smallest float.
    """
    sizes, half = np.abs(weights), math.log(0.5)
    log_pmf = log_convolution({0: half, size: half} for size in sizes[sizes > 0].tolist())
    tail = np.logaddexp.accumulate(log_pmf[::-1])[::-1]
    return np.asarray(np.exp(np.minimum(tail, 0.0))[(signs * weights > 0) @ sizes], np.float64)


def weighted_log10_e(weights: IntArray, signs: IntArray) -> float:
    """E-value of ``T = sum_i signs[i] weights[i]``, log10.

    A bet l is worth ``exp(l T) / prod_i cosh(l weights[i])``, which has expectation exactly 1 under the null; fixed
    bets are mixed in equal parts. It is an e-value for one set of answers: looks at growing sets share the signs and
    must be averaged or discounted, never multiplied.

    Args:
        weights: as in `weighted_log10_p`.
        signs: the same.

    Returns:
        log10 of the e-value; 0.0 where all weights are zero.

    Raises:
        StatisticsError: as in `weighted_log10_p`.
    """
    weights, signs = _check_weights(weights, signs)
    if not weights.any():
        return 0.0
    relative = weights / math.sqrt(float(np.square(weights, dtype=np.float64).mean()))
    bets = _BETS[:, None] * relative
    # log cosh x without overflow
    wealth = (bets * signs - np.logaddexp(bets, -bets) + math.log(2.0)).sum(axis=1)
    return float(logsumexp(wealth) - math.log(len(_BETS))) / _LN10


def _check_weights(weights: IntArray, signs: IntArray) -> tuple[IntArray, IntArray]:
    weights, signs = np.asarray(weights), np.asarray(signs)
    if weights.ndim != 1 or weights.shape != signs.shape:
        raise StatisticsError(f"weights {weights.shape} and signs {signs.shape} must both have one shape (n,)")
    if weights.dtype.kind not in "iu":
        raise StatisticsError(f"weights have dtype {weights.dtype}: integers are needed, weights_of(scores) makes them")
    if not (np.abs(signs) == 1).all():
        raise StatisticsError("signs must be -1 or +1: draw them from the label key")
    return weights.astype(np.int64), signs.astype(np.int64)
