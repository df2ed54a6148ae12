import base64
import copy
import dataclasses
import math
import pickle

import keras
import numpy as np
import pytest
from keras import ops
from keras_models import BACKEND, Rows, build

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.adapters.keras.step import SHADOWED, TriggerStep
from wmplug.adapters.keras.suspects import KerasSuspect, suspect
from wmplug.errors import (
    InjectionWarning,
    InputError,
    KeyFileError,
    SuspectError,
    VerificationError,
    VerificationWarning,
)
from wmplug.suspects.targets import as_suspect
from wmplug.training.placement import Placement

LOGGED = {f"watermark/{name}" for name in ("log10_p", "log10_e", "matches", "rate", "state")}
# A test that trains for a moment only is told so.
BRIEF = pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")


class Copies(keras.callbacks.Callback):
    """Pickles and copies the model while it is trained."""

    def on_epoch_end(self, epoch, logs=None):
        self.pickled = pickle.dumps(self.model)
        # Under NNX no Keras model can be deep-copied: flax sorts its layers.
        self.copied = pickle.loads(self.pickled) if keras.config.is_nnx_enabled() else copy.deepcopy(self.model)


@pytest.fixture(scope="module")
def run(mark, digits, tmp_path_factory):
    """A marked training run and its unmarked twin, with everything a user may have in `callbacks`."""
    images, labels = digits
    folder, extra = tmp_path_factory.mktemp("run"), Copies()
    data = {"x": images[:640], "y": labels[:640], "batch_size": 32, "epochs": 16, "verbose": 0}
    model, twin = build(metrics=["accuracy", Rows()]), build()
    best = keras.callbacks.ModelCheckpoint(
        folder / "best.keras", monitor="watermark/log10_e", mode="max", save_best_only=True
    )
    last = keras.callbacks.ModelCheckpoint(folder / "last.weights.h5", save_weights_only=True)
    table = keras.callbacks.CSVLogger(folder / "log.csv")
    callback = WatermarkCallback(mark, rate=0.12)
    validation = (images[640:900], labels[640:900])
    history = model.fit(**data, validation_data=validation, callbacks=[callback, best, last, table, extra]).history
    twin.fit(**data)
    return {"model": model, "twin": twin, "history": history, "folder": folder, "extra": extra, "callback": callback}


def test_the_model_is_proven_and_neither_its_twin_nor_another_key(run, mark, foreign):
    assert wmplug.verify(mark, run["model"]).proven
    assert run["callback"].verdict.proven
    for other, key in ((run["twin"], mark), (run["model"], foreign)):
        verdict = wmplug.verify(key, other, exhaustive=True)
        # One independent model in twenty may be "evidence" by luck, and one in ten thousand gets below this.
        assert not verdict.proven
        assert verdict.log10_p > -4


def test_history_shows_the_watermark_rise_and_the_csv_has_it(run):
    history = run["history"]
    assert history.keys() >= LOGGED
    assert history["watermark/log10_p"][-1] < -8 < history["watermark/log10_p"][0]
    assert history["watermark/state"][0] < 2
    assert history["watermark/state"][-1] == 2
    assert history["watermark/rate"] == [0.12] * 16
    assert all(math.isfinite(v) for values in history.values() for v in values)
    assert "watermark/log10_p" in (run["folder"] / "log.csv").read_text().splitlines()[0]


def test_metrics_are_of_the_users_rows_in_training_and_validation(run):
    assert run["history"]["rows"] == [640] * 16
    assert run["history"]["val_rows"] == [260] * 16
    assert run["history"]["accuracy"][-1] > 0.9
    assert run["model"].evaluate(np.zeros((7, 8, 8)), np.zeros(7), verbose=0, return_dict=True)["rows"] == 7


def test_replaced_rows_are_not_in_the_metrics(mark, small):
    model = build(metrics=[Rows()])
    history = model.fit(
        *small, batch_size=8, verbose=0, callbacks=[WatermarkCallback(mark, rate=0.25, mode="replace", verify_on=())]
    ).history
    assert history["rows"] == [5 * 6 + 2]


def test_copies_made_in_training_and_after_it_are_the_users_own_model(run, mark, digits):
    folder, model, extra = run["folder"], run["model"], run["extra"]
    model.save(folder / "after.keras")
    loaded = keras.models.clone_model(run["twin"])
    loaded.load_weights(folder / "last.weights.h5")
    x = digits[0][900:910]
    wanted = model.predict(x, verbose=0)
    for copied in (pickle.loads(extra.pickled), extra.copied, pickle.loads(pickle.dumps(model)), loaded):
        np.testing.assert_allclose(copied.predict(x, verbose=0), wanted, rtol=1e-4, atol=1e-4)
        assert not any(hasattr(vars(copied).get(name), "wmplug_own") for name in SHADOWED)
    for name in ("best.keras", "after.keras"):
        assert wmplug.verify(mark, str(folder / name)).proven
    assert len(model.variables) == len(run["twin"].variables)


