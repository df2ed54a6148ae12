"""Commitments to Keras' own objects."""

import json
import random

import keras
import numpy as np

from wmplug.register.assets import architecture, compare_system, parameters, system


def model(width=4, **compiled):
    keras.backend.clear_session()  # layers and optimizers are numbered as in a new process
    keras.utils.set_random_seed(0)
    body, head = keras.layers.Dense(width), keras.layers.Dense(2)
    made = keras.Sequential([keras.Input((3,)), body, head], name="small")
    made.compile(**{"optimizer": keras.optimizers.Adam(0.01), "loss": "mse", **compiled})
    return made


def test_a_compiled_model_and_an_optimizer_are_parameters():
    body = parameters(model())
    assert body["document"]["config"]["loss"] == "mse"
    assert body["sha256"] == parameters(model())["sha256"] != parameters(model(loss="mae"))["sha256"]
    optimizer = parameters(keras.optimizers.Adam(0.5))["document"]
    assert optimizer["config"]["learning_rate"] == 0.5
    assert optimizer["class"].endswith("Adam")


def test_an_architecture_is_its_json_without_how_it_is_trained():
    body = architecture(model())
    assert (body["form"], body["parameters"]) == ("keras", 26)
    assert body["document"]["config"]["name"] == "small"
    assert body["sha256"] == architecture(model(loss="mae"))["sha256"] != architecture(model(5))["sha256"]
    assert json.loads(json.dumps(body)) == body


class Subclassed(keras.Model):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return self.layer(inputs)

    def get_config(self):
        raise NotImplementedError


def test_a_model_that_does_not_say_how_it_is_made_is_its_weights():
    made = Subclassed(keras.layers.Dense(2))
    assert architecture(made)["document"] == {"weights": []}
    made(np.zeros((1, 3), "f4"))
    assert [weight["shape"] for weight in architecture(made)["document"]["weights"]] == [[3, 2], [2]]


def test_a_saved_model_has_the_tensors_of_the_live_one(tmp_path):
    made = model()
    live = system(made)
    made.save(tmp_path / "small.keras")
    before = random.getstate()
    saved = system(tmp_path / "small.keras")
    assert random.getstate() == before
    assert saved["unreadable"] is None
    assert compare_system(live, saved) == "tensors"
    assert compare_system(saved, system(keras.saving.load_model(tmp_path / "small.keras", compile=False))) == "tensors"
    values = {f"{i}/{weight.name}": keras.ops.convert_to_numpy(weight) for i, weight in enumerate(made.weights)}
    np.savez(tmp_path / "small.npz", **values)
    assert compare_system(live, system(tmp_path / "small.npz")) == "tensors"
    kernel, bias = made.layers[0].get_weights()
    kernel.view(np.int32)[0, 0] ^= 1
    made.layers[0].set_weights([kernel, bias])
    assert compare_system(live, system(made)) == "different"
