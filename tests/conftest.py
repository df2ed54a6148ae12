"""What all tests share: two owners whose files cost little to open, and real pictures."""

import hashlib
import itertools

import numpy as np
import pytest
from sklearn.datasets import load_digits

from wmplug import Owner

PASSPHRASE = "correct horse battery staple"


def _owner(folder, name):
    """An owner whose secret is the same in every run: a verdict of chance must not come out otherwise tomorrow."""
    calls = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.urandom", lambda n: hashlib.shake_256(f"{name}/{next(calls)}".encode()).digest(n))
        return Owner.create(folder, name=name, passphrase=PASSPHRASE, scrypt_n=2**10)


@pytest.fixture(scope="session")
def owner(tmp_path_factory):
    return _owner(tmp_path_factory.mktemp("owner"), "Ada")


@pytest.fixture(scope="session")
def rival(tmp_path_factory):
    return _owner(tmp_path_factory.mktemp("rival"), "Eve")


@pytest.fixture(scope="session")
def digits():
    """(1797, 8, 8) uint8 in 0..16 scaled to 0..255, and (1797,) labels."""
    data = load_digits()
    return (data.images * 15.9375).astype(np.uint8), data.target.astype(np.int64)
