"""Small sets are enough for most of what is tested here."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_sample_images

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore:.* draws show whether"))


@pytest.fixture(scope="session")
def patches():
    """(160, 32, 32, 3) uint8 out of two photographs, and a label for each."""
    tiles = [
        photo[y : y + 32, x : x + 32]
        for photo in load_sample_images().images
        for y in range(0, 380, 32)
        for x in range(0, 600, 32)
    ]
    tiles = [tile for tile in tiles if tile.mean(axis=2).std() > 12]  # not of clear sky
    rows = np.random.default_rng(0).permutation(len(tiles))[:160]
    return np.stack(tiles)[rows], np.arange(160) % 10
