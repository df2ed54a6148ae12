import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.ensemble import RandomForestClassifier

from wmplug import create, dataset, verify
from wmplug.dataset.records import Record
from wmplug.dataset.schemes.twins import Twins
from wmplug.errors import InputError
from wmplug.statistics.signs import weighted_ps, weights_of


@pytest.fixture(scope="module")
def table(digits):
    images, labels = digits
    return images.reshape(len(images), -1)[:600].astype(np.float32) / 16, labels[:600]


@pytest.fixture(scope="module")
def pictures(owner, digits):
    return create(owner, scheme="twins", carriers=digits[0], labels=digits[1], classes=10, triggers=150)


def test_who_trains_on_the_set_is_found_and_who_does_not_is_not(digits, pictures, rival):
    images, labels = digits
    records = [Record(i, f"record {i}", images[i], int(labels[i])) for i in range(150)]
    published = images.copy()
    for index, version in pictures.scheme.changes(pictures.triggers, records, len(images)).inputs.items():
        published[index] = version

    def trained(inputs):
        model = RandomForestClassifier(random_state=0).fit(inputs.reshape(len(inputs), -1), labels)
        return lambda asked: model.predict_proba(asked.reshape(len(asked), -1))

    copy = trained(published)
    assert verify(pictures, copy, exhaustive=True).log10_p < -4
    assert verify(pictures, trained(images), exhaustive=True).log10_p > -2
    wrong = create(rival, scheme="twins", carriers=images, labels=labels, classes=10, triggers=150)
    assert verify(wrong, copy, exhaustive=True).log10_p > -2


def test_versions_of_a_picture_are_near_it_and_differ(owner, digits):
    images = digits[0][:100].repeat(4, axis=1).repeat(4, axis=2)
    mark = create(owner, scheme="twins", carriers=images, labels=digits[1][:100], classes=10, triggers=100)
    minus, plus = mark.triggers.plan.inputs[::2], mark.triggers.plan.inputs[1::2]
    assert (minus != plus).any(axis=(1, 2)).all()
    for version in (minus, plus):
        alike = [np.corrcoef(one.ravel(), own.ravel())[0, 1] for one, own in zip(version, images, strict=True)]
        assert np.mean(alike) > 0.7
        assert np.median(alike) < 0.99


def test_a_picture_is_published_at_its_own_size(owner, digits):
    images = [Image.fromarray(one).convert("RGB").resize((24 + i % 3, 20)) for i, one in enumerate(digits[0][:60])]
    made = dataset.mark((images, digits[1][:60].tolist()), owner, scheme="canaries", share=0.1)
    assert made.manifest["added"] == 6  # of one size, whatever those of the set are
    mark = create(
        owner,
        scheme="twins",
        carriers=[i.resize((24, 20)) for i in images],
        labels=digits[1][:60],
        classes=10,
        triggers=9,
        allow_weak=True,
    )
    records = [Record(i, f"record {i}", one, 0) for i, one in enumerate(images)]
    for index, version in mark.scheme.changes(mark.triggers, records, 60).inputs.items():
        assert (version.size, version.mode) == (images[index].size, "RGB")
        assert np.any(np.asarray(version) != np.asarray(images[index]))


def test_mirrored_versions(owner, digits):
    scheme = Twins(change="mirror")
    mark = create(owner, scheme=scheme, carriers=digits[0], labels=digits[1], classes=10, triggers=20, allow_weak=True)
    minus, plus = mark.triggers.plan.inputs[::2], mark.triggers.plan.inputs[1::2]
    assert np.array_equal(minus, digits[0][:20])
    assert np.array_equal(plus, minus[:, :, ::-1])


