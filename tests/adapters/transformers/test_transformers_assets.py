"""Commitments to Transformers' own objects, and to what it saves."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small import examples, tiny
from transformers import TrainingArguments

from wmplug.register.assets import architecture, compare_system, dataset, parameters, system


def test_training_arguments_without_tokens(tmp_path):
    def body(**changed):
        return parameters(TrainingArguments(str(tmp_path), report_to=[], hub_token="hf_hunter2", **changed))

    first = body()
    assert first["class"].endswith("TrainingArguments")
    assert first["removed"] == ["hub_token"]
    assert first["document"]["hub_token"] == "removed"
    assert "hunter2" not in json.dumps(first)
    assert first["document"]["learning_rate"] == 5e-5
    assert first["sha256"] == body()["sha256"] != body(learning_rate=1e-4)["sha256"]


def test_a_model_is_its_configuration_wherever_it_was_loaded_from(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    body = architecture(model)
    again = architecture(type(model).from_pretrained(tmp_path))
    assert body["form"] == "config"
    assert body["document"]["width"] == 64
    assert body["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert body["code"]["file"] == "small.py"
    assert body["sha256"] == again["sha256"] != architecture(tiny(width=32))["sha256"]


def test_what_is_saved_holds_the_tensors_of_the_live_model(tmp_path):
    model = tiny()
    live = system(model)
    model.save_pretrained(tmp_path)
    saved = system(tmp_path)
    assert compare_system(live, saved) == "tensors"
    assert set(saved["files"]["digests"]) == {path.name for path in tmp_path.iterdir()}
    torch.save({"step": 1}, tmp_path / "optimizer.pt")
    assert compare_system(saved, system(tmp_path)) == "tensors"
    with torch.no_grad():
        model.head.bias[0] += 1
    model.save_pretrained(tmp_path)
    assert compare_system(saved, system(tmp_path)) == "different"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn], ids=str)
def test_small_floats_are_told_by_their_bytes_in_every_format(dtype, tmp_path):
    state = {name: tensor.to(dtype) for name, tensor in tiny().state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "a.pt")
    digests = {system(what)["tensors"]["sha256"] for what in (state, tmp_path / "a.safetensors", tmp_path / "a.pt")}
    assert len(digests) == 1
    assert digests != {system(tiny())["tensors"]["sha256"]}


def test_examples_with_tensors_are_records():
    images, labels = np.arange(3 * 64).reshape(3, 8, 8), [0, 1, 2]
    records = examples(images, labels)
    body = dataset(records)
    assert body["schema"] == {"fields": {"labels": "int", "pixel_values": {"array": "float32", "shape": [8, 8]}}}
    assert body["root"] == dataset(examples(images[::-1], labels[::-1]))["root"]
