"""A Flax NNX loop with a watermark, on scikit-learn's digits: python examples/flax_loop.py"""

import tempfile

import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

import wmplug
from wmplug.adapters.jax import Watermarking

images, labels = load_digits().images.astype(np.float32) / 16, load_digits().target.astype(np.int32)


def batches(epochs):
    for epoch in range(epochs):
        for rows in np.array_split(np.random.default_rng(epoch).permutation(len(images)), 28):
            yield images[rows], labels[rows]


def network(seed):
    rngs = nnx.Rngs(seed)
    first, last = nnx.Linear(64, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)
    return nnx.Sequential(lambda x: x.reshape(len(x), -1), first, nnx.relu, last)


@nnx.jit
def step(model, optimizer, x, y):
    def loss(model):
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    optimizer.update(model, nnx.grad(loss)(model))


def train(model, stream):
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    for x, y in stream:
        step(model, optimizer, x, y)
    return model


with tempfile.TemporaryDirectory() as folder:  # a real owner keeps the folder, and the passphrase elsewhere
    owner = wmplug.Owner.create(folder + "/ada", name="Ada", passphrase="only for this example")
mark = wmplug.create(owner, scheme="random-label", carriers=images, labels=labels, classes=10)
with Watermarking(mark, model := network(0), batches(15)) as marking:  # the one line
    train(model, marking.batches)
    print(f"the model          {marking.checkpoint()}")
print(f"an unmarked twin   {wmplug.verify(mark, train(network(1), batches(15)))}")
