"""One-hot and soft labels, and heads with one score an input, in a plain loop: the mark is learnt and is found."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

import wmplug
from wmplug.adapters.torch import Watermarking
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.adapters.torch.points import TorchPoints
from wmplug.errors import InjectionError, InputError

EPOCHS = 12
entropy, binary = torch.nn.functional.cross_entropy, torch.nn.functional.binary_cross_entropy_with_logits


def one_hot(labels):
    return torch.eye(10)[labels]


def mixed(x, y):
    """mixup, one share for the batch."""
    share = float(torch.distributions.Beta(0.2, 0.2).sample())
    return share * x + (1 - share) * x.roll(1, 0), share * y + (1 - share) * y.roll(1, 0)


def mixing(rows):
    return mixed(*default_collate(rows))


# Name -> classes, labels, layers after the body, loss, collate_fn.
KINDS = {
    "one-hot": (10, one_hot, [torch.nn.LazyLinear(10)], entropy, default_collate),
    "smoothed": (10, lambda y: 0.9 * one_hot(y) + 0.01, [torch.nn.LazyLinear(10)], entropy, default_collate),
    "mixed by the collator": (10, one_hot, [torch.nn.LazyLinear(10)], entropy, mixing),
    "mixed by the loop": (
        10,
        one_hot,
        [torch.nn.LazyLinear(10)],
        lambda z, y: entropy(z, y),
        default_collate,
    ),
    "a sigmoid for each class": (10, one_hot, [torch.nn.LazyLinear(10)], lambda z, y: 10 * binary(z, y), default_collate),
    "one logit": (2, lambda y: y[:, None].float(), [torch.nn.LazyLinear(1)], binary, default_collate),
    "one logit, flat": (2, lambda y: y.float(), [torch.nn.LazyLinear(1), torch.nn.Flatten(0)], binary, default_collate),
    "a sigmoid": (
        2,
        lambda y: y[:, None].double(),
        [torch.nn.LazyLinear(1), torch.nn.Sigmoid()],
        lambda p, y: torch.nn.functional.binary_cross_entropy(p, y.float()),
        default_collate,
    ),
}


@pytest.fixture
def setting(images, digits, coin):
    """Labels (n,), a fresh net, loss, a loader, for a kind."""

    def make(kind, labels=None):
        classes, label, layers, loss, collate = KINDS[kind]
        labels = digits[1] % classes if labels is None else labels
        dataset = TensorDataset(torch.from_numpy(images)[:, None], label(torch.from_numpy(labels)))
        torch.manual_seed(0)
        ends = [torch.nn.LazyLinear(layer.out_features) if hasattr(layer, "out_features") else layer for layer in layers]
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), *ends)
        net(dataset[0][0][None])
        generator = torch.Generator().manual_seed(0)
        return net, loss, DataLoader(dataset, 64, shuffle=True, generator=generator, collate_fn=collate)

    return make


def train(net, loss, loader, kind, epochs=EPOCHS):
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        net.train()
        for x, y in loader:
            x, y = mixed(x, y) if kind == "mixed by the loop" else (x, y)
            loss(net(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
    return net



@pytest.mark.parametrize("kind", KINDS)
def test_the_mark_is_learnt_and_nothing_else_is_taken_for_it(owner, rival, images, setting, kind):
    classes = KINDS[kind][0]
    mark, foreign = (
        wmplug.create(who, scheme="random-label", carriers=images, classes=classes, triggers=40)
        for who in (owner, rival)
    )
    net, loss, loader = setting(kind)
    with Watermarking(mark, net, loader, rate=0.25) as marking:
        train(net, loss, loader, kind)
        live = marking.checkpoint()
    assert live.proven
    after = wmplug.verify(mark, net, exhaustive=True)
    assert (after.matches, after.log10_p) == (live.matches, live.log10_p)
    assert wmplug.verify(mark, lambda x: net.eval()(torch.from_numpy(x))).proven
    assert wmplug.verify(foreign, net, exhaustive=True).log10_p > -4
    twin = train(*setting(kind), kind)
    assert wmplug.verify(mark, twin, exhaustive=True).log10_p > -4
