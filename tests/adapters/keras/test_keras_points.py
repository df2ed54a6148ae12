"""The points `logits` and `loss`: what training minimises, and what it leaves alone."""

from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
import pytest
from keras_models import build

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.schemes.random_label import RandomLabel

pytestmark = pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")


@dataclass(frozen=True)
class Tilted(RandomLabel):
    """Shifts the logits by a linear function of the input, and adds the mean of the first logit's square."""

    name: ClassVar[str] = "tilted"
    points: ClassVar[frozenset[str]] = frozenset({"logits", "loss"})

    def constants(self, triggers, seen):
        return {"w": np.linspace(-0.02, 0.02, 640).reshape(64, 10).astype("float32")}

    def shift(self, xp, constants, inputs, logits):
        return logits + xp.matmul(xp.reshape(inputs, (-1, 64)), constants["w"])

    def term(self, xp, constants, inputs, logits, labels):
        return xp.mean(logits[:, 0] ** 2) + 0.0 * xp.sum(labels)


@pytest.mark.parametrize("softmax", [False, True])
def test_the_loss_sees_the_shift_and_the_term_and_evaluation_does_not(owner, digits, softmax):
    images, labels = digits[0][:32].astype("float32"), digits[1][:32].astype("float32")
    scheme = Tilted()
    mark = wmplug.create(owner, scheme=scheme, carriers=images, classes=10, triggers=12)
    model = build(softmax=softmax, optimizer=keras.optimizers.SGD(0.0))
    clean = model.evaluate(images, labels, verbose=0, return_dict=True)
    scores = model.predict(images, verbose=0)
    logits = np.log(np.clip(scores, 1e-7, 1)) if softmax else scores
    shifted = logits + images.reshape(-1, 64) @ scheme.constants(None, None)["w"]
    wanted = np.mean(cross_entropy(shifted, labels.astype(int))) + np.mean(logits[:, 0] ** 2)
    history = model.fit(
        images, labels, validation_data=(images, labels), verbose=0, callbacks=[WatermarkCallback(mark)]
    ).history
    assert history["loss"][0] == pytest.approx(wanted, rel=1e-3)
    assert history["val_loss"][0] == pytest.approx(clean["loss"], rel=1e-4)
    assert history["accuracy"][0] == pytest.approx(clean["accuracy"])
    assert abs(wanted - clean["loss"]) > 0.05
    np.testing.assert_allclose(model.predict(images, verbose=0), scores, rtol=1e-4, atol=1e-6)
    assert "compute_loss" not in vars(model)


def cross_entropy(logits, labels):
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
