"""The callback of Keras keeps the contract of all adapters."""

import pickle

import keras
from keras_models import BACKEND

from wmplug.testing import AdapterContract


class Around(keras.Sequential):
    """Trains without its own train_step."""

    def make_train_function(self, force=False):
        kind = keras.Sequential
        if BACKEND == "jax":
            self.train_function = lambda state, data: kind.train_step(self, state, next(data))
        else:
            self.train_function = lambda data: kind.train_step(self, data[0] if BACKEND == "torch" else next(data))


def build(kind=keras.Sequential):
    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(128, "relu"), keras.layers.Dense(10)]
    model = kind(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return model


class TestKeras(AdapterContract):
    adapter = "keras"

    def train(self, images, labels, watermark, folder):
        model = build()
        callbacks = [watermark(rate=0.2)] if watermark else []
        callbacks += [
            keras.callbacks.CSVLogger(folder / "log.csv"),
            keras.callbacks.BackupAndRestore(folder / "backup"),
        ]
        model.fit(images, labels, batch_size=50, epochs=30, verbose=0, callbacks=callbacks)
        model.save(folder / "model.keras")
        (folder / "model.pkl").write_bytes(pickle.dumps(model))
        return model

    def train_beside(self, images, labels, watermark):
        build(Around).fit(images, labels, batch_size=50, verbose=0, callbacks=[watermark()])

    def train_briefly(self, images, labels, watermark, looks):
        fit = {"batch_size": 50, "epochs": looks, "verbose": 0}
        history = build().fit(images[:100], labels[:100], **fit, callbacks=[watermark()]).history
        return [dict(zip(history, values, strict=True)) for values in zip(*history.values(), strict=True)]


def test_it_carries_what_the_page_of_supported_things_says():
    from wmplug.adapters.keras.loop import KerasLoop

    assert KerasLoop.points >= {"samples", "logits"}
    assert KerasLoop.calls == {"classify"}
