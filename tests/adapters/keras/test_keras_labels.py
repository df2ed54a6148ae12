"""One-hot and soft labels, and models with one score an input, in model.fit: the mark is learnt and is found."""

import keras
import numpy as np
import pytest
from keras import ops

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.adapters.keras.single import logits_of, output_of, squashes
from wmplug.adapters.keras.suspects import KerasSuspect
from wmplug.errors import InjectionWarning, InputError


def mixed(labels):
    """mixup labels: each shared with the next row's."""
    return 0.8 * labels + 0.2 * np.roll(labels, 1, 0)


# Name -> classes, labels, activation of the last layer, loss.
KINDS = {
    "one-hot": (10, lambda y: np.eye(10, dtype="float32")[y], "softmax", "categorical_crossentropy"),
    "one-hot logits": (10, lambda y: np.eye(10)[y], None, keras.losses.CategoricalCrossentropy(from_logits=True)),
    "smoothed": (10, lambda y: 0.9 * np.eye(10)[y] + 0.01, "softmax", "categorical_crossentropy"),
    "sigmoids": (10, lambda y: np.eye(10, dtype="int32")[y], "sigmoid", "binary_crossentropy"),
    "sigmoid": (2, lambda y: y.astype("float32"), "sigmoid", "binary_crossentropy"),
    "one logit": (2, lambda y: y[:, None], None, keras.losses.BinaryCrossentropy(from_logits=True)),
}


def build(kind, functional=False, rate=3e-3):
    classes, _, end, loss = KINDS[kind]
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(128, "relu")]
    layers += [keras.layers.Dense(1 if classes == 2 else classes, end)]
    model = keras.Sequential([keras.Input((8, 8)), *layers])
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_mark_is_learnt_and_nothing_else_is_taken_for_it(owner, rival, digits, tmp_path, kind):
    classes, label, _, _ = KINDS[kind]
    images, labels = digits[0].astype("float32"), label(digits[1] % classes)
    options = {"scheme": "random-label", "carriers": digits[0], "classes": classes, "triggers": 40}
    options["preprocess"] = lambda x, y: (np.float32(x), y)
    mark, foreign = (wmplug.create(who, **options) for who in (owner, rival))
    model, twin = build(kind), build(kind)
    callback = WatermarkCallback(mark, rate=0.25, verify_on=("train_end",))
    epochs = 40 if kind == "sigmoids" else 12
    model.fit(images, labels, batch_size=64, epochs=epochs, verbose=0, callbacks=[callback])
    twin.fit(images, labels, batch_size=64, epochs=3, verbose=0)
    assert callback.verdict.proven
    model.save(tmp_path / "model.keras")
    for suspect in (model, tmp_path / "model.keras"):
        after = wmplug.verify(mark, suspect, exhaustive=True)
        assert (after.matches, after.log10_p) == (callback.verdict.matches, callback.verdict.log10_p)
    assert wmplug.verify(mark, lambda x: model.predict(x, verbose=0)).proven
    assert wmplug.verify(foreign, model, exhaustive=True).log10_p > -4
    assert wmplug.verify(mark, twin, exhaustive=True).log10_p > -4


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="what its loss sees has no values to read")
@pytest.mark.parametrize("kind", ["sigmoid", "one logit"])
@pytest.mark.filterwarnings("ignore:the trained model does not prove")
def test_the_loss_sees_the_score_less_the_difference_of_the_shifts(owner, digits, coin, kind):
    labels, tilt = coin
    images = digits[0].astype("float32")
    options = {"carriers": digits[0], "labels": labels, "classes": 2, "preprocess": lambda x, y: (np.float32(x), y)}
    mark = wmplug.create(owner, scheme=tilt, **options)
    seen = []
    model = build(kind, rate=0.0)
    model.run_eagerly = True  # so that what the loss sees can be read
    own = model.compute_loss
    model.compute_loss = lambda x, y, y_pred, *rest, **named: (
        seen.append(tuple(map(ops.convert_to_numpy, (x, y_pred)))),
        own(x, y, y_pred, *rest, **named),
    )[1]
    callback = WatermarkCallback(mark, verify_on=())
    model.fit(images[:64], labels[:64].astype("float32"), batch_size=64, verbose=0, callbacks=[callback])
    x, given = seen[-1]  # the first call builds the model
    served = model.predict(x, verbose=0).astype(np.float64)
    assert given.shape == served.shape == (80, 1)
    given, served = (score[:, 0].astype(np.float64) for score in (given, served))
    if kind == "sigmoid":
        given, served = (np.log(share / (1 - share)) for share in (given, served))
    constants = mark.scheme.constants(mark.triggers, np.stack(mark.triggers.samples(64)).astype("float32"))
    wanted = mark.scheme.shift(np, constants, x.astype(np.float64), np.stack([0 * served, served], axis=1))
    assert np.abs(wanted[:, 1] - wanted[:, 0] - served).mean() > 0.2
    np.testing.assert_allclose(given, wanted[:, 1] - wanted[:, 0], atol=1e-3)


