"""tilt: what it plans, what it refuses, and that nobody without the key is accused."""

import math
from dataclasses import replace

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier

import wmplug
from wmplug.errors import AmbiguityWarning, InputError, SuspectError
from wmplug.keys.streams import Subkeys
from wmplug.schemes import Brief
from wmplug.schemes.tilt import Tilt, rehearsal
from wmplug.schemes.tilt.references import of_models
from wmplug.statistics.signs import weighted_log10_p, weighted_ps, weights_of
from wmplug.tasks import Classes
from wmplug.testing import SchemeContract
from wmplug.watermark.carriers import digest
from wmplug.watermark.plan import TriggerSet, draw_symbols


@pytest.fixture(scope="session")
def scheme(digits):
    """With references worked out once."""
    images, labels = digits
    return Tilt(delta=1.0, directions=12, blends=300).prepared(Brief(images, "array", Classes(10), labels, 100))


@pytest.fixture(scope="session")
def task(digits):
    images, labels = digits
    return Brief(images, "array", Classes(10), labels, 100)


class TestTilt(SchemeContract):
    @pytest.fixture
    def scheme(self, scheme):
        return scheme

    @pytest.fixture
    def brief(self, task):
        return task


def stream(name):
    return Subkeys.derive(name.encode().ljust(32, b"."), "0").stream("input")


def drawn(plan, key):
    label = Subkeys.derive(f"label {key}".encode().ljust(32, b"."), "0").stream("label")
    return TriggerSet(plan, "array", Classes(10), draw_symbols(label, plan.options))


def tilted(scheme, triggers, strength):
    """A suspect that carries the tilt as training would have left it: the references' logits, plus delta t(x)."""
    plan = triggers.plan
    logits = np.log(np.maximum(plan.material["scores"], 1e-4))
    constants = scheme.constants(triggers, np.stack([np.asarray(x) for x in triggers.samples(64)]))
    shifted = scheme.shift(np, constants, plan.inputs[plan.pattern.rows].astype(np.float64), logits)
    return logits - strength * (shifted - logits)


def heard(logits):
    logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return logits.argmax(axis=1), np.maximum(logits, math.log(1e-4))


def test_questions_are_the_most_ambiguous_and_blends_lie_between(scheme, task):
    plan = scheme.plan(task, stream("one"))
    gaps = np.sort(scheme.pool[0], axis=1)[:, -1] - np.sort(scheme.pool[0], axis=1)[:, -2]
    asked = [digest(plan.inputs[row]) for row in plan.pattern.rows[:50]]
    wanted = np.argsort(gaps, kind="stable")[:50]
    assert asked == [digest(task.carriers[row]) for row in wanted]
    assert plan.pattern.signs == 10 * 12
    assert len(plan.lessons.rows) == 300
    assert set(plan.natural[plan.lessons.rows]) <= set(range(10))
    natural = {digest(image) for image in task.carriers}
    assert sum(digest(plan.inputs[row]) in natural for row in plan.lessons.rows) < 3


def test_the_basis_is_white_and_turned_by_the_key(scheme, task):
    one, two = (scheme.plan(task, stream(name)).material for name in ("one", "two"))
    assert np.abs(one["z"]).max() <= 2.5
    np.testing.assert_allclose(one["z"][:200].std(axis=0).mean(), 1.0, atol=0.35)
    assert abs(np.corrcoef(one["z"][:, 0], two["z"][:, 0])[0, 1]) < 0.9
    np.testing.assert_array_equal(one["votes"], two["votes"])


@pytest.mark.parametrize("tells", ["labels", "scores"])
def test_a_tilted_suspect_is_found_and_a_wrong_key_is_not(scheme, task, tells):
    plan = scheme.plan(task, stream("one"))
    mine = drawn(plan, 0)
    answers, scores = heard(tilted(scheme, mine, 1.0))
    weights = weights_of(scheme.weigh(plan, answers, None if tells == "labels" else scores))
    assert weighted_log10_p(weights, mine.signs) < -6
    wrong = weighted_ps(weights, np.stack([drawn(plan, key).signs for key in range(1, 201)]))
    assert np.mean(wrong < 0.1) < 0.18
    assert min(wrong) > 10**-4.5


