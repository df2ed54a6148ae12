import contextlib
import warnings

import numpy as np
import pytest
import sqlalchemy as sa
from scipy.special import logit
from served_digits import flat, marked
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from wmplug import InputError, SuspectError, create, verify
from wmplug.errors import ServingError, ServingWarning
from wmplug.schemes.served import Served
from wmplug.serving import Log, Serving
from wmplug.statistics.signs import weighted_ps, weights_of
from wmplug.tasks import Said
from wmplug.testing.schemes import fixed_owner
from wmplug.watermark.carriers import digest

GAP = 0.15
CLONES = {
    "forest": lambda seed: RandomForestClassifier(200, random_state=seed),
    "nearest": lambda seed: KNeighborsClassifier(1),
    "network": lambda seed: MLPClassifier((100,), max_iter=300, random_state=seed),
}


def clone(kind, inputs, answers, seed=0):
    model = CLONES[kind](seed).fit(flat(inputs), answers)
    return lambda asked: model.predict(flat(asked))


@pytest.fixture(scope="module")
def told(story, mark, tmp_path_factory):
    """What the served model said to those who asked, and its log."""
    log = Log(tmp_path_factory.mktemp("log") / "log.db", mark)
    serving = Serving(mark, story.scores, log, gap=GAP)
    return serving.answer(story.asked), log.decided()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("kind", CLONES)
def test_a_clone_of_the_answers_is_proven(kind, story, mark, told, asking):
    answers, decided = told
    found = verify(asking(mark, decided), clone(kind, story.asked, answers.argmax(axis=1)), exhaustive=True)
    assert found.proven, found


@pytest.mark.parametrize("seed", range(3))
def test_no_other_model_is(seed, story, mark, told, asking):
    answers, decided = told
    rival = marked(story, f"rival {seed}")
    innocent = {
        "learnt the truth": (mark, clone("forest", story.asked, story.truth, seed)),
        "learnt the unmarked answers": (mark, clone("forest", story.asked, story.scores(story.asked).argmax(axis=1))),
        "the served model": (mark, story.scores),
        "another key": (rival, clone("nearest", story.asked, answers.argmax(axis=1))),
    }
    for name, (whose, suspect) in innocent.items():
        assert verify(asking(whose, decided), suspect, exhaustive=True).log10_p > -4, name


KEYS = 10_000


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("learnt", ["another owner's answers", "the unmarked answers", "the truth"])
def test_the_p_value_of_a_model_that_never_met_the_key_is_uniform_over_keys(learnt, seed, story, mark, told, asking):
    """Its weights do not change with the key, so the coins of 10,000 keys are drawn."""
    answers = {
        "another owner's answers": lambda: (
            Serving(marked(story, f"rival {seed}"), gap=GAP)
            .served(story.asked, story.scores(story.asked))
            .argmax(axis=1)
        ),
        "the unmarked answers": lambda: story.scores(story.asked).argmax(axis=1),
        "the truth": lambda: story.truth,
    }[learnt]()
    plan = asking(mark, told[1]).triggers.plan
    labels = clone("forest", story.asked, answers, seed)(plan.inputs[plan.pattern.rows])
    weights = weights_of(mark.scheme.weigh(plan, *mark.task.arrays([Said(int(label)) for label in labels])))
    coins = 2 * np.random.default_rng(seed).integers(0, 2, (KEYS, plan.pattern.signs)) - 1
    p = np.sort(weighted_ps(weights, coins))
    reached = np.searchsorted(p, p, side="right") / KEYS
    assert (reached - p).max() < 0.02  # by Kolmogorov and Smirnov, chance 3e-4 under each
    assert (p <= 0.001).mean() <= 0.0021  # binomial, chance 1e-3


def test_only_doubtful_answers_change_and_between_two_classes(story, told):
    answers, decided = told
    plain = story.scores(story.asked)
    best = np.sort(plain, axis=1)
    unsure = best[:, -1] - best[:, -2] < GAP
    assert 40 < unsure.sum() == len(decided) < len(plain) / 3
    assert np.array_equal(answers[~unsure], plain[~unsure])
    second = np.sort(np.argsort(plain[unsure], axis=1)[:, -2:], axis=1)
    assert np.array_equal(second, decided.pairs)
    assert (second == answers[unsure].argmax(axis=1)[:, None]).any(axis=1).all()
    assert 0.25 < (answers[unsure].argmax(axis=1) != plain[unsure].argmax(axis=1)).mean() < 0.75


