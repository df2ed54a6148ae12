"""That triggers reach the model, counted by a layer inside it."""

import keras
import numpy as np
import pytest
from keras import ops
from keras_models import BACKEND, Probe, build

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.adapters.keras.step import SHADOWED
from wmplug.errors import InjectionError, InjectionWarning, InputError

QUIET = {"verbose": 0, "batch_size": 8}


def sources(x, y):
    class Pieces(keras.utils.PyDataset):
        def __len__(self):
            return 5  # whole batches: workers deliver in any order

        def __getitem__(self, i):
            return x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8]

    def endless():
        while True:
            for i in range(6):
                yield x[8 * i : 8 * i + 8], y[8 * i : 8 * i + 8]

    found = {
        "arrays": {"x": x, "y": y},
        "float labels": {"x": x, "y": y.astype("float32")[:, None]},
        "dict": {"x": {"pixels": x}, "y": {"scores": y}},
        "generator": {"x": endless(), "steps_per_epoch": 6},
        "pydataset": {"x": Pieces(workers=2)},
        "class_weight": {"x": x, "y": y, "class_weight": dict.fromkeys(range(10), 0.5)},
        "sample_weight": {"x": x, "y": y, "sample_weight": np.full(43, 0.5)},
        "split": {"x": np.concatenate([x, x[:3]]), "y": np.concatenate([y, y[:3]]), "validation_split": 2.5 / 46},
    }
    if BACKEND == "torch":
        import torch

        pairs = torch.utils.data.TensorDataset(torch.as_tensor(x), torch.as_tensor(y))
        found["loader"] = {"x": torch.utils.data.DataLoader(pairs, batch_size=8)}
    if BACKEND == "tensorflow":
        import tensorflow as tf

        found["tf.data"] = {"x": tf.data.Dataset.from_tensor_slices((x, y)).batch(8)}
    return found


def fit_counts(callback, model, probe, data, epochs=2):
    batched = {} if isinstance(data["x"], (np.ndarray, dict)) else {"batch_size": None, "shuffle": False}
    model.fit(**data, **{**QUIET, **batched}, epochs=epochs, callbacks=[callback])
    return probe.counts


def expected(callback, epochs=2, start=0, sizes=(8, 8, 8, 8, 8, 3)):
    placement, rate = callback._placement, callback.rate
    return sum(placement.count(start + i, size, rate) for i, size in enumerate(sizes * epochs))


@pytest.mark.parametrize("source", list(sources(np.zeros((43, 8, 8)), np.zeros(43))))
def test_triggers_reach_the_model_from_every_source(mark, probe, small, source):
    callback = WatermarkCallback(mark, rate=0.2, verify_on=())
    if source == "dict":
        given = {"pixels": keras.Input((8, 8), name="pixels")}
        hidden = keras.layers.Flatten()(probe(given["pixels"]))
        model = keras.Model(given, {"scores": keras.layers.Dense(10)(hidden)})
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss={"scores": loss})
    else:
        model = build(probe)
    seen, rows = fit_counts(callback, model, probe, sources(*small)[source])
    sizes = (8,) * 5 if source == "pydataset" else (8, 8, 8, 8, 8, 3)
    assert seen == expected(callback, sizes=sizes) >= 20
    # A ragged batch of 3 gets a trigger in some epochs; in others its last row is there twice.
    assert rows == 2 * sum(size + (2 if size == 8 else 1) for size in sizes)


def test_integers_are_not_taken_for_a_dataset_of_floats(mark, probe, small):
    x, y = small
    with pytest.raises(InputError, match="is uint8, a batch float32, and wmplug does not guess the scale"):
        build(probe).fit(x / 255, y, **QUIET, callbacks=[WatermarkCallback(mark)])
    assert probe.counts == (0, 0)


def test_a_preprocess_brings_them_to_the_scale_of_the_dataset(owner, small):
    x, y = small
    mark = wmplug.create(
        owner,
        scheme="random-label",
        carriers=x,
        classes=10,
        triggers=12,
        preprocess=lambda given, answer: (given / np.float32(255), answer),
    )
    probe = Probe(mark.triggers.plan.inputs / np.float32(255))
    callback = WatermarkCallback(mark, rate=0.2, verify_on=())
    seen, _ = fit_counts(callback, build(probe), probe, {"x": x / np.float32(255), "y": y})
    assert seen == expected(callback)


@pytest.mark.parametrize("eagerly", [True, False])
def test_replace_keeps_the_size_of_batches(mark, probe, small, eagerly):
    callback = WatermarkCallback(mark, rate=0.07, mode="replace", verify_on=())
    seen, rows = fit_counts(callback, build(probe, run_eagerly=eagerly), probe, sources(*small)["arrays"])
    assert (seen, rows) == (expected(callback), 2 * 43)


if BACKEND != "torch":  # which allows one step an execution

    @pytest.mark.parametrize("steps", [2, 4])
    def test_triggers_reach_the_model_with_several_steps_an_execution(mark, probe, small, steps):
        callback = WatermarkCallback(mark, rate=0.2, verify_on=())
        model = build(probe, steps_per_execution=steps)
        assert fit_counts(callback, model, probe, sources(*small)["arrays"])[0] == expected(callback)


