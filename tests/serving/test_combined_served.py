"""One watermark against a stolen model and against a clone of what it answered."""

import numpy as np
import pytest
from served_digits import flat, pool
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from wmplug import InputError, create, load, verify
from wmplug.schemes.combined_served import CombinedServed
from wmplug.serving import Log, Serving
from wmplug.testing.schemes import fixed_owner
from wmplug.training.loop import need_points

GAP, COPIES = 0.3, 10


def combined(story, name="both", trigger_set="random-label"):
    given = {"carriers": story.carriers, "labels": story.labels, "classes": 10, "triggers": 50}
    scheme = CombinedServed(cells=40, personal=0.0, trigger_set=trigger_set, pool=pool(story, story.carriers))
    return create(fixed_owner(name), scheme=scheme, **given)


@pytest.fixture(scope="module", params=["random-label", "logo"])
def mark(request, story):
    return combined(story, trigger_set=request.param)


@pytest.fixture(scope="module")
def owned(story, mark):
    """The owner's model: it learnt the carriers, and the lessons several times over."""
    inputs, answers = zip(*mark.lessons() * COPIES, strict=True)
    model = MLPClassifier((200,), alpha=3.0, max_iter=60, random_state=0)
    known = np.concatenate([flat(story.carriers), flat(np.stack(inputs))])
    model.fit(known, np.concatenate([story.labels, answers]))
    return lambda asked: model.predict_proba(flat(asked))


@pytest.fixture(scope="module")
def told(story, mark, owned, tmp_path_factory):
    log = Log(tmp_path_factory.mktemp("log") / "log.db", mark)
    return Serving(mark, owned, log, gap=GAP).answer(story.asked), log.decided()


def learnt(story, answers):
    model = KNeighborsClassifier(1).fit(flat(story.asked), answers)
    return lambda asked: model.predict(flat(asked))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_one_verdict_has_the_stolen_model_and_the_clone(story, mark, owned, told, asking):
    answers, decided = told
    asks = asking(mark, decided)
    stolen, clone = (
        verify(asks, suspect, exhaustive=True) for suspect in (owned, learnt(story, answers.argmax(axis=1)))
    )
    assert stolen.proven, stolen
    assert clone.proven, clone
    assert stolen.parts[0].log10_p < -6 < -3 < stolen.parts[1].log10_p
    assert clone.parts[1].log10_p < -6
    assert clone.triggers == 50 + len(asks.triggers.plan.pattern.rows)
    innocent = RandomForestClassifier(100, random_state=0).fit(flat(story.asked), story.truth)
    assert verify(asks, lambda asked: innocent.predict(flat(asked))).state == "inconclusive"
    other = asking(combined(story, "rival", mark.scheme.trigger_set), decided)
    for suspect in (owned, learnt(story, answers.argmax(axis=1))):
        assert verify(other, suspect, exhaustive=True).log10_p > -4


def test_its_purpose_makes_it(story):
    given = {"carriers": story.carriers, "labels": story.labels, "classes": 10}
    made = create(fixed_owner("both"), against="theft+answers", pool=pool(story, story.carriers), **given)
    assert made.scheme.name == "combined-served"


def test_training_teaches_the_triggers_alone(mark, story):
    need_points("any", mark.scheme, ["samples"])  # or it would raise
    plan = mark.triggers.plan
    assert set(plan.choices.draw.tolist()) <= set(plan.lessons.draw.tolist())
    assert plan.pattern.rows.min() > plan.lessons.rows.max()


def test_it_is_saved_and_loaded(mark, tmp_path):
    mark.save(tmp_path / "mark.wm")
    again = load(tmp_path / "mark.wm", passphrase="for tests only")
    assert again.public == mark.public
    assert np.array_equal(again.triggers.symbols, mark.triggers.symbols)


def test_another_trigger_set_is_refused():
    with pytest.raises(InputError, match="trigger_set='phrase': choose 'random-label' or 'logo'"):
        CombinedServed(trigger_set="phrase")
