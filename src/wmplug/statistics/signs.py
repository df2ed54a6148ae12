"""Tests of signs that the key drew, against scores that the suspect's answers gave.

**The null**, everywhere below: the suspect is independent of the label key. Each sign was drawn uniformly from -1 and
+1, independently, so the distribution of any sum of signs times scores is known exactly given the scores, however these
came about. All tests are one-sided. Probabilities and e-values come as base-10 logarithms (float64).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import logsumexp

from wmplug.errors import StatisticsError
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.statistics.draws import log10_binomial_sf, log_convolution, log_sf

_LN10 = math.log(10.0)
_BLOCK = 1 << 22
_RESOLUTION = 50  # rms of integer weights
_LARGEST_SUM = 1 << 17  # of absolute weights; beyond it the resolution is lowered, so that the test stays quick
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
        StatisticsError: shapes differ, weights are no integers, or signs are others.
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
        ``(keys,)`` p-values, 0.0 where they are no float.
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


def sign_test(scores: FloatArray, signs: FloatArray, *, resamples: int = 9999, rng: np.random.Generator) -> float:
    """Randomisation test of continuous scores against signs that the key drew.

    The statistic is ``T = sum_i signs[i] scores[i]``. Under the null the signs are uniform given the scores, so T is
    one of ``resamples + 1`` exchangeable values; p = (1 + #{T* >= T}) / (resamples + 1), one-sided (Fisher 1935). It
    cannot go below ``1 / (resamples + 1)``: see `sign_binomial_log10` for small p.

    Args:
        scores: ``(n,)`` float64, finite; centred by a rule that does not see the signs.
        signs: ``(n,)`` values -1 or +1.
        resamples: number of random sign vectors.
        rng: source of the random signs, independent of the key.

    Returns:
        p-value in (0, 1].

    Raises:
        StatisticsError: shapes differ, scores that are not finite, signs other than -1 and +1, or resamples < 1.
    """
    scores, signs = _check_signs(scores, signs)
    if resamples < 1:
        raise StatisticsError(f"resamples = {resamples} leaves nothing to compare with: give at least 1")
    rows = max(1, _BLOCK // max(1, scores.size))
    sums = [
        (2.0 * rng.integers(0, 2, size=(min(rows, resamples - done), scores.size), dtype=np.int8) - 1.0) @ scores
        for done in range(0, resamples, rows)
    ]
    # Sums of the same numbers differ in their last bits with the order of summation: such a tie must count against us.
    slack = 1e-12 * float(np.abs(scores).sum())
    return decoy_p(float(signs @ scores) - slack, np.concatenate(sums))


def sign_binomial_log10(scores: FloatArray, signs: FloatArray) -> float:
    """Sign test of continuous scores against signs that the key drew, log10 P(X >= agreements), X ~ Bin(n, 1/2).

    Under the null each non-zero score agrees with its sign with probability 1/2, independently (one-sided). Zero
    scores drop out. No floor, so this is the test where a small p is needed.

    Args:
        scores: ``(n,)`` float64, finite; centred by a rule that does not see the signs.
        signs: ``(n,)`` values -1 or +1.

    Returns:
        log10 of the p-value, at most 0.

    Raises:
        StatisticsError: shapes differ, scores that are not finite or signs other than -1 and +1.
    """
    scores, signs = _check_signs(scores, signs)
    agree = int(np.count_nonzero(np.sign(scores) == signs))
    return log10_binomial_sf(agree, int(np.count_nonzero(scores)), 0.5)


def _check_signs(scores: FloatArray, signs: FloatArray) -> tuple[FloatArray, FloatArray]:
    scores, signs = np.asarray(scores, dtype=np.float64), np.asarray(signs, dtype=np.float64)
    if scores.ndim != 1 or scores.shape != signs.shape:
        raise StatisticsError(f"scores {scores.shape} and signs {signs.shape} must both have one shape (n,)")
    if not np.isfinite(scores).all():
        raise StatisticsError("scores must be finite: drop failed queries by a rule that does not see the key")
    if not (np.abs(signs) == 1.0).all():
        raise StatisticsError("signs must be -1 or +1: draw them from the label key")
    return scores, signs


def decoy_p(observed: float, decoys: FloatArray) -> float:
    """P-value of any statistic against the same statistic under decoy label keys.

    Under the null the owner's key and R decoys from the same generator are exchangeable, so
    p = (1 + #{decoys >= observed}) / (R + 1), one-sided (Barnard 1963; Phipson & Smyth 2010). Never below 1/(R+1).

    Args:
        observed: the statistic under the owner's key.
        decoys: ``(R,)`` float64, the statistic under each decoy key.

    Returns:
        p-value in (0, 1].

    Raises:
        StatisticsError: a NaN, or decoys that are not one-dimensional.
    """
    decoys = np.asarray(decoys, dtype=np.float64)
    if decoys.ndim != 1 or math.isnan(observed) or bool(np.isnan(decoys).any()):
        raise StatisticsError(f"decoys of shape {decoys.shape} must be (R,), and no statistic may be NaN")
    return (1 + int(np.count_nonzero(decoys >= observed))) / (decoys.size + 1)