def test_any_batch_and_any_replica_answers_the_same(story, mark, told):
    replica = Serving(marked(story), story.scores, gap=GAP)
    rows = np.random.default_rng(1).permutation(len(story.asked))
    again = np.concatenate([replica.answer(story.asked[part]) for part in np.array_split(rows, 7)])
    assert np.allclose(again, told[0][rows])


def test_outputs_of_your_own_path_give_the_same(story, mark, told):
    assert np.array_equal(Serving(mark, gap=GAP).served(story.asked, story.scores(story.asked)), told[0])


def test_the_cost_is_told_before_anything_is_served(story, mark):
    serving = Serving(mark, story.scores, gap=GAP)
    cost = serving.cost(story.asked)
    answers, plain = (scores.argmax(axis=1) for scores in (serving.answer(story.asked), story.scores(story.asked)))
    assert cost.changed == (answers != plain).sum()
    assert cost.points == pytest.approx(
        100 * np.sum((lambda p: p.max(axis=1) - p[np.arange(len(p)), answers])(story.scores(story.asked))) / len(plain)
    )
    assert str(cost).startswith(f"gap 0.15: the key decides {cost.decided} of {len(plain)} queries")
    smaller = serving.cost(story.asked, share=0.02)
    assert smaller.gap < GAP
    assert 0 < smaller.decided <= 0.02 * len(plain) + 1
    assert serving.cost(story.asked, share=1.0).gap == GAP


def test_no_answer_changes_where_the_gap_is_zero(story, mark):
    serving = Serving(mark, story.scores, gap=0)
    assert np.array_equal(serving.answer(story.asked), story.scores(story.asked))
    assert serving.cost(story.asked).decided == 0


@pytest.fixture
def broken(mark, tmp_path):
    log = Log(tmp_path / "log.db", mark)
    log.close()
    (tmp_path / "log.db").unlink()
    (tmp_path / "log.db").mkdir()
    return log


def test_without_its_log_it_answers_unmarked_and_says_so(story, mark, broken):
    with pytest.warns(ServingWarning, match=r"answers went out UNMARKED: the log cannot be written"):
        answers = Serving(mark, story.scores, broken, gap=GAP).answer(story.asked)
    assert np.array_equal(answers, story.scores(story.asked))


def test_or_stops(story, mark, broken):
    with pytest.raises(ServingError, match="the log cannot be written"):
        Serving(mark, story.scores, broken, gap=GAP, without_log="stop").answer(story.asked)


def test_sure_answers_go_out_without_the_log(story, mark, broken):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Serving(mark, story.scores, broken, gap=0).answer(story.asked[:5]).shape == (5, 10)


def test_queries_in_another_dtype_are_read_if_they_are_the_same(story, mark, told):
    serving = Serving(mark, gap=GAP)
    plain = story.scores(story.asked)
    assert np.array_equal(serving.served(story.asked.astype(np.float64), plain), told[0])
    assert np.array_equal(serving.served(story.asked.tolist(), plain), told[0])


@pytest.mark.parametrize("change", [lambda x: x + 0.3, lambda x: x - 0.4, lambda x: np.where(x == 255, 300, x)])
def test_queries_that_were_nudged_out_of_their_form_are_decided_all_the_same(change, story, mark, told):
    nudged = change(story.asked.astype(np.float64))
    assert np.array_equal(Serving(mark, gap=GAP).served(nudged, story.scores(story.asked)), told[0])


@pytest.mark.parametrize("gap", [GAP, 0])
@pytest.mark.parametrize("wrong", [lambda x: x / 255, lambda x: x[:, :7], lambda x: ["text"] * len(x)])
def test_queries_unlike_the_carriers_are_refused_whether_the_model_is_sure_or_not(wrong, gap, story, mark):
    with pytest.raises(InputError, match=r"queries are .*carriers"):
        Serving(mark, gap=gap).served(wrong(story.asked), story.scores(story.asked))
    with pytest.raises(InputError, match=r"queries are .*carriers"):
        Serving(mark, lambda inputs: 1 / 0, gap=gap).answer(wrong(story.asked))


