"""Numbers to regress, in the labels of a JAX loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import ADAM, Shuffled, epoch, predict, weights
from sklearn.datasets import make_friedman1

import wmplug
from wmplug.adapters.jax import Watermarking
from wmplug.errors import InputError
from wmplug.schemes import Brief
from wmplug.schemes.rows import Rows
from wmplug.tasks import Numbers
from wmplug.testing.schemes import fixed_owner

EPOCHS = 150
ROWS, PRICES = make_friedman1(2000, 8, noise=1.0, random_state=0)


def scaled(row, price):
    """The loop's example: both around 0, of size 1."""
    row = (row - ROWS.mean(0)) / ROWS.std(0)
    return row.astype(np.float32), np.float32((price - PRICES.mean()) / PRICES.std())


X, Y = map(np.stack, zip(*map(scaled, ROWS, PRICES), strict=True))


@pytest.fixture(scope="module")
def priced():
    """The owner's mark and a rival's; which key it is moves the figures, so both are fixed."""
    scheme = Rows().prepared(Brief(ROWS, "array", Numbers("kEUR"), PRICES, 80))
    made = {"scheme": scheme, "carriers": ROWS, "labels": PRICES, "task": Numbers("kEUR"), "triggers": 80}
    return [wmplug.create(who, **made, preprocess=scaled) for who in map(fixed_owner, ("Ada", "Eve"))]


@jax.jit
def step(params, state, x, y):
    def loss(params):
        return jnp.square(predict(params, x)[:, 0] - y.reshape(-1)).mean()

    updates, state = ADAM.update(jax.grad(loss)(params), state)
    return optax.apply_updates(params, updates), state


def trained(batches, seed):
    params = weights(seed, inputs=8, outputs=1)
    state = ADAM.init(params)
    for _ in range(EPOCHS):
        params, state = epoch(params, state, batches, step)
    return params


@pytest.mark.parametrize("seed", range(3))
def test_a_regression_is_proven_and_its_twin_and_a_rivals_mark_are_not(priced, seed):
    mark, rival = priced
    with Watermarking(mark, predict, Shuffled(X, Y, 64)) as marking:
        own = trained(marking.batches, seed)
        verdict = marking.checkpoint(own)
        others = [rival, own], [mark, trained(Shuffled(X, Y, 64), seed)]
        found = [wmplug.verify(of, marking.suspect(params), exhaustive=True) for of, params in others]
    assert verdict.proven
    assert verdict.log10_p < -6
    assert [other.state for other in found] == ["inconclusive"] * 2
    assert min(other.log10_p for other in found) > -3


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)], ids=["flat", "column"])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_triggers_bring_their_numbers_as_the_labels_are(priced, shape, kind):
    x, y = X[:64], Y[:64].reshape(shape)
    secret = {row.tobytes(): number for row, number in (scaled(*lesson) for lesson in priced[0].lessons())}
    with Watermarking(priced[0], predict, [(kind(x), kind(y))], rate=0.2) as marking:
        ((bx, by),) = marking.batches
    assert (type(by), by.dtype, by.shape) == (type(kind(y)), np.float32, np.empty((80, *y.shape[1:])).shape)
    np.testing.assert_array_equal(by[:64], y)
    assert [secret[np.asarray(row).tobytes()] for row in bx[64:]] == np.asarray(by)[64:].reshape(-1).tolist()


@pytest.mark.parametrize("labels", [np.zeros(64, np.int32), np.zeros((64, 2), np.float32)], ids=["integers", "two"])
def test_other_labels_than_one_float_a_row_are_refused(priced, labels):
    with (
        pytest.raises(InputError, match="'numbers': train with one float a row"),
        Watermarking(priced[0], predict, [(X[:64], labels)], rate=0.2) as marking,
    ):
        list(marking.batches)