@pytest.mark.filterwarnings("ignore:the trained model does not prove")
def test_tilt_is_found_in_a_model_of_one_score(owner, rival, digits, coin):
    labels, tilt = coin
    images, y = digits[0].astype("float32"), labels.astype("float32")
    options = {"carriers": digits[0], "labels": labels, "classes": 2, "preprocess": lambda x, y: (np.float32(x), y)}
    mark, foreign = (wmplug.create(who, scheme=tilt, **options) for who in (owner, rival))
    model, twin = build("sigmoid"), build("sigmoid")
    callback = WatermarkCallback(mark, rate=1 / 3, verify_on=("train_end",))
    model.fit(images, y, batch_size=64, epochs=6, verbose=0, callbacks=[callback])
    twin.fit(images, y, batch_size=64, epochs=6, verbose=0)
    assert callback.verdict.log10_p < -4
    assert wmplug.verify(mark, model, exhaustive=True).log10_p == callback.verdict.log10_p
    assert wmplug.verify(foreign, model, exhaustive=True).log10_p > -3
    assert wmplug.verify(mark, twin, exhaustive=True).log10_p > -3


@pytest.mark.parametrize(
    ("classes", "labels", "says"),
    [
        (10, np.ones((64, 10), "float32"), "several labels an input"),
        (10, np.zeros((64, 10), "int32"), "several labels an input"),
        (2, np.full((64, 1), 3.5, "float32"), "numbers to regress"),
        (2, np.full((64,), -0.5, "float32"), "numbers to regress"),
    ],
)
@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="its graph hides values; shapes are refused")
def test_several_labels_and_numbers_to_regress_are_refused(owner, digits, classes, labels, says):
    mark = wmplug.create(owner, scheme="random-label", carriers=digits[0].astype("float32"), classes=classes)
    model = build("sigmoids" if classes == 10 else "sigmoid")
    with pytest.raises(InputError, match=says):
        model.fit(digits[0][:64].astype("float32"), labels, verbose=0, callbacks=[WatermarkCallback(mark)])


def fit_from_one(mark, digits, data, loss=None):
    def wrapped(y, scores):
        return keras.losses.sparse_categorical_crossentropy(y % 10, scores)

    model = build("one-hot")
    model.compile(optimizer="adam", loss=loss or wrapped)
    images, labels = digits[0][:64].astype("float32"), digits[1][:64] + 1
    model.fit(*data(images, labels), verbose=0, callbacks=[WatermarkCallback(mark, verify_on=(), rate=0.2)])


WAYS = {
    "arrays": lambda x, y: (x, y),
    "a column of floats": lambda x, y: (x, y[:, None].astype("float32")),
    "a generator": lambda x, y: (((x[i : i + 32], y[i : i + 32]) for i in (0, 32)),),
}
hidden = pytest.param(
    "a generator",
    marks=pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="its graph hides values"),
)


