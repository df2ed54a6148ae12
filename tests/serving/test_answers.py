import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_softmax, logit, softmax

from wmplug import SuspectError
from wmplug.serving.answers import Scores

LOGITS = arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(3, 5)), elements=st.floats(-8, 8))


def served(given, classes, gap=0.3, margin=2.0, high=True):
    scores = Scores.of(given, len(given), classes)
    rows, pairs = scores.unsure(gap)
    return rows, pairs, scores.told(rows, pairs, np.full(len(rows), high), margin)


@given(LOGITS, st.booleans(), st.sampled_from([0.0, 2.0]))
def test_the_decided_class_leads_and_the_rest_keeps_its_proportions(logits, high, margin):
    p = softmax(logits, axis=1)
    rows, pairs, told = served(p, p.shape[1], margin=margin, high=high)
    each, won, lost = np.arange(len(rows)), pairs[:, int(high)], pairs[:, 1 - int(high)]
    assert np.allclose(told.sum(axis=1), p.sum(axis=1))
    assert np.allclose(told[rows, won], np.maximum(expit(margin), p[rows].max(axis=1)))
    swapped = p[rows]
    swapped[each, won], swapped[each, lost] = (f(p[rows, won], p[rows, lost]) for f in (np.maximum, np.minimum))
    scale = (1 - told[rows, won]) / (1 - swapped[each, won])
    swapped *= scale[:, None]
    swapped[each, won] = told[rows, won]
    assert np.allclose(told[rows], swapped)
    others = np.delete(np.arange(len(p)), rows)
    assert np.array_equal(told[others], p[others])


@given(LOGITS, st.booleans())
def test_logits_say_the_same_as_probabilities(logits, high):
    logits = logits + 3.0  # so that they do not look like probabilities
    p = softmax(logits, axis=1)
    rows, _, told = served(logits, logits.shape[1], high=high)
    again = served(p, p.shape[1], high=high)
    assert np.array_equal(rows, again[0])
    assert np.allclose(softmax(told, axis=1), again[2])


@pytest.mark.parametrize("shape", [(5,), (5, 1)])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("high", [False, True])
def test_one_score_for_two_classes(shape, logits, high):
    p = np.array([0.02, 0.45, 0.5, 0.58, 0.97])
    rows, pairs, told = served((logit(p) if logits else p).reshape(shape), 2, high=high)
    assert rows.tolist() == [1, 2, 3]
    assert pairs.tolist() == [[0, 1]] * 3
    assert told.shape == shape
    share = expit(told.ravel()) if logits else told.ravel()
    assert np.allclose(share[[0, 4]], p[[0, 4]])
    assert np.allclose(share[1:4], expit(2.0 if high else -2.0))


def test_dtype_and_input_stay():
    given = np.full((2, 4), 0.25, np.float32)
    before = given.copy()
    *_, told = served(given, 4)
    assert told.dtype == np.float32
    assert np.array_equal(given, before)
    assert not np.array_equal(told, given)


def test_a_decided_answer_looks_no_less_sure_than_the_margin():
    p = np.array([[0.4, 0.35, 0.25]])
    *_, told = served(p, 3, margin=3.0, high=False)
    assert np.allclose(told, [[expit(3.0), *(expit(-3.0) * np.array([0.35, 0.25]) / 0.6)]])


def test_a_class_without_probability_stays_so():
    p = np.array([[0.55, 0.45, 0.0], [0.995, 0.0, 0.0]])
    *_, told = served(p, 3, gap=1.0, margin=2.0)
    assert np.allclose(told.sum(axis=1), p.sum(axis=1))
    assert told[0, 2] == 0


def test_a_lead_that_is_larger_stays():
    p = np.array([[0.6, 0.4, 0.0]])
    *_, told = served(p, 3, margin=0.0, high=False)
    assert np.allclose(told, p)


def test_nan_is_never_decided():
    rows, _, told = served(np.array([[0.5, 0.5, np.nan], [0.5, 0.5, 0.0]]), 3)
    assert rows.tolist() == [1]
    assert np.isnan(told[0, 2])


def test_log_probabilities_are_logits():
    p = np.array([[0.5, 0.4, 0.1]])
    rows, pairs, told = served(log_softmax(np.log(p), axis=1), 3)
    assert (rows.tolist(), pairs.tolist()) == ([0], [[0, 1]])
    assert np.allclose(np.exp(told).sum(), 1)


@pytest.mark.parametrize(
    "given",
    [np.array([1, 2]), np.zeros((2, 3), int), np.zeros((2, 4)), np.zeros((3, 3)), ["cat", "dog"], np.zeros(2)],
)
def test_what_shows_no_doubt_is_refused(given):
    with pytest.raises(SuspectError, match=r"floats \(2, 3\)"):
        Scores.of(given, 2, 3)


def test_what_the_owner_says_holds_for_every_batch():
    logits = np.array([[0.4, 0.6], [-3.0, 3.0]])
    alone = Scores.of(logits[:1], 1, 2, logits=True)
    assert np.allclose(alone.probabilities, Scores.of(logits, 2, 2).probabilities[:1])
    assert not np.allclose(alone.probabilities, Scores.of(logits[:1], 1, 2).probabilities)
    single = Scores.of(np.array([0.2]), 1, 2, logits=True)
    assert single.are_logits
    assert np.allclose(single.probabilities, [[1 - expit(0.2), expit(0.2)]])
    assert np.allclose(Scores.of(np.array([0.2]), 1, 2, logits=False).probabilities, [[0.8, 0.2]])


def test_what_may_be_logits_or_not_is_odd_until_the_owner_says():
    p = np.array([[0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])
    for odd in (100 * p, p * [[1.0], [1.3]], np.array([[0.9, 0.8, 0.1]])):
        assert Scores.of(odd, len(odd), 3).are_odd
        assert not Scores.of(odd, len(odd), 3, logits=True).are_odd
    for plain in (p, np.log(p), 30 + np.log(p), np.full((2, 3), np.nan), np.zeros((0, 3))):
        assert not Scores.of(plain, len(plain), 3).are_odd
    with pytest.raises(SuspectError, match=r"scores from 10 to 60, and logits=False"):
        Scores.of(100 * p, 2, 3, logits=False)


def test_rows_of_infinity_are_never_decided():
    infinite = [[np.inf, np.inf, 0.0], [np.inf] * 3, [-np.inf] * 3]
    for last in ([0.4, 0.35, 0.25], [3.1, 3.0, 0.0]):
        assert served(np.array([*infinite, last]), 3)[0].tolist() == [3]


def test_infinity_in_one_row_leaves_the_others_as_they_are():
    p = np.array([[0.5, 0.45, 0.05], [np.inf, 0.0, 0.0]])
    rows, _, told = served(p, 3)
    assert rows.tolist() == [0]
    assert np.allclose(told[0].sum(), 1)
    assert np.array_equal(told[1], p[1])