def test_no_query_and_no_name_are_refused(story, mark):
    with pytest.raises(InputError, match="there are no queries"):
        Serving(mark, story.scores).answer(story.asked[:0])
    assert Serving(mark).served(story.asked[:0], np.zeros((0, 10))).shape == (0, 10)
    with pytest.raises(InputError, match="customer=None is not a name"):
        Serving(mark, story.scores).answer(story.asked, None)


def test_a_row_with_a_missing_value_is_answered_and_never_decided(story):
    table = flat(story.carriers)
    mark = create(fixed_owner("table"), scheme="served", carriers=table, labels=story.labels, classes=10)
    asked = flat(story.asked[:100])
    asked[3, 5], asked[4, 6] = np.nan, np.inf
    plain = np.tile([0.4, 0.35, *[0.25 / 8] * 8], (100, 1))
    with pytest.warns(ServingWarning, match=r"2 answers went out UNMARKED: .* \(one holds NaN or infinity\)"):
        answers = Serving(mark).served(asked, plain)
    assert np.flatnonzero((answers == plain).all(axis=1)).tolist() == [3, 4]
    assert np.array_equal(Serving(mark, gap=0).served(asked, plain), plain)
    with pytest.raises(ServingError, match="2 of 100 answers would go out unmarked"):
        Serving(mark, unreadable="stop").served(asked, plain)


def test_a_text_that_is_not_unicode_is_answered_and_the_others_are_marked_and_logged(topics, tmp_path):
    texts, labels = list(topics[0][:300]), topics[1][:300]
    pool = np.full((300, 4), 0.25)
    mark = create(fixed_owner("words"), scheme=Served(cells=30, pool=pool), carriers=texts, labels=labels, classes=4)
    log = Log(tmp_path / "log.db", mark)
    plain = np.tile([0.35, 0.3, 0.2, 0.15], (40, 1))
    wanted = Serving(mark).served(texts[:40], plain)
    asked = [*texts[:7], "half of a pair: \ud83d", *texts[8:40]]
    with pytest.warns(ServingWarning, match=r"1 answers .* \(one is a text that is not Unicode\)"):
        answers = Serving(mark, lambda inputs: plain, log).answer(asked)
    assert np.array_equal(answers[7], plain[7])
    assert np.array_equal(np.delete(answers, 7, axis=0), np.delete(wanted, 7, axis=0))
    assert log.decided().inputs == list(dict.fromkeys(texts[:7] + texts[8:40]))


@pytest.mark.parametrize("odd", [np.zeros((8, 7)), [[1], [2, 3]], None, "text", [[None] * 8] * 8])
def test_a_query_of_another_shape_is_left_alone_among_others(odd, story, mark, told):
    asked, plain = list(story.asked), story.scores(story.asked)
    marked_rows = (told[0] != plain).any(axis=1)
    sure, unsure = int(np.flatnonzero(~marked_rows)[3]), int(np.flatnonzero(marked_rows)[3])
    for place in (sure, unsure):
        given = [*asked[:place], odd, *asked[place + 1 :]]
        expected = told[0].copy()
        expected[place] = plain[place]
        told_so = pytest.warns(ServingWarning, match="1 answers went out UNMARKED")
        with told_so if place == unsure else contextlib.nullcontext():
            assert np.array_equal(Serving(mark, gap=GAP).served(given, plain), expected)
    assert np.array_equal(Serving(mark, gap=0).served([odd, *asked[1:]], plain), plain)


class Frame:
    """As pandas has them: taken by the names of its columns."""

    def __init__(self, rows):
        self.rows = rows

    def to_numpy(self):
        return self.rows


@pytest.mark.parametrize("wrong", ["hello", b"hello", {"text": "hello"}, np.array(3), iter([1]), 7])
def test_one_query_alone_is_no_list_of_queries(wrong, story, mark):
    for ask in (lambda x: Serving(mark, story.scores).answer(x), lambda x: Serving(mark).served(x, np.ones((5, 10)))):
        with pytest.raises(InputError, match=r"queries are a \w+: give a list or an array of them, \[query\] for one"):
            ask(wrong)
    with pytest.raises(InputError, match="queries are a"):
        Serving(mark, story.scores).cost(wrong)


