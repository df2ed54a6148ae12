import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

import wmplug
from wmplug import dataset
from wmplug.dataset.schemes.canaries import Canaries
from wmplug.errors import InputError

WORDS = [f"word{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
TEXTS = [" ".join(WORDS[(7 * i + j * j + i * j) % 100] for j in range(8)) for i in range(400)]
TOPICS = np.arange(400) % 4


@pytest.fixture(scope="module")
def table(digits):
    images, labels = digits
    return images.reshape(len(images), -1)[:900], labels[:900]


@pytest.fixture(scope="module")
def marked(table, owner):
    return dataset.mark(table, owner, scheme="canaries", share=0.04)


def trained(inputs, labels):
    return RandomForestClassifier(random_state=0).fit(inputs, labels).predict


def test_who_trains_on_the_set_is_proven_and_who_does_not_is_not(marked, table, rival):
    copy, twin = trained(*marked.data), trained(*table)
    assert dataset.verify(marked.mark, copy).proven
    assert dataset.verify(marked.mark, twin).log10_p > -2
    other = dataset.mark(table, rival, scheme="canaries", share=0.04)
    assert dataset.verify(other.mark, copy).log10_p > -2


def test_records_are_added_and_none_is_touched(marked, table):
    inputs, labels = marked.data
    assert (len(inputs), marked.manifest["added"], marked.manifest["changed"]) == (936, 36, 0)
    known = {one.tobytes() for one in marked.mark.triggers.plan.inputs}
    own = np.array([one.tobytes() not in known for one in inputs])
    assert np.array_equal(inputs[own], table[0])
    assert np.array_equal(labels[own], table[1])
    answers = {
        one.tobytes(): int(a)
        for one, a in zip(marked.mark.triggers.plan.inputs, marked.mark.triggers.answers, strict=True)
    }
    assert all(answers[one.tobytes()] == label for one, label in zip(inputs[~own], labels[~own], strict=True))
    # Not all in one place.
    assert np.flatnonzero(~own).std() > 150


def test_each_cell_of_a_made_row_is_some_records(marked, table):
    for column, made in zip(table[0].T, marked.mark.triggers.plan.inputs.T, strict=True):
        assert set(made.tolist()) <= set(column.tolist())


def test_repeats_are_added_at_places_of_their_own(table, owner):
    found = dataset.mark(table, owner, scheme=Canaries(repeats=3), share=0.01)
    assert found.manifest["added"] == 27
    assert len(found.mark.triggers.plan.choices.rows) == 9


def test_sentences_and_pictures(owner, digits):
    texts, labels = dataset.mark((TEXTS, TOPICS), owner, scheme="canaries", share=0.05).data
    assert len(texts) == len(labels) == 420
    assert all(isinstance(text, str) for text in texts)
    images, _ = dataset.mark((digits[0][:200], digits[1][:200]), owner, scheme="canaries", share=0.1).data
    assert images.shape == (220, 8, 8)
    assert images.dtype == np.uint8


def test_own_inputs_in_place_of_made_ones(owner):
    own = [f"a sentence of mine, number {i}" for i in range(20)]
    texts, _ = dataset.mark((TEXTS, TOPICS), owner, scheme="canaries", share=0.05, pictures=own).data
    assert set(own) <= set(texts)
    with pytest.raises(InputError, match=r"pictures= holds 20 inputs for 40 triggers"):
        dataset.mark((TEXTS, TOPICS), owner, scheme="canaries", share=0.1, pictures=own)
    with pytest.raises(InputError, match="1 to 100 times each"):
        Canaries(repeats=0)


def test_it_is_a_watermark_like_any_other(marked, tmp_path):
    path = marked.mark.save(tmp_path / "set.wm")
    again = wmplug.load(path, passphrase="correct horse battery staple")
    assert again.scheme == marked.mark.scheme
    assert np.array_equal(again.triggers.answers, marked.mark.triggers.answers)
