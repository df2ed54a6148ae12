import pytest
from keras_models import Probe

import wmplug


def pytest_collection_modifyitems(items):
    # NumPy 2 on how Keras' torch backend makes an array of a tensor.
    array = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
    for item in items:
        if item.path.parent.name == "keras":
            item.add_marker(pytest.mark.filterwarnings(array))


@pytest.fixture(scope="session")
def mark(owner, digits):
    images, labels = digits
    return wmplug.create(owner, scheme="random-label", carriers=images, labels=labels, classes=10, triggers=24)


@pytest.fixture(scope="session")
def foreign(rival, digits):
    images, labels = digits
    return wmplug.create(rival, scheme="random-label", carriers=images, labels=labels, classes=10, triggers=24)


@pytest.fixture
def probe(mark):
    return Probe(mark.triggers.plan.inputs)


@pytest.fixture
def small(digits):
    """43 pictures: five batches of 8, and one of 3."""
    images, labels = digits
    return images[:43], labels[:43]
