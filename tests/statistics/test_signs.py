"""The sign tests against enumeration of all keys, scipy and suspects chosen to be nasty."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wmplug.errors import StatisticsError
from wmplug.statistics import signs as ws

KEYS = 1000
RELAXED = settings(deadline=None, max_examples=60, derandomize=True)
WEIGHTS = hnp.arrays(np.int64, st.integers(1, 9), elements=st.integers(-12, 12))


def superuniform(log10_ps: np.ndarray) -> bool:
    """P(p <= a) <= a at many levels, each within a one-in-a-million binomial band."""
    levels = np.array([0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
    found = np.array([np.count_nonzero(log10_ps <= math.log10(a) + 1e-12) for a in levels])
    return bool(np.all(found <= scipy.stats.binom.ppf(1 - 1e-6, log10_ps.size, levels)))


def worlds(n: int) -> list[np.ndarray]:
    return [np.array(world) for world in itertools.product((-1, 1), repeat=n)]


# Weighted signs


@RELAXED
@given(WEIGHTS, st.data())
def test_the_weighted_tail_is_that_of_all_keys(weights: np.ndarray, data: st.DataObject) -> None:
    mine = np.array(data.draw(st.lists(st.sampled_from((-1, 1)), min_size=len(weights), max_size=len(weights))))
    exact = np.mean([world @ weights >= mine @ weights for world in worlds(len(weights))])
    assert 10 ** ws.weighted_log10_p(weights, mine) == pytest.approx(exact, rel=1e-9)


@RELAXED
@given(WEIGHTS)
def test_the_weighted_e_value_has_mean_one_over_all_keys(weights: np.ndarray) -> None:
    values = [10 ** ws.weighted_log10_e(weights, world) for world in worlds(len(weights))]
    assert np.mean(values) == pytest.approx(1.0, rel=1e-9)


@RELAXED
@given(WEIGHTS)
def test_the_tail_for_many_keys_is_that_for_each(weights: np.ndarray) -> None:
    keys = np.array(worlds(len(weights)))[:40]
    each = [10 ** ws.weighted_log10_p(weights, key) for key in keys]
    ps = ws.weighted_ps(weights, keys)
    np.testing.assert_allclose(ps, each, rtol=1e-9)
    assert ps.dtype == np.float64
    assert ps.max() <= 1.0


def test_weights_that_one_sign_dominates_prove_no_more_than_that_sign() -> None:
    weights, right = np.array([10**6, *[0] * 299]), np.ones(300, np.int64)
    assert ws.weighted_log10_p(weights, right) == pytest.approx(math.log10(0.5))
    assert ws.weighted_log10_e(weights, right) <= math.log10(2)


def test_weighted_tests_reach_far_and_keep_their_digits() -> None:
    weights, right = np.full(1200, 7), np.ones(1200, np.int64)
    assert ws.weighted_log10_p(weights, right) == pytest.approx(-1200 * math.log10(2))
    assert ws.weighted_log10_e(weights, right) > 300
    assert ws.weighted_log10_p(weights, -right) == pytest.approx(0.0, abs=1e-12)
    assert ws.weighted_log10_p(np.zeros(5, np.int64), np.ones(5, np.int64)) == 0.0
    assert ws.weighted_log10_e(np.zeros(5, np.int64), np.ones(5, np.int64)) == 0.0


@pytest.mark.once
@pytest.mark.parametrize("law", ["normal", "cauchy", "sparse", "one direction"])
def test_weighted_tests_are_honest_under_other_keys(law: str) -> None:
    rng = np.random.default_rng(5)
    ps, es = [], []
    for _ in range(KEYS):
        scores = {
            "normal": rng.standard_normal(60),
            "cauchy": rng.standard_cauchy(60),
            "sparse": rng.standard_normal(60) * (rng.random(60) < 0.1),
            "one direction": np.abs(rng.standard_normal(60)),
        }[law]
        weights, key = ws.weights_of(scores), rng.choice([-1, 1], 60)
        ps.append(ws.weighted_log10_p(weights, key))
        es.append(ws.weighted_log10_e(weights, key))
    assert superuniform(np.array(ps))
    # Markov: an e-value of 20 in 5 % of cases at most
    assert scipy.stats.binom.sf((np.array(es) >= math.log10(20)).sum() - 1, KEYS, 0.05) > 1e-5


def test_weighted_tests_have_power() -> None:
    rng = np.random.default_rng(6)
    key = rng.choice([-1, 1], 300)
    weights = ws.weights_of(0.6 * key + rng.standard_normal(300))
    p, e = ws.weighted_log10_p(weights, key), ws.weighted_log10_e(weights, key)
    assert p < -12
    # Markov on one side; on the other the price of not knowing the best bet
    assert p <= -e < p + 4


@RELAXED
@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6)), st.floats(1e-3, 1e3))
def test_weights_do_not_depend_on_the_unit_of_the_scores(scores: np.ndarray, unit: float) -> None:
    weights = ws.weights_of(scores)
    assert np.abs(weights - ws.weights_of(scores * unit)).max() <= 1
    assert (np.sign(weights) * np.sign(scores) >= 0).all()
    assert np.abs(weights).sum() <= 2**17 + len(scores)


def test_weights_have_one_resolution() -> None:
    scores = np.random.default_rng(2).standard_normal(200)
    for unit in (1e-250, 1e-3, 1.0, 1e250):
        weights = ws.weights_of(unit * scores)
        assert weights.dtype == np.int64
        assert math.sqrt(np.square(weights).mean()) == pytest.approx(50, rel=0.01)
        assert np.corrcoef(weights, scores)[0, 1] > 0.999
    many = ws.weights_of(np.random.default_rng(2).standard_normal(20_000))
    assert np.abs(many).sum() == pytest.approx(2**17, rel=0.01)
    assert ws.weights_of(np.array([[3.0, -4.0], [0.0, 0.0]])).tolist() == [[60, -80], [0, 0]]


def test_the_e_value_does_not_depend_on_the_unit_of_the_weights() -> None:
    signs, weights = np.array([1, -1, 1, 1]), np.array([3, 1, 2, 2])
    assert ws.weighted_log10_e(4 * 10**9 * weights, signs) == pytest.approx(ws.weighted_log10_e(weights, signs))


def test_no_scores_and_scores_of_nothing() -> None:
    for scores in (np.zeros(0), np.zeros((2, 3))):
        weights = ws.weights_of(scores)
        assert (weights.dtype, weights.shape, weights.any()) == (np.int64, scores.shape, False)
    assert ws.weighted_log10_p(np.zeros(0, np.int64), np.zeros(0, np.int64)) == 0.0
    assert ws.weighted_log10_e(np.zeros(0, np.int64), np.zeros(0, np.int64)) == 0.0


def test_the_bets_go_from_one_decade_in_ten_thousand_signs_to_certainty_in_a_few() -> None:
    weak = np.ones(10_000, np.int64)
    weak[: 10_000 // 2 - 200] = -1  # 200 more agree than by chance: 4 standard deviations
    assert ws.weighted_log10_e(np.ones(10_000, np.int64), weak) > 1.5
    assert ws.weighted_log10_e(np.ones(8, np.int64), np.ones(8, np.int64)) > 8 * math.log10(2) - 0.8


# Arguments


@pytest.mark.parametrize(
    "call",
    [
        lambda: ws.weights_of(np.array([1.0, math.inf])),
        lambda: ws.weighted_log10_p(np.ones(2, np.int64), np.ones(3, np.int64)),
        lambda: ws.weighted_log10_p(np.ones(2), np.ones(2, np.int64)),
        lambda: ws.weighted_log10_p(np.ones((2, 2), np.int64), np.ones((2, 2), np.int64)),
        lambda: ws.weighted_log10_p(np.ones(2, np.int64), np.array([1, 3])),
        lambda: ws.weighted_log10_e(np.ones(2, np.int64), np.zeros(2, np.int64)),
    ],
)
def test_what_no_test_is_defined_for_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(StatisticsError, match=r"\w"):
        call()
