import dataclasses

import numpy as np
import pytest
from served_digits import flat, marked, pool
from sklearn.neighbors import KNeighborsClassifier

from wmplug import InputError
from wmplug.schemes.served import Served
from wmplug.serving import Log, Serving, trace

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
def traced(story, personal, told, monkeypatch):
    # References take their time; others of the same kind do.
    monkeypatch.setattr(Served, "heard", lambda self, brief, queries, _: _references(story, queries))
    given = {"carriers": story.carriers, "labels": story.labels}
    return lambda suspect, mark=personal: trace(mark, told[2], suspect, **given)


def _references(story, queries):
    from wmplug.schemes.tilt.references import References

    said = pool(story, queries.inputs)
    return References(said, said)


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
