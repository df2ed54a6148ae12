"""Looks, channels and suspects combined: against scipy, by hand, and under the null."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from wmplug.errors import StatisticsError
from wmplug.statistics import combination
from wmplug.statistics.betting import log10_e
from wmplug.statistics.draws import DrawResult, log10_binomial_sf

K = 4
RELAXED = settings(deadline=None, max_examples=60, derandomize=True)


def hits(k: int, h: int, n: int) -> list[DrawResult]:
    match, miss = ((1, *[0] * (k - 1)), (0, 1, *[0] * (k - 2)))
    return [DrawResult(0, match)] * h + [DrawResult(0, miss)] * (n - h)


def test_monitor() -> None:
    e = [3.0, 0.5, 200.0]
    expected = math.log10(sum(6 / (math.pi * u) ** 2 * x for u, x in enumerate(e, 1)))
    assert combination.monitor_log10([math.log10(x) for x in e]) == pytest.approx(expected)
    assert combination.monitor_log10([5000.0, -math.inf, 5000.0]) == pytest.approx(
        5000 + math.log10(6 / math.pi**2 * (1 + 1 / 9))
    )
    assert combination.monitor_log10([0.0] * 100_000) == pytest.approx(0.0, abs=1e-5)


def test_fifty_looks_with_one_key_do_not_lie() -> None:
    """One key, triggers shared by all checkpoints, answers that wander: repeated p-values lie, S_t does not."""
    rng = np.random.default_rng(6)
    runs = 300
    naive = monitored = 0
    table = {h: (log10_binomial_sf(h, 40, 1 / K), log10_e(hits(K, h, 40))) for h in range(41)}
    for _ in range(runs):
        symbols, answers = rng.integers(0, K, size=40), rng.integers(0, K, size=40)
        looks = []
        for _ in range(50):
            move = rng.random(40) < 0.3
            answers = np.where(move, rng.integers(0, K, size=40), answers)
            looks.append(table[int((answers == symbols).sum())])
        naive += min(p for p, _ in looks) <= math.log10(0.05)
        monitored += combination.monitor_log10([e for _, e in looks]) >= math.log10(20)
    assert naive > 0.3 * runs
    assert monitored <= scipy.stats.binom.ppf(1 - 1e-6, runs, 0.05)


def test_average() -> None:
    assert combination.average_log10_e([1.0, 2.0, -math.inf]) == pytest.approx(math.log10(110 / 3))
    assert combination.average_log10_e([4000.0, 0.0]) == pytest.approx(4000 - math.log10(2))


@RELAXED
@given(st.lists(st.floats(1e-60, 1.0), min_size=1, max_size=6), st.sampled_from(["fisher", "stouffer", "tippett"]))
def test_combined_p_is_scipys_where_that_has_numbers(ps: list[float], method: str) -> None:
    got = combination.combine_log10_p([math.log10(p) for p in ps], method)  # type: ignore[arg-type]
    if method == "stouffer" and 1.0 in ps:
        assert got == 0.0
        return
    expected = float(scipy.stats.combine_pvalues(ps, method=method).pvalue)
    assert got <= 0.0
    assert 10**got == pytest.approx(expected, rel=1e-9, abs=1e-290)


def test_combined_p_below_floats() -> None:
    assert combination.combine_log10_p([-4000.0]) == pytest.approx(-4000.0)
    x = 5000 * math.log(10)
    assert combination.combine_log10_p([-4000.0, -1000.0]) == pytest.approx(-5000 + math.log10(1 + x), rel=1e-12)
    assert combination.combine_log10_p([-4000.0, -1.0], "tippett") == pytest.approx(-4000 + math.log10(2), rel=1e-12)
    assert -5000 < combination.combine_log10_p([-4000.0, -1000.0], "stouffer") < -4000
    assert combination.combine_log10_p([0.0, 0.0]) == combination.combine_log10_p([0.0], "tippett") == 0.0


def test_holm_and_e_bh_by_hand() -> None:
    assert combination.holm([-5000.0, -2.0, -1.3, -2.2], 0.05).tolist() == [True, True, False, True]
    # The second fails at alpha / 2, so the third may not be rejected although it passes on its own.
    assert combination.holm([-3.0, -1.5, -1.4], 0.05).tolist() == [True, False, False]
    assert combination.e_bh([5000.0, math.log10(45), 1.0, math.log10(26)], 0.05).tolist() == [True, True, False, False]
    assert combination.e_bh([5000.0, math.log10(45), 1.0, math.log10(27)], 0.05).tolist() == [True, True, False, True]
    # The largest alone is too small (needs 60), but two at 30 or more carry each other.
    assert combination.e_bh([math.log10(31), math.log10(59), -math.inf], 0.05).tolist() == [True, True, False]
    assert combination.e_bh([math.log10(29), math.log10(59), -math.inf], 0.05).tolist() == [False, False, False]
    assert combination.holm([], 0.05).shape == combination.e_bh([], 0.05).shape == (0,)


def test_an_error_rate_that_is_met_exactly_is_kept() -> None:
    for rejected in (combination.holm([-1.0, -2.0], 0.1), combination.e_bh([1.0, 1.0], 0.1)):
        assert rejected.dtype == np.bool_
        assert rejected.tolist() == [True, True]
    assert combination.holm([-1.0 + 1e-9], 0.1).tolist() == combination.e_bh([1.0 - 1e-9], 0.1).tolist() == [False]
    assert combination.holm([], 0.05).dtype == combination.e_bh([], 0.05).dtype == np.bool_


@pytest.mark.parametrize(
    "call",
    [
        lambda: combination.monitor_log10([]),
        lambda: combination.monitor_log10([math.nan]),
        lambda: combination.average_log10_e([]),
        lambda: combination.average_log10_e([math.inf]),
        lambda: combination.combine_log10_p([]),
        lambda: combination.combine_log10_p([0.5]),
        lambda: combination.combine_log10_p([-math.inf]),
        lambda: combination.combine_log10_p([-1.0], "mean"),  # type: ignore[arg-type]
        lambda: combination.holm([-1.0], 1.0),
        lambda: combination.holm([math.nan], 0.05),
        lambda: combination.e_bh([1.0], 0.0),
        lambda: combination.e_bh([math.inf], 0.05),
    ],
)
def test_what_cannot_be_combined_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(StatisticsError, match=r"\w"):
        call()
