import warnings

import numpy as np
import pytest
from served_digits import flat, marked
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from wmplug import InputError, SuspectError, create, verify
from wmplug.errors import ServingError, ServingWarning
from wmplug.serving import Log, Serving
from wmplug.testing.schemes import fixed_owner

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
    answers = Serving(mark).served(asked, plain)
    assert np.flatnonzero((answers == plain).all(axis=1)).tolist() == [3, 4]


def test_labels_alone_show_no_doubt(story, mark):
    with pytest.raises(SuspectError, match="probabilities or logits"):
        Serving(mark, lambda inputs: story.scores(inputs).argmax(axis=1)).answer(story.asked)


def test_another_scheme_is_refused(story):
    mark = create(fixed_owner("x"), scheme="random-label", carriers=story.carriers, labels=story.labels, classes=10)
    with pytest.raises(InputError, match="give a watermark of scheme 'served'"):
        Serving(mark)


@pytest.mark.parametrize("given", [{"gap": 2}, {"gap": True}, {"margin": -1}, {"without_log": "shrug"}])
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
    low, high = np.sort(np.log(np.take_along_axis(answers[unsure], decided.pairs, axis=1)), axis=1).T
    assert len(unsure) == len(decided)
    assert (high - low >= 2 - 1e-9).all()
    assert (high - low <= 4 + 1e-9).all()
    assert len(np.unique((high - low).round(6))) > 0.9 * len(unsure)
