"""radioactive-data: pictures move along keyed directions, and who trained on them shows it in both boxes."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binom
from sklearn.ensemble import RandomForestClassifier

from wmplug import create, dataset, load, verify
from wmplug.dataset.records import Record
from wmplug.dataset.schemes.gradients import Reference
from wmplug.dataset.schemes.radioactive_data import RadioactiveData, _log10_cap, white_box
from wmplug.errors import InputError
from wmplug.schemes import Brief
from wmplug.statistics.signs import weighted_ps, weights_of
from wmplug.tasks import Classes

COUNT = 300


@pytest.fixture(scope="module")
def digits(digits):
    """Some of them."""
    return digits[0][:700], digits[1][:700]


@pytest.fixture(scope="module")
def scheme(digits):
    """With its network trained once."""
    return RadioactiveData(bound=24).prepared(Brief(digits[0], "array", Classes(10), digits[1], COUNT))


@pytest.fixture(scope="module")
def mark(owner, scheme, digits):
    return create(owner, scheme=scheme, carriers=digits[0], labels=digits[1], classes=10, triggers=COUNT)


@pytest.fixture(scope="module")
def published(mark, digits):
    return publish(mark, *digits)


def publish(mark, images, labels):
    records = [Record(i, f"record {i}", images[i], int(labels[i])) for i in range(len(images))]
    copy = images.copy()
    for index, version in mark.scheme.changes(mark.triggers, records, len(images)).inputs.items():
        copy[index] = version
    return copy


def forest(images, labels):
    model = RandomForestClassifier(random_state=0).fit(images.reshape(len(images), -1), labels)
    return lambda asked: model.predict_proba(asked.reshape(len(asked), -1))


def test_who_trains_on_the_set_is_found_and_who_does_not_is_not(owner, rival, scheme, mark, digits, published):
    images, labels = digits
    copy = forest(published, labels)
    assert verify(mark, copy, exhaustive=True).log10_p < -4
    assert verify(mark, forest(images, labels), exhaustive=True).log10_p > -2
    wrong = create(rival, scheme=scheme, carriers=images, labels=labels, classes=10, triggers=COUNT)
    assert verify(wrong, copy, exhaustive=True).log10_p > -2


def test_both_sides_are_near_the_picture_and_no_label_changes(mark, digits):
    images, labels = digits
    sides = mark.triggers.plan.inputs.reshape(COUNT, 2, 8, 8).astype(int)
    assert np.abs(sides - images[:COUNT, None]).max() <= 24
    assert (sides[:, 0] != sides[:, 1]).any(axis=(1, 2)).all()
    inside = (images[:COUNT] >= 24) & (images[:COUNT] <= 231)
    assert np.array_equal((sides.sum(axis=1))[inside], 2 * images[:COUNT].astype(int)[inside])
    records = [Record(i, f"record {i}", images[i], int(labels[i])) for i in range(COUNT)]
    changes = mark.scheme.changes(mark.triggers, records, COUNT)
    assert (len(changes.inputs), changes.labels, changes.added) == (COUNT, {}, ())


def test_features_move_along_the_direction(mark, scheme):
    sides = mark.triggers.plan.inputs.reshape(COUNT, 2, 1, 8, 8).astype(np.float32) / 255
    network = Reference(1, 10, scheme.network)
    moved = network.features(sides[:, 1]) - network.features(sides[:, 0])
    directions = mark.triggers.plan.material["directions"]
    labels = mark.triggers.plan.natural[::2]
    along = (moved * directions[labels]).sum(axis=1)
    assert (along > 0).mean() > 0.99
    other = (moved * directions[(labels + 1) % 10]).sum(axis=1)
    assert along.mean() > 2 * abs(other.mean())


def test_the_same_key_makes_the_same_sides_and_they_are_saved(owner, rival, scheme, mark, digits, tmp_path):
    images, labels = digits
    again = create(owner, scheme=scheme, carriers=images, labels=labels, classes=10, triggers=COUNT)
    assert np.array_equal(again.triggers.plan.inputs, mark.triggers.plan.inputs)
    other = create(rival, scheme=scheme, carriers=images, labels=labels, classes=10, triggers=COUNT)
    assert not np.array_equal(other.triggers.plan.inputs, mark.triggers.plan.inputs)
    loaded = load(mark.save(tmp_path / "mark.wm"), passphrase="correct horse battery staple")
    assert np.array_equal(loaded.triggers.plan.material["network"], scheme.network)
    assert np.array_equal(publish(loaded, images, labels), publish(mark, images, labels))


def test_the_last_layer_leans_to_what_was_published(mark, scheme, digits):
    """A suspect that is the reference, of which the last layer was moved; and one of which it was not."""
    network = Reference(1, 10, scheme.network)
    head = scheme.network[-650:-10].reshape(10, 64).astype(float)
    plan, signs = mark.triggers.plan, mark.triggers.signs
    balance = np.bincount(plan.natural[::2], signs, minlength=10)
    leans = balance != 0  # of a class whose signs cancel out nothing is published
    assert leans.sum() > 5
    sums = balance[:, None] * plan.material["directions"]
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(64, 64)))[0]

    def features(pictures):
        return network.features(np.asarray(pictures)[:, None].astype(np.float32) / 255) @ turned

    clean = digits[0][COUNT:]
    unmarked = white_box(mark, features, head @ turned, clean)
    leaning = white_box(
        mark,
        features,
        (head + 0.6 * sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9)) @ turned,
        clean,
    )
    assert unmarked.log10_p > -2
    assert leaning.log10_p < -6
    assert (leaning.cosines > unmarked.cosines)[leans].all()
    with pytest.raises(InputError, match=r"return \(n, d\), and give \(10, d\)"):
        white_box(mark, features, head[:, :5], clean)


def test_the_probability_of_a_cosine_is_exact():
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(20_000, 12))
    cosines = directions[:, 0] / np.linalg.norm(directions, axis=1)
    for level in (0.9, 0.5, 0.1, 0.01):
        hits = (np.array([10 ** _log10_cap(c, 12) for c in cosines]) <= level).sum()
        assert binom.ppf(1e-4, 20_000, level) <= hits <= binom.ppf(1 - 1e-4, 20_000, level)
    assert _log10_cap(0.0, 64) == pytest.approx(math.log10(0.5))
    assert _log10_cap(-1.0, 64) == 0.0


def test_a_large_picture_moves_by_as_much_as_was_asked(mark, digits):
    images, labels = digits
    large = [Image.fromarray(np.full((40, 40), 128, np.uint8)) for _ in range(COUNT)]
    grey = dataclasses.replace(mark, triggers=dataclasses.replace(mark.triggers, form="pil"))
    records = [Record(i, f"record {i}", picture, int(labels[i])) for i, picture in enumerate(large)]
    for i, version in list(grey.scheme.changes(grey.triggers, records, COUNT).inputs.items())[:20]:
        step = np.asarray(version, int) - 128
        assert (version.size, version.mode) == ((40, 40), "L")
        assert 0 < np.abs(step).max() <= 24
        asked = np.asarray(mark.triggers.row(2 * i + int(mark.triggers.symbols[i])), int) - images[i]
        assert np.corrcoef(step[2::5, 2::5].ravel(), asked.ravel())[0, 1] > 0.7


def test_it_marks_a_set_and_finds_it_again(owner, digits):
    images, labels = digits
    made = dataset.mark((images[:150], labels[:150]), owner, scheme="radioactive-data", share=0.1)
    assert made.manifest["changed"] == 15
    held = dataset.find(made.mark, made.data, near=False).held[0]
    assert (held.exact, held.matches, held.of) == (15, 15, 15)
    assert dataset.find(made.mark, (images, labels), near=False).held[0].exact == 0


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), told=st.booleans())
def test_weights_are_finite_and_see_no_key(mark, seed, told):
    rng = np.random.default_rng(seed)
    plan, count = mark.triggers.plan, int(rng.integers(1, 2 * COUNT + 1))
    answers = rng.integers(-1, 10, count)
    scores = np.log(rng.dirichlet(np.ones(10), count).clip(1e-4)) if told else None
    if told:
        scores[answers < 0] = np.nan
    weights = mark.scheme.weigh(plan, answers, scores)
    assert weights.shape == (COUNT,)
    assert np.isfinite(weights).all()


def test_p_is_uniform_over_keys(mark):
    """Of a suspect that follows the reference, and finds one side easier than the other."""
    plan = mark.triggers.plan
    scores = np.log(np.random.default_rng(3).dirichlet(np.ones(10), 2 * COUNT).clip(1e-4))
    scores[::2, :] -= 0.5
    weights = weights_of(mark.scheme.weigh(plan, scores.argmax(axis=1), scores))
    found = weighted_ps(weights, np.random.default_rng(4).choice([-1, 1], (1000, plan.pattern.signs)))
    for level in (0.01, 0.1, 0.5):
        assert binom.ppf(1e-4, 1000, level) <= (found <= level).sum() <= binom.ppf(1 - 1e-4, 1000, level)


def test_what_does_not_fit_is_refused(owner, digits):
    with pytest.raises(InputError, match="bound="):
        RadioactiveData(bound=0)
    with pytest.raises(InputError, match="these are text"):
        create(owner, scheme=RadioactiveData(), carriers=["a", "b"] * 9, labels=[0, 1] * 9, classes=2, triggers=9)
    rows = digits[0].reshape(-1, 64)
    with pytest.raises(InputError, match="marks pictures"):
        create(owner, scheme=RadioactiveData(), carriers=rows, labels=digits[1], classes=10, triggers=9)
    mark = create(owner, scheme="twins", carriers=digits[0], labels=digits[1], classes=10, triggers=40)
    with pytest.raises(InputError, match="only radioactive-data"):
        white_box(mark, lambda x: x, np.eye(10), digits[0])
