"""Several looks, channels and suspects: how single results make one claim without lying.

Probabilities and e-values come as base-10 logarithms (float64), as in `statistics`; the null is the one stated there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.special import gammaln, log_ndtr, ndtri_exp

from wmplug.errors import StatisticsError
from wmplug.statistics.arrays import BoolArray, FloatArray

_LN10 = math.log(10.0)


def weighted_log10(log10_e: FloatArray | float, look: FloatArray | int) -> FloatArray:
    """log10 of an e-value times ``6 / (pi^2 look^2)``, the weight of look number `look`; see `monitor_log10`.

    Args:
        log10_e: log10 of the e-value, or of several.
        look: its number, the first look 1, or as many numbers.
    """
    return np.asarray(log10_e - 2.0 * np.log10(look) + math.log10(6.0 / math.pi**2))


def monitor_log10(log10_e_values: Sequence[float]) -> float:
    """Evidence over repeated looks with one key: log10 of ``S_t = sum_u 6 / (pi^2 u^2) E_u``.

    The weights sum to 1 over all looks, and each E_u has expectation at most 1 under the null, so by Markov's
    inequality the chance that S_t ever reaches 1/alpha is at most alpha, whatever the dependence between looks (S_t
    only grows). E-values that reuse triggers must never be multiplied (Vovk & Wang 2021).

    Args:
        log10_e_values: log10 of the e-value of each look, the first look first; -inf is an e-value of 0.

    Returns:
        log10 of S_t.

    Raises:
        StatisticsError: no looks, or a value that is NaN or +inf.
    """
    values = _check_log10_e(log10_e_values)
    looks = np.arange(1, values.size + 1, dtype=np.float64)
    return float(np.logaddexp.reduce(weighted_log10(values, looks) * _LN10)) / _LN10


def average_log10_e(log10_es: Sequence[float]) -> float:
    """Mean of e-values that share a key: an e-value under any dependence (Vovk & Wang 2021).

    Args:
        log10_es: log10 of each e-value; -inf is an e-value of 0.

    Returns:
        log10 of the mean.

    Raises:
        StatisticsError: no values, or one that is NaN or +inf.
    """
    values = _check_log10_e(log10_es)
    return (float(np.logaddexp.reduce(values * _LN10)) - math.log(values.size)) / _LN10


def combine_log10_p(log10_ps: Sequence[float], method: Literal["fisher", "stouffer", "tippett"] = "fisher") -> float:
    """One p-value from independent channels, each with its own HKDF subkey.

    The methods of `scipy.stats.combine_pvalues` in log space, because that returns 0 where a p-value is no float. The
    null is that every channel's null holds; each p is one-sided and may be conservative. Channels that share a key are
    not independent: use `average_log10_e`.

    Args:
        log10_ps: log10 of each p-value, finite and at most 0.
        method: "fisher" (Fisher 1932), "stouffer" (equal weights) or "tippett" (the smallest p).

    Returns:
        log10 of the combined p-value, finite and at most 0.

    Raises:
        StatisticsError: no p-values, one that is no log10 of a p-value in (0, 1], or an unknown method.
    """
    log_ps = _check_log10_p(log10_ps) * _LN10
    if not log_ps.size:
        raise StatisticsError("no p-values to combine: give at least one")
    if method == "fisher":
        log_p = _log_fisher(log_ps)
    elif method == "stouffer":
        log_p = float(log_ndtr(np.sum(ndtri_exp(log_ps)) / math.sqrt(log_ps.size)))
    elif method == "tippett":
        log_p = _log_tippett(float(log_ps.min()), log_ps.size)
    else:
        raise StatisticsError(f"unknown method {method!r}: use 'fisher', 'stouffer' or 'tippett'")
    return min(0.0, log_p / _LN10)


def _log_fisher(log_ps: FloatArray) -> float:
    """Chi-squared tail with 2m degrees of freedom, which is a finite (Erlang) sum."""
    x = 0.0 - float(log_ps.sum())
    if x == 0.0:
        return 0.0
    j = np.arange(log_ps.size, dtype=np.float64)
    return float(np.logaddexp.reduce(j * math.log(x) - gammaln(j + 1.0))) - x


def _log_tippett(log_smallest: float, m: int) -> float:
    if log_smallest < -600.0:
        return log_smallest + math.log(m)
    tail = m * math.log1p(-math.exp(log_smallest)) if log_smallest < 0.0 else -math.inf
    return math.log(-math.expm1(tail))


def holm(log10_ps: Sequence[float], alpha: float) -> BoolArray:
    """Which suspects may be accused, with familywise error at most alpha under any dependence (Holm 1979).

    In log space, because `statsmodels.stats.multitest.multipletests` cannot take p < 1e-308.

    Args:
        log10_ps: ``(m,)`` log10 of each suspect's p-value, finite and at most 0.
        alpha: chance of one or more false accusations, in (0, 1).

    Returns:
        ``(m,)`` bool, True where the null is rejected.

    Raises:
        StatisticsError: a value that is no log10 of a p-value in (0, 1], or alpha outside (0, 1).
    """
    values = _check_log10_p(log10_ps)
    _check_alpha(alpha)
    order = np.argsort(values, kind="stable")
    within = values[order] <= math.log10(alpha) - np.log10(np.arange(values.size, 0, -1))
    rejected = np.zeros(values.size, dtype=np.bool_)
    rejected[order] = np.logical_and.accumulate(within)
    return rejected


def e_bh(log10_es: Sequence[float], alpha: float) -> BoolArray:
    """Which suspects deserve a closer look, with false discovery rate at most alpha (e-BH, Wang & Ramdas 2022).

    Valid under any dependence, also with e-values at stopping times. For triage; accusations go through `holm`.

    Args:
        log10_es: ``(m,)`` log10 of each suspect's e-value; -inf is an e-value of 0.
        alpha: false discovery rate, in (0, 1).

    Returns:
        ``(m,)`` bool, True where the null is rejected.

    Raises:
        StatisticsError: a value that is NaN or +inf, or alpha outside (0, 1).
    """
    _check_alpha(alpha)
    if not len(log10_es):
        return np.zeros(0, dtype=np.bool_)
    values = _check_log10_e(log10_es)
    m = values.size
    order = np.argsort(-values, kind="stable")
    within = values[order] >= math.log10(m / alpha) - np.log10(np.arange(1, m + 1))
    rejected = np.zeros(m, dtype=np.bool_)
    rejected[order[: int(np.max(np.flatnonzero(within), initial=-1)) + 1]] = True
    return rejected


def _check_log10_e(log10_es: Sequence[float]) -> FloatArray:
    values = np.asarray(log10_es, dtype=np.float64)
    if values.ndim != 1 or not values.size or bool(np.any(np.isnan(values) | (values == np.inf))):
        raise StatisticsError(f"got {log10_es!r}: give log10 of one or more e-values, none NaN or +inf")
    return values


def _check_log10_p(log10_ps: Sequence[float]) -> FloatArray:
    values = np.asarray(log10_ps, dtype=np.float64)
    if values.ndim != 1 or not bool(np.all(np.isfinite(values) & (values <= 0.0))):
        raise StatisticsError(f"got {log10_ps!r}: give log10 of p-values in (0, 1], finite and at most 0")
    return values


def _check_alpha(alpha: float) -> None:
    if not 0.0 < alpha < 1.0:
        raise StatisticsError(f"alpha = {alpha} is no error rate: give a number in (0, 1)")
