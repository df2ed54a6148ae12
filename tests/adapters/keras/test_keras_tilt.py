"""tilt in model.fit, in-graph on every backend."""

import keras
import numpy as np
import pytest
from keras_models import build

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.injection import Placement


@pytest.fixture(scope="module")
def marks(owner, rival, tilt, digits):
    images, labels = digits
    options = {"carriers": images, "labels": labels, "classes": 10, "preprocess": lambda x, y: (np.float32(x), y)}
    return [wmplug.create(who, scheme=tilt, **options) for who in (owner, rival)]


def test_the_model_carries_it_and_no_other_key_finds_it(marks, digits):
    images, labels = digits
    model, twin = build(), build()
    callback = WatermarkCallback(marks[0], verify_on=("train_end",))
    model.fit(images.astype("float32"), labels, batch_size=64, epochs=8, verbose=0, callbacks=[callback])
    twin.fit(images.astype("float32"), labels, batch_size=64, epochs=8, verbose=0)
    assert callback.verdict.proven
    assert callback.verdict.log10_p < -8
    assert wmplug.verify(marks[1], model, exhaustive=True).log10_p > -4
    assert wmplug.verify(marks[0], twin, exhaustive=True).log10_p > -4


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")
def test_the_loss_sees_logits_less_the_keyed_shift(marks, digits, softmax):
    mark, (images, labels) = marks[0], (digits[0][:64].astype("float32"), digits[1][:64])
    callback = WatermarkCallback(mark, verify_on=())
    placed = Placement.draw(mark.subkeys.stream("schedule"), len(mark.triggers.plan.taught), "append")
    lessons = [mark.lessons()[row] for row in placed.place(0, 64, callback.rate)]
    x = np.concatenate([images, np.stack([image for image, _ in lessons]).astype("float32")])
    y = np.concatenate([labels, [answer for _, answer in lessons]])
    model = build(softmax=softmax, optimizer=keras.optimizers.SGD(0.0))
    scores = model.predict(x, verbose=0).astype(np.float64)
    logits = np.log(np.clip(scores, 1e-7, 1)) if softmax else scores
    constants = mark.scheme.constants(mark.triggers, np.stack(mark.triggers.samples(64)).astype("float32"))
    shifted = mark.scheme.shift(np, constants, x.astype(np.float64), logits)
    history = model.fit(images, labels, batch_size=64, verbose=0, shuffle=False, callbacks=[callback]).history
    assert len(x) == 96
    assert history["loss"][0] == pytest.approx(cross_entropy(shifted, y).mean(), rel=1e-3)
    assert abs(cross_entropy(shifted, y).mean() - cross_entropy(logits, y).mean()) > 0.02


def cross_entropy(logits, labels):
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