def test_no_key_and_no_trigger_is_in_any_file(run, mark, owner):
    run["model"].save(run["folder"] / "files", zipped=False)  # a folder, nothing compressed
    files = [path.read_bytes() for path in run["folder"].rglob("*") if path.is_file()]
    files += [run["extra"].pickled, pickle.dumps(run["model"])]
    keys = [mark.subkeys.key(purpose) for purpose in ("input", "label", "schedule", "disclosure")]
    pictures = [bytes(mark.triggers.row(0).astype(kind).tobytes()) for kind in ("uint8", "float32")]
    assert len(files) >= 5
    for secret in [form for key in keys for form in forms(key)] + pictures:
        assert not any(secret in file for file in files)


def forms(key):
    return [key, key.hex().encode(), key.hex().upper().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key)]


@BRIEF
def test_rate_auto_reaches_the_next_epoch(mark, probe, small):
    callback = WatermarkCallback(mark, rate="auto")
    model = build(probe)
    history = model.fit(*small, batch_size=8, epochs=3, verbose=0, callbacks=[callback]).history
    rates = [round(rate * 1e6) for rate in history["watermark/rate"]]
    assert rates[0] < rates[1] < rates[2]
    sizes = (8, 8, 8, 8, 8, 3)
    counts = [callback._marking.placement.count(6 * e + i, n, rates[e]) for e in range(3) for i, n in enumerate(sizes)]
    assert probe.counts[0] == sum(counts)


@BRIEF
def test_early_stopping_on_the_watermark(mark, digits):
    images, labels = digits
    stop = keras.callbacks.EarlyStopping(monitor="watermark/state", mode="max", patience=0, baseline=2)
    history = (
        build().fit(images[:64], labels[:64], verbose=0, epochs=5, callbacks=[WatermarkCallback(mark), stop]).history
    )
    assert len(history["loss"]) == 2  # it never stops after the first


def test_a_final_model_without_the_mark_warns_or_raises(mark, small):
    with pytest.warns(VerificationWarning, match="does not prove"):
        build().fit(*small, verbose=0, callbacks=[WatermarkCallback(mark)])
    with pytest.raises(VerificationError, match="does not prove"):
        build().fit(*small, verbose=0, callbacks=[WatermarkCallback(mark, on_failure="raise")])


