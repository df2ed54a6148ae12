"""Numbers keep the contract of a task, and what answers weigh is a function of answers and references alone."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wmplug.errors import InputError, SuspectError
from wmplug.keys.streams import KeyStream
from wmplug.statistics.signs import weighted_log10_p, weighted_ps, weights_of
from wmplug.tasks import Numbers
from wmplug.tasks.numbers import beyond
from wmplug.testing import TaskContract

RNG = np.random.default_rng(0)
COUNT = 80
USUAL = RNG.normal(150, 50, COUNT)
finite = st.floats(-1e300, 1e300, allow_nan=False)


class TestNumbers(TaskContract):
    @pytest.fixture
    def task(self):
        return Numbers("kWh")

    @pytest.fixture
    def spoken(self):
        return [
            ([0.5, -3, 2e9], [0.5, -3.0, 2e9]),
            (np.array([[0.25], [np.nan]], np.float32), [0.25, None]),
            ([1.5, None], [1.5, None]),
            (np.array([7, 8], np.uint8), [7.0, 8.0]),
            (pd.Series([0.5, 1.5], index=[3, 1]), [0.5, 1.5]),
            (pd.DataFrame({"y": [0.5, 1.5]}), [0.5, 1.5]),
        ]


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        (["cat", "dog"], "a class or another value"),
        ([True, False], "a class or another value"),
        (np.zeros((2, 3)), "3 outputs an input"),
        ([1.0, np.inf], "finite numbers"),
        ([1.0], "1 answers for 2 inputs"),
        ([[1.0], [1.0, 2.0]], "cannot be read as numbers"),
        (1j * np.ones(2), "a class or another value"),
    ],
)
def test_what_is_no_number_is_refused(outputs, words):
    with pytest.raises(SuspectError, match=words):
        Numbers().read(outputs, 2, "a suspect")


@pytest.mark.parametrize("labels", [[0.5, np.nan], ["a", "b"], [[1, 2], [3, 4]], [0.5]])
def test_labels_are_finite_numbers(labels):
    with pytest.raises(InputError):
        Numbers().labels(labels, 2)


def test_a_number_is_shown_with_its_unit():
    assert (Numbers("kWh").shown(2 / 3), Numbers().shown(12345678.9)) == ("0.666667 kWh", "1.23457e+07")
    with pytest.raises(InputError):
        Numbers("k\nWh")


@given(st.lists(st.one_of(finite, st.just(np.nan)), min_size=0, max_size=30), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_any_answers_give_finite_weights(answers, random):
    usual = np.array([random.gauss(0, 1) for _ in answers])
    weights = beyond(np.array(answers, np.float64), usual)
    assert weights.shape == (len(answers),)
    assert np.isfinite(weights).all()
    assert np.abs(weights).max(initial=0) <= 3
    assert not weights[np.isnan(answers)].any()


@given(
    st.floats(1e-6, 1e6).map(lambda x: float(np.float32(x))),
    st.floats(-1e3, 1e3),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=100, deadline=None)
def test_another_unit_an_offset_or_the_negative_change_nothing(scale, offset, seed):
    rng = np.random.default_rng(seed)
    answers = USUAL + 20 * rng.choice([-1, 1], COUNT) + rng.normal(0, 5, COUNT)
    first = beyond(answers, USUAL)
    np.testing.assert_allclose(beyond(scale * (answers + offset), USUAL), first, atol=1e-3)
    np.testing.assert_allclose(beyond(-scale * answers, USUAL), first, atol=1e-3)


def test_constants_and_the_references_themselves_weigh_nothing():
    for answers in (np.full(COUNT, 3.5), np.full(COUNT, 1e300), USUAL, 3 * USUAL - 7, np.full(COUNT, np.nan)):
        assert not beyond(answers, USUAL).any()


def test_one_wild_answer_does_not_hide_the_others():
    signs = np.where(np.arange(COUNT) % 3, 1, -1)
    answers = USUAL + 10 * signs
    answers[[5, 50]] = 1e12, -1e9
    agree = beyond(answers, USUAL) * signs > 0
    assert agree[np.setdiff1d(np.arange(COUNT), [5, 50])].all()


@pytest.mark.parametrize("digits", [2, 1, 0, -1])
def test_rounded_answers_are_still_weighed(digits):
    signs = np.where(RNG.random(COUNT) < 0.5, 1, -1)
    weights = weights_of(beyond(np.round(USUAL + 15 * signs, digits), USUAL))
    assert weighted_log10_p(weights, signs) < -15
    assert weighted_log10_p(weights_of(beyond(np.round(USUAL, digits), USUAL)), signs) > -3
    assert weighted_log10_p(weights, np.roll(signs, 1)) > -3


def test_other_keys_are_at_chance_over_ten_thousand_draws():
    keys = 10_000
    signs = 2 * KeyStream(bytes(32)).below(2, keys * COUNT).reshape(keys, COUNT) - 1
    heavy = np.random.default_rng(1).standard_cauchy(COUNT)
    nasty = {
        "the mean": np.full(COUNT, USUAL.mean()),
        "rounded": np.round(USUAL, -2),
        "heavy tails": USUAL + heavy,
        "always above": USUAL + np.abs(heavy),
        "another key's": USUAL + 20 * signs[0],
        "half silent": np.where(np.arange(COUNT) % 2, np.nan, USUAL + heavy),
    }
    for name, answers in nasty.items():
        p = np.sort(weighted_ps(weights_of(beyond(answers, USUAL)), signs[1:]))
        reached = np.searchsorted(p, p, side="right") / len(p)
        assert (reached - p).max() <= np.sqrt(np.log(1e4) / (2 * keys)), name