def test_unmarked_suspects_are_accused_as_often_as_chance_says(scheme, task, digits):
    images, labels = digits
    plan = scheme.plan(task, stream("one"))
    asked = plan.inputs[plan.pattern.rows].reshape(len(plan.pattern.rows), -1) / 255
    keys = np.stack([drawn(plan, key).signs for key in range(500)])
    found = []
    for seed in range(3):
        model = MLPClassifier((32,), tol=0.01, max_iter=500, random_state=seed).fit(
            images.reshape(len(images), -1) / 255, labels
        )
        answers, scores = heard(np.log(np.maximum(model.predict_proba(asked), 1e-12)))
        for given in (None, scores):
            weights = weights_of(scheme.weigh(plan, answers, given))
            found += weighted_ps(weights, keys).tolist()
    # 3,000 p-values, 500 keys each on six sets of answers: within a one-in-a-million binomial band were they
    # independent; keys are shared between suspects that resemble each other, so the band is taken twice as wide.
    assert np.mean(np.array(found) <= 0.01) < 0.01 + 2 * 4.9 * math.sqrt(0.01 * 0.99 / len(found))
    assert np.mean(np.array(found) <= 0.5) == pytest.approx(0.5, abs=0.06)


def test_failed_queries_are_left_out(scheme, task):
    plan = scheme.plan(task, stream("one"))
    mine = drawn(plan, 0)
    answers, scores = heard(tilted(scheme, mine, 1.0))
    answers[::3], scores[::3] = -1, np.nan
    for given in (None, scores):
        weights = weights_of(scheme.weigh(plan, answers, given))
        assert weighted_log10_p(weights, mine.signs) < -4


def test_the_weights_do_not_see_the_signs(scheme, task):
    plan = scheme.plan(task, stream("one"))
    answers, scores = heard(tilted(scheme, drawn(plan, 0), 1.0))
    assert not hasattr(plan, "symbols")
    np.testing.assert_array_equal(scheme.weigh(plan, answers, scores), scheme.weigh(plan, answers, scores))


def test_auto_takes_the_smallest_delta_that_a_rehearsed_clone_shows(scheme, task, monkeypatch):
    tried = {}

    def rehearsed(scheme, task, posterior):
        tried[scheme.delta] = original(scheme, task, posterior)
        return tried[scheme.delta]

    original = rehearsal._rehearsed
    monkeypatch.setattr(rehearsal, "_rehearsed", rehearsed)
    monkeypatch.setattr(rehearsal, "DELTAS", (0.02, 2.0, 5.0))
    asking = replace(scheme, delta="auto")
    chosen = asking.prepared(task)
    assert chosen.parameters()["delta"] == chosen.delta == max(tried)
    assert tried[0.02] > -3
    assert min(tried.values()) <= rehearsal.TARGET
    assert [delta for delta, found in tried.items() if found <= rehearsal.TARGET] == [chosen.delta]
    monkeypatch.setattr(rehearsal, "DELTAS", (0.01, 0.02))
    with pytest.warns(AmbiguityWarning, match=r"a rehearsed clone reaches log10 p = -?[\d.]+ at delta=0.02"):
        assert asking.prepared(task).delta == 0.02
    with pytest.raises(InputError, match="use create"):
        assert asking.strength


# What is refused


def test_a_task_with_hardly_any_ambiguous_input_is_refused_with_the_number(digits, owner):
    images, labels = digits
    sure = [lambda x, k=k: np.eye(10)[(x.reshape(len(x), -1).sum(axis=1).astype(int) + k) % 10] for k in (0, 0)]
    with pytest.raises(InputError, match="one model twice"):
        wmplug.create(owner, scheme="tilt", carriers=images, labels=labels, classes=10, pool=sure)
    with pytest.raises(InputError, match=r"0 of 1797 carriers ambiguous.*against=\"theft\""):
        wmplug.create(owner, scheme=Tilt(pool=split(sure[0])), carriers=images, labels=labels, classes=10)


