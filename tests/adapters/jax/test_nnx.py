"""Flax NNX modules, trained by the loop and asked as suspects; and linen modules, which are not."""

import flax.linen
import jax
import numpy as np
import optax
import pytest
from flax import nnx
from loops import Shuffled

import wmplug
from wmplug.adapters.jax import Watermarking
from wmplug.errors import InputError, SuspectError


class Net(nnx.Module):
    def __init__(self, outputs=10):
        rngs = nnx.Rngs(0)
        self.first = nnx.Linear(64, 128, rngs=rngs)
        self.norm = nnx.BatchNorm(128, rngs=rngs)
        self.drop = nnx.Dropout(0.1, rngs=rngs)
        self.last = nnx.Linear(128, outputs, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x.reshape(len(x), -1))))))


@nnx.jit
def step(net, optimizer, x, y):
    def loss(net):
        return optax.softmax_cross_entropy_with_integer_labels(net(x), y).mean()

    optimizer.update(net, nnx.grad(loss)(net))


def train(net, batches, epochs=12, after=lambda epoch: None):
    optimizer = nnx.Optimizer(net, optax.adam(3e-3), wrt=nnx.Param)
    for epoch in range(epochs):
        net.train()
        for x, y in batches:
            step(net, optimizer, x, y)
        after(epoch)


@pytest.fixture(scope="module")
def nets(mark, pictures):
    """A marked net, its unmarked twin, and the run of the first."""
    own, twin = Net(), Net()
    with Watermarking(mark, own, Shuffled(*pictures, 64), rate=0.1, verify_on=("train_end",)) as marking:
        train(own, marking.batches, after=lambda epoch: epoch % 5 == 4 and marking.checkpoint(epoch=epoch))
    train(twin, Shuffled(*pictures, 64))
    return own, twin, marking


def test_a_module_is_proven_and_its_twin_and_a_rivals_mark_are_not(nets, marks):
    own, twin, _ = nets
    verdicts = [
        wmplug.verify(mark, net, exhaustive=True)
        for mark, net in zip(marks[:1] * 2 + marks[1:], (own, twin, own), strict=True)
    ]
    assert [verdict.state for verdict in verdicts] == ["proven", "inconclusive", "inconclusive"]
    assert verdicts[0].log10_p < -10
    assert min(verdict.log10_p for verdict in verdicts[1:]) > -2.5


def test_it_costs_no_accuracy(nets, pictures):
    x, y = pictures
    own, twin = (
        float((nnx.view(net, deterministic=True, use_running_average=True)(x).argmax(1) == y).mean())
        for net in nets[:2]
    )
    assert own > twin - 0.02


def test_the_end_of_training_is_verified_too(nets):
    marking = nets[2]
    assert [entry["epoch"] for entry in marking.history] == [4, 9, 9]
    assert marking.verdict.proven


def test_a_module_is_asked_in_evaluation_mode_and_left_as_it_was(nets, mark):
    own = nets[0]
    inputs = [value for value, _ in mark.lessons()][:8]
    suspect = Watermarking(mark, own, []).suspect()
    own.train()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(own, nnx.Not(nnx.RngState))))
    first, second = suspect.answer(inputs), suspect.answer(inputs[:3])
    np.testing.assert_allclose(first[:3], second, rtol=1e-5)  # no dropout, no statistics of the batch
    assert (own.drop.deterministic, own.norm.use_running_average) == (False, False)
    after = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(own, nnx.Not(nnx.RngState))))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_a_function_may_call_the_module(nets, mark, pictures):
    own = nets[0]
    batches = [{"image": x, "label": y} for x, y in Shuffled(*pictures, 64)][:1]
    with Watermarking(mark, lambda net, x: net(x), batches, params=own, rate=0.1) as marking:
        list(marking.batches)
        assert marking.checkpoint(own).proven
        assert not wmplug.verify(mark, marking.suspect(Net())).proven


def test_a_module_with_other_classes_is_refused_before_the_first_step(mark, pictures):
    with (
        pytest.raises(InputError, match="7 scores an input"),
        Watermarking(mark, Net(7), Shuffled(*pictures, 64)) as marking,
    ):
        next(iter(marking.batches))


class Linen(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        return flax.linen.Dense(10)(x.reshape(len(x), -1))


def test_a_linen_module_is_asked_through_a_function(mark):
    net = Linen()
    variables = net.init(jax.random.key(0), np.zeros((1, 8, 8), np.float32))
    with pytest.raises(SuspectError, match=r"holds no parameters: pass a function.*module\.apply"):
        wmplug.verify(mark, net)
    for suspect in (lambda x: net.apply(variables, x), net.bind(variables)):
        assert wmplug.verify(mark, suspect).state == "inconclusive"
