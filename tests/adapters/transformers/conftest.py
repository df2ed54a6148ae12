"""Marks and data of the Trainer's tests."""

from pathlib import Path

import pytest
import small
import transformers

import wmplug

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    for item in items:
        if HERE in item.path.parents:
            # Tiny runs are not expected to prove anything; the tests that expect it say so.
            item.add_marker(pytest.mark.filterwarnings("ignore:the trained model does not prove"))


@pytest.fixture(autouse=True, scope="session")
def quiet():
    transformers.logging.set_verbosity_error()


@pytest.fixture(scope="session")
def mark(owner, digits):
    images, labels = digits
    return wmplug.create(
        owner, scheme="random-label", carriers=images, labels=labels, classes=10, triggers=40, preprocess=small.prepare
    )


@pytest.fixture(scope="session")
def rivals(rival, digits):
    images, labels = digits
    return wmplug.create(
        rival, scheme="random-label", carriers=images, labels=labels, classes=10, triggers=40, preprocess=small.prepare
    )


@pytest.fixture(scope="session")
def data(digits):
    images, labels = digits
    return small.examples(images[:640], labels[:640])


@pytest.fixture(scope="session")
def held(digits):
    images, labels = digits
    return small.examples(images[640:768], labels[640:768])