def split(model):
    """Two models that agree in what they answer and differ in how sure they are."""
    return [lambda x: model(x) * 0.9 + 0.01, lambda x: model(x) * 0.95 + 0.005]


def test_few_ambiguous_inputs_want_a_larger_delta(digits, owner):
    images, labels = digits
    with pytest.warns(AmbiguityWarning, match=r"only \d+ of 1797 .* delta=1 would"):
        wmplug.create(
            owner, scheme=Tilt(directions=8, blends=10, pool=[wavering]), carriers=images, labels=labels, classes=10
        )


def wavering(images):
    """Of two minds about one input in ten."""
    level = images.reshape(len(images), -1).sum(axis=1).astype(int)
    scores = np.full((len(images), 10), 0.01)
    scores[np.arange(len(images)), level % 10] += 0.5
    scores[np.arange(len(images)), (level + 3) % 10] += np.where(level % 11 == 0, 0.4, 0.0)
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"delta": 0}, "delta=0"),
        ({"delta": "strong"}, "delta='strong'"),
        ({"directions": 0}, "directions=0"),
        ({"questions": 1.5}, "questions=1.5"),
        ({"blends": -1}, "blends=-1"),
        ({"pool": 7}, "pool= is a int"),
        ({"pool": [lambda x: np.zeros((len(x), 3))]}, r"model 0 of pool= returned \(1797, 3\)"),
        ({"queries": np.zeros((5, 9, 9), np.uint8)}, r"queries= are array \(9, 9\)"),
        ({"pool": (), "queries": np.zeros((5, 8, 8), np.uint8)}, "queries= have no labels"),
        ({"pool": (), "questions": 20, "directions": 12}, "20 questions are too few"),
    ],
)
def test_bad_parameters_are_refused(digits, owner, given, message):
    images, labels = digits
    with pytest.raises(InputError, match=message):
        wmplug.create(owner, scheme="tilt", carriers=images, labels=labels, classes=10, **given)


def spectrum(waves):
    """(B, 24) log energy in 24 bands, the mean over frames of 256 samples."""
    frames = waves.reshape(len(waves), -1, 256) * np.hanning(256)
    power = (np.abs(np.fft.rfft(frames, axis=2)) ** 2).mean(axis=1)[:, 1:121]
    return np.log(power.reshape(len(waves), 24, 5).mean(axis=2) + 1e-6)


def test_waveforms_come_with_features_of_their_own(owner):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    pitch = 0.05 + 0.05 * labels + rng.normal(0, 0.02, 400)
    waves = np.sin(pitch[:, None] * np.arange(2560)) + rng.normal(0, 0.3, (400, 2560))
    options = {"carriers": waves.astype(np.float32), "labels": labels, "classes": 3}
    with pytest.raises(InputError, match=r"rows of 2560 numbers.*give features="):
        wmplug.create(owner, scheme="tilt", pool=(), **options)
    mark = wmplug.create(
        owner, scheme=Tilt(delta=1.0, directions=8, blends=20, pool=(), features=spectrum), allow_weak=True, **options
    )
    z = mark.triggers.plan.material["z"]
    assert z.shape == (400, 8)
    assert 0.5 < z.std() < 1.5
    shown = np.stack(mark.triggers.samples(20)).astype(np.float64)
    constants = mark.scheme.constants(mark.triggers, shown)
    assert np.abs(mark.scheme.shift(np, constants, shown, np.zeros((20, 3)))).mean() > 0.05
    published, kept = mark.public["parameters"], mark.scheme.material()
    assert set(kept) == {name for name, value in published.items() if str(value).startswith("sha256:")}
    assert Tilt(**{**published, **kept}).parameters() == published


