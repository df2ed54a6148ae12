"""tilt of texts in model.fit: looked up in-graph from token ids, alone or among named inputs."""

import keras
import numpy as np
import pytest

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.schemes.tilt import Tilt


def prepare_with(tokens, named):
    def prepare(text, answer):
        ids = np.zeros(16, np.int32)
        made = tokens(text)
        ids[: len(made)] = made
        return ({"token_ids": ids, "padding_mask": (ids > 0).astype(np.int32)} if named else ids), answer

    return prepare


def build(named):
    keras.utils.set_random_seed(0)
    ids = keras.Input((16,), dtype="int32", name="token_ids")
    mask = keras.Input((16,), dtype="int32", name="padding_mask")
    vectors = keras.layers.Embedding(242, 64)(ids)
    weights = keras.ops.cast(mask if named else ids > 0, "float32")[..., None]
    mean = keras.ops.sum(vectors * weights, axis=1) / (keras.ops.sum(weights, axis=1) + 1e-6)
    model = keras.Model({"token_ids": ids, "padding_mask": mask} if named else ids, keras.layers.Dense(4)(mean))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    return model


@pytest.mark.parametrize("named", [False, True], ids=["one input", "named inputs"])
def test_the_model_carries_it_and_nobody_else_is_accused(owner, rival, topics, tokens, named):
    texts, labels = topics
    prepare = prepare_with(tokens, named)
    options = {"carriers": texts, "labels": labels, "classes": 4, "preprocess": prepare}
    scheme = Tilt(delta=1.0, directions=24, blends=3000)
    mark, rivals = (wmplug.create(who, scheme=scheme, **options) for who in (owner, rival))
    rows = [prepare(text, 0)[0] for text in texts]
    x = {name: np.stack([row[name] for row in rows]) for name in rows[0]} if named else np.stack(rows)
    model, twin = build(named), build(named)
    callback = WatermarkCallback(mark, rate=1 / 3, verify_on=("train_end",))
    model.fit(x, labels, batch_size=32, epochs=12, verbose=0, callbacks=[callback])
    assert callback.verdict.proven
    assert callback.verdict.log10_p < -8
    assert wmplug.verify(rivals, model, exhaustive=True).log10_p > -4
    twin.fit(x, labels, batch_size=32, epochs=12, verbose=0)
    assert wmplug.verify(mark, twin, exhaustive=True).log10_p > -4
