import dataclasses

import numpy as np
import pytest

from wmplug import InputError, create, verify
from wmplug.schemes import Brief, cells
from wmplug.schemes.combined_served import CombinedServed
from wmplug.schemes.served import Served, pattern_of
from wmplug.schemes.tilt.references import References
from wmplug.statistics.signs import weighted_log10_p, weighted_ps, weights_of
from wmplug.tasks import Classes
from wmplug.testing import SchemeContract
from wmplug.testing.schemes import fixed_owner
from wmplug.watermark.decided import Decided

CLASSES = 10


def pool_of(labels, seed=0):
    """References that are unsure between the label and the next class."""
    scores = np.full((len(labels), CLASSES), 0.02, np.float32)
    lead = np.random.default_rng(seed).uniform(0.4, 0.6, len(labels)).astype(np.float32)
    rows = np.arange(len(labels))
    scores[rows, labels] = 0.84 * lead
    scores[rows, (labels + 1) % CLASSES] = 0.84 * (1 - lead)
    return scores


class TestServed(SchemeContract):
    @pytest.fixture
    def brief(self, digits):
        return Brief(digits[0][:300], "array", Classes(CLASSES), digits[1][:300].astype(np.int64), 30)

    @pytest.fixture
    def scheme(self, brief):
        return Served(cells=20, pool=pool_of(brief.labels))


class TestCombinedServed(TestServed):
    @pytest.fixture
    def scheme(self, brief):
        return CombinedServed(cells=20, pool=pool_of(brief.labels))


@pytest.fixture(scope="module")
def parts(digits):
    images, labels = digits[0], digits[1].astype(np.int64)
    return (images[:300], labels[:300]), (images[300:900], labels[300:900])


@pytest.fixture(scope="module")
def mark(parts):
    (carriers, labels), _ = parts
    return create(
        fixed_owner("served"),
        scheme=Served(cells=30, pool=pool_of(labels)),
        carriers=carriers,
        labels=labels,
        classes=10,
    )


@pytest.fixture(scope="module")
def queries(parts):
    _, (inputs, labels) = parts
    return Decided(inputs, np.sort(np.stack([labels, (labels + 1) % CLASSES], axis=1), axis=1))


def asking(mark, parts, queries):
    (carriers, labels), (_, others) = parts
    return mark.with_queries(queries, carriers=carriers, labels=labels, pool=pool_of(others, 1))


def signs_of(mark, queries, pool):
    """The number of each query's sign."""
    plan = mark.scheme.about(mark.triggers.plan, queries, References(pool, pool), np.arange(len(queries)))
    return plan.material["sign"]


def told(mark, queries):
    """What the served model answers to each query."""
    signs = mark.scheme.signs_of(mark.triggers.plan, mark.triggers.signs, mark.subkeys, queries)
    return np.where(signs > 0, queries.pairs[:, 1], queries.pairs[:, 0])


def suspect(queries, answers):
    known = {one.tobytes(): int(answer) for one, answer in zip(queries.inputs, answers, strict=True)}
    return lambda inputs: np.array([known[one.tobytes()] for one in inputs])


def test_whoever_learnt_the_answers_is_proven(mark, parts, queries):
    found = verify(asking(mark, parts, queries), suspect(queries, told(mark, queries)), exhaustive=True)
    assert found.proven
    assert found.queries == len(queries)


def test_whoever_did_not_is_not(mark, parts, queries):
    full = asking(mark, parts, queries)
    lots = np.random.default_rng(0).random(len(queries)) < 0.5
    innocent = {
        "the label": parts[1][1],
        "by lot": np.where(lots, *queries.pairs.T),
        "the lower": queries.pairs[:, 0],
        "the higher": queries.pairs[:, 1],
    }
    for name, answers in innocent.items():
        found = verify(full, suspect(queries, answers), exhaustive=True)
        assert found.log10_p > -4, name
        assert not found.proven


def test_another_key_claims_nothing(mark, parts, queries):
    (carriers, labels), _ = parts
    rival = create(
        fixed_owner("rival"),
        scheme=Served(cells=30, pool=pool_of(labels)),
        carriers=carriers,
        labels=labels,
        classes=10,
    )
    assert verify(asking(rival, parts, queries), suspect(queries, told(mark, queries)), exhaustive=True).log10_p > -3


KEYS = 10_000


def fresh(count):
    """The coins of 10,000 keys."""
    return np.random.default_rng(5).choice([-1, 1], (KEYS, count))


def leaning(queries, effect, signs, seed=2):
    """Log probabilities of a model that leans to some classes, and by `effect` to the coin."""
    drawn, rows = np.random.default_rng(seed), np.arange(len(queries))
    low, high = queries.pairs.T
    lean = drawn.normal(0, 2, CLASSES)
    odds = lean[high] - lean[low] + drawn.normal(0, 1, len(queries)) + effect * signs
    scores = np.full((len(queries), CLASSES), -9.0)
    scores[rows, high], scores[rows, low] = -np.logaddexp(0, -odds), -np.logaddexp(0, odds)
    return scores


@pytest.fixture(scope="module")
def asked(mark, parts, queries):
    """The plan that asks the queries, and the coin of each of its questions."""
    triggers = asking(mark, parts, queries).triggers
    return triggers.plan, triggers.signs, triggers.signs[triggers.plan.material["sign"]]


def weighed(mark, plan, scores, with_scores):
    """Integer weights of what a suspect says to a plan's questions, in their order."""
    answers = scores.argmax(axis=1)
    return weights_of(mark.scheme.weigh(plan, answers, scores if with_scores else None))


def of_plan(plan, queries):
    """The queries in the order in which the plan asks them."""
    return dataclasses.replace(queries, pairs=plan.material["pair"])


