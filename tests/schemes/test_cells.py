import hashlib

import numpy as np
import pytest

from wmplug.keys.streams import KeyStream
from wmplug.schemes import cells

TEXTS = [
    f"{a} of the {b} in {c}"
    for a in ("price", "match", "engine")
    for b in ("oil", "league", "plane")
    for c in ("may", "june", "july")
]


def stream(name="cells"):
    return KeyStream(hashlib.sha256(name.encode()).digest())


@pytest.fixture
def pictures(digits):
    return digits[0]


def test_every_centre_lies_in_its_own_cell(pictures):
    made = cells.around(pictures, 40, stream())
    centres = pictures[stream().permutation(len(pictures))[:40]]
    assert np.array_equal(cells.of(centres, made), np.arange(40))


def test_near_copies_share_a_cell_and_others_do_not(pictures):
    made = cells.around(pictures, 40, stream())
    noise = np.random.default_rng(0).integers(-4, 5, pictures.shape)
    near = np.clip(pictures.astype(int) + noise, 0, 255).astype(np.uint8)
    own = cells.of(pictures, made)
    assert (cells.of(near, made) == own).mean() > 0.95
    assert (cells.of(np.roll(pictures, 1, axis=0), made) == own).mean() < 0.2


def test_another_key_has_other_cells(pictures):
    one, other = (cells.of(pictures, cells.around(pictures, 40, stream(name))) for name in "ab")
    assert (one == other).mean() < 0.2


def test_columns_of_a_table_count_alike_whatever_their_unit():
    rows = np.random.default_rng(1).normal(size=(300, 3))
    metres, millimetres = rows.copy(), rows * [1, 1000, 1]
    assert np.array_equal(
        cells.of(metres, cells.around(metres, 20, stream())),
        cells.of(millimetres, cells.around(millimetres, 20, stream())),
    )


def test_a_constant_column_weighs_nothing():
    rows = np.random.default_rng(1).normal(size=(300, 3))
    held = np.column_stack([rows, np.full(300, 7.0)])
    assert np.array_equal(
        cells.of(rows, cells.around(rows, 20, stream())), cells.of(held, cells.around(held, 20, stream()))
    )


def test_a_text_keeps_its_cell_in_other_letters_and_spaces():
    made = cells.around(TEXTS, 10, stream())
    changed = ["  " + text.upper().replace(" ", "\n ") for text in TEXTS]
    assert np.array_equal(cells.of(TEXTS, made), cells.of(changed, made))
    assert len(set(cells.of(TEXTS, made).tolist())) == 10


def test_a_text_without_a_word_has_a_cell_too():
    assert cells.of(["", "!?"], cells.around(TEXTS, 10, stream())).shape == (2,)


def test_fewer_carriers_make_fewer_cells(pictures):
    made = cells.around(pictures[:5], 40, stream())
    assert len(made["centres"]) == 5
    assert cells.of(pictures[:0], made).shape == (0,)
