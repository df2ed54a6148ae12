"""A channel's numbers where asking may stop at any time, against an owner who stops where it suits."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom

from wmplug.claim.channels import ChoicesChannel, PatternChannel, channel_of
from wmplug.errors import InputError, SuspectError
from wmplug.statistics import betting, draws, signs
from wmplug.statistics.draws import DrawResult
from wmplug.tasks import Classes, Said
from wmplug.watermark.plan import Pattern

KEYS, STOPS, CLASSES = 2000, (5, 10, 20, 40), 10


@pytest.mark.once
def test_the_owner_who_stops_at_the_best_moment_gains_nothing(mark):
    """The p of the exact test would: at the best of forty moments it is below 5 % for too many keys."""
    drawn, said = np.random.default_rng(7).integers(CLASSES, size=(KEYS, max(STOPS))), 3
    anytime = np.zeros(KEYS)
    counts = [int(option == said) for option in range(CLASSES)]
    for key in range(KEYS):
        channel = ChoicesChannel(mark, mark.triggers.plan.choices, 100, exhaustive=False)
        results = [DrawResult(symbol, counts) for symbol in drawn[key].tolist()]
        for stop in STOPS:
            channel.results = results[:stop]
            anytime[key] = min(anytime[key], channel.finding().log10_p)
    for alpha in (0.1, 0.05, 0.01):
        assert (anytime <= math.log10(alpha)).sum() <= binom.isf(1e-6, KEYS, alpha)
    exact = binom.sf(np.cumsum(drawn == said, axis=1) - 1, np.arange(1, max(STOPS) + 1), 1 / CLASSES).min(axis=1)
    assert (exact <= 0.05).sum() > binom.isf(1e-6, KEYS, 0.05)


class Constant:
    """A scheme whose weights are the same whatever was answered."""

    name = "constant"

    def weigh(self, plan, classes, scores):
        return np.ones(8)


def test_a_stage_not_reached_counts_as_nothing():
    """Only so is the average an e-value wherever the owner stops: all stages share their signs."""
    pattern, drawn = Pattern(np.arange(80), 8), np.ones(8, np.int64)
    triggers = SimpleNamespace(plan=None, signs=drawn)
    fake = SimpleNamespace(scheme=Constant(), task=Classes(2), triggers=triggers)
    channel = PatternChannel(fake, pattern, 80, exhaustive=False)
    one = signs.weighted_log10_e(signs.weights_of(np.ones(8)), drawn)
    assert one > 1
    seen = []
    while len(due := channel.due(math.inf)):
        channel.take([Said(0)] * len(due), "it")
        seen.append((channel.queries, channel.log10_e() - one))
    assert [queries for queries, _ in seen] == [10, 20, 40, 80]
    assert np.allclose([less for _, less in seen], np.log10([1 / 4, 2 / 4, 3 / 4, 1]))
    assert channel.finding().log10_p == -channel.log10_e()


# One channel, answer by answer


def weighing(count, limit, exhaustive=False, weights=None, drawn=None):
    """A channel for a pattern of `count` rows from 100 on, whose scheme weighs as it is told."""
    drawn = np.ones(8, np.int64) if drawn is None else drawn
    scheme, seen = Constant(), []

    def weigh(plan, classes, scores):
        seen.append(classes.tolist())
        return np.ones(8) if weights is None else weights

    scheme.weigh = weigh
    triggers = SimpleNamespace(plan=None, signs=drawn)
    mark = SimpleNamespace(scheme=scheme, task=Classes(2), triggers=triggers)
    return channel_of(mark, Pattern(np.arange(100, 100 + count), 8), limit, exhaustive), seen


def test_a_scheme_that_cannot_weigh_is_refused():
    mark = SimpleNamespace(scheme=SimpleNamespace(name="mute"), task=Classes(2))
    with pytest.raises(InputError, match=r"scheme 'mute' plans signs but does not define weigh\(\)"):
        channel_of(mark, Pattern(np.arange(8), 8), 8, False)


@pytest.mark.parametrize(
    ("count", "limit", "stages"),
    [(80, 80, [10, 20, 40, 80]), (80, 9, [1, 2, 4, 9]), (3, 80, [1, 3]), (1, 1, [1]), (80, 0, [])],
)
def test_a_pattern_is_weighed_at_the_end_of_each_stage(count, limit, stages):
    channel, seen = weighing(count, limit)
    asked = []
    while len(due := channel.due(math.inf)):
        asked += due.tolist()
        assert channel.take([Said(1)] * len(due), "it") is None
    assert [len(classes) for classes in seen] == stages
    assert asked == list(range(100, 100 + min(count, limit)))
    assert channel.queries == len(asked)
    assert channel.enough(1.0) is None


def test_a_long_pattern_is_asked_in_strides():
    channel, seen = weighing(1300, 1300, exhaustive=True)
    sizes = []
    while len(due := channel.due(math.inf)):
        sizes.append(len(due))
        assert channel.finding().draws == 0  # nothing is weighed before the end
        channel.take([Said(0)] * len(due), "it")
    assert sizes == [512, 512, 276]
    assert [len(classes) for classes in seen] == [1300]


def test_a_pattern_stops_at_the_target():
    channel, seen = weighing(80, 80)
    one = signs.weighted_log10_e(signs.weights_of(np.ones(8)), np.ones(8, np.int64))
    for reached in (False, True):
        due = channel.due(one - math.log10(2))
        channel.take([Said(0)] * len(due), "it")
        assert (len(channel.due(one - math.log10(2))) == 0) is reached
    assert len(seen) == 2


@pytest.mark.parametrize("exhaustive", [False, True])
def test_what_a_pattern_finds(exhaustive):
    weights, drawn = np.array([3.0, -1, 0, 2, 2, 0, -5, 1]), np.array([1, -1, 1, -1, 1, -1, 1, 1])
    channel, _ = weighing(16, 16, exhaustive, weights, drawn)
    before = channel.finding()
    assert (before.queries, before.draws, before.candidates, before.log10_e, before.log10_p) == (
        0,
        0,
        frozenset(),
        0,
        0,
    )
    while len(due := channel.due(math.inf)):
        channel.take([Said(0)] * len(due), "it")
    found, whole = channel.finding(), signs.weights_of(weights)
    assert (found.of, found.matches, found.draws, found.candidates) == (6, 4, 8, frozenset({2}))
    assert (found.queries, found.failed) == (16, 0)
    e = signs.weighted_log10_e(whole, drawn)
    assert found.log10_e == pytest.approx(e)
    if exhaustive:
        assert (found.test, found.log10_p) == ("exact weighted signs", signs.weighted_log10_p(whole, drawn))
    else:
        assert (found.test, found.log10_p) == ("anytime weighted signs", min(0.0, -found.log10_e))


def test_an_answer_outside_the_task_is_a_failed_query_of_a_pattern():
    channel, seen = weighing(4, 4, exhaustive=True)
    problem = channel.take([Said(0), None, Said(7), Said(9)], "their model")
    assert isinstance(problem, SuspectError)
    assert str(problem).startswith("their model answered class 7")
    assert (channel.failed, seen) == (3, [[0, -1, -1, -1]])


def test_failed_queries_of_all_stages_are_counted():
    channel, _ = weighing(8, 8)
    for said in ([None], [Said(0)], [None, Said(1)], [Said(0)] * 4):
        assert len(channel.due(math.inf)) == len(said)
        channel.take(said, "it")
    assert (channel.failed, channel.finding().failed, channel.finding().queries) == (2, 2, 8)


def test_a_sign_of_the_least_weight_counts_as_a_match():
    weights = np.array([100.0] * 4 + [2] * 4)
    assert signs.weights_of(weights).min() == 1
    channel, _ = weighing(8, 8, exhaustive=True, weights=weights)
    channel.take([Said(0)] * len(channel.due(math.inf)), "it")
    assert (channel.finding().matches, channel.finding().of) == (8, 8)


@pytest.mark.parametrize(
    ("counts", "test"), [((1, 0), "exact in-set"), ((1, 1), "exact group"), ((2, 0), "exact group")]
)
def test_two_answers_to_one_draw_make_a_group(mark, counts, test):
    channel = channel_of(mark, mark.triggers.plan.choices, 100, True)
    channel.results = [DrawResult(0, (1, 0)), DrawResult(0, counts)]
    assert channel.finding().test == test


def answered(channel, mark, answer, target=math.inf):
    """The numbers of rows that were due at a time; `answer` takes a row and returns what was said."""
    sizes = []
    while len(due := channel.due(target)):
        sizes.append(len(due))
        assert channel.take([answer(row) for row in due.tolist()], "it") is None
    return sizes


@pytest.mark.parametrize("limit", [4, 5, 6, 23, 100, 10**6])
def test_an_exhaustive_channel_asks_whole_draws_within_the_limit(grouped, limit):
    test = grouped.triggers.plan.choices
    channel = channel_of(grouped, test, limit, True)
    truth = grouped.triggers.answers
    answered(channel, grouped, lambda row: Said(int(truth[row])) if row % 3 else None)
    whole = min(limit, 100) // 5 * 5
    asked = test.rows[:whole].tolist()
    found = channel.finding()
    assert (channel.limit, found.queries, found.draws) == (min(limit, 100), whole, whole // 5)
    assert found.failed == sum(row % 3 == 0 for row in asked)
    assert found.of == found.matches == whole - found.failed
    assert found.log10_p == draws.log10_p(channel.results)
    assert found.log10_e == pytest.approx(betting.log10_e(channel.results)) == channel.log10_e()
    assert found.test == ("exact group" if whole else "exact in-set")
    assert found.candidates == frozenset(len(options) for options in test.options[: whole // 5])


def test_queries_that_were_enough_are_counted_in_whole_draws(grouped):
    truth = grouped.triggers.answers
    channel = channel_of(grouped, grouped.triggers.plan.choices, 100, True)
    answered(channel, grouped, lambda row: Said(int(truth[row])))
    path = betting.log10_e_path(channel.results)
    assert channel.enough(path[3]) == 20
    assert channel.enough(path[3] + 1e-9) == 25
    assert channel.enough(path[-1] + 1) is None


def test_a_copy_is_asked_the_fewest_at_once_and_then_no_more(mark):
    truth = mark.triggers.answers
    channel = channel_of(mark, mark.triggers.plan.choices, 100, False)
    assert answered(channel, mark, lambda row: Said(int(truth[row])), 6.0) == [7]
    assert channel.finding().test == "anytime e-process"
    assert channel.finding().log10_p == -channel.log10_e()


def test_nothing_is_asked_once_the_target_is_reached_to_the_last_digit(mark):
    """Counting ahead rounds otherwise than the e-value itself, and would ask once more for some of these."""
    channel = channel_of(mark, mark.triggers.plan.choices, 100, False)
    for misses in range(6):
        for matches in range(1, 40):
            one, other = (DrawResult(symbol, (1,) + (0,) * 9) for symbol in (0, 1))
            channel.results = [one] * matches + [other] * misses
            assert not len(channel.due(channel.log10_e()))


def test_a_stranger_is_let_go_when_the_target_is_out_of_reach(mark):
    truth = mark.triggers.answers
    channel = channel_of(mark, mark.triggers.plan.choices, 100, False)
    sizes = answered(channel, mark, lambda row: Said((int(truth[row]) + 1) % 10), 6.0)
    assert sizes[0] == 7
    assert 50 < sum(sizes) < 100
    ahead = [(10, 1)] * (100 - sum(sizes))
    assert betting.fewest_to([channel.results], 6.0, ahead) is None
    # A path that never rose has p = 1.
    assert (channel.finding().log10_p, channel.finding().matches, channel.finding().of) == (0.0, 0, sum(sizes))


def test_so_small_a_limit_is_asked_in_full(mark):
    channel = channel_of(mark, mark.triggers.plan.choices, 3, False)
    assert answered(channel, mark, lambda row: Said(0), 6.0) == [3]
    assert not len(channel_of(mark, mark.triggers.plan.choices, 0, False).due(6.0))


def test_all_draws_are_asked_in_strides(mark):
    rows = np.tile(mark.triggers.plan.choices.rows, 7)
    many = SimpleNamespace(groups=[rows[i : i + 1] for i in range(700)])
    channel = ChoicesChannel(mark, many, 700, True)
    assert answered(channel, mark, lambda row: Said(0)) == [512, 188]


# Scores


def leaning(mark, share, rng):
    """A function from a row to an answer: the mean of a model that knows the answers with others that know nothing."""
    truth = mark.triggers.answers

    def said(row):
        scores = (1 - share) * rng.dirichlet(np.full(CLASSES, 0.1)) + share * np.eye(CLASSES)[int(truth[row])]
        return Said(int(scores.argmax()), np.log(np.maximum(scores, 1e-4)))

    return said


@pytest.mark.parametrize("exhaustive", [False, True])
def test_scores_tell_of_a_member_that_the_others_outvote(mark, exhaustive):
    """The member's answers are in the minority, and its scores are there each time."""
    rng = np.random.default_rng(5)
    channel = channel_of(mark, mark.triggers.plan.choices, 100, exhaustive)
    answered(channel, mark, leaning(mark, 0.25, rng), 6.0)
    found = channel.finding()
    assert found.test == ("exact in-set with scores" if exhaustive else "anytime e-process with scores")
    assert found.log10_p < -6
    by_answers = draws.log10_p(channel.results)
    assert found.log10_p < by_answers - 6
    assert found.log10_e == pytest.approx(betting.log10_e(channel.results, channel.weighed))
    nothing = channel_of(mark, mark.triggers.plan.choices, 100, exhaustive)
    answered(nothing, mark, leaning(mark, 0.0, rng), 6.0)
    assert nothing.finding().log10_p > -4


