import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from wmplug import Monitor, create, verify
from wmplug.errors import InputError, SuspectError
from wmplug.statistics.betting import log10_e_path


def table(mark, wrong=0):
    """What a thief's model says: every answer but the first `wrong` asked."""
    plan, answers = mark.triggers.plan, mark.triggers.answers
    known = {plan.inputs[i].tobytes(): int(answers[i]) for i in plan.asked}
    for i in plan.asked[:wrong]:
        known[plan.inputs[i].tobytes()] = (int(answers[i]) + 1) % mark.classes
    return known


class Thief:
    """Knows the answers; counts what it is asked."""

    description = "thief"

    def __init__(self, mark, wrong=0):
        self.known, self.asked = table(mark, wrong), 0

    def answer(self, inputs):
        self.asked += len(inputs)
        return [self.known[x.tobytes()] for x in inputs]


class Stranger:
    """Answers by the input's content alone."""

    description = "stranger"

    def __init__(self):
        self.asked = 0

    def answer(self, inputs):
        self.asked += len(inputs)
        return [int(x.astype(int).sum()) % 10 for x in inputs]


@pytest.fixture(scope="module")
def owner(owner):
    """With a secret that is the same in every run, as what a stranger hits by luck is."""
    return dataclasses.replace(owner, _roots=(bytes(range(32)),), path=Path("nowhere"))


@pytest.fixture(scope="module")
def rival(rival):
    return dataclasses.replace(rival, _roots=(bytes(range(32, 64)),), path=Path("nowhere"))


@pytest.fixture(scope="module")
def mark(owner, digits):
    return create(owner, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10)


@pytest.fixture(scope="module")
def theirs(rival, digits):
    return create(rival, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10)


@pytest.fixture(scope="module")
def grouped(owner, digits):
    return create(owner, scheme="logo", carriers=digits[0], labels=digits[1], classes=10, variants=2, triggers=100)


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
    perfect = [r for r in mark.score(0, [[int(a)] for a in mark.triggers.answers[mark.triggers.plan.asked]])]
    assert verdict.queries == int(np.argmax(log10_e_path(perfect) >= math.log10(target))) + 1


def test_one_by_one_would_not_have_stopped_earlier(mark):
    for wrong in (1, 3, 10):
        thief = Thief(mark, wrong)
        verdict = verify(mark, thief)
        path = log10_e_path(
            mark.score(
                0, [[a] for a in Thief(mark, wrong).answer([mark.triggers.row(i) for i in mark.triggers.plan.asked])]
            )
        )
        assert thief.asked == verdict.queries == int(np.argmax(path >= 6)) + 1
        assert verdict.log10_e == pytest.approx(path[verdict.queries - 1])


class Unlucky(Stranger):
    """Never gives a secret answer; how soon it is let go does not hang on the key."""

    def __init__(self, mark):
        super().__init__()
        plan, answers = mark.triggers.plan, mark.triggers.answers
        self.known = {plan.inputs[i].tobytes(): int(answers[i]) for i in plan.asked}

    def answer(self, inputs):
        self.asked += len(inputs)
        return [(self.known[x.tobytes()] + 1) % 10 for x in inputs]


def test_a_suspect_is_let_go_when_the_target_is_out_of_reach(mark):
    stranger = Unlucky(mark)
    verdict = verify(mark, stranger)
    assert verdict.state == "inconclusive"
    assert 50 < stranger.asked == verdict.queries < 100
    # Had all that is left matched, it would not have been enough.
    answers = [
        [a] for a in Unlucky(mark).answer([mark.triggers.row(i) for i in mark.triggers.plan.asked[: verdict.queries]])
    ]
    rest = mark.triggers.answers[mark.triggers.plan.asked[verdict.queries :]]
    assert log10_e_path(mark.score(0, answers + [[int(a)] for a in rest]))[-1] < 6


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


@pytest.mark.parametrize("target", [None, 3, object(), "no/such/folder"])
def test_what_cannot_be_asked(mark, target):
    with pytest.raises(SuspectError, match="cannot ask"):
        verify(mark, target)


def test_path_that_is_not_there_is_named(mark, tmp_path):
    with pytest.raises(SuspectError, match="nowhere"):
        verify(mark, tmp_path / "nowhere")


def test_labels_and_scores_give_one_verdict(mark):
    known = table(mark, 20)
    labels = verify(mark, lambda batch: [known[x.tobytes()] for x in batch], exhaustive=True)
    scores = verify(mark, lambda batch: np.eye(10)[[known[x.tobytes()] for x in batch]], exhaustive=True)
    assert (labels.matches, labels.log10_p) == (scores.matches, scores.log10_p)
    assert labels.matches == 80


