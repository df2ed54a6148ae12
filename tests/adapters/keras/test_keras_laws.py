"""Calls of fit() made at random: the live verdict is that of `verify` afterwards."""

import dataclasses

import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from keras_models import build

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.adapters.keras.suspects import KerasSuspect


class Batches(keras.utils.PyDataset):
    """Batches of given sizes, sorted, repeated, as tuples, with weights, or by name."""

    def __init__(self, digits, sizes, order, views, kind, **options):
        super().__init__(**options)
        self.data, self.sizes, self.order, self.views, self.kind = digits, sizes, order, views, kind

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        rows = np.random.default_rng(index).permutation(200)[: self.sizes[index]]
        if self.order == "sorted":
            rows = sorted(rows, key=lambda row: -int(self.data[0][row].sum()))
        rows = np.repeat(np.asarray(rows, int), self.views)
        x, y = self.data[0][rows].astype("float32"), self.data[1][rows]
        if self.kind == "weights":
            return x, y, np.ones(len(y), "float32")
        return ({"pixels": x}, y) if self.kind == "named" else (x, y)


def model_of(kind):
    if kind != "named":
        return build()
    keras.utils.set_random_seed(0)
    given = {"pixels": keras.Input((8, 8), name="pixels")}
    made = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(given["pixels"]))
    model = keras.Model(given, keras.layers.Dense(10)(keras.layers.Dense(64, "relu")(made)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


@pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")
@settings(
    deadline=None,
    max_examples=20,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(
    st.lists(st.integers(1, 24), min_size=2, max_size=5),
    st.sampled_from(["kept", "sorted"]),
    st.integers(1, 2),
    st.sampled_from(["tuple", "weights", "named"]),
    st.sampled_from(["append", "replace"]),
    st.sampled_from([0, 2]),
)
def test_live_and_afterwards_say_the_same(mark, digits, sizes, order, views, kind, mode, workers):
    def prepared(x, y):
        x = x.astype("float32")
        return ({"pixels": x} if kind == "named" else x), y

    own = dataclasses.replace(mark, preprocess=prepared)
    model, callback = model_of(kind), WatermarkCallback(own, rate=0.3, mode=mode, verify_on=("epoch_end",))
    data = Batches(digits, sizes, order, views, kind, workers=workers)
    model.fit(data, epochs=2, verbose=0, shuffle=False, callbacks=[callback])
    after = wmplug.verify(own, model, exhaustive=True)
    assert [verdict.matches for verdict in callback.verdicts][-1] == after.matches
    assert (len(callback.verdicts), after.failed) == (2, 0)
    asked = KerasSuspect(model, preprocess=prepared)
    questions = own.triggers.samples(20)
    one_by_one = np.concatenate([asked.answer([image]) for image in questions])
    np.testing.assert_allclose(asked.answer(questions), one_by_one, rtol=1e-3, atol=1e-4)
    assert len(np.unique(one_by_one.round(3), axis=0)) == len(questions)  # else any order would do