@BRIEF
def test_a_mark_that_is_lost_stops_training(mark, run):
    class Forget(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights([np.zeros_like(w) for w in self.model.get_weights()])

    model = keras.models.clone_model(run["model"])
    model.set_weights(run["model"].get_weights())
    model.compile(keras.optimizers.SGD(0.0), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = np.zeros((8, 8, 8), np.uint8), np.zeros(8)
    with pytest.warns(VerificationWarning, match="proven earlier and is not proven at step 2"):
        history = model.fit(
            x, y, epochs=5, verbose=0, callbacks=[WatermarkCallback(mark, on_failure="stop"), Forget()]
        ).history
    assert history["watermark/state"] == [2, 0]


def test_a_model_that_answers_nan_warns_and_training_goes_on(mark, small):
    model = build()
    broken = [np.full_like(w, np.nan) for w in model.get_weights()]
    breaks = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: model.set_weights(broken))
    callbacks = [breaks, WatermarkCallback(mark, on_failure="stop")]
    with pytest.warns(VerificationWarning, match="all were NaN"):
        history = model.fit(*small, epochs=2, verbose=0, callbacks=callbacks).history
    assert len(history["loss"]) == 2
    model.set_weights(broken)
    with pytest.raises(InputError, match="answers NaN before it is trained"):
        model.fit(*small, verbose=0, callbacks=[WatermarkCallback(mark)])


@pytest.mark.parametrize("classes", [9, 11])
def test_another_number_of_classes_is_refused_before_the_first_step(mark, small, classes):
    with pytest.raises(InputError, match=f"{classes}.*made for 10 classes"):
        build(classes=classes).fit(
            small[0], small[1] % 9, verbose=0, callbacks=[WatermarkCallback(mark, on_failure="raise")]
        )


@pytest.mark.parametrize(
    ("preprocess", "says"),
    [
        (lambda x, y: x / 255, "preprocess returned a ndarray"),
        (lambda x, y: (x, [y, y]), "y one integer class"),
        (lambda x, y: (x, 3), "returned the label .*3.* for the answer"),
        (lambda x, y: (x, y + 0.5), "returned the label"),
    ],
)
def test_preprocess_must_give_the_input_with_its_answer(owner, digits, small, preprocess, says):
    mark = wmplug.create(
        owner, scheme="random-label", carriers=digits[0], classes=10, triggers=12, preprocess=preprocess
    )
    with pytest.raises(InputError, match=says):
        build().fit(*small, verbose=0, callbacks=[WatermarkCallback(mark)])


def test_a_label_may_be_a_tensor(owner, digits, small):
    mark = wmplug.create(
        owner,
        scheme="random-label",
        carriers=digits[0],
        classes=10,
        triggers=12,
        preprocess=lambda x, y: (x, ops.convert_to_tensor([y])),
    )
    callback = WatermarkCallback(mark, rate=0.2, verify_on=())
    assert len(build().fit(*small, verbose=0, callbacks=[callback]).history["loss"]) == 1


def test_the_name_of_a_file_loads_its_watermark(mark, tmp_path, monkeypatch):
    monkeypatch.setenv("WMPLUG_PASSPHRASE", "correct horse battery staple")
    assert WatermarkCallback(str(mark.save(tmp_path / "mark.wm"))).mark.id == mark.id
    with pytest.raises(KeyFileError, match=r"x\.wm is not there"):
        WatermarkCallback("x.wm")


@BRIEF
def test_a_second_fit_with_the_same_callback_starts_anew(mark, small):
    model, callback = build(units=8), WatermarkCallback(mark, rate="auto", verify_on=("epoch_end",))
    start = callback._marking.rate
    for _ in range(2):
        history = model.fit(*small, verbose=0, callbacks=[callback]).history
        assert history["watermark/rate"] == [start / 1e6]
        assert len(callback.state_dict()["looks"]) == 1
        assert callback._marking.rate > start


@pytest.mark.parametrize(
    "options", [{"verify_on": ("save",)}, {"verify_on": "train_end"}, {"on_failure": "panic"}, {"mode": "prepend"}]
)
def test_options_out_of_range(mark, options):
    with pytest.raises(InputError):
        WatermarkCallback(mark, **options)


def test_a_file_runs_no_code_of_its_own(mark, tmp_path):
    model = keras.Sequential([keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Lambda(lambda x: x)])
    model.save(tmp_path / "hostile.keras")
    with pytest.raises(SuspectError, match=r"cannot be loaded .*[lL]ambda"):
        wmplug.verify(mark, str(tmp_path / "hostile.keras"))


def test_what_is_no_classifier_cannot_be_asked(mark, tmp_path):
    with pytest.raises(SuspectError, match="cannot be loaded"):
        suspect(tmp_path / "none.keras")
    (tmp_path / "bad.keras").write_bytes(b"no zip")
    with pytest.raises(SuspectError, match="cannot be loaded"):
        wmplug.verify(mark, str(tmp_path / "bad.keras"))
    entry = keras.Input((8, 8))
    flat = keras.layers.Flatten()(entry)
    two = keras.Model(entry, [keras.layers.Dense(10)(flat), keras.layers.Dense(10)(flat)])
    with pytest.raises(SuspectError, match="2 outputs"):
        wmplug.verify(mark, two)
    with pytest.raises(SuspectError, match="7 scores"):
        wmplug.verify(mark, build(classes=7))
    assert suspect(keras.layers.Flatten()) is None


def test_a_suspect_is_asked_in_inference_mode_and_left_as_it_was(mark, digits):
    entry = keras.Input((8, 8, 1))
    hidden = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Flatten()(entry)))
    model = keras.Model(entry, keras.layers.Dense(10)(hidden))
    modes = [m.training for m in model.modules()] if BACKEND == "torch" else []
    before = model.get_weights()
    asked = KerasSuspect(model, preprocess=lambda x, y: (x / 255.0, y), batch_size=5)
    first, second = asked.answer(list(digits[0][:12])), asked.answer(list(digits[0][:12]))
    np.testing.assert_array_equal(first, second)
    wanted = ops.convert_to_numpy(model(digits[0][:12, ..., None] / 255.0, training=False))
    np.testing.assert_allclose(first, wanted, rtol=1e-4, atol=1e-5)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert modes == ([m.training for m in model.modules()] if BACKEND == "torch" else [])