@pytest.mark.parametrize(
    ("suspect", "words"),
    [
        (lambda batch: np.zeros((len(batch), 11)), "gives 11 scores"),
        (lambda batch: [0.5] * len(batch), "dtype float64"),
        (lambda batch: [0] * (len(batch) - 1), "for .* inputs"),
        (lambda batch: 3, "for .* inputs"),
        (lambda batch: np.full((len(batch), 10), np.nan), "all were NaN"),
    ],
)
def test_unreadable_suspects(mark, suspect, words):
    with pytest.raises(SuspectError, match=words):
        verify(mark, suspect)


def test_suspect_class_that_gives_too_many_answers_is_refused(grouped):
    class Talkative(Stranger):
        def answer(self, inputs):
            return [*super().answer(inputs), 1, 2, 3]

    with pytest.raises(SuspectError, match=r"gave \d+ answers for \d+ inputs"):
        verify(grouped, Talkative())


def test_answers_that_are_no_class_are_counted_outside(mark):
    known = table(mark)
    verdict = verify(mark, lambda batch: [known[x.tobytes()] + 10 for x in batch], exhaustive=True)
    assert (verdict.in_set, verdict.matches, verdict.state) == (0, 0, "inconclusive")
    assert "100 outside the candidates" in str(verdict)


def test_nan_rows_are_dropped_and_counted(mark):
    known, calls = table(mark), []

    def suspect(batch):
        scores = np.eye(10)[[known[x.tobytes()] for x in batch]]
        scores[::4] = np.nan
        calls.append(len(batch))
        return scores

    verdict = verify(mark, suspect, exhaustive=True, batch_size=100)
    assert (verdict.failed, verdict.in_set, verdict.matches) == (25, 75, 75)
    assert verdict.log10_p == pytest.approx(-75)
    assert calls == [100]


