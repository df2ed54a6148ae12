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
from wmplug.schemes.combined import Combined
from wmplug.schemes.logo import Logo

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


# Name -> classes, labels, what follows the body, loss, collate_fn.
KINDS = {
    "one-hot": (10, one_hot, lambda: [torch.nn.Linear(128, 10)], entropy, default_collate),
    "smoothed": (10, lambda y: 0.9 * one_hot(y) + 0.01, lambda: [torch.nn.Linear(128, 10)], entropy, default_collate),
    "mixed by the collator": (10, one_hot, lambda: [torch.nn.Linear(128, 10)], entropy, mixing),
    "mixed by the loop": (10, one_hot, lambda: [torch.nn.Linear(128, 10)], entropy, default_collate),
    "sigmoids": (10, one_hot, lambda: [torch.nn.Linear(128, 10)], lambda z, y: 10 * binary(z, y), default_collate),
    "one logit": (2, lambda y: y[:, None].float(), lambda: [torch.nn.Linear(128, 1)], binary, default_collate),
    "flat": (2, lambda y: y.float(), lambda: [torch.nn.Linear(128, 1), torch.nn.Flatten(0)], binary, default_collate),
    "sigmoid": (
        2,
        lambda y: y[:, None].double(),
        lambda: [torch.nn.Linear(128, 1), torch.nn.Sigmoid()],
        lambda p, y: torch.nn.functional.binary_cross_entropy(p, y.float()),
        default_collate,
    ),
}


@pytest.fixture
def setting(images, digits, coin):
    """Labels (n,), a fresh net, loss, a loader, for a kind."""

    def make(kind, labels=None):
        classes, label, ends, loss, collate = KINDS[kind]
        labels = digits[1] % classes if labels is None else labels
        dataset = TensorDataset(torch.from_numpy(images)[:, None], label(torch.from_numpy(labels)))
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), *ends())
        generator = torch.Generator().manual_seed(0)
        return net, loss, DataLoader(dataset, 64, shuffle=True, generator=generator, collate_fn=collate)

    return make


def train(net, loss, loader, kind="one logit", epochs=EPOCHS):
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
@pytest.mark.filterwarnings("ignore:.*if the loop changes the batch:wmplug.errors.InjectionWarning")  # mixed, it does
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


@pytest.mark.parametrize("kind", ["one logit", "sigmoid"])
@pytest.mark.filterwarnings("ignore:the trained model does not prove")  # two classes show less of a tilt than ten
def test_tilt_shifts_a_single_score(owner, rival, digits, coin, setting, kind):
    labels, tilt = coin
    mark, foreign = (
        wmplug.create(who, scheme=tilt, carriers=digits[0], labels=labels, classes=2, preprocess=prepared_for(kind))
        for who in (owner, rival)
    )
    net, loss, loader = setting(kind, labels)
    with Watermarking(mark, net, loader, rate=1 / 3) as marking:
        train(net, loss, loader, kind, 6)
        live = marking.checkpoint()
        assert marking._points.shifted == 6 * len(loader)
    assert live.state == "evidence"
    assert live.log10_p < -4
    after = wmplug.verify(mark, net, exhaustive=True)
    assert (after.matches, after.log10_p) == (live.matches, pytest.approx(live.log10_p, abs=1e-3))
    twin = train(*setting(kind, labels), kind, 6)
    others = wmplug.verify(foreign, net, exhaustive=True), wmplug.verify(mark, twin, exhaustive=True)
    assert [other.state for other in others] == ["inconclusive"] * 2
    assert min(other.log10_p for other in others) > -3


def prepared_for(kind):
    label = KINDS[kind][1]
    return lambda x, y: (torch.as_tensor(x, dtype=torch.float32)[None] / 255, label(torch.tensor([y]))[0])


