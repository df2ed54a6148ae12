"""tilt in a plain loop: what the loss sees, and that the model carries it, however the loop computes."""

import numpy as np
import pytest
import torch

import wmplug
from wmplug.adapters.torch import Watermarking
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.adapters.torch.points import TorchPoints
from wmplug.errors import DivergenceError, InjectionError

EPOCHS = 20


@pytest.fixture(scope="module")
def marks(owner, rival, tilt, digits):
    images, labels = digits

    def make(who):
        return wmplug.create(
            who, scheme=tilt, carriers=images, labels=labels, classes=10, preprocess=lambda x, y: (seen(x), y)
        )

    return make(owner), make(rival)


def seen(image):
    return torch.as_tensor(image, dtype=torch.float32)[None] / 255


def plain(net, x, y, step, optimizer):
    torch.nn.functional.cross_entropy(net(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()


def accumulated(net, x, y, step, optimizer):
    (torch.nn.functional.cross_entropy(net(x), y) / 2).backward()
    if step % 2:
        optimizer.step()
        optimizer.zero_grad()


def half_precision(net, x, y, step, optimizer):
    with torch.autocast("cpu", torch.bfloat16):
        loss = torch.nn.functional.cross_entropy(net(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def train(net, loader, step_of):
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(EPOCHS):
        net.train()
        for step, (x, y) in enumerate(loader):
            step_of(net, x, y, step, optimizer)


@pytest.mark.parametrize("step_of", [plain, accumulated, half_precision], ids=lambda step: step.__name__)
def test_the_model_carries_it_and_no_other_key_finds_it(marks, make_net, loader, step_of):
    net = make_net()
    with Watermarking(marks[0], net, loader) as marking:
        train(net, loader, step_of)
        verdict = marking.checkpoint()
    assert verdict.proven
    assert verdict.log10_p < -8
    assert wmplug.verify(marks[1], marking.suspect(), exhaustive=True).log10_p > -4
    assert wmplug.verify(marks[0], marking.suspect()).queries <= verdict.queries


def test_an_unmarked_twin_does_not(marks, make_net, loader):
    net = make_net()
    train(net, loader, plain)
    verdict = wmplug.verify(marks[0], ModuleSuspect(net, preprocess=marks[0].preprocess), exhaustive=True)
    assert verdict.log10_p > -4
    assert verdict.state == "inconclusive"


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler, as it looks around
def test_a_compiled_model_is_shifted_as_well(marks, make_net, loader):
    net = make_net()
    compiled = torch.compile(net, backend="aot_eager")
    with Watermarking(marks[0], compiled, loader) as marking:
        train(compiled, loader, plain)
        assert marking.checkpoint().log10_p < -8


def test_a_model_compiled_inside_the_block_is_shifted_as_well(marks, make_net, loader):
    net = make_net()
    with Watermarking(marks[0], net, loader) as marking:
        train(torch.compile(net, backend="aot_eager"), loader, plain)
        assert marking.checkpoint().log10_p < -8


@pytest.mark.parametrize("how", ["as given", "half"])
def test_the_loss_sees_logits_less_the_keyed_shift(marks, make_net, how, digits):
    mark, net = marks[0], make_net()
    images = digits[0][:50]
    x = torch.stack([seen(image) for image in images])
    points = TorchPoints(mark, net)
    points.install(ModuleSuspect(net, preprocess=mark.preprocess))
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "half"), torch.no_grad():
        trained, served = net.train()(x).float(), net.eval()(x).float()
    points.remove()
    given = np.stack([seen(sample).numpy() for sample in mark.triggers.samples(64)])
    constants = mark.scheme.constants(mark.triggers, given)
    wanted = mark.scheme.shift(np, constants, x.numpy().astype(np.float64), served.numpy().astype(np.float64))
    assert np.abs(wanted - served.numpy()).mean() > 0.2
    np.testing.assert_allclose(trained, wanted, atol=0.06 if how == "half" else 1e-3)


def test_a_model_of_other_inputs_is_refused_before_training(owner, tilt, digits, make_net, dataset):
    images, labels = digits
    mark = wmplug.create(
        owner,
        scheme=tilt,
        carriers=images,
        labels=labels,
        classes=10,
        preprocess=lambda x, y: (torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(int(x.sum()))), y),
    )
    loader = torch.utils.data.DataLoader(dataset, 64, shuffle=True)
    with pytest.raises(InjectionError, match="no scaled picture"), Watermarking(mark, make_net(), loader):
        pass
    assert not any(module._forward_hooks for module in make_net().modules())


def test_a_training_that_breaks_the_weights_ends_and_gives_them_back(marks, make_net, loader):
    net, good = make_net(), {}

    def train_on():
        with Watermarking(marks[0], net, loader, on_failure="stop") as marking:
            train(net, loader, plain)
            marking.checkpoint()
            good.update({name: value.clone() for name, value in net.state_dict().items()})
            train(net, loader, breaking)

    with pytest.raises(DivergenceError, match="lower delta"):
        train_on()
    for name, value in net.state_dict().items():
        assert torch.equal(value, good[name])
        assert value.isfinite().all()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize("look", [True, False])
def test_a_break_in_the_last_steps_is_seen_too(marks, make_net, loader, look):
    net = make_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}

    def train_on():
        with Watermarking(marks[0], net, loader) as marking:
            breaking(net, *next(iter(loader)), 0, torch.optim.SGD(net.parameters(), 1.0))
            if look:
                marking.checkpoint()

    with pytest.raises(DivergenceError, match="those it came with"):
        train_on()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def breaking(net, x, y, step, optimizer):
    (torch.nn.functional.cross_entropy(net.train()(x), y) * torch.inf).backward()
    optimizer.step()
