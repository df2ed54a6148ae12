"""Models that count what they are given; run under each backend: KERAS_BACKEND=torch, jax or tensorflow."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
from keras import ops

BACKEND = keras.backend.backend()


class Probe(keras.layers.Layer):
    """Counts what the model is given in training: all rows, and those that are triggers."""

    def __init__(self, triggers, **options):
        super().__init__(**options)
        self.triggers = np.asarray(triggers, "float32")

    def build(self, shape):
        self.rows = self.add_weight(shape=(), initializer="zeros", trainable=False, name="rows")
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")
        self.steps = self.add_weight(shape=(), initializer="zeros", trainable=False, name="steps")
        self.diary = self.add_weight(shape=(64,), initializer="zeros", trainable=False, name="diary")

    def call(self, x, training=None):
        if training:
            flat = ops.cast(ops.reshape(x, (-1, self.triggers[0].size)), "float32")
            table = ops.convert_to_tensor(self.triggers.reshape(len(self.triggers), -1))
            same = ops.cast(ops.all(flat[:, None] == table[None], axis=2), "float32")
            self.rows.assign_add(ops.cast(ops.shape(flat)[0], "float32"))
            self.seen.assign_add(ops.sum(same))
            # Which triggers came in which step, as far as 64 steps go.
            which = ops.sum(ops.matmul(same, ops.arange(1, 1 + len(self.triggers), dtype="float32")[:, None]))
            self.diary.assign_add(which * ops.cast(ops.arange(64, dtype="float32") == self.steps, "float32"))
            self.steps.assign_add(1.0)
        return x

    @property
    def counts(self):
        return int(ops.convert_to_numpy(self.seen)), int(ops.convert_to_numpy(self.rows))


@keras.saving.register_keras_serializable("wmplug-tests")
class Rows(keras.metrics.Metric):
    """Counts the rows that reported metrics are made of."""

    def __init__(self, name="rows", dtype=None):
        super().__init__(name=name, dtype=dtype)
        self.total = self.add_variable((), "zeros", name="total")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(ops.cast(ops.shape(y_pred)[0], self.total.dtype))

    def result(self):
        return self.total + 0.0


def compiled(function):
    """The function as the backend runs it in training."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True)
    return function


def build(probe=None, classes=10, units=128, seed=0, softmax=False, **options):
    """A small classifier of (8, 8) pictures, compiled."""
    keras.utils.set_random_seed(seed)
    layers = [keras.Input((8, 8)), *([probe] if probe else []), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    layers += [keras.layers.Dense(units, "relu"), keras.layers.Dense(classes, "softmax" if softmax else None)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax)
    model.compile(**{"optimizer": keras.optimizers.Adam(3e-3), "loss": loss, "metrics": ["accuracy"], **options})
    return model
