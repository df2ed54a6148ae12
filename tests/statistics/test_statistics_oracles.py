"""Against libraries that only the tests know: statsmodels and mpmath."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from wmplug.statistics.betting import log10_e
from wmplug.statistics.combination import combine_log10_p, holm
from wmplug.statistics.draws import DrawResult, log10_binomial_sf

pytestmark = pytest.mark.once


def test_holm_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(1)
    seen = set()
    for _ in range(40):
        ps = rng.uniform(size=rng.integers(1, 8)) ** rng.integers(1, 14)
        expected = multipletests(ps, alpha=0.05, method="holm")[0]
        assert holm(np.log10(ps), 0.05).tolist() == expected.tolist()
        seen.add((bool(expected.any()), bool(expected.all())))
    assert seen == {(False, False), (True, False), (True, True)}


@pytest.mark.parametrize(("h", "n", "k"), [(3, 5, 3), (97, 100, 10), (2900, 3000, 16), (400, 1000, 3)])
def test_binomial_tail_is_that_of_mpmath(h: int, n: int, k: int) -> None:
    with mpmath.workdps(60):
        p0 = mpmath.mpf(1) / k
        tail = mpmath.fsum(mpmath.binomial(n, j) * p0**j * (1 - p0) ** (n - j) for j in range(h, n + 1))
        expected = float(mpmath.log10(tail))
    assert log10_binomial_sf(h, n, 1 / k) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize(("h", "n", "k"), [(3, 5, 3), (97, 100, 10), (200, 255, 2), (10, 200, 16)])
def test_e_value_is_the_integral_of_mpmath(h: int, n: int, k: int) -> None:
    draws = [DrawResult(0, (1,) + (0,) * (k - 1))] * h + [DrawResult(1, (1,) + (0,) * (k - 1))] * (n - h)
    with mpmath.workdps(60):
        p0 = mpmath.mpf(1) / k
        tail = mpmath.betainc(h + 1, n - h + 1, p0, 1)
        expected = float(mpmath.log10(tail / (1 - p0) / p0**h / (1 - p0) ** (n - h)))
    assert log10_e(draws) == pytest.approx(expected, rel=1e-10, abs=1e-11)


@pytest.mark.parametrize("log10_ps", [[-4000.0, -300.0, -2.0], [-0.1, -0.01], [-3.0, -3.0, -3.0, 0.0]])
def test_combined_p_is_that_of_mpmath(log10_ps: list[float]) -> None:
    with mpmath.workdps(60):
        x = -mpmath.fsum(log10_ps) * mpmath.log(10)
        fisher = mpmath.log10(mpmath.gammainc(len(log10_ps), x, regularized=True))
    with mpmath.workdps(4100):  # 1 - 1e-4000 needs the digits
        tippett = mpmath.log10(1 - (1 - mpmath.power(10, min(log10_ps))) ** len(log10_ps))
    assert combine_log10_p(log10_ps) == pytest.approx(float(fisher), rel=1e-10)
    assert combine_log10_p(log10_ps, "tippett") == pytest.approx(float(tippett), rel=1e-10)
    assert math.isfinite(combine_log10_p(log10_ps, "stouffer"))
