import dataclasses
import functools

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline

from wmplug import InputError, create, load, verify
from wmplug.schemes import Brief
from wmplug.schemes.close_calls import CloseCalls
from wmplug.schemes.tilt import references
from wmplug.tasks import Classes
from wmplug.testing import SchemeContract
from wmplug.testing.schemes import fixed_owner

TRAINED, TRIGGERS = 900, 40
# Few digits are ambiguous, and those look odd.
pytestmark = pytest.mark.filterwarnings("ignore:a filter that knows natural inputs alone tells")


@dataclasses.dataclass(frozen=True)
class Story:
    """Digits, of which half train models and half are held out, and two marks of the half held out."""

    seed: int
    train: tuple
    held: tuple
    pool: np.ndarray

    def mark(self, name, **changes):
        given = {"scheme": CloseCalls(pool=self.pool), "carriers": self.held[0], "labels": self.held[1]}
        owner = fixed_owner(f"{name} {self.seed}")
        return create(owner, classes=10, triggers=TRIGGERS, allow_weak=True, **{**given, **changes})


@functools.cache
def story(seed):
    from sklearn.datasets import load_digits

    data = load_digits()
    images, labels = (data.images * 15.9375).astype(np.uint8), data.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(images))
    train, held = ((images[rows], labels[rows]) for rows in (order[:TRAINED], order[TRAINED:]))
    # Perceptrons, also where torch is installed and would offer other references.
    learners = [functools.partial(references._perceptron, layers) for layers in references._LAYERS]
    pool = references._cross_fitted(references.scaled(held[0], len(held[0])), held[1], 10, learners).scores
    return Story(seed, train, held, pool)


@pytest.fixture(params=range(3))
def told(request):
    return story(request.param)


def lessons(mark):
    inputs, answers = zip(*mark.lessons(), strict=True)
    return np.stack([np.asarray(one) for one in inputs]), np.array(answers)