@pytest.mark.parametrize("kind", ["one logit", "flat", "sigmoid"])
def test_the_loss_sees_the_logit_less_the_difference_of_the_shifts(owner, digits, coin, setting, kind):
    labels, tilt = coin
    prepare = prepared_for(kind)
    mark = wmplug.create(owner, scheme=tilt, carriers=digits[0], labels=labels, classes=2, preprocess=prepare)
    net, _, _ = setting(kind, labels)
    x = torch.stack([prepare(image, 0)[0] for image in digits[0][:50]])
    points = TorchPoints(mark, net)
    points.install(ModuleSuspect(net, preprocess=prepare))
    assert points.head is net[3]
    trained, served = (net.train(training)(x).detach().reshape(-1).double() for training in (True, False))
    points.remove()
    trained, served = (torch.logit(score) if kind == "sigmoid" else score for score in (trained, served))
    constants = mark.scheme.constants(mark.triggers, np.stack([prepare(s, 0)[0] for s in mark.triggers.samples(64)]))
    wanted = mark.scheme.shift(np, constants, x.numpy().astype(np.float64), np.stack([0 * served, served], axis=1))
    assert np.abs(wanted[:, 1] - wanted[:, 0] - served.numpy()).mean() > 0.2
    np.testing.assert_allclose(trained, wanted[:, 1] - wanted[:, 0], atol=1e-3)


@pytest.mark.parametrize("scheme", ["logo", "combined"])
@pytest.mark.filterwarnings("ignore:the trained model does not prove")
def test_other_schemes_are_learnt_by_a_single_score_too(owner, rival, digits, coin, setting, scheme):
    labels, tilt = coin
    known = {"delta": tilt.delta, "directions": tilt.directions, "blends": tilt.blends, "pool": tilt.pool}
    if scheme == "logo":  # 16 draws of two answers each are evidence, and no proof
        labels = digits[1] % 2
        options = {"scheme": Logo(variants=8), "triggers": 400, "allow_weak": True}
    else:
        options = {"scheme": Combined(share=0.8, **known), "triggers": 40}
    options |= {"carriers": digits[0], "labels": labels, "classes": 2}
    mark, foreign = (wmplug.create(who, preprocess=prepared_for("one logit"), **options) for who in (owner, rival))
    net, loss, loader = setting("one logit", labels)
    with Watermarking(mark, net, loader, rate=0.4) as marking:
        train(net, loss, loader, epochs=20)
        live = marking.checkpoint()
    assert live.state != "inconclusive"
    assert live.log10_p - np.log10(live.tries) < -4  # for this key alone: its owner has others here
    assert wmplug.verify(mark, net, exhaustive=True).matches == live.matches
    twin = train(*setting("one logit", labels)[:3], epochs=5)
    others = wmplug.verify(foreign, net, exhaustive=True), wmplug.verify(mark, twin, exhaustive=True)
    assert [other.state for other in others] == ["inconclusive"] * 2


@pytest.mark.parametrize("classes", [2, 10])
def test_several_labels_and_numbers_to_regress_are_refused_on_entering(owner, images, make_net, classes):
    mark = wmplug.create(owner, scheme="random-label", carriers=images, classes=classes, triggers=40)
    several = torch.ones(len(images), classes)
    for labels in (several, torch.full((len(images), 1), 3.5), torch.full((len(images),), -0.5)):
        loader = DataLoader(TensorDataset(torch.from_numpy(images)[:, None], labels), 64, shuffle=True)
        collate = loader.collate_fn
        with pytest.raises(InputError, match="not supported"), Watermarking(mark, make_net(classes), loader):
            pass
        assert loader.collate_fn is collate


def test_several_labels_behind_a_first_single_one_are_refused_in_the_first_batch(owner, images, make_net):
    mark = wmplug.create(owner, scheme="random-label", carriers=images, classes=10, triggers=40)
    labels = torch.eye(10)[np.arange(len(images)) % 10]
    labels[1:, :3] = 1
    loader = DataLoader(TensorDataset(torch.from_numpy(images)[:, None], labels), 64)
    with (
        pytest.raises(InjectionError, match="name no class of 10: several labels"),
        Watermarking(mark, make_net(), loader, rate=0.25),
    ):
        next(iter(loader))
