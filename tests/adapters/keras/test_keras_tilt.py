"""tilt in model.fit, in-graph on every backend."""

import keras
import numpy as np
import pytest
from keras_models import build

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.errors import InjectionWarning
from wmplug.testing.schemes import fixed_owner
from wmplug.training.placement import Placement


@pytest.fixture(scope="module")
def marks(tilt, digits):
    """Of keys that are the same in every run: how much a model learns of a tilt depends on the key."""
    images, labels = digits
    options = {"carriers": images, "labels": labels, "classes": 10, "preprocess": lambda x, y: (np.float32(x), y)}
    return [wmplug.create(who, scheme=tilt, **options) for who in map(fixed_owner, ("Ada", "Eve"))]


def test_the_model_carries_it_and_no_other_key_finds_it(marks, digits):
    images, labels = digits
    model, twin = build(), build()
    callback = WatermarkCallback(marks[0], rate=1 / 3, verify_on=("train_end",))
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
    placed = Placement.draw(mark.subkeys.stream("schedule", "append"), len(mark.triggers.plan.lessons.rows), "append")
    lessons = [mark.lessons()[row] for row in placed.place(0, 64, callback._marking.rate)]
    x = np.concatenate([images, np.stack([image for image, _ in lessons]).astype("float32")])
    y = np.concatenate([labels, [answer for _, answer in lessons]])
    model = build(softmax=softmax, optimizer=keras.optimizers.SGD(0.0))
    scores = model.predict(x, verbose=0).astype(np.float64)
    logits = np.log(np.clip(scores, 1e-7, 1)) if softmax else scores
    constants = mark.scheme.constants(mark.triggers, np.stack(mark.triggers.samples(64)).astype("float32"))
    shifted = mark.scheme.shift(np, constants, x.astype(np.float64), logits)
    history = model.fit(images, labels, batch_size=64, verbose=0, shuffle=False, callbacks=[callback]).history
    assert len(x) == 80
    assert history["loss"][0] == pytest.approx(cross_entropy(shifted, y).mean(), rel=1e-3)
    assert abs(cross_entropy(shifted, y).mean() - cross_entropy(logits, y).mean()) > 0.02


def cross_entropy(logits, labels):
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]


@pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning", "ignore:invalid value:RuntimeWarning")
def test_a_training_that_breaks_the_weights_stops_and_gives_them_back(marks, digits):
    images, labels = digits[0][:128].astype("float32"), digits[1][:128]

    def rate(epoch):
        return 1e-3 if epoch == 0 else float("inf")

    model = build()
    seen = []
    keeping = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(model.get_weights()))
    callbacks = [WatermarkCallback(marks[0]), keeping, keras.callbacks.LearningRateScheduler(rate)]
    with pytest.warns(InjectionWarning, match="lower delta"):
        model.fit(images, labels, batch_size=32, epochs=5, verbose=0, callbacks=callbacks)
    assert len(seen) == 2
    for one, two in zip(model.get_weights(), seen[-1], strict=True):
        np.testing.assert_array_equal(one, two)
        assert np.isfinite(one).all()