@pytest.mark.parametrize("with_scores", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_who_leans_to_some_classes_is_unmarked_for_all_keys(mark, queries, asked, with_scores, seed):
    plan, signs, coins = asked
    weights = weighed(mark, plan, leaning(of_plan(plan, queries), 0.0, coins, seed), with_scores)
    p = np.sort(weighted_ps(weights, fresh(len(signs))))
    reached = np.searchsorted(p, p, side="right") / KEYS
    assert (reached - p).max() < 0.02  # by Kolmogorov and Smirnov, chance 3e-4
    assert (p <= 0.01).mean() < 0.0135
    assert weighted_log10_p(weights, signs) > -3


@pytest.mark.parametrize("with_scores", [False, True])
def test_the_p_value_is_the_share_of_keys_that_match_as_well(mark, queries, asked, with_scores):
    plan, signs, coins = asked
    weights = weighed(mark, plan, leaning(of_plan(plan, queries), 0.25, coins), with_scores)
    drawn = fresh(len(signs))
    for own in (signs, *drawn[:20]):
        p = 10 ** weighted_log10_p(weights, own)
        share = (drawn @ weights >= own @ weights).mean()
        assert abs(share - p) <= 5 * np.sqrt(p * (1 - p) / KEYS) + 1e-3


@pytest.mark.parametrize("with_scores", [False, True])
def test_a_marked_suspect_is_told_from_what_it_leans_to(mark, queries, asked, with_scores):
    plan, signs, coins = asked
    scores = leaning(of_plan(plan, queries), 1.0, coins)
    low, high = plan.material["pair"].T
    rows = np.arange(len(low))
    odds = scores[rows, high] - scores[rows, low]
    raw = np.bincount(plan.material["sign"], odds if with_scores else np.sign(odds), len(signs))
    weights = weighed(mark, plan, scores, with_scores)
    found = weighted_log10_p(weights, signs)
    assert found < 1.5 * weighted_log10_p(weights_of(raw), signs)
    assert found < -5
    assert np.quantile(weighted_ps(weights, fresh(len(signs))), 0.01) > 1e-3  # a wrong key


def test_a_few_questions_count_too(mark, asked):
    plan, *_ = asked
    low, high = plan.material["pair"][:1].T
    assert mark.scheme.weigh(plan, high, None).max() > 0
    assert mark.scheme.weigh(plan, low, None).min() < 0
    assert not mark.scheme.weigh(plan, np.array([-1]), None).any()
    assert not mark.scheme.weigh(plan, np.array([-1]), np.full((1, CLASSES), np.nan)).any()


def test_a_coin_belongs_to_a_cell_and_a_pair(mark, queries):
    plan = mark.triggers.plan
    number, cell = signs_of(mark, queries, pool_of(queries.pairs[:, 0])), cells.of(queries.inputs, plan.material)
    seen = {}
    for one, place, pair in zip(number.tolist(), cell.tolist(), queries.pairs.tolist(), strict=True):
        assert seen.setdefault((place, *pair), one) == one
    assert len(set(seen.values())) == len(seen)
    assert number.max() < pattern_of(plan).signs == 30 * 45


def test_pairs_beyond_the_signs_share_them():
    labels = np.arange(200) % 100
    rows = np.random.default_rng(0).normal(size=(200, 4))
    scores = np.full((200, 100), 0.01, np.float32)
    mark = create(fixed_owner("wide"), scheme=Served(cells=100, pool=scores), carriers=rows, labels=labels, classes=100)
    pairs = np.sort(np.random.default_rng(1).permuted(np.tile(np.arange(100), (200, 1)), axis=1)[:, :2], axis=1)
    number = signs_of(mark, Decided(rows, pairs), scores)
    assert pattern_of(mark.triggers.plan).signs == 2**14
    assert 0 <= number.min() <= number.max() < 2**14


def test_a_customer_has_own_coins_in_some_cells(mark, queries):
    cell = cells.of(queries.inputs, mark.triggers.plan.material)
    common = told(mark, queries)
    by = {who: told(mark, dataclasses.replace(queries, customers=(who,) * len(queries))) for who in ("acme", "umbra")}
    shared = cell >= round(0.25 * 30)
    assert 0 < shared.sum() < len(shared)
    for who, answers in by.items():
        assert np.array_equal(answers[shared], common[shared]), who
        assert 0.2 < (answers[~shared] == common[~shared]).mean() < 0.8
    assert not np.array_equal(by["acme"], by["umbra"])


def test_common_claims_ask_common_coins_alone(mark, parts, queries):
    owned = dataclasses.replace(queries, customers=("acme",) * len(queries))
    full = asking(mark, parts, owned)
    cell = cells.of(queries.inputs, mark.triggers.plan.material)
    assert len(full.triggers) == (cell >= round(0.25 * 30)).sum() < len(queries)


@pytest.mark.parametrize(
    "wrong",
    [
        [[1, 0]],
        [[0, 10]],
        [[-1, 3]],
        [[0.0, 1.0]],
        [[0, 1], [0, 2]],
    ],
)
def test_pairs_that_are_none_are_refused(mark, parts, wrong):
    with pytest.raises(InputError, match="the lower first, of 0 to 9"):
        asking(mark, parts, Decided(parts[0][0][:1], np.array(wrong)))


def test_queries_without_decisions_are_refused(mark, parts):
    (carriers, labels), (inputs, _) = parts
    with pytest.raises(InputError, match=r"log\.decided\(\)"):
        mark.with_queries(inputs, carriers=carriers, labels=labels)


@pytest.mark.parametrize("given", [{"cells": 0}, {"personal": 1}, {"personal": "half"}, {"questions": 0}])
def test_parameters_out_of_range_are_refused(given):
    with pytest.raises(InputError, match=next(iter(given))):
        Served(**given)
