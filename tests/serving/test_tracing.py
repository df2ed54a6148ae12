import dataclasses

import numpy as np
import pytest
from served_digits import flat, marked, pool
from sklearn.neighbors import KNeighborsClassifier

from wmplug import InputError, verify
from wmplug.serving import Decided, Log, Serving, by_customer, trace
from wmplug.serving.answers import Scores
from wmplug.statistics.combination import holm
from wmplug.statistics.signs import weighted_ps, weights_of
from wmplug.tasks import Said
from wmplug.watermark.choices import Choice

NAMES = ("acme", "umbra", "initech")


@pytest.fixture(scope="module")
def personal(story):
    return marked(story, "personal", personal=0.9)


@pytest.fixture(scope="module")
def told(story, personal, tmp_path_factory):
    """Three customers ask a third of the pictures each."""
    log = Log(tmp_path_factory.mktemp("log") / "log.db", personal)
    serving = Serving(personal, story.scores, log, gap=0.3)
    parts = dict(zip(NAMES, np.array_split(np.arange(len(story.asked)), 3), strict=True))
    answers = {who: serving.answer(story.asked[rows], who).argmax(axis=1) for who, rows in parts.items()}
    return parts, answers, log.decided()


@pytest.fixture
def traced(story, personal, told):
    return lambda suspect, mark=personal: trace(mark, told[2], suspect, **given(story, told[2]))


def given(story, decided):
    # References take their time; others of the same kind do.
    return {"carriers": story.carriers, "labels": story.labels, "pool": pool(story, decided.inputs)}


def clone(story, rows, answers):
    model = KNeighborsClassifier(1).fit(flat(story.asked[rows]), answers)
    return lambda inputs: model.predict(flat(inputs))


@pytest.mark.parametrize("who", NAMES)
def test_the_customer_who_cloned_is_named(who, story, told, traced):
    parts, answers, _ = told
    found = traced(clone(story, parts[who], answers[who]))
    assert [name for _, name in found.accused(1e-3)] == [who]


def test_two_who_pooled_their_answers_are_both_named(story, told, traced):
    parts, answers, _ = told
    both = [np.concatenate([of[who] for who in NAMES[:2]]) for of in (parts, answers)]
    assert {name for _, name in traced(clone(story, *both)).accused(1e-3)} == set(NAMES[:2])


def test_nobody_is_named_for_a_model_that_learnt_the_truth(story, traced):
    assert traced(clone(story, np.arange(len(story.asked)), story.truth)).accused(1e-3) == ()


def test_nobody_is_named_by_another_key(story, told, traced):
    parts, answers, _ = told
    rival = marked(story, "rival", personal=0.9)
    assert traced(clone(story, parts["acme"], answers["acme"]), rival).accused(1e-3) == ()


def test_who_shared_no_coin_cannot_be_traced(story, personal, told, traced):
    nobody = dataclasses.replace(told[2], customers=("",) * len(told[2]))
    with pytest.raises(InputError, match="serve with customer="):
        trace(personal, nobody, lambda x: x, carriers=story.carriers, labels=story.labels)


def test_the_right_one_is_named_under_thirty_keys(story):
    """Three customers take turns; at least 29 of 30 must be named, and nobody else may be."""
    parts, named = np.array_split(np.arange(len(story.asked)), 3), []
    for key in range(30):
        mark, guilty = marked(story, f"key {key}", personal=0.9), key % 3
        held = []
        for who, rows in zip(NAMES, parts, strict=True):
            scores = story.scores(story.asked[rows])
            unsure, pairs = Scores.of(scores, len(rows), 10).unsure(0.3)
            held.append((story.asked[rows][unsure], pairs, (who,) * len(unsure)))
            if who == NAMES[guilty]:
                answers = Serving(mark, gap=0.3).served(story.asked[rows], scores, who).argmax(axis=1)
                suspect = clone(story, rows, answers)
        inputs, pairs, customers = zip(*held, strict=True)
        decided = Decided(np.concatenate(inputs), np.concatenate(pairs), sum(customers, ()))
        accused = [name for _, name in trace(mark, decided, suspect, **given(story, decided)).accused(1e-3)]
        assert set(accused) <= {NAMES[guilty]}
        named.append(bool(accused))
    assert sum(named) >= 29


def test_innocent_customers_are_named_no_oftener_than_alpha(story, personal, told):
    """1,000 times the coins of all customers are drawn anew, for a model that learnt the truth."""
    marks = by_customer(personal, told[2], **given(story, told[2]))
    suspect = clone(story, np.arange(len(story.asked)), story.truth)
    drawn, ps = np.random.default_rng(0), []
    for mark in marks.values():
        plan = mark.triggers.plan
        said = [Said(int(label)) for label in suspect(plan.inputs[plan.pattern.rows])]
        weights = weights_of(mark.scheme.weigh(plan, *mark.task.arrays(said)))
        ps.append(weighted_ps(weights, 2 * drawn.integers(0, 2, (1000, plan.pattern.signs)) - 1))
    for alpha, most in ((0.001, 5), (0.05, 80)):  # each would be exceeded once in a thousand runs or less
        assert sum(holm(np.log10(row).tolist(), alpha).any() for row in np.transpose(ps)) <= most
    assert max(np.mean(p <= 0.5) for p in ps) <= 0.56


def test_labels_that_are_missing_are_not_called_others(story, personal, told):
    for ask in (personal.with_queries, lambda decided, **given: trace(personal, decided, len, **given)):
        with pytest.raises(InputError, match=r"labels= \(--labels\) are missing: pass those"):
            ask(told[2], carriers=story.carriers, labels=None)


def test_references_of_your_own_are_named(story, told, traced):
    parts, answers, _ = told
    found = traced(clone(story, parts["acme"], answers["acme"]))
    assert "references NOT COMMITTED" in str(found.verdicts["the suspect"]["acme"])


class Keys:
    """A register that commits to three keys."""

    def past(self, watermark):
        return 3, frozenset()

    def logged(self, queries):
        return Choice(what="questions", bound=None, sha256=queries)


def test_every_key_is_a_try_for_every_customer(story, personal, told, traced):
    parts, answers, _ = told
    found = traced(clone(story, parts["acme"], answers["acme"]), dataclasses.replace(personal, record=Keys()))
    (verdicts,) = found.verdicts.values()
    owed = len(NAMES) * 10 ** verdicts["acme"].log10_p  # each verdict pays for the keys, and Holm for the customers
    assert found.accused(1.1 * owed)
    assert not found.accused(0.9 * owed)


def test_a_customer_of_many_counts_as_many_tries(story, personal, told):
    parts, answers, decided = told
    marks = by_customer(personal, decided, **given(story, decided))
    verdict = verify(marks["umbra"], clone(story, parts["umbra"], answers["umbra"]), exhaustive=True)
    alone = verify(dataclasses.replace(marks["umbra"], choices=()), clone(story, parts["umbra"], answers["umbra"]))
    assert verdict.proven
    assert verdict.tries == len(NAMES) * alone.tries