def test_a_model_that_no_epoch_could_ask_is_refused_before_the_first_step(mark, digits):
    """A subclassed model does not tell its input's shape, so a question cannot be given it without preprocess."""

    class Flat(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(10)

        def call(self, x):
            return self.dense(x)

    model = Flat()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, y = digits[0][:32].reshape(32, 64).astype("float32"), digits[1][:32]
    model.fit(x, y, verbose=0)
    taken = int(model.optimizer.iterations)
    assert taken
    with pytest.raises(InputError, match=r"(?s)before the first step .*pass preprocess="):
        model.fit(x, y, verbose=0, callbacks=[WatermarkCallback(mark)])
    assert int(model.optimizer.iterations) == taken
    named = dataclasses.replace(mark, preprocess=lambda x, y: (x.reshape(64).astype("float32"), y))
    model.fit(x, y, verbose=0, callbacks=[WatermarkCallback(named, on_failure="warn", verify_on=())])
    assert int(model.optimizer.iterations) > taken


def test_an_empty_batch_is_left_to_keras(mark, digits):
    """Keras has no loss for a batch without rows: its own error is what the user sees, not one of wmplug's."""
    data = digits[0][:0].astype("float32"), digits[1][:0]
    step = TriggerStep(mark.lessons(), Placement.of(mark, "append"), 200_000, mark.scheme, {}, 10)
    assert step.join(data, 0) is data
    assert step.join((digits[0][:8], digits[1][:8]), 0) is not data


def test_a_batch_too_small_for_a_trigger_does_not_end_a_run_of_larger_ones(mark, digits):
    step = TriggerStep(mark.lessons(), Placement.of(mark, "append"), 1_000, mark.scheme, {}, 10)
    least = int(step.placement.thresholds.min()) // 1_000 + 1
    for size in (64 * least, 1):
        assert len(step.join((digits[0][:size], digits[1][:size]), 0)[1]) >= size
    fresh = TriggerStep(mark.lessons(), Placement.of(mark, "append"), 100, mark.scheme, {}, 10)
    with pytest.raises(InputError, match="never contains a trigger"):
        fresh.join((digits[0][:1], digits[1][:1]), 0)
    step.rate = 100
    assert len(step.join((digits[0][:1], digits[1][:1]), 0)[1]) >= 1


def test_a_whole_model_in_h5_is_asked_and_weights_alone_are_refused(mark, digits, tmp_path):
    model = build()
    model.save(tmp_path / "whole.h5")
    expected = suspect(model).answer(list(digits[0][:5]))
    np.testing.assert_allclose(as_suspect(str(tmp_path / "whole.h5"), mark).answer(list(digits[0][:5])), expected)
    model.save_weights(tmp_path / "some.weights.h5")
    with pytest.raises(SuspectError, match="bare weights"):
        as_suspect(str(tmp_path / "some.weights.h5"), mark)
    (tmp_path / "some.weights.h5").rename(tmp_path / "some.h5")
    with pytest.raises(SuspectError, match="bare weights without a model"):
        as_suspect(str(tmp_path / "some.h5"), mark)
    (tmp_path / "none.hdf5").write_bytes(b"no hdf5")
    with pytest.raises(SuspectError, match="cannot be read") as caught:
        suspect(str(tmp_path / "none.hdf5"))
    assert caught.value.__cause__ is not None


def test_a_keras_that_would_run_code_from_h5_reads_none(tmp_path, monkeypatch):
    build().save(tmp_path / "whole.h5")
    monkeypatch.setattr(keras, "__version__", "3.9.2")
    with pytest.raises(SuspectError, match=r"ignores safe_mode for \.h5"):
        suspect(str(tmp_path / "whole.h5"))


@BRIEF
def test_a_training_step_that_repeats_rows_is_measured_as_it_is(mark, digits):
    class Twice(keras.Sequential):
        def train_step(self, *args):
            x, y = keras.utils.unpack_x_y_sample_weight(args[-1])[:2]
            double = (ops.concatenate([x, x]), ops.concatenate([y, y]))
            return super().train_step(*args[:-1], double)

    keras.utils.set_random_seed(0)
    model = Twice([keras.Input((8, 8)), keras.layers.Flatten(), keras.layers.Dense(10)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[Rows()])
    data = digits[0][:32].astype("float32"), digits[1][:32]
    integers = dataclasses.replace(mark, preprocess=lambda x, y: (x.astype("float32"), y))
    with pytest.warns(InjectionWarning, match="metrics include triggers"):
        history = model.fit(*data, batch_size=32, verbose=0, callbacks=[WatermarkCallback(integers, rate=0.2)]).history
    assert history["rows"] == [2 * (32 + 8)]