@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_numbers_move_by_what_they_are_rounded_to(owner, table, kind):
    rows = (table[0] * (16 if kind == np.int64 else 1)).astype(kind)
    mark = create(owner, scheme="twins", carriers=rows, labels=table[1], classes=10, triggers=50)
    minus, plus = mark.triggers.plan.inputs[::2], mark.triggers.plan.inputs[1::2]
    steps = np.array([np.diff(np.unique(column)).min() if len(np.unique(column)) > 1 else 0 for column in rows.T])
    assert (np.abs(plus.astype(float) - minus) <= steps + 1e-6).all()
    assert (minus != plus).mean() > 0.2
    assert plus.dtype == kind
    with pytest.raises(InputError, match="a single value"):
        create(owner, scheme="twins", carriers=np.ones((9, 3)), labels=np.arange(9) % 2, classes=2, triggers=5)


def test_texts_are_rewritten_by_the_owners_rule(owner):
    texts, labels = [f"it is number {i}" for i in range(30)], [i % 2 for i in range(30)]
    found = dataset.mark(
        (texts, labels), owner, scheme="twins", share=0.5, rule=lambda text: text.replace("it is", "it's")
    )
    changed = [after for before, after in zip(texts, found.data[0], strict=True) if before != after]
    assert 2 < len(changed) == found.manifest["changed"] < 13
    assert all(text.startswith("it's number") for text in changed)
    with pytest.raises(InputError, match="needs rule="):
        dataset.mark((texts, labels), owner, scheme="twins")
    with pytest.raises(InputError, match="made the same text from chosen text 0"):
        dataset.mark((texts, labels), owner, scheme="twins", rule=str)


@given(seed=st.integers(0, 2**32 - 1), told=st.booleans())
def test_weights_are_finite_and_see_no_key(pictures, seed, told):
    rng = np.random.default_rng(seed)
    plan, count = pictures.triggers.plan, int(rng.integers(1, len(pictures.triggers.plan.pattern.rows) + 1))
    answers = rng.integers(-1, 10, count)
    scores = np.log(rng.dirichlet(np.ones(10), count).clip(1e-4)) if told else None
    weights = pictures.scheme.weigh(plan, answers, scores)
    flipped = dataclasses.replace(pictures.triggers, symbols=1 - pictures.triggers.symbols)
    assert np.isfinite(weights).all()
    assert np.array_equal(weights, pictures.scheme.weigh(flipped.plan, answers, scores))


def test_p_is_uniform_over_keys(pictures):
    """Of a suspect that finds every second version easier, whatever it was trained on."""
    plan = pictures.triggers.plan
    scores = np.log(np.random.default_rng(3).dirichlet(np.ones(10), len(plan.pattern.rows)).clip(1e-4))
    scores[::2, :] -= 0.5
    weights = weights_of(pictures.scheme.weigh(plan, scores.argmax(axis=1), scores))
    found = weighted_ps(weights, np.random.default_rng(4).choice([-1, 1], (1000, plan.pattern.signs)))
    assert abs(np.mean(found < 0.1) - 0.1) < 0.04
    assert abs(np.mean(found < 0.5) - 0.5) < 0.07


@pytest.mark.parametrize("wrong", [{"change": "blur"}, {"cut": 0.5}, {"jitter": 0.0}])
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Twins(**wrong)


@pytest.mark.parametrize("kind", [np.int64, np.float64])
def test_columns_of_whole_numbers_stay_whole(owner, digits, kind):
    rows = np.column_stack([digits[0].reshape(len(digits[0]), -1)[:200, 2:5], np.linspace(0, 1, 200)]).astype(
        np.float64
    )
    rows = rows[:, :3].astype(kind) if kind is np.int64 else rows
    mark = create(owner, scheme="twins", carriers=rows, labels=digits[1][:200], classes=10, triggers=50)
    versions = np.asarray(mark.triggers.plan.inputs, np.float64)
    assert np.array_equal(versions[:, :3], np.rint(versions[:, :3]))
    assert (versions[::2] != versions[1::2]).any(axis=1).all()
    assert kind is np.int64 or (versions[:, 3] != np.rint(versions[:, 3])).any()
