"""Features are the same from carriers and from what a model is given, in every framework's functions."""

import numpy as np
import pytest

from wmplug.errors import InjectionError
from wmplug.schemes.tilt import features


def tensors(tables):
    return {name: np.asarray(table) for name, table in tables.items()}


def seen_as(images, how):
    floats = images.astype(np.float64) / 255
    return {
        "as they are": images,
        "scaled": floats,
        "normalised": (floats - 0.3) / 0.2,
        "channels first": floats[:, None],
        "channels last": floats[..., None],
        "three channels": np.repeat(floats[:, None], 3, axis=1),
        "twice as large": floats.repeat(2, axis=1).repeat(2, axis=2),
        "inverted": 1 - floats,
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "as they are",
        "scaled",
        "normalised",
        "channels first",
        "channels last",
        "three channels",
        "twice as large",
        "inverted",
    ],
)
def test_a_picture_has_the_same_features_however_the_model_is_given_it(digits, how):
    images, _ = digits
    tables = features.constants(images[:64], seen_as(images[:64], how))
    later = features.of_inputs(np, seen_as(images[100:120], how).astype(np.float64), tensors(tables))
    np.testing.assert_allclose(later, features.of_carriers(images[100:120]), atol=0.5)


def test_colours_are_calibrated_each_by_itself():
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (70, 20, 30, 3)).astype(np.uint8)
    given = np.moveaxis((images / 255 - [0.4, 0.5, 0.6]) / [0.2, 0.3, 0.1], -1, 1)
    tables = features.constants(images[:64], given[:64])
    later = features.of_inputs(np, given[64:], tensors(tables))
    assert later.shape == (6, 3 * 49)
    np.testing.assert_allclose(later, features.of_carriers(images[64:]), atol=0.5)


def test_columns_of_a_table_are_calibrated_each_by_itself():
    rng = np.random.default_rng(2)
    rows = rng.standard_normal((80, 5)) * [1, 10, 100, 1, 0] + [0, 5, -3, 1, 7]
    given = (rows - rows.mean(axis=0)) / np.maximum(rows.std(axis=0), 1e-9)
    tables = features.constants(rows[:64], given[:64])
    later = features.of_inputs(np, given[64:], tensors(tables))
    np.testing.assert_allclose(later, rows[64:], atol=1e-3)


@pytest.mark.parametrize("shape", [(64, 64), (64, 2, 2, 2, 2)])
def test_another_kind_of_input_is_refused(digits, shape):
    with pytest.raises(InjectionError, match="shape"):
        features.constants(digits[0][:64], np.zeros(shape))


def test_other_pictures_are_refused(digits):
    noise = np.random.default_rng(3).random((64, 8, 8))
    with pytest.raises(InjectionError, match="preprocess="):
        features.constants(digits[0][:64], noise)


def test_every_pixel_counts_once_whatever_the_size():
    image = np.zeros((1, 10, 13))
    image[0, 3, 4] = 1.0
    assert features.of_carriers(image).sum() * 10 * 13 / 49 == pytest.approx(1.0, rel=1e-5)
