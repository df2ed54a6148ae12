import json
import math

import numpy as np
import pytest
from scipy.stats import binom
from thieves import Stranger, Thief, Unlucky, scored, table

from wmplug import verify
from wmplug.errors import InputError
from wmplug.statistics.betting import log10_e_path


def cross(mark, suspect_of):
    """A suspect taught another owner's triggers, who answers ours by their content."""
    known, stranger = table(suspect_of), Stranger()
    return lambda batch: [known.get(x.tobytes(), stranger.answer([x])[0]) for x in batch]


def test_own_model_is_proven_and_others_are_not(mark, theirs):
    for exhaustive in (False, True):
        own = verify(mark, Thief(mark), exhaustive=exhaustive)
        assert own.proven
        assert own.matches == own.in_set == own.queries
        assert own.log10_e >= 6
        for suspect in (Stranger(), cross(mark, theirs), lambda batch: [3] * len(batch)):
            other = verify(mark, suspect, exhaustive=exhaustive)
            assert other.state == "inconclusive"
            assert other.log10_p > -2.5
    assert verify(mark, Thief(mark), exhaustive=True).log10_p == pytest.approx(-100)
    assert verify(theirs, cross(theirs, mark), exhaustive=True).state == "inconclusive"


def test_verdict_says_what_was_done(mark, grouped):
    sequential, all_asked = verify(mark, Thief(mark)), verify(mark, Thief(mark), exhaustive=True)
    assert (sequential.test, sequential.p_is, sequential.looks, sequential.keys) == (
        "anytime e-process",
        "anytime",
        1,
        1,
    )
    assert (all_asked.test, all_asked.p_is, all_asked.triggers) == ("exact in-set", "exact", 100)
    assert (all_asked.queries, all_asked.draws, all_asked.candidates, all_asked.failed) == (100, 100, (10,), 0)
    assert (all_asked.watermark, all_asked.scheme, all_asked.suspect) == (mark.id, "random-label", "thief")
    assert all_asked.enough == sequential.queries
    groups = verify(grouped, Thief(grouped), exhaustive=True)
    assert (groups.test, groups.draws, groups.queries, groups.candidates) == ("exact group", 20, 100, (9,))
    assert json.loads(all_asked.to_json())["log10_p"] == all_asked.log10_p


@pytest.mark.parametrize("target", [20.0, 1e6, 1e12])
def test_perfect_suspect_is_asked_no_query_too_many(mark, target):
    thief = Thief(mark)
    verdict = verify(mark, thief, target_e=target)
    assert verdict.proven
    assert thief.asked == verdict.queries == verdict.enough
    perfect = scored(mark, [[int(a)] for a in mark.triggers.answers[mark.triggers.plan.choices.rows]])
    assert verdict.queries == int(np.argmax(log10_e_path(perfect) >= math.log10(target))) + 1


def test_one_by_one_would_not_have_stopped_earlier(mark):
    for wrong in (1, 3, 10):
        thief = Thief(mark, wrong)
        verdict = verify(mark, thief)
        rows = [mark.triggers.row(i) for i in mark.triggers.plan.choices.rows]
        path = log10_e_path(scored(mark, [[a] for a in Thief(mark, wrong).answer(rows)]))
        assert thief.asked == verdict.queries == int(np.argmax(path >= 6)) + 1
        assert verdict.log10_e == pytest.approx(path[verdict.queries - 1])


def test_a_suspect_is_let_go_when_the_target_is_out_of_reach(mark):
    stranger = Unlucky(mark)
    verdict = verify(mark, stranger)
    assert verdict.state == "inconclusive"
    assert 50 < stranger.asked == verdict.queries < 100
    # Had all that is left matched, it would not have been enough.
    rows = [mark.triggers.row(i) for i in mark.triggers.plan.choices.rows[: verdict.queries]]
    answers = [[a] for a in Unlucky(mark).answer(rows)]
    rest = mark.triggers.answers[mark.triggers.plan.choices.rows[verdict.queries :]]
    assert log10_e_path(scored(mark, answers + [[int(a)] for a in rest]))[-1] < 6


def test_target_that_is_out_of_reach_from_the_start_still_yields_evidence(mark):
    thief = Thief(mark)
    verdict = verify(mark, thief, max_queries=4)
    assert (verdict.state, verdict.queries, thief.asked) == ("evidence", 4, 4)
    assert verify(mark, Thief(mark), target_e=1e300).queries == 100