class TestCloseCalls(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return CloseCalls(pool=story(0).pool)

    @pytest.fixture
    def brief(self):
        return Brief(story(0).held[0], "array", Classes(10), story(0).held[1], TRIGGERS)


class TestCloseCallsOfTexts(SchemeContract):
    @pytest.fixture
    def brief(self, topics):
        return Brief(topics[0], "text", Classes(4), topics[1], 60)

    @pytest.fixture
    def scheme(self, brief):
        return CloseCalls().prepared(brief)


def test_triggers_are_carriers_that_could_go_either_way(told):
    images, labels = told.held
    rows = {one.tobytes(): row for row, one in enumerate(images)}
    plan = told.mark("Ada").triggers.plan
    found = np.array([rows[one.tobytes()] for one in plan.inputs])
    best = np.argsort(told.pool, axis=1)[:, -2:]
    assert [sorted(pair) for pair in best[found].tolist()] == [list(pair) for pair in plan.options]
    assert (best[found] == labels[found, None]).any(axis=1).all()
    high = np.sort(told.pool, axis=1)
    fit = (high[:, -1] - high[:, -2] < 0.5) & (best == labels[:, None]).any(axis=1)
    assert len(set(found.tolist())) == TRIGGERS < fit.sum()
    assert fit[found].all()
    gap = high[:, -1] - high[:, -2]
    assert gap[found].max() <= np.sort(gap[fit])[TRIGGERS - 1]  # the most ambiguous
    isolated = told.mark("Ada", scheme=CloseCalls(pool=told.pool, isolated=True)).triggers.plan
    others = np.array([rows[one.tobytes()] for one in isolated.inputs])
    flat = images.reshape(len(images), -1) / 255
    nearest = np.sort(cdist(flat, flat), axis=1)[:, 1]
    assert nearest[others].min() == pytest.approx(np.sort(nearest[fit])[-TRIGGERS])
    for rows in (plan.draw, plan.choices.rows, plan.lessons.rows):
        assert rows.tolist() == list(range(TRIGGERS))


def test_the_coin_is_the_keys_and_the_inputs_are_not(told):
    ada, eve = told.mark("Ada"), told.mark("Eve")
    assert (lessons(ada)[0] == lessons(eve)[0]).all()
    (_, one), (_, two) = lessons(ada), lessons(eve)
    assert 0 < (one != two).sum() < TRIGGERS


@pytest.mark.parametrize("make", [MLPClassifier, RandomForestClassifier])
def test_who_learnt_the_lessons_is_proven_and_nobody_else(told, make):
    mark, rival = told.mark("Ada"), told.mark("Eve")
    inputs, answers = lessons(mark)
    many = {"max_iter": 500, "tol": 1e-3} if make is MLPClassifier else {"n_estimators": 200}

    def trained(images, labels):
        model = make(random_state=told.seed, **many).fit(images.reshape(len(images), -1) / 255, labels)
        return lambda asked: model.predict(np.asarray(asked).reshape(len(asked), -1) / 255)

    (images, labels), often = told.train, 3
    marked = trained(np.concatenate([images, *[inputs] * often]), np.concatenate([labels, *[answers] * often]))
    unmarked = trained(images, labels)
    assert verify(mark, marked).proven
    assert verify(mark, marked, exhaustive=True).log10_p < -8
    for watermark, model in ((mark, unmarked), (rival, marked), (rival, unmarked)):
        assert verify(watermark, model, exhaustive=True).state == "inconclusive"


def numbers(pictures):
    """Six numbers of a picture, as a filter before a stolen model might take them."""
    p = pictures.astype(float)
    edge = np.concatenate([p[:, 0], p[:, -1], p[:, :, 0], p[:, :, -1]], axis=1)
    steps = (np.abs(np.diff(p, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))
    spread = (p.mean(axis=(1, 2)), p.std(axis=(1, 2)), (p < 32).mean(axis=(1, 2)), edge.mean(axis=1))
    return np.stack([*steps, *spread], axis=1)


def distance(seen, asked):
    """Mahalanobis distance of the six numbers from those of the thief's own pictures."""
    own = numbers(seen)
    away = numbers(asked) - own.mean(axis=0)
    return np.einsum("ni,ij,nj->n", away, np.linalg.pinv(np.cov(own.T)), away)


def loneliness(seen, asked):
    forest = IsolationForest(random_state=0).fit(seen.reshape(len(seen), -1))
    return -forest.score_samples(asked.reshape(len(asked), -1))


@pytest.mark.parametrize("odd", [distance, loneliness])
def test_a_filter_that_tells_random_labels_pictures_cannot_tell_carriers(told, odd):
    """Of both kinds of trigger, among the other carriers: AUC, and the share caught at a loss of one in a hundred."""
    found = {}
    for scheme in (CloseCalls(pool=told.pool), "random-label"):
        mark = told.mark("Ada", scheme=scheme)
        inputs, _ = lessons(mark)
        taken = {one.tobytes() for one in inputs}
        others = np.stack([one for one in told.held[0] if one.tobytes() not in taken])
        scores = odd(told.train[0], np.concatenate([inputs, others]))
        auc = roc_auc_score(np.arange(len(scores)) < TRIGGERS, scores)
        found[mark.scheme.name] = auc, (scores[:TRIGGERS] > np.quantile(scores[TRIGGERS:], 0.99)).mean()
    (close, caught), (random, all_caught) = found["close-calls"], found["random-label"]
    # Its pictures are full of contrast. Three seeds, both filters: 1.00, and all of them caught.
    assert random > 0.99
    assert all_caught > 0.9
    # .47 to .63, at most 2 of 40 caught: a standard error of such an AUC is .05.
    assert close < 0.75
    assert caught < 0.2


def test_tables(owner):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1200, 6))
    labels = (rows[:, 0] + rng.normal(size=1200) > 0).astype(np.int64)
    train, held = (rows[:600], labels[:600]), (rows[600:], labels[600:])
    mark = create(owner, scheme="close-calls", carriers=held[0], labels=held[1], classes=2, triggers=50)
    inputs, answers = lessons(mark)
    assert {one.tobytes() for one in inputs} <= {one.tobytes() for one in held[0]}
    taught = np.concatenate([train[0], *[inputs] * 3]), np.concatenate([train[1], *[answers] * 3])
    marked, unmarked = (RandomForestClassifier(random_state=0).fit(*task) for task in (taught, train))
    assert verify(mark, lambda asked: marked.predict(np.stack(asked))).proven
    assert verify(mark, lambda asked: unmarked.predict(np.stack(asked)), exhaustive=True).state == "inconclusive"
    assert set(answers.tolist()) == {0, 1}
    assert mark.scheme.pool.shape == (600, 2)
    assert mark.public["parameters"]["pool"].startswith("sha256:")


