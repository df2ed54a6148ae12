"""A watermark that asks other ordinary inputs than those it was made with."""

import functools

import numpy as np
import pytest

import wmplug
from wmplug.errors import InputError
from wmplug.register import Register, anchors
from wmplug.register.history import log_of
from wmplug.schemes.tilt import Tilt, features, references

LOGGED, KEPT = slice(0, 900), slice(900, None)


@pytest.fixture(scope="module")
def pool(digits):
    """Unmarked models of pictures: functions that give probabilities."""
    images, labels = digits
    learners = [functools.partial(references._perceptron, layers) for layers in references._LAYERS]
    inputs = references.scaled(images, len(images))
    rows = [np.random.default_rng(seed).integers(0, len(images), 900) for seed in range(3)]
    models = [learn(inputs[r], labels[r], 10, i) for i, (learn, r) in enumerate(zip(learners, rows, strict=True))]
    mean, deviation = float(images.mean()), float(images.std())
    return [lambda x, model=model: model((x.astype(np.float32) - mean) / deviation) for model in models]


@pytest.fixture(scope="module")
def marks(owner, rival, digits, pool):
    """Of two owners, that ask the first half of the pictures."""
    images, labels = digits
    given = {"carriers": images[KEPT], "labels": labels[KEPT], "classes": 10, "queries": images[KEPT]}
    scheme = Tilt(delta=1.0, directions=12, blends=100, pool=pool)
    return [wmplug.create(who, scheme=scheme, **given) for who in (owner, rival)]


@pytest.fixture(scope="module")
def asking(marks, digits, pool):
    """The same, asking what an API was asked."""
    images, labels = digits
    given = {"carriers": images[KEPT], "labels": labels[KEPT], "pool": pool}
    return [mark.with_queries(images[LOGGED], **given) for mark in marks]


@pytest.fixture(scope="module")
def clone(asking, digits, pool):
    """It has learnt the tilt on the logged pictures alone, and answers others as an unmarked model does."""
    images, _ = digits
    mark = asking[0]
    seen = np.stack([np.asarray(x) for x in mark.triggers.samples(64)])
    constants = mark.scheme.constants(mark.triggers, seen)
    logged = {image.tobytes() for image in images[LOGGED]}

    def answer(asked):
        logits = np.log(np.maximum(np.mean([model(asked) for model in pool], axis=0), 1e-4))
        tilted = logits - mark.scheme.shift(np, constants, asked.astype(np.float64), logits)
        known = np.array([image.tobytes() in logged for image in asked])
        return (logits + 1.5 * known[:, None] * tilted).argmax(axis=1)

    return answer


def test_a_clone_gives_itself_away_on_what_it_was_trained_on(marks, asking, clone, pool):
    mine = wmplug.verify(asking[0], clone, exhaustive=True)
    assert mine.log10_p < -4
    assert wmplug.verify(marks[0], clone, exhaustive=True).log10_p > -2
    assert wmplug.verify(asking[1], clone, exhaustive=True).log10_p > -2

    def unmarked(asked):
        return np.mean([model(asked) for model in pool[:2]], axis=0).argmax(axis=1)

    assert wmplug.verify(asking[0], unmarked, exhaustive=True).log10_p > -2


def test_the_key_and_what_is_taught_stay_as_they_are(marks, asking):
    for mark, other in zip(marks, asking, strict=True):
        np.testing.assert_array_equal(mark.triggers.signs, other.triggers.signs)
        assert mark.id == other.id
        assert len(mark.lessons()) == len(other.lessons()) == 100
        assert len(other.triggers.plan.pattern.rows) == 900


def test_what_was_said_by_references_is_bound(asking, marks, digits, pool):
    images, labels = digits
    given = {"carriers": images[KEPT], "labels": labels[KEPT]}
    same, others = (marks[0].with_queries(images[LOGGED], pool=some, **given) for some in (pool, pool[:2]))
    assert same.public == asking[0].public
    assert others.public["queries"] == same.public["queries"]
    assert others.public["references"] != same.public["references"]


def named(verdict):
    return {choice.what: choice for choice in verdict.choices if choice.bound is None}