@pytest.mark.once
def test_scores_do_not_tell_of_a_key_that_the_suspect_never_met(mark):
    """Over 1,000 keys, p of both tests together is not below x more often than x."""
    rng, test = np.random.default_rng(11), mark.triggers.plan.choices
    heard = channel_of(mark, test, 100, True)
    answered(heard, mark, leaning(mark, 0.25, rng))
    p = []
    for symbols in rng.integers(CLASSES, size=(1000, 100)):
        channel = channel_of(mark, test, 100, True)
        channel.scored = True
        for name in ("results", "weighed"):
            made = [replace(one, symbol=int(s)) for one, s in zip(getattr(heard, name), symbols, strict=True)]
            setattr(channel, name, made)
        p.append(channel.finding().log10_p)
    for alpha in (0.2, 0.05, 0.01):
        assert np.sum(np.array(p) <= math.log10(alpha)) <= binom.isf(1e-6, 1000, alpha)
    assert heard.finding().log10_p < -6


def test_one_answer_with_scores_is_paid_for(mark):
    truth = mark.triggers.answers
    channels = [channel_of(mark, mark.triggers.plan.choices, 100, True) for _ in range(2)]
    answered(channels[0], mark, lambda row: Said(int(truth[row])))
    sure = np.log(np.maximum(np.eye(CLASSES), 1e-4))
    answered(channels[1], mark, lambda row: Said(int(truth[row]), sure[int(truth[row])] if row == 3 else None))
    plain, scored = (channel.finding() for channel in channels)
    assert (plain.test, scored.test) == ("exact in-set", "exact in-set with scores")
    assert scored.log10_p == pytest.approx(plain.log10_p + math.log10(2))
    assert scored.log10_e == pytest.approx(plain.log10_e)