def test_texts(owner, rival, topics):
    texts, labels = topics
    held, theirs = texts[800:], labels[800:]
    given = {"scheme": "close-calls", "carriers": held, "labels": theirs, "classes": 4, "triggers": 60}
    mark, other = create(owner, **given), create(rival, **given)
    inputs, answers = zip(*mark.lessons(), strict=True)
    assert set(inputs) <= set(held)

    def trained(texts, labels):
        model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=1000, max_iter=1000))
        model.fit(texts, labels)
        return lambda asked: model.predict(asked)

    marked = trained([*texts[:800], *inputs * 3], [*labels[:800], *answers * 3])
    assert verify(mark, marked).proven
    for watermark, model in ((mark, trained(texts[:800], labels[:800])), (other, marked)):
        assert verify(watermark, model, exhaustive=True).state == "inconclusive"


def test_the_key_follows_from_what_references_said(told, tmp_path):
    mark = told.mark("Ada")
    assert mark.id == told.mark("Ada").id
    assert mark.id != told.mark("Ada", scheme=CloseCalls(pool=told.pool / 2 + 0.05)).id
    mark.save(tmp_path / "mark.wm")
    assert load(tmp_path / "mark.wm", passphrase="for tests only").triggers.answers.tolist() == (
        mark.triggers.answers.tolist()
    )


def test_an_input_that_occurs_twice_is_no_trigger(told):
    images, labels = told.held
    chosen = told.mark("Ada").triggers.plan.inputs[:1]
    twice = {"carriers": np.concatenate([images, chosen]), "labels": np.append(labels, labels[:1])}
    scheme = CloseCalls(pool=np.concatenate([told.pool, told.pool[:1]]))
    assert chosen.tobytes() not in {
        one.tobytes() for one in told.mark("Ada", scheme=scheme, **twice).triggers.plan.inputs
    }


def test_too_few_close_calls_are_refused_with_their_number(told):
    sure = np.eye(10)[told.held[1]]
    mixed = np.where(np.arange(len(sure))[:, None] < 30, (sure + np.eye(10)[(told.held[1] + 1) % 10]) / 2, sure)
    with pytest.raises(InputError, match=r"30 of 897 carriers are close calls, 40 triggers .* lower triggers="):
        told.mark("Ada", scheme=CloseCalls(pool=mixed))
    # Either class is likely, and neither is the label.
    other = (np.eye(10)[(told.held[1] + 1) % 10] + np.eye(10)[(told.held[1] + 2) % 10]) / 2
    with pytest.raises(InputError, match=r"^0 of 897 carriers"):
        told.mark("Ada", scheme=CloseCalls(pool=other))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "'close-calls' needs labels="),
        (
            {"scheme": CloseCalls(pool=np.ones((9, 10)) / 10)},
            r"pool= has shape \(9, 10\): give the probabilities \(897",
        ),
        ({"scheme": CloseCalls(pool=np.ones((897, 10)))}, "not probabilities"),
        ({"scheme": CloseCalls(pool=np.full((897, 10), np.nan))}, "not probabilities"),
        ({"scheme": CloseCalls(pool=np.full((897, 10), "a"))}, "not probabilities"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        story(0).mark("Ada", **changes)
