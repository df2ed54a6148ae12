"""Digits as a torch user has them, and a scheme that uses every point of training."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.schemes.random_label import RandomLabel


@dataclass(frozen=True)
class Nudge(RandomLabel):
    """Shifts logits by a linear function of the input, and adds a multiple of the mean squared logit to the loss."""

    name: ClassVar[str] = "nudge"
    points: ClassVar = frozenset({"samples", "logits", "loss"})

    def constants(self, triggers, seen):
        rng = np.random.default_rng(int(triggers.answers.sum()))
        return {"weights": rng.normal(size=(64, 10)), "scale": np.array(0.125)}

    def shift(self, xp, constants, inputs, logits):
        return logits + xp.matmul(xp.reshape(inputs, (len(inputs), 64)), constants["weights"])

    def term(self, xp, constants, inputs, logits, labels):
        return constants["scale"] * xp.sum(logits * logits) / len(logits)


@pytest.fixture(scope="session")
def images(digits):
    """(1797, 8, 8) float32 in 0..1: the carriers."""
    return digits[0].astype(np.float32) / 255


@pytest.fixture(scope="session")
def dataset(images, digits):
    """Examples ((1, 8, 8) float32, int64): a channel that the carriers do not have."""
    return TensorDataset(torch.from_numpy(images)[:, None], torch.from_numpy(digits[1]))


@pytest.fixture(scope="session")
def mark(owner, images):
    return wmplug.create(owner, scheme="random-label", carriers=images, classes=10, triggers=60)


@pytest.fixture(scope="session")
def rivals_mark(rival, images):
    return wmplug.create(rival, scheme="random-label", carriers=images, classes=10, triggers=60)


@pytest.fixture(scope="session")
def nudge(owner, images):
    return wmplug.create(owner, scheme=Nudge(), carriers=images, classes=10, triggers=60)


@pytest.fixture
def make_net():
    def make(classes=10):
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, classes)
        )

    return make


@pytest.fixture
def loader(dataset):
    return DataLoader(dataset, 64, shuffle=True, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def fit_net():
    """A plain loop: `fit_net(net, loader, epochs, after_epoch, around_loss)`."""

    def train(net, loader, epochs=1, after=lambda epoch: None, around=lambda loss: loss):
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for epoch in range(epochs):
            net.train()
            for x, y in loader:
                loss = around(torch.nn.functional.cross_entropy(net(x), y))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            after(epoch)
        return net

    return train