def test_a_frame_is_read_by_its_rows(story, mark, told):
    frame = Frame(story.asked)
    assert np.array_equal(Serving(mark, lambda x: story.scores(np.stack(x)), gap=GAP).answer(frame), told[0])


def test_an_estimator_is_told_what_to_give(mark):
    with pytest.raises(SuspectError, match=r"KNeighborsClassifier cannot be called: .*\.predict_proba"):
        Serving(mark, KNeighborsClassifier())
    with pytest.raises(SuspectError, match="cannot ask a int"):
        Serving(mark, 7)


def test_a_cost_without_any_known_score_or_unsure_query_says_so(story, mark):
    nothing = Serving(mark, lambda inputs: np.full((len(inputs), 10), np.nan))
    for share in (None, 0.1):
        with pytest.raises(SuspectError, match="scores of all 1097 inputs hold NaN"):
            nothing.cost(story.asked, share=share)
    sure = Serving(mark, lambda inputs: np.eye(10)[np.arange(len(inputs)) % 10])
    for share in (None, 0.1):
        assert str(sure.cost(story.asked, share=share)).endswith("no query is that unsure, so raise gap=")
    halves = Serving(mark, lambda inputs: np.where(np.arange(len(inputs))[:, None] % 2, np.nan, story.scores(inputs)))
    assert halves.cost(story.asked, share=0.02).decided > 0


def test_scores_that_may_be_either_are_not_decided(story, mark):
    shares = np.random.default_rng(0).uniform(0, 1, (len(story.asked), 10))  # as of a sigmoid for each class
    with pytest.warns(ServingWarning, match=r"1097 answers went out UNMARKED: .*logits=True\) or logits=False"):
        assert np.array_equal(Serving(mark).served(story.asked, shares), shares)
    with pytest.raises(SuspectError, match=r"logits=True\) or logits=False"):
        Serving(mark, lambda inputs: shares[: len(inputs)]).cost(story.asked)
    decided = {x: Serving(mark, logits=x).served(story.asked, shares) != shares for x in (True, False)}
    assert decided[True].any(axis=1).mean() > 0.9
    best = np.sort(shares, axis=1)
    assert np.array_equal(decided[False].any(axis=1), best[:, -1] - best[:, -2] < 0.1)


def test_probabilities_that_are_none_are_refused(story, mark):
    with pytest.raises(SuspectError, match=r"scores from -\d.* to \d.*, and logits=False says"):
        Serving(mark, logits=False).served(story.asked, np.log(story.scores(story.asked)) + 3)


def test_a_model_of_one_class_has_no_other_to_answer(story, mark):
    with pytest.raises(SuspectError, match="probabilities or logits"):
        Serving(mark, lambda inputs: np.ones((len(inputs), 1))).answer(story.asked)
    with pytest.raises(InputError, match="classes"):
        create(fixed_owner("one"), scheme="served", carriers=story.carriers, labels=0 * story.labels, classes=1)


def test_a_log_of_another_watermark_is_refused_before_it_serves(story, mark, tmp_path):
    """As after a change of the key."""
    rotated = marked(story, "the next key")
    with (
        contextlib.closing(Log(tmp_path / "log.db", mark)) as log,
        pytest.raises(InputError, match="the log belongs to watermark"),
    ):
        Serving(rotated, story.scores, log)
    with pytest.raises(InputError, match=r"give Log\(place, mark\)"):
        Serving(mark, story.scores, "log.db")


