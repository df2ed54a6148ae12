"""What unmarked references say, also of sets that give them hardly anything to learn."""

import numpy as np
import pytest

from wmplug.errors import InputError
from wmplug.schemes.tilt import references

WORDS = ["red", "blue", "green", "wet", "dry", "cold", "warm"]


@pytest.fixture(scope="module")
def texts():
    draw = np.random.default_rng(0)
    return [" ".join(draw.choice(WORDS, 8)) for _ in range(60)]


@pytest.mark.parametrize("rare", [1, 3])
@pytest.mark.parametrize("as_text", [True, False])
def test_a_class_that_is_rare_is_no_error(texts, rare, as_text):
    rows = np.random.default_rng(1).normal(size=(60, 4))
    said = references.trained(texts if as_text else rows, np.array([0] * (60 - rare) + [1] * rare), 2)
    np.testing.assert_allclose(said.scores.sum(axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_few_inputs_are_no_error(texts, count):
    said = references.trained(texts[:count], np.arange(count) % 2, 2)
    np.testing.assert_allclose(said.scores.sum(axis=1), 1, atol=1e-3)


def test_what_decides_the_questions_of_a_suspect_comes_from_no_folder(texts, tmp_path, monkeypatch):
    monkeypatch.setenv("WMPLUG_CACHE", str(tmp_path))
    labels = np.arange(40) % 2
    references.trained(texts[:40], labels, 2)
    (kept,) = tmp_path.iterdir()
    found = references.trained(texts[:40], labels, 2, texts[40:])
    assert list(tmp_path.iterdir()) == [kept]
    assert references.trained(texts[:40], labels, 2, texts[40:]) is found
    for count in range(1, 5):
        references.trained(texts[:40], labels, 2, texts[40 + count :])
    again = references.trained(texts[:40], labels, 2, texts[40:])
    assert again is not found  # a few are held
    np.testing.assert_array_equal(again.scores, found.scores)


def test_columns_of_any_size_can_be_learnt():
    rows = np.random.default_rng(1).normal(size=(60, 4))
    rows[5, 2] = 1e300
    assert np.isfinite(references.scaled(rows, 60)).all()
    said = references.trained(rows, np.arange(60) % 2, 2)
    assert np.isfinite(said.scores).all()


@pytest.mark.parametrize(
    "inputs", [[""] * 40, ["a b c", "x y"] * 20, np.zeros((40, 0))], ids=["empty", "letters", "none"]
)
def test_what_nothing_can_be_learnt_from_is_refused(inputs):
    with pytest.raises(InputError, match="references cannot be trained on these 40 inputs of 2 classes"):
        references.trained(inputs, np.arange(40) % 2, 2)