def test_the_verdict_names_queries_and_references_and_holds_their_digests(asking, marks, digits, pool):
    images, labels = digits
    verdict = wmplug.verify(asking[0], lambda batch: [0] * len(batch), exhaustive=True)
    assert {"questions", "references"} <= set(named(verdict))
    why = "(the register holds no log of questions)"
    assert f"; questions NOT COMMITTED {why}; references NOT COMMITTED" in str(verdict)
    assert named(verdict)["references"].sha256 == asking[0].public["references"]
    fewer = marks[0].with_queries(images[:600], carriers=images[KEPT], labels=labels[KEPT], pool=pool)
    other = wmplug.verify(fewer, lambda batch: [0] * len(batch), exhaustive=True)
    assert named(other)["questions"].sha256 != named(verdict)["questions"].sha256
    assert not {"questions", "references"} & set(
        named(wmplug.verify(marks[0], lambda batch: [0] * len(batch), exhaustive=True))
    )


def test_a_log_that_was_committed_and_dated_before_is_bound(digits, neutral, tmp_path):
    images, labels = digits
    owner = wmplug.Owner.create(tmp_path / "register", name="Ada", passphrase="words", scrypt_n=2**10)
    anchors.trust(owner.path, neutral)
    given = {"carriers": images[KEPT], "labels": labels[KEPT]}
    mark = wmplug.create(owner, scheme=Tilt(delta=1.0, directions=12, blends=100), classes=10, **given)
    before = mark.with_queries(images[LOGGED], **given)
    assert "questions NOT COMMITTED" in str(wmplug.verify(before, lambda batch: [0] * len(batch), exhaustive=True))
    Register.of(owner).append("dataset.committed", log_of(images[LOGGED]))
    anchors.anchor(Register.of(owner))
    verdict = wmplug.verify(mark.with_queries(images[LOGGED], **given), lambda batch: [0] * len(batch), exhaustive=True)
    assert "; questions committed by 20" in str(verdict)
    assert "NOT COMMITTED" not in str(verdict)
    assert "; log AS KEPT" in str(verdict)  # it was there before the suspect, and after the key
    assert verdict.tries == verdict.keys == 1


def test_what_features_make_of_the_queries_is_named(owner, digits):
    images, labels = digits
    tilted = Tilt(delta=1.0, directions=12, blends=100, features=features.of_carriers)
    given = {"carriers": images[KEPT], "labels": labels[KEPT]}
    mark = wmplug.create(owner, scheme=tilted, classes=10, **given)
    plain = wmplug.verify(mark, lambda batch: [0] * len(batch), exhaustive=True)
    assert "features" not in named(plain)  # the key follows from what they make of the carriers
    verdict = wmplug.verify(mark.with_queries(images[LOGGED], **given), lambda batch: [0] * len(batch), exhaustive=True)
    assert "; features NOT COMMITTED" in str(verdict)
    assert named(verdict)["features"].sha256


def test_a_watermark_of_triggers_and_tilt_keeps_its_triggers(owner, digits, pool):
    images, labels = digits
    given = {"carriers": images[KEPT], "labels": labels[KEPT], "pool": pool}
    mark = wmplug.create(owner, scheme="combined", classes=10, delta=1.0, directions=12, blends=100, **given)
    other = mark.with_queries(images[LOGGED], **given)
    np.testing.assert_array_equal(mark.triggers.plan.choices.rows, other.triggers.plan.choices.rows)
    np.testing.assert_array_equal(mark.triggers.answers, other.triggers.answers[: len(mark.triggers.answers)])
    assert sorted(x.tobytes() for x in images[LOGGED]) == sorted(
        np.asarray(other.triggers.row(row)).tobytes() for row in other.triggers.plan.pattern.rows.tolist()
    )


def test_what_does_not_fit_is_refused(owner, marks, asking, digits, pool, tmp_path):
    images, labels = digits
    with pytest.raises(InputError, match=r"carriers= \(--carriers\) differ"):
        marks[0].with_queries(images[LOGGED], carriers=images[LOGGED], labels=labels[LOGGED], pool=pool)
    with pytest.raises(InputError, match=r"labels= \(--labels\) differ"):
        marks[0].with_queries(images[LOGGED], carriers=images[KEPT], labels=labels[KEPT][::-1], pool=pool)
    with pytest.raises(InputError, match="too few for 12 directions"):
        marks[0].with_queries(images[:20], carriers=images[KEPT], labels=labels[KEPT], pool=pool)
    with pytest.raises(InputError, match="cannot be saved"):
        asking[0].save(tmp_path / "other.wm")
    simple = wmplug.create(owner, scheme="random-label", carriers=images, labels=labels, classes=10)
    with pytest.raises(InputError, match="asks its own triggers"):
        simple.with_queries(images, carriers=images, labels=labels)
