"""A loop without a framework, whose model knows the watermark or does not."""

import numpy as np
import pytest

import wmplug
from wmplug.testing import knowing


class Toy:
    name = "toy"
    points = frozenset({"samples"})
    calls = frozenset({"classify"})
    events = ("epoch", "train_end")
    main = True

    def __init__(self, mark):
        self.knows, self.ignorant = knowing(mark), lambda inputs: np.zeros(len(inputs), int)
        self.model, self.logged, self.stopped, self.rates = self.knows, [], False, []

    def suspect(self):
        return self.model

    def agree(self, value):
        return value

    def log(self, numbers, at):
        self.logged.append((dict(numbers), at))

    def stop(self):
        self.stopped = True

    def set_rate(self, rate):
        self.rates.append(rate)


@pytest.fixture(scope="session")
def mark(owner, digits):
    return wmplug.create(owner, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10, triggers=40)


@pytest.fixture(scope="session")
def foreign(rival, digits):
    return wmplug.create(rival, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10, triggers=40)


@pytest.fixture
def loop(mark):
    return Toy(mark)
