"""What all tests share: two owners whose files cost little to open, real pictures, an authority on loopback."""

import contextlib
import functools
import gc
import hashlib
import itertools
import socket
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import Phase, settings
from sklearn.datasets import load_digits

from wmplug import Owner

pytest.register_assert_rewrite("vectors.frozen.contract")

# A mutant is killed by any example; nobody looks for the smallest.
settings.register_profile(
    "mutants", deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)

PASSPHRASE = "correct horse battery staple"


def pytest_collection_finish():
    # What was imported stays to the end: a garbage collector need not look through it time and again.
    gc.freeze()


@contextlib.contextmanager
def _known_secrets(name):
    """What is drawn is the same in every run: a verdict of chance must not come out otherwise tomorrow."""
    calls = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.urandom", lambda n: hashlib.shake_256(f"{name}/{next(calls)}".encode()).digest(n))
        yield


@pytest.fixture(scope="session")
def known_secrets():
    return _known_secrets


def _owner(folder, name):
    with _known_secrets(name):
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


@pytest.fixture(scope="session")
def topics():
    """1,600 texts of 14 words, each on one or two of four topics, and (1600,) labels: one of these, by its share."""
    rng = np.random.default_rng(0)
    of_topic = rng.dirichlet(np.full(240, 0.08), 4)
    first, second = rng.integers(0, 4, (2, 1600))
    share = rng.uniform(0.3, 1.0, 1600)
    words = [f"w{i}" for i in range(240)]
    texts = [
        " ".join(rng.choice(words, 14, p=s * of_topic[a] + (1 - s) * of_topic[b]))
        for a, b, s in zip(first, second, share, strict=True)
    ]
    return texts, np.where(rng.random(1600) < share, first, second).astype(np.int64)


@pytest.fixture(scope="session")
def tokens():
    """A tokenizer: token ids (up to 14) of a text of `topics`, 1 for a word it does not know; 0 is its padding."""
    return lambda text: [2 + int(word[1:]) if word[1:].isdigit() else 1 for word in text.split()[:14]]


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """A timestamp authority (P-256) that is served at `lab.url`, with folder, authority and trust."""
    from wmplug.register import authority  # needs more than the frameworks' environments have

    folder = tmp_path_factory.mktemp("lab")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    made = authority.LabAuthority.create(folder, url=f"http://127.0.0.1:{port}")
    with authority.serve(folder, port=port) as url:
        yield SimpleNamespace(folder=folder, url=url, authority=made, trust=made.trust(url))


@pytest.fixture(scope="session")
def neutral(tmp_path_factory):
    """The trust in an authority that does not call itself a lab's: a real one cannot be had without a network."""
    from wmplug.register import authority

    folder = tmp_path_factory.mktemp("neutral")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authority, "LAB", "Neutral")
        made = authority.LabAuthority.create(folder, url=f"http://127.0.0.1:{port}")
    with authority.serve(folder, port=port) as url:
        yield made.trust(url)


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory):
    """References that tests train stay out of the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WMPLUG_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tilt(digits):
    """tilt for digits; its references are perceptrons, also where torch is installed and would offer better ones."""
    from wmplug.schemes.tilt import Tilt, references

    images, labels = digits
    learners = [functools.partial(references._perceptron, layers) for layers in references._LAYERS]
    found = references._cross_fitted(references.scaled(images, len(images)), labels, 10, learners)
    return Tilt(delta=1.0, directions=12, blends=2000, pool=np.stack([found.scores, found.votes]))


@pytest.fixture(scope="session")
def coin(digits):
    """(1797,) labels of two classes that are drawn, so that no model can know them, and tilt for them.

    A linear function of the picture says how likely class 1 is; it is the reference too.
    """
    from wmplug.schemes.tilt import Tilt

    rng = np.random.default_rng(0)
    flat = digits[0].reshape(len(digits[0]), -1) - digits[0].mean()
    leaning = flat @ rng.normal(size=flat.shape[1])
    share = 1 / (1 + np.exp((leaning.mean() - leaning) / leaning.std()))
    scores = np.stack([1 - share, share], axis=1).astype(np.float32)
    pool = np.stack([scores, np.eye(2, dtype=np.float32)[scores.argmax(axis=1)]])
    labels = (rng.random(len(share)) < share).astype(np.int64)
    return labels, Tilt(delta=2.0, directions=50, blends=2000, pool=pool)
