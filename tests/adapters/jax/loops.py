"""Small networks of plain JAX, and the loops that train them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

ADAM = optax.adam(3e-3)


def weights(seed=0, inputs=64, outputs=10):
    rng = np.random.default_rng(seed)
    shapes = [(inputs, 128), (128, outputs)]
    layers = [(rng.normal(size=s) / np.sqrt(s[0])).astype(np.float32) for s in shapes]
    return [{"w": jnp.asarray(w), "b": jnp.zeros(w.shape[1])} for w in layers]


def predict(params, x):
    hidden = jax.nn.relu(x.reshape(len(x), -1) @ params[0]["w"] + params[0]["b"])
    return hidden @ params[1]["w"] + params[1]["b"]


@jax.jit
def step(params, state, x, y):
    def loss(params):
        return optax.softmax_cross_entropy_with_integer_labels(predict(params, x), y).mean()

    updates, state = ADAM.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state


class Shuffled:
    """Batches (x, y) in another order each time; the last is short."""

    def __init__(self, x, y, size):
        self.x, self.y, self.size, self.epoch = x, y, size, 0

    def __iter__(self):
        order = np.random.default_rng(self.epoch).permutation(len(self.x))
        self.epoch += 1
        for start in range(0, len(order), self.size):
            chosen = order[start : start + self.size]
            yield self.x[chosen], self.y[chosen]


def epoch(params, state, batches, step=step):
    for x, y in batches:
        params, state = step(params, state, x, y)
    return params, state