@pytest.mark.parametrize("exhaustive", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_suspect_that_raises_on_every_tenth_query(mark, exhaustive, batch_size):
    known, asked = table(mark), [0]

    def flaky(batch):
        out = []
        for x in batch:
            asked[0] += 1
            if asked[0] % 10 == 0:
                raise TimeoutError("too busy")
            out.append(known[x.tobytes()])
        return out

    verdict = verify(mark, flaky, exhaustive=exhaustive, batch_size=batch_size)
    assert verdict.proven
    assert verdict.matches == verdict.in_set == verdict.queries - verdict.failed
    assert verdict.failed <= verdict.queries / 5
    assert not exhaustive or verdict.failed == 10


def test_last_query_that_fails_alone_is_no_reason_to_stop(mark):
    """A step of one query, all of it failed, after others were answered."""
    known, rows = table(mark), mark.triggers.plan.asked[[0, 7]]
    dead = {mark.triggers.row(i).tobytes() for i in rows}

    def flaky(batch):
        if any(x.tobytes() in dead for x in batch):
            raise TimeoutError("too busy")
        return [known[x.tobytes()] for x in batch]

    verdict = verify(mark, flaky)
    assert verdict.proven
    assert verdict.failed == 2


def test_suspect_that_always_raises_is_named_with_its_cause(mark):
    def broken(batch):
        raise ZeroDivisionError("no model here")

    with pytest.raises(SuspectError, match=r"answered none of .* ZeroDivisionError: no model here") as caught:
        verify(mark, broken)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_suspect_cannot_damage_the_mark(mark, owner):
    class Vandal(Stranger):
        def answer(self, inputs):
            said = super().answer(inputs)
            for x in inputs:
                x[:] = 0
            return said

    before = verify(mark, Thief(mark), exhaustive=True)
    verify(mark, Vandal(), exhaustive=True)
    assert verify(mark, Thief(mark), exhaustive=True).log10_p == before.log10_p


def test_progress_is_told(mark):
    told = []
    verify(mark, Stranger(), max_queries=90, progress=lambda done, most: told.append((done, most)))
    assert {most for _, most in told} == {90}
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_verdict_hook_is_called(mark):
    from wmplug import hookimpl, plugins

    class Plugin:
        heard = ()

        @hookimpl
        def wmplug_verdict(self, verdict, run):
            self.heard = (*self.heard, (verdict, dict(run)))

    plugin = Plugin()
    plugins.registry().manager.register(plugin)
    try:
        verdict = verify(mark, Stranger())
        looked = Monitor(mark).look(Stranger(), step=7, run={"epoch": 2})
    finally:
        plugins.registry().manager.unregister(plugin)
    assert plugin.heard == ((verdict, {}), (looked, {"step": 7, "epoch": 2}))


def test_monitor_discounts_every_look(mark):
    monitor = Monitor(mark)
    verdicts = [monitor.look(Thief(mark), step=10 * u) for u in range(1, 6)]
    raw = verify(mark, Thief(mark), exhaustive=True).log10_e
    for u, verdict in enumerate(verdicts, 1):
        assert verdict.log10_e == pytest.approx(raw + math.log10(6 / math.pi**2 / u**2))
        assert (verdict.looks, verdict.step, verdict.p_is) == (u, 10 * u, "exact")
        assert verdict.log10_p == pytest.approx(-100)
    weights = [10 ** (v.log10_e - raw) for v in verdicts]
    assert sum(weights) < 1
    assert monitor.log10_sum() == pytest.approx(raw + math.log10(sum(weights)))
    assert sum(6 / math.pi**2 / u**2 for u in range(1, 100_000)) < 1


@pytest.mark.parametrize(
    ("looks", "lost"),
    [
        ([], False),
        ([2.0], False),
        ([90.0], False),
        ([2.0, 0.0], False),  # never proven
        ([7.0, 5.0], False),  # by a few answers
        ([6.3, 6.3], False),  # by the weight of the second look
        ([90.0, 50.0], False),  # proven still
        ([90.0, 5.0], True),
        ([7.0, -math.inf], True),
        ([7.0, 1.0, 8.0], False),  # proven again
    ],
)
def test_monitor_knows_a_lost_mark_from_one_that_wavers(mark, looks, lost):
    assert Monitor(mark, looks=looks).lost is lost


def test_monitor_goes_on_after_a_resume(mark):
    whole, first = Monitor(mark), Monitor(mark)
    for _ in range(2):
        whole.look(Thief(mark))
        first.look(Thief(mark))
    resumed = Monitor(mark, looks=first.looks)
    assert resumed.look(Thief(mark)).log10_e == whole.look(Thief(mark)).log10_e
    assert len(first.looks) == 2


def test_look_that_failed_is_not_counted(mark):
    monitor = Monitor(mark)
    with pytest.raises(SuspectError):
        monitor.look(lambda batch: 1 / 0)
    assert monitor.looks == []
    assert monitor.look(Thief(mark)).looks == 1


def test_monitor_refuses_a_target_before_training(mark):
    with pytest.raises(InputError, match="target_e"):
        Monitor(mark, target_e=0.5)


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


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_suspect_that_exits_has_failed(mark, exhaustive):
    known, first = table(mark), mark.triggers.row(mark.triggers.plan.asked[0]).tobytes()

    def quits_once(batch):
        return [known[x.tobytes()] if x.tobytes() != first else sys.exit(0) for x in batch]

    verdict = verify(mark, quits_once, exhaustive=exhaustive)
    assert (verdict.state, verdict.failed) == ("proven", 1)
    with pytest.raises(SuspectError, match=r"answered none of .* SystemExit"):
        verify(mark, lambda batch: sys.exit(0), exhaustive=exhaustive)


@pytest.mark.parametrize("odd", [None, "cat", [0.5] * 9])
def test_one_odd_answer_is_one_failed_query(mark, odd):
    known, first = table(mark), mark.triggers.row(mark.triggers.plan.asked[0]).tobytes()

    def suspect(batch):
        said = [np.eye(10)[known[x.tobytes()]].tolist() if x.tobytes() != first else odd for x in batch]
        return said if None not in said or len(said) > 1 else None

    verdict = verify(mark, suspect, exhaustive=True)
    assert (verdict.failed, verdict.matches, verdict.in_set) == (1, 99, 99)
    with pytest.raises(SuspectError, match="gives 9 scores"):
        verify(mark, lambda batch: np.zeros((len(batch), 9)))


def test_all_failed_points_to_preprocess(mark):
    def picky(batch):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(SuspectError, match=r"multiplied.*load\(path, preprocess=.*--preprocess module:function"):
        verify(mark, picky)
    given = dataclasses.replace(mark, preprocess=lambda x, y: (x, y))
    with pytest.raises(SuspectError, match="check that preprocess= gives what the model takes"):
        verify(given, picky)
    with pytest.raises(SuspectError, match="all were NaN, so the weights are broken"):
        verify(given, lambda batch: np.full((len(batch), 10), np.nan))


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


def test_bare_weights_and_folders_say_what_is_there(mark, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    (tmp_path / "notes.md").write_text("")
    for path, said in [
        (tmp_path, "holds model.pt, notes.md but no config.json.*your own class"),
        (tmp_path / "model.pt", "bare weights.*your own class"),
        (tmp_path / "notes.md", "neither a checkpoint folder nor a .keras file"),
        (tmp_path / "none", "no such file"),
    ]:
        with pytest.raises(SuspectError, match=said):
            verify(mark, path)