@pytest.mark.parametrize("way", ["arrays", "a column of floats", hidden])
@pytest.mark.filterwarnings("ignore:the trained model does not prove")
@pytest.mark.filterwarnings("ignore:`shuffle=True` was passed")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_other_labels_are_told_once(owner, digits, way):
    mark = wmplug.create(owner, scheme="random-label", carriers=digits[0].astype("float32"), classes=10)
    with pytest.warns(InjectionWarning, match=r"holds the label 10, and .* made for 10 classes, 0 to 9") as told:
        fit_from_one(mark, digits, WAYS[way])
    assert sum("holds the label" in str(one.message) for one in told) == 1


@pytest.mark.filterwarnings("ignore:the trained model does not prove")
def test_a_label_that_the_loss_ignores_is_not_told(owner, digits):
    mark = wmplug.create(owner, scheme="random-label", carriers=digits[0].astype("float32"), classes=10)
    ignoring = keras.losses.SparseCategoricalCrossentropy(ignore_class=10)
    fit_from_one(mark, digits, WAYS["arrays"], ignoring)


class Own(keras.Model):
    def __init__(self, end):
        super().__init__()
        self.dense, self.end = keras.layers.Dense(1), end

    def call(self, x):
        return self.end(self.dense(x))


def ended(*layers):
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(1)(inputs)
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")]), True),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]), False),
        (lambda: ended(), False),
        (lambda: ended(keras.layers.Activation("sigmoid")), True),
        (lambda: ended(keras.layers.Activation("sigmoid"), keras.layers.Flatten()), True),
        (lambda: ended(ops.sigmoid), True),
        (lambda: ended(lambda x: ops.squeeze(ops.sigmoid(x), -1)), True),
        (lambda: keras.Sequential([keras.Input((4,)), ended(keras.layers.Activation("sigmoid"))]), True),
        (lambda: ended(lambda x: x / 100 + 0.5), None),
        (lambda: Own(ops.sigmoid), None),
    ],
)
def test_the_last_layer_shows_a_sigmoid(make, wanted):
    assert squashes(make()) is wanted


@pytest.mark.parametrize(
    ("loss", "wanted"),
    [
        ("binary_crossentropy", True),
        (keras.losses.BinaryCrossentropy(), True),
        (keras.losses.binary_crossentropy, True),
        ([keras.losses.BinaryFocalCrossentropy()], True),
        (keras.losses.BinaryCrossentropy(from_logits=True), False),
        ("mse", None),
    ],
)
def test_the_loss_shows_a_sigmoid_where_the_last_layer_does_not(loss, wanted):
    model = Own(ops.sigmoid if wanted else lambda x: x)
    model.compile(loss=loss)
    assert squashes(model) is wanted
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    raw = model.predict(x, verbose=0)
    said = KerasSuspect(model).answer(list(x))
    np.testing.assert_allclose(said, 1 / (1 + np.exp(-raw)) if wanted is False else raw, rtol=1e-5)


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("squashed", [True, False])
@pytest.mark.parametrize("shape", [(7, 3), (7, 1), (7,)])
def test_an_output_comes_back_from_its_logits(raw, squashed, shape):
    single = shape[1:] != (3,)
    if single and not squashed:
        squashed = True
    scores = np.random.default_rng(0).normal(0, 3, shape).astype("float32")
    shares = 1 / (1 + np.exp(-scores)) if squashed else np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    output = ops.convert_to_tensor(scores if raw else shares)
    kind = {"raw": raw, "squashed": squashed, "single": single}
    logits = logits_of(output, **kind)
    assert tuple(logits.shape) == (7, 2 if single else 3)
    back = output_of(logits, output, **kind)
    assert tuple(back.shape) == shape
    np.testing.assert_allclose(ops.convert_to_numpy(back), ops.convert_to_numpy(output), atol=1e-5)