def test_two_models_with_one_key_are_decided_by_the_same_coins_and_told_apart(story, mark, asking, tmp_path):
    other = RandomForestClassifier(30, random_state=0).fit(flat(story.carriers), story.labels)
    models = {"first": story.scores, "second": lambda inputs: other.predict_proba(flat(inputs))}
    with contextlib.closing(Log(tmp_path / "log.db", mark)) as log:
        said = {}
        for name, model in models.items():
            said[name] = Serving(mark, model, log, gap=GAP, version=name).answer(story.asked).argmax(axis=1)
        assert set(log.models()) == set(models)
        of = {name: log.decided(model=name) for name in models}
        pairs = [dict(zip(one.digests, one.pairs.tolist(), strict=True)) for one in of.values()]
        both = [x for x in pairs[0] if pairs[0][x] == pairs[1].get(x)]
        assert len(both) > 10
        rows = {digest(x): row for row, x in enumerate(story.asked)}
        assert all(said["first"][rows[x]] == said["second"][rows[x]] for x in both)
        suspect = clone("nearest", story.asked, said["second"])
        assert verify(asking(mark, of["second"]), suspect, exhaustive=True).proven
        assert verify(asking(mark, log.decided()), suspect, exhaustive=True).proven


def test_a_disk_that_is_full_leaves_answers_unmarked_until_there_is_room(story, mark, told, tmp_path):
    log = Log(tmp_path / "log.db", mark)
    log.add(told[1].only(np.arange(1)))
    pages = ["PRAGMA page_count"]

    def limited(connection, _):
        (held,) = connection.execute(pages[0]).fetchone()
        connection.execute(f"PRAGMA max_page_count = {held}")

    sa.event.listen(log._engine, "connect", limited)
    log.close()
    for policy in ("unmarked", "stop"):
        serving = Serving(mark, story.scores, log, gap=GAP, without_log=policy)
        if policy == "stop":
            with pytest.raises(ServingError, match="disk is full"):
                serving.answer(story.asked)
        else:
            with pytest.warns(ServingWarning, match=r"UNMARKED: the log cannot be written .*disk is full"):
                assert np.array_equal(serving.answer(story.asked), story.scores(story.asked))
    assert len(log.decided()) == 1
    pages[0] = "SELECT 100000"
    log.close()
    assert np.array_equal(serving.answer(story.asked), told[0])
    assert log.decided().digest == told[1].digest


def test_labels_alone_show_no_doubt(story, mark):
    with pytest.raises(SuspectError, match="probabilities or logits"):
        Serving(mark, lambda inputs: story.scores(inputs).argmax(axis=1)).answer(story.asked)


def test_another_scheme_is_refused(story):
    mark = create(fixed_owner("x"), scheme="random-label", carriers=story.carriers, labels=story.labels, classes=10)
    with pytest.raises(InputError, match="give a watermark of scheme 'served'"):
        Serving(mark)


@pytest.mark.parametrize(
    "given", [{"gap": 2}, {"gap": True}, {"margin": -1}, {"without_log": "shrug"}, {"unreadable": "shrug"}]
)
def test_arguments_out_of_range_are_refused(given, mark):
    with pytest.raises(InputError, match=next(iter(given))):
        Serving(mark, **given)


def test_a_serving_without_a_model_says_what_to_do(mark, story):
    with pytest.raises(InputError, match=r"Serving\(mark, model\)"):
        Serving(mark).answer(story.asked)


def test_one_score_for_two_classes_needs_a_word_because_a_logit_may_look_like_a_probability(story):
    halves = (story.labels > 4).astype(np.int64)
    mark = create(fixed_owner("two"), scheme="served", carriers=story.carriers, labels=halves, classes=2)
    logits = np.random.default_rng(0).normal(0, 1, len(story.asked))
    with pytest.raises(InputError, match="logits=True"):
        Serving(mark).served(story.asked, logits)
    serving = Serving(mark, gap=GAP, logits=True)
    whole = serving.served(story.asked, logits)
    parts = [serving.served(story.asked[i : i + 1], logits[i : i + 1]) for i in range(100)]
    assert np.array_equal(np.concatenate(parts), whole[:100])
    assert (whole != logits).any()


def test_no_lead_stands_out_and_each_input_keeps_its_own(story, told):
    answers, decided = told
    unsure = np.flatnonzero((answers != story.scores(story.asked)).any(axis=1))
    lead = logit(answers[unsure].max(axis=1))
    assert len(unsure) == len(decided)
    assert (lead >= 2 - 1e-9).all()
    assert (lead <= 4 + 1e-9).all()
    assert len(np.unique(lead.round(6))) > 0.9 * len(unsure)