def test_labels_are_needed(digits, owner):
    with pytest.raises(InputError, match="needs labels="):
        wmplug.create(owner, scheme="tilt", carriers=digits[0], classes=10)


def test_the_key_follows_from_the_pool(digits, owner):
    """Whoever puts the marked model into the pool afterwards gets another key, and so proves nothing by it."""
    images, labels = digits
    options = {"carriers": images, "labels": labels, "classes": 10}
    one, two = (
        wmplug.create(owner, scheme=Tilt(delta=1.0, directions=8, blends=10, pool=pool), **options)
        for pool in ([wavering], [wavering, lambda x: np.zeros(len(x), np.int64)])
    )
    assert one.id != two.id
    assert not np.array_equal(one.triggers.signs, two.triggers.signs[: len(one.triggers.signs)])


def test_a_suspect_that_is_in_the_pool_is_refused(digits, owner):
    images, labels = digits
    pool = [wavering, lambda x: np.roll(wavering(x), 1, axis=1)]
    mark = wmplug.create(
        owner, scheme=Tilt(delta=1.0, directions=8, blends=10, pool=pool), carriers=images, labels=labels, classes=10
    )
    for exhaustive in (True, False):
        for number, model in enumerate(pool):
            with pytest.raises(SuspectError, match=f"as model {number} of pool="):
                wmplug.verify(mark, model, exhaustive=exhaustive)
            with pytest.raises(SuspectError, match=f"as model {number} of pool="):
                wmplug.verify(mark, lambda x, ask=model: ask(x).argmax(axis=1), exhaustive=exhaustive)
    nearly = wmplug.verify(mark, lambda x: np.where(x[:, 3, 3] > 250, 0, wavering(x).argmax(axis=1)), exhaustive=True)
    assert nearly.state == "inconclusive"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda pool: pool[:, :-3], r"is an array \(2, 1794, 10\).*same carriers= and queries="),
        (lambda pool: pool[:, :, :9], r"\(2, 1797, 9\)"),
        (lambda pool: pool * 2, "not probabilities"),
    ],
)
def test_a_kept_pool_has_to_be_of_these_inputs(digits, owner, scheme, change, message):
    images, labels = digits
    with pytest.raises(InputError, match=message):
        wmplug.create(
            owner, scheme=replace(scheme, pool=change(scheme.pool)), carriers=images, labels=labels, classes=10
        )


@pytest.mark.parametrize("width", [7, 12])
def test_a_suspect_of_another_task_is_refused_with_both_numbers(digits, owner, scheme, width):
    images, labels = digits
    mark = wmplug.create(owner, scheme=scheme, carriers=images, labels=labels, classes=10)
    with pytest.raises(SuspectError, match=f"gives {width} scores an input, the watermark was made for 10 classes"):
        wmplug.verify(mark, lambda x: np.zeros((len(x), width)))
    with pytest.raises(SuspectError, match=r"answered class 11, so it has 12 or more, .* made for 10 classes, 0 to 9"):
        wmplug.verify(mark, lambda x: np.full(len(x), 11))
    some = wmplug.verify(mark, lambda x: np.where(x[:, 3, 3] > 250, 11, 3), exhaustive=True)
    assert 0 < some.failed < some.queries
    assert some.state == "inconclusive"


def test_a_pool_may_answer_with_labels_logits_or_probabilities():
    inputs = np.arange(12).reshape(6, 2)
    logits = np.eye(3)[np.arange(6) % 3] * 4
    said = of_models(
        [lambda x: np.arange(6)[: len(x)] % 3, lambda x: logits[: len(x)], lambda x: np.full((len(x), 3), 1 / 3)],
        inputs,
        3,
    )
    np.testing.assert_allclose(said.scores.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(said.votes.sum(axis=1), 1, atol=1e-5)
    assert (said.scores.argmax(axis=1) == np.arange(6) % 3).all()
    assert (said.gap > 0.3).all()