def subclassed(probe, metrics=("accuracy",), **methods):
    class Custom(keras.Model):
        def __init__(self):
            super().__init__()
            self.probe, self.flat, self.dense = probe, keras.layers.Flatten(), keras.layers.Dense(10)

        def call(self, x, training=None):
            return self.dense(self.flat(self.probe(ops.cast(x, "float32"), training=training)))

    model = type("Custom", (Custom,), methods)()
    model.compile(
        "adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=list(metrics) or None
    )
    return model


def test_a_subclassed_model_and_its_own_compute_loss(mark, probe, small):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 2 * keras.Model.compute_loss(self, x, y, y_pred, sample_weight)

    callback = WatermarkCallback(mark, rate=0.2, verify_on=())
    model = subclassed(probe, compute_loss=compute_loss)
    assert fit_counts(callback, model, probe, sources(*small)["arrays"])[0] == expected(callback)


def test_a_train_step_with_metrics_of_its_own_is_said_to_count_triggers(mark, probe, small):
    def train_step(self, *given):
        logs = {"own": ops.ones(())}
        return (logs, given[0]) if BACKEND == "jax" else logs

    with pytest.warns(InjectionWarning, match="metrics include triggers"):
        subclassed(probe, (), train_step=train_step).fit(
            *small, **QUIET, callbacks=[WatermarkCallback(mark, rate=0.2, verify_on=())]
        )


def test_training_that_goes_around_train_step_is_an_error(mark, probe, small):
    def make_train_function(self, force=False):
        kind = keras.Model
        if BACKEND == "jax":
            self.train_function = lambda state, data: kind.train_step(self, state, next(data))
        elif BACKEND == "torch":
            self.train_function = lambda data: kind.train_step(self, data[0])
        else:
            self.train_function = lambda data: kind.train_step(self, next(data))

    model = subclassed(probe, make_train_function=make_train_function)
    with pytest.raises(InjectionError, match="went around wmplug at samples"):
        model.fit(*small, **QUIET, callbacks=[WatermarkCallback(mark)])
    assert probe.counts[0] == 0


def test_an_exception_leaves_nothing_that_the_next_fit_or_evaluate_sees(mark, probe, small):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                raise KeyboardInterrupt

    model, callback = build(probe), WatermarkCallback(mark, rate=0.2, verify_on=())
    clean = model.evaluate(*small, **QUIET, return_dict=True)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*small, **QUIET, callbacks=[callback, Stop()])
    first = probe.counts
    assert first[0] == expected(callback, 1, 0, (8, 8, 8))
    model.evaluate(*small, **QUIET)
    assert probe.counts == first
    assert model.evaluate(*small, **QUIET, return_dict=True).keys() == clean.keys()
    model.fit(*small, **QUIET, callbacks=[WatermarkCallback(mark, rate=0.2, verify_on=())])
    assert probe.counts[0] - first[0] == expected(callback, 1, 3)
    assert clean_of(model)
    model.fit(*small, **QUIET)
    assert probe.counts[0] - first[0] == expected(callback, 1, 3)


def clean_of(model):
    return not any(hasattr(vars(model).get(name), "wmplug_own") for name in SHADOWED)


@pytest.mark.parametrize(
    ("where", "forced"), [("on_train_batch_begin", False), ("on_train_batch_end", True), ("on_epoch_end", False)]
)
def test_a_fit_after_an_interrupted_one_is_the_users_own(mark, probe, small, where, forced):
    def interrupt(*given, **named):
        raise KeyboardInterrupt

    stop = keras.callbacks.Callback()
    setattr(stop, where, interrupt)
    model = build(probe)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*small, **QUIET, callbacks=[WatermarkCallback(mark, rate=0.2, verify_on=()), stop])
    before, weights = probe.counts, model.get_weights()
    if forced:
        model.make_train_function(force=True)
    history = model.fit(*small, **QUIET, epochs=2).history
    assert (probe.counts[0] - before[0], probe.counts[1] - before[1]) == (0, 2 * 43)
    assert clean_of(model)
    assert history["loss"][1] < history["loss"][0]
    assert any(np.any(old != new) for old, new in zip(weights, model.get_weights(), strict=True))


def test_a_batch_after_an_interrupted_fit_is_the_users_own(mark, probe, small):
    model, callback = build(probe), WatermarkCallback(mark, rate=0.2)
    callback.set_params({})
    callback.set_model(model)
    callback.on_train_begin()
    model.train_on_batch(*small)
    assert probe.counts == (0, 43)
    assert clean_of(model)
    with pytest.raises(InjectionError, match="train_on_batch"):  # it was no leftover
        callback.on_epoch_end(0)


def test_two_watermarks_in_one_fit_are_refused(mark, foreign, probe, small):
    model = build(probe)
    with pytest.raises(InputError, match="two WatermarkCallbacks"):
        model.fit(*small, **QUIET, callbacks=[WatermarkCallback(mark), WatermarkCallback(foreign)])
    model.fit(*small, **QUIET)
    assert probe.counts == (0, 43)
