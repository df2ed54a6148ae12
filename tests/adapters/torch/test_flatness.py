"""Flat minima: the step stays the loop's own, and what is taught outlives a fine-tuning that takes it from others."""

import copy
import gc

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

import wmplug
from wmplug.adapters.torch import Watermarking
from wmplug.adapters.torch.flatness import Flatness
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.errors import InputError


def marked(mark, net, loader, fit_net, flat):
    with Watermarking(mark, net, loader, flat=flat) as marking:
        fit_net(net, loader, 40)
        marking.checkpoint()
    return net


def matches(mark, net):
    return wmplug.verify(mark, ModuleSuspect(net, preprocess=mark.preprocess), exhaustive=True).matches


def test_triggers_outlive_fine_tuning(mark, rivals_mark, make_net, loader, dataset, fit_net):
    nets = {flat: marked(mark, make_net(), loader, fit_net, flat) for flat in (0.0, 0.02)}
    assert all(matches(mark, net) >= 50 for net in nets.values()), [matches(mark, net) for net in nets.values()]
    left = {flat: [] for flat in nets}
    for seed in range(3):
        for flat, net in nets.items():
            order = torch.Generator().manual_seed(seed)
            few = DataLoader(Subset(dataset, range(seed, len(dataset), 4)), 64, shuffle=True, generator=order)
            left[flat].append(matches(mark, fit_net(copy.deepcopy(net), few, 30)))
    assert all(flat > plain for flat, plain in zip(left[0.02], left[0.0], strict=True)), left
    assert wmplug.verify(rivals_mark, ModuleSuspect(nets[0.02]), exhaustive=True).log10_p > -4


def test_weights_come_back_and_other_optimizers_are_let_be(mark, make_net, loader):
    net, stranger = make_net(), make_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    own, other = torch.optim.SGD(net.parameters(), 0.0), torch.optim.SGD(stranger.parameters(), 0.0)
    with Watermarking(mark, net, loader, on_failure="stop", flat=0.1):
        x, y = next(iter(loader))
        for model, optimizer in ((net, own), (stranger, other)):
            torch.nn.functional.cross_entropy(model.train()(x), y).backward()
            plain = [weight.grad.clone() for weight in model.parameters()]
            optimizer.step()
            same = [torch.equal(a, w.grad) for a, w in zip(plain, model.parameters(), strict=True)]
            assert all(same) if model is stranger else not any(same)
        assert net.training
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in before.items())
    own.zero_grad()
    torch.nn.functional.cross_entropy(net(x), y).backward()
    plain = [weight.grad.clone() for weight in net.parameters()]
    own.step()
    assert all(torch.equal(a, w.grad) for a, w in zip(plain, net.parameters(), strict=True))


@pytest.mark.parametrize("fused", [False, True])
def test_what_is_added_does_not_depend_on_a_scale(mark, make_net, loader, fused):
    (x, y), net, added = next(iter(loader)), make_net(), []
    for factor in (1.0, 1024.0):
        net = copy.deepcopy(net)
        optimizer = torch.optim.SGD(net.parameters(), 1.0, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=factor)
        before = [weight.detach().clone() for weight in net.parameters()]
        with Watermarking(mark, net, loader, on_failure="stop", flat=0.1):
            next(iter(loader))
            scaler.scale(torch.nn.functional.cross_entropy(net.train()(x), y)).backward()
            scaler.step(optimizer)
        added.append([b - weight.detach() for b, weight in zip(before, net.parameters(), strict=True)])
        net.load_state_dict(dict(zip(net.state_dict(), before, strict=True)))
    for one, two in zip(*added, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_one_whose_frame_died_moves_nothing(mark, make_net, loader):
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    Watermarking(mark, net, loader, flat=0.1).__enter__()
    gc.collect()
    x, y = next(iter(loader))
    torch.nn.functional.cross_entropy(net.train()(x), y).backward()
    plain = [weight.grad.clone() for weight in net.parameters()]
    optimizer.step()
    assert all(torch.equal(a, w.grad) for a, w in zip(plain, net.parameters(), strict=True))


@pytest.mark.parametrize("flat", [-0.1, 0.6, "wide", None])
def test_a_radius_that_is_none_is_refused(mark, make_net, loader, flat):
    with pytest.raises(InputError, match="flat="):
        Watermarking(mark, make_net(), loader, flat=flat)


def test_a_mark_without_triggers_has_nothing_to_hold(owner, tilt, digits, make_net, loader):
    mark = wmplug.create(owner, scheme=tilt, carriers=digits[0], labels=digits[1], classes=10)
    with pytest.raises(InputError, match="no triggers to protect"):
        Watermarking(mark, make_net(), loader, flat=0.02)


@pytest.mark.parametrize("end", [torch.nn.Softmax(-1), torch.nn.LogSoftmax(-1), torch.nn.Sigmoid()])
def test_a_model_that_answers_probabilities_is_moved_as_one_of_logits(mark, make_net, loader, end):
    """Case: the loss took a softmax for logits, so that flat= hardly did anything."""
    net = make_net()
    with Watermarking(mark, net, loader, on_failure="stop") as marking:
        plain = Flatness(mark, marking.suspect(), 0.1, 0.1)
        ended = Flatness(mark, marking.suspect(torch.nn.Sequential(net, end)), 0.1, 0.1)
        net.train()(next(iter(loader))[0])
    weights, rows = list(net.parameters()), np.arange(16)
    for one, two in zip(plain._gradients(weights, rows), ended._gradients(weights, rows), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-6)
