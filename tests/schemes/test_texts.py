"""tilt of texts: features from token ids, texts between two texts, and that nobody without the key is accused."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.naive_bayes import MultinomialNB

import wmplug
from wmplug.errors import InjectionError, InputError
from wmplug.keys.streams import KeyStream, Subkeys
from wmplug.schemes import Brief
from wmplug.schemes.tilt import Tilt, references, texts
from wmplug.statistics.signs import weighted_log10_p, weighted_ps, weights_of
from wmplug.tasks import Classes
from wmplug.testing import SchemeContract
from wmplug.watermark.carriers import digest
from wmplug.watermark.plan import TriggerSet, draw_symbols


@pytest.fixture(scope="module")
def told(topics, tokens):
    return Brief(topics[0], "text", Classes(4), topics[1], 40, lambda text, answer: (tokens(text), answer))


@pytest.fixture(scope="module")
def scheme(told):
    """With references worked out once."""
    return Tilt(delta=1.0, directions=24, blends=200).prepared(told)


@pytest.fixture(scope="module")
def task(told):
    return told


class TestTiltOfTexts(SchemeContract):
    @pytest.fixture
    def scheme(self, scheme):
        return scheme

    @pytest.fixture
    def brief(self, task):
        return task


@pytest.fixture(scope="module")
def plan(scheme, task):
    return scheme.plan(task, Subkeys.derive(b"one".ljust(32, b"."), "0").stream("input"))


def drawn(plan, key):
    label = Subkeys.derive(f"label {key}".encode().ljust(32, b"."), "0").stream("label")
    return TriggerSet(plan, "text", Classes(4), draw_symbols(label, plan.options))


def padded(rows, filler=0, length=20):
    return np.array([[*row, *[filler] * (length - len(row))] for row in rows])


def heard(logits):
    logits = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    return logits.argmax(axis=1), np.maximum(logits, math.log(1e-4))


@pytest.mark.parametrize("tells", ["labels", "scores"])
def test_a_tilted_suspect_is_found_and_a_wrong_key_is_not(scheme, plan, tokens, tells):
    mine = drawn(plan, 0)
    ids = padded([tokens(plan.inputs[row]) for row in plan.pattern.rows])
    logits = np.log(np.maximum(plan.material["scores"], 1e-4))
    constants = scheme.constants(mine, ids[:64])
    answers, scores = heard(2 * logits - scheme.shift(np, constants, ids, logits))
    weights = weights_of(scheme.weigh(plan, answers, None if tells == "labels" else scores))
    assert weighted_log10_p(weights, mine.signs) < -6
    wrong = weighted_ps(weights, np.stack([drawn(plan, key).signs for key in range(1, 201)]))
    assert np.mean(wrong < 0.1) < 0.18
    assert min(wrong) > 10**-4.5


def test_an_unmarked_suspect_is_accused_as_often_as_chance_says(scheme, plan, topics):
    words = CountVectorizer(token_pattern=r"\S+")
    model = MultinomialNB().fit(words.fit_transform(topics[0]), topics[1])
    answers, scores = heard(model.predict_log_proba(words.transform([plan.inputs[row] for row in plan.pattern.rows])))
    keys = np.stack([drawn(plan, key).signs for key in range(500)])
    found = np.concatenate(
        [weighted_ps(weights_of(scheme.weigh(plan, answers, told)), keys) for told in (None, scores)]
    )
    # Twice as wide as a one-in-a-million binomial band: both suspects are the same model.
    assert np.mean(found <= 0.01) < 0.01 + 2 * 4.9 * math.sqrt(0.01 * 0.99 / len(found))
    assert np.mean(found <= 0.5) == pytest.approx(0.5, abs=0.1)


def test_questions_are_carriers_and_blends_are_not(scheme, plan, task):
    natural = set(task.carriers)
    assert all(plan.inputs[row] in natural for row in plan.pattern.rows)
    assert sum(plan.inputs[row] in natural for row in plan.lessons.rows) < 3
    assert len(plan.lessons.rows) == 200
    assert scheme.words >= 14


def test_auto_rehearses_texts(scheme, task):
    asking = replace(scheme, delta="auto")
    assert asking.prepared(task).delta in (0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)


# Features


def test_padding_and_unknown_tokens_weigh_nothing(topics, tokens):
    rows = [np.array(tokens(text)) for text in topics[0]]
    table = texts.vectors(rows)
    wanted = texts.of_rows(rows[:50], table)
    for filler in (0, -1, 10**6):
        ids = padded(rows[:50], filler)
        found = texts.of_ids(np, ids, texts.constants(table, ids))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert np.abs(texts.of_rows([np.array([10**6])], table)).max() == 0


def test_features_tell_topics_apart(topics, tokens):
    rows = [np.array(tokens(text)) for text in topics[0]]
    found = texts.of_rows(rows, texts.vectors(rows))
    centres = np.stack([found[:800][topics[1][:800] == k].mean(axis=0) for k in range(4)])
    nearest = ((found[800:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    assert np.mean(nearest == topics[1][800:]) > 0.5


@pytest.mark.parametrize(
    "example",
    [
        {"input_ids": [5, 6, 7, 0, 0], "attention_mask": [1, 1, 1, 0, 0], "label": 3},
        {"labels": 3, "token_ids": np.array([[0, 0, 5, 6, 7]])},
        ({"token_ids": [5, 6, 7, 9], "padding_mask": [True, True, True, False]}, 3),
        ([5, 6, 7, 0, 0, 0], 3),
        ([9, 9, 9, 5, 6, 7], 3),
        [5, 6, 7],
    ],
)
def test_ids_are_found_in_an_example_and_padding_goes(example):
    assert texts.ids_of(["a"], lambda text, answer: example)[0].tolist() == [5, 6, 7]


@pytest.mark.parametrize("made", ["a b", {"label": 3}, ([0.5, 0.5], 1), [[1, 2], [3, 4]], []])
def test_what_is_no_text_to_a_model_is_refused(made):
    with pytest.raises(InputError, match="token ids"):
        texts.ids_of(["a"], lambda text, answer: made)


def test_a_tokenizer_is_asked_for(owner, topics):
    with pytest.raises(InputError, match=r"give preprocess=.*tokenizer\(text"):
        wmplug.create(owner, against="theft+cloning", carriers=topics[0], labels=topics[1], classes=4)


def test_texts_without_a_common_token_are_refused():
    with pytest.raises(InputError, match="share 0 tokens"):
        texts.vectors([np.array([i]) for i in range(9)])


def test_another_tokenizer_is_refused(scheme, plan):
    with pytest.raises(InjectionError, match="same tokenizer"):
        scheme.constants(drawn(plan, 0), np.full((8, 5), 10**5))
    with pytest.raises(InjectionError, match=r"float64 for 8 texts"):
        scheme.constants(drawn(plan, 0), np.zeros((8, 5)))


# A function of the owner's own


def lengths(ids):
    """Of a batch of token ids, in NumPy."""
    return np.stack([(ids % (k + 2) == 0).mean(axis=1) for k in range(8)], axis=1)


def test_features_may_be_a_function(owner, scheme, task, topics):
    options = {
        "carriers": topics[0],
        "labels": topics[1],
        "classes": 4,
        "preprocess": task.preprocess,
        "allow_weak": True,
    }
    given = Tilt(delta=1.0, directions=6, blends=50, pool=scheme.pool, features=lengths)
    mark = wmplug.create(owner, scheme=given, **options)
    other = wmplug.create(owner, scheme=replace(given, features=lambda ids: lengths(ids)[:, :7]), **options)
    assert mark.public["parameters"]["features"] != other.public["parameters"]["features"]
    ids = padded([task.preprocess(text, 0)[0] for text in mark.triggers.samples(40)], length=14)
    constants, logits = mark.scheme.constants(mark.triggers, ids), np.zeros((len(ids), 4))
    z = np.clip((lengths(ids) - constants["mean"]) @ constants["basis"], -2.5, 2.5)
    np.testing.assert_allclose(mark.scheme.shift(np, constants, ids, logits), -z @ constants["tilt"], atol=1e-6)
    with pytest.raises(InjectionError, match="of the model's inputs differ from those of the carriers"):
        mark.scheme.constants(mark.triggers, np.full((40, 14), 5040))


def test_a_saved_watermark_has_the_table_but_no_function(owner, scheme, task, topics, tmp_path):
    options = {
        "carriers": topics[0],
        "labels": topics[1],
        "classes": 4,
        "preprocess": task.preprocess,
        "allow_weak": True,
    }
    for how, features in (("table", None), ("function", lengths)):
        given = Tilt(delta=1.0, directions=6, blends=50, pool=scheme.pool, features=features)
        mark = wmplug.create(owner, scheme=given, **options)
        again = wmplug.load(mark.save(tmp_path / f"{how}.wm"), passphrase="correct horse battery staple")
        ids = padded([task.preprocess(text, 0)[0] for text in mark.triggers.samples(40)])
        if how == "table":
            for one, two in zip(
                mark.scheme.constants(mark.triggers, ids).values(),
                again.scheme.constants(again.triggers, ids).values(),
                strict=True,
            ):
                np.testing.assert_array_equal(one, two)
        else:
            with pytest.raises(InjectionError, match="is not saved"):
                again.scheme.constants(again.triggers, ids)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("lsa", "features= is a str"),
        (lambda ids: ids[0], r"features= returned \(14,\)"),
        (lambda ids: np.full((len(ids), 2), np.nan), "finite numbers"),
    ],
)
def test_a_function_that_gives_no_features_is_refused(task, scheme, features, message):
    with pytest.raises(InputError, match=message):
        Tilt(pool=scheme.pool, features=features).prepared(task)


# Blends


@given(st.integers(0, 2**16), st.integers(4, 30))
def test_a_splice_begins_as_one_and_ends_as_the_other(seed, words):
    own = [" ".join(f"{name}{i}" for i in range(20)) for name in "abcde"]
    made, labels = texts.spliced(own, np.arange(5), 20, KeyStream(seed.to_bytes(32, "big")), words, (0.3, 0.7))
    for text, label in zip(made, labels, strict=True):
        parts = text.split()
        first, second = own["abcde".index(parts[0][0])].split(), own["abcde".index(parts[-1][0])].split()
        assert label in ("abcde".index(parts[0][0]), "abcde".index(parts[-1][0]))
        read = min(words, 20)
        if first != second:
            cut = sum(word in first for word in parts)
            assert 0.3 * read - 1 <= cut <= 0.7 * read + 1
            assert parts == first[:cut] + second[cut:read]


def test_the_label_of_a_splice_is_drawn_in_proportion():
    own = [" ".join([name] * 100) for name in "ab"]
    made, labels = texts.spliced(own, np.arange(2), 4000, KeyStream(bytes(32)), 100, (0.3, 0.7))
    share = np.array([text.count("b") / 100 for text in made])
    mixed = (share > 0) & (share < 1)
    assert 0.3 - 0.01 <= share[mixed].min() < 0.32
    assert 0.68 < share[mixed].max() <= 0.7 + 0.01
    low, high = mixed & (share < 0.4), mixed & (share > 0.6)
    assert labels[low].mean() == pytest.approx(share[low].mean(), abs=0.06)
    assert labels[high].mean() == pytest.approx(share[high].mean(), abs=0.06)


def test_words_beyond_what_the_model_reads_are_found_out():
    long = [" ".join(["ab"] * n) for n in (5, 10, 50, 80)]
    assert texts.words_read(long, [min(2 * len(t.split()), 40) for t in long]) == 20
    assert texts.words_read(long, [len(t.split()) for t in long]) == 80


# References


def test_references_of_texts_are_cross_fitted_and_kept(topics, tmp_path, monkeypatch):
    own, labels = topics
    monkeypatch.setenv("WMPLUG_CACHE", str(tmp_path))
    found = references.trained(own[:1200], labels[:1200], 4, own[1200:])
    assert found.scores.shape == found.votes.shape == (1600, 4)
    np.testing.assert_allclose(found.scores.sum(axis=1), 1, atol=1e-5)
    right = found.scores.argmax(axis=1) == labels
    # What a model is asked about it has not seen: it is no better there than on texts it was never to see.
    assert abs(right[:1200].mean() - right[1200:].mean()) < 0.07
    assert right.mean() > 0.55
    monkeypatch.setattr(references, "_learners", lambda inputs: ("linear/1", []))
    np.testing.assert_array_equal(references.trained(own[:1200], labels[:1200], 4, own[1200:]).scores, found.scores)


def test_a_pool_of_the_owner_s_own_reads_texts(owner, task, topics):
    said = {digest(text): (hash(text) % 7, label) for text, label in zip(*topics, strict=True)}

    def model(given):
        return np.array([np.eye(4)[said[digest(text)][1]] * 0.2 + 0.2 for text in given])

    options = {"carriers": topics[0], "labels": topics[1], "classes": 4, "preprocess": task.preprocess}
    mark = wmplug.create(
        owner, scheme=Tilt(delta=1.0, directions=8, blends=20, pool=[model]), allow_weak=True, **options
    )
    assert len(mark.triggers.plan.pattern.rows) == 1600
    with pytest.raises(InputError, match=r"queries= are array"):
        wmplug.create(owner, scheme="tilt", queries=np.zeros((3, 4)), **options)