@pytest.mark.parametrize("exhaustive", [False, True])
@pytest.mark.parametrize("limit", [5, 12, 33, 99, 500])
def test_max_queries_is_kept(grouped, exhaustive, limit):
    stranger = Stranger()
    verdict = verify(grouped, stranger, max_queries=limit, exhaustive=exhaustive)
    assert stranger.asked == verdict.queries <= min(limit, 100)
    # All queries of a draw, or the first of each.
    assert verdict.queries == verdict.draws * (5 if exhaustive else 1)


def test_group_is_judged_as_one_draw(grouped):
    """A suspect who has one draw right by luck has it right for every picture of it."""
    plan, answers = grouped.triggers.plan, grouped.triggers.answers
    lucky = {plan.inputs[i].tobytes(): int(answers[i]) for i in grouped.triggers.groups[0]}
    suspect = lambda batch: [lucky.get(x.tobytes(), -1) for x in batch]  # noqa: E731
    verdict = verify(grouped, suspect, exhaustive=True)
    assert (verdict.matches, verdict.in_set) == (5, 5)
    assert verdict.log10_p == pytest.approx(math.log10(1 / 9))
    assert verdict.log10_e < math.log10(9)


def test_stopping_early_asks_each_draw_once(grouped):
    """So that few queries go far, and no draw is looked at between two of its queries."""
    thief = Thief(grouped)
    verdict = verify(grouped, thief)
    assert verdict.proven
    assert verdict.queries == verdict.draws == thief.asked < 10


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target_e": 1}, "target_e=1"),
        ({"target_e": float("nan")}, "target_e=nan"),
        ({"target_e": float("inf")}, "target_e=inf"),
        ({"max_queries": 0}, "max_queries=0"),
        ({"max_queries": 4, "exhaustive": True}, "the first answer alone takes 5"),
        ({"max_queries": -3}, "max_queries=-3"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": "64"}, "batch_size='64' is a str"),
        ({"max_queries": "5"}, "max_queries='5' is a str"),
        ({"max_queries": 5.5}, "max_queries=5.5 is a float"),
        ({"target_e": "1e6"}, "target_e='1e6'"),
        ({"keys": 0}, "keys=0"),
        ({"keys": 1.5}, "keys=1.5 is a float"),
    ],
)
def test_options_out_of_range(grouped, options, words):
    with pytest.raises(InputError, match=words):
        verify(grouped, Stranger(), **options)


def test_labels_and_scores_give_one_verdict(mark):
    known = table(mark, 20)
    labels = verify(mark, lambda batch: [known[x.tobytes()] for x in batch], exhaustive=True)
    scores = verify(mark, lambda batch: np.eye(10)[[known[x.tobytes()] for x in batch]], exhaustive=True)
    assert labels.matches == scores.matches == 80
    # Both say the same, and the second is paid for.
    assert scores.log10_p == pytest.approx(labels.log10_p + math.log10(2))
    assert scores.log10_e == pytest.approx(labels.log10_e)
    assert (labels.test, scores.test) == ("exact in-set", "exact in-set with scores")


def test_progress_is_told(mark):
    told = []
    verify(mark, Stranger(), max_queries=90, progress=lambda done, most: told.append((done, most)))
    assert {most for _, most in told} == {90}
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize("known", [1, 40, 100])
def test_mutual_consistency_with_the_binomial(mark, known):
    verdict = verify(mark, Thief(mark, wrong=100 - known), exhaustive=True)
    assert verdict.log10_p == pytest.approx(binom.logsf(known - 1, 100, 0.1) / math.log(10), rel=1e-6)


def test_swapped_and_wrong_arguments_are_named(mark):
    for arguments, said in [
        ((Thief(mark), mark), r"swapped: verify\(mark, suspect\)"),
        (("rl.wm", Thief(mark)), r"wmplug.load\(path\)"),
        ((3, Thief(mark)), "mark is a int"),
    ]:
        with pytest.raises(InputError, match=said):
            verify(*arguments)


def test_keys_that_were_tried_are_paid_for(mark):
    one, many = (verify(mark, Thief(mark), exhaustive=True, keys=k) for k in (1, 1000))
    assert (one.keys, many.keys) == (1, 1000)
    assert many.log10_e == pytest.approx(one.log10_e - 3)
    assert many.log10_p == pytest.approx(one.log10_p + 3)
    assert many.enough > one.enough
    # Ten answers are worth a little more than 1e6 alone, and less among a thousand keys.
    paid = verify(mark, Thief(mark), keys=1000)
    assert paid.proven
    assert paid.queries == many.enough > verify(mark, Thief(mark)).queries
    assert verify(mark, Thief(mark), max_queries=7).proven
    assert verify(mark, Thief(mark), max_queries=7, keys=1000).state == "evidence"
    assert verify(mark, Stranger(), exhaustive=True, keys=10**9).log10_p == 0.0
