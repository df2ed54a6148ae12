"""What all tests share: two owners whose files cost little to open, and real pictures."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from wmplug import Owner

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="session")
def owner(tmp_path_factory):
    return Owner.create(tmp_path_factory.mktemp("owner"), name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)


@pytest.fixture(scope="session")
def rival(tmp_path_factory):
    return Owner.create(tmp_path_factory.mktemp("rival"), name="Eve", passphrase=PASSPHRASE, scrypt_n=2**10)


@pytest.fixture(scope="session")
def digits():
    """(1797, 8, 8) uint8 in 0..16 scaled to 0..255, and (1797,) labels."""
    data = load_digits()
    return (data.images * 15.9375).astype(np.uint8), data.target.astype(np.int64)
