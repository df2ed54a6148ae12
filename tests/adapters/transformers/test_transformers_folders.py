"""Checkpoint folders whose weights are not those of a whole model, and PEFT adapters."""

import json
import logging
import sys

import numpy as np
import pytest
import small
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Trainer, ViTConfig, ViTForImageClassification, set_seed
from transformers.utils import PushToHubMixin
from transformers.utils import logging as loader
from typer.testing import CliRunner

import wmplug
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.adapters.transformers import WatermarkCallback
from wmplug.adapters.transformers.folders import read_weights
from wmplug.adapters.transformers.suspects import preparation, suspect
from wmplug.cli import app
from wmplug.errors import SuspectError
from wmplug.suspects.functions import CallableSuspect
from wmplug.suspects.targets import as_suspect

WEIGHTS = "model.safetensors"


def vit(labels=10):
    set_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=8, patch_size=4,
        num_channels=1, num_labels=labels, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ViTForImageClassification(config)


def prep(image, answer):
    return {"pixel_values": torch.tensor(image.reshape(1, 8, 8) / 255.0, dtype=torch.float32), "labels": answer}


@pytest.fixture(scope="module")
def mark(owner, digits):
    return wmplug.create(
        owner, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10, triggers=40, preprocess=prep
    )


@pytest.fixture(scope="module")
def proven(mark, digits, tmp_path_factory):
    """A folder with a marked model."""
    folder, model = tmp_path_factory.mktemp("proven"), vit()
    data = [prep(image, int(label)) for image, label in zip(digits[0][:640], digits[1], strict=False)]
    options = {"max_steps": 250, "learning_rate": 5e-3}
    arguments = small.arguments(folder / "run", **options)
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=[WatermarkCallback(mark, rate=0.4)]).train()
    model.save_pretrained(folder / "whole")
    return folder / "whole"


def renamed(folder, to, name):
    """A copy of the folder whose weights have other names; those of name None are left out."""
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    weights = {name(key): value for key, value in load_file(folder / WEIGHTS).items() if name(key)}
    save_file(weights, to / WEIGHTS, metadata={"format": "pt"})
    return to


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (lambda key: f"module.{key}", "module."),
        (lambda key: f"_orig_mod.{key}", "_orig_mod."),
        (lambda key: f"module._orig_mod.{key}", "_orig_mod., module."),
        (lambda key: key.replace("encoder.", "encoder._orig_mod."), "_orig_mod."),
        (lambda key: "_fsdp_wrapped_module." + key.replace("layer", "_checkpoint_wrapped_module.layer", 1), "_wrapped"),
    ],
    ids=["ddp", "compile", "both", "inner", "fsdp"],
)  # fmt: skip
def test_the_names_of_wrappers_are_taken_off_and_said(mark, proven, tmp_path, name, said):
    """Case: a proven checkpoint whose weights have a prefix was asked with random weights and cleared."""
    whole = wmplug.verify(mark, str(proven))
    wrapped = wmplug.verify(mark, str(renamed(proven, tmp_path / "wrapped", name)))
    assert whole.proven
    assert (wrapped.matches, wrapped.queries) == (whole.matches, whole.queries)
    assert said in wrapped.suspect
    assert "without" not in whole.suspect


def test_the_command_line_says_what_was_taken_off_and_shows_no_report_of_random_weights(
    mark, proven, tmp_path, monkeypatch
):
    """Case: a proven verdict stood below a report of the loader that all weights are missing, and said no more."""
    shown = logging.Handler()
    monkeypatch.setattr(shown, "emit", lambda record: pytest.fail(record.getMessage()))
    monkeypatch.setattr(loader._get_library_root_logger(), "level", logging.WARNING)
    monkeypatch.setenv("WMPLUG_PASSPHRASE", "correct horse battery staple")
    mark.save(tmp_path / "mark.wm")
    loader.add_handler(shown)
    try:
        for name, prefix in ("whole", ""), ("wrapped", "module."):
            folder = renamed(proven, tmp_path / name, lambda key, prefix=prefix: prefix + key)
            options = ["--preprocess", f"{__name__}:prep", "--no-record"]
            result = CliRunner().invoke(app, ["verify", str(tmp_path / "mark.wm"), str(folder), *options])
            said = result.stdout.replace("\n", " ")
            assert said.startswith("proven: "), said
            assert ("without module." in said) == bool(prefix)
    finally:
        loader.remove_handler(shown)
    assert loader.get_verbosity() == logging.WARNING


def test_names_of_wrappers_in_a_pickle_of_weights(mark, proven, tmp_path):
    folder = renamed(proven, tmp_path / "wrapped", lambda key: key)
    torch.save(
        {f"module.{key}": value for key, value in load_file(folder / WEIGHTS).items()}, folder / "pytorch_model.bin"
    )
    (folder / WEIGHTS).unlink()
    assert wmplug.verify(mark, str(folder)).proven


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (lambda key: None if "classifier" in key else key, r"it lacks classifier\.bias, classifier\.weight"),
        (
            lambda key: f"net.{key}" if "classifier" in key else key,
            r"it lacks classifier.*no place for net\.classifier",
        ),
        (lambda key: None if key.startswith("vit.") else key, r"it lacks .* and \d+ more"),
    ],
    ids=["no head", "another prefix", "head alone"],
)
def test_weights_that_are_missing_are_an_error_that_names_them(mark, proven, tmp_path, name, says):
    with pytest.raises(SuspectError, match=says):
        wmplug.verify(mark, str(renamed(proven, tmp_path / "part", name)))


def test_weights_that_have_no_place_or_another_shape_are_an_error(proven, tmp_path):
    more = renamed(proven, tmp_path / "more", lambda key: key)
    weights = load_file(more / WEIGHTS)
    save_file({**weights, "second.weight": torch.zeros(3)}, more / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(SuspectError, match=r"no place for second\.weight"):
        suspect(more)
    # Case: id2label was edited, and transformers raises RuntimeError.
    other = renamed(proven, tmp_path / "other", lambda key: key)
    config = json.loads((other / "config.json").read_text())
    config["id2label"] = {str(i): f"L{i}" for i in range(7)}
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(SuspectError, match=r"other shapes have classifier\.bias \(10,\) for \(7,\)"):
        suspect(other)
    with pytest.raises(SuspectError, match=r"other shapes have classifier\.bias"):
        read_weights(ViTForImageClassification, other)


class Net(torch.nn.Module, PushToHubMixin):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    def forward(self, x):
        return self.net(x)


class Adapted(torch.nn.Module, PushToHubMixin):
    """What a PeftModel is to others."""

    def __init__(self, base):
        super().__init__()
        self.base = base

    def get_base_model(self):
        return self.base

    def forward(self, **inputs):
        return self.base(**inputs)


def test_what_transformers_does_not_know_is_asked_of_torch(mark):
    """Case: a module one of whose bases is of transformers was asked by nobody."""
    assert isinstance(as_suspect(Net(), mark), ModuleSuspect)
    with pytest.raises(SuspectError, match=r"a Tensor, which none of these knows: .*adapter 'torch'"):
        as_suspect(torch.zeros(2), mark)
    assert isinstance(as_suspect(Reader(), mark), CallableSuspect)


class Reader(torch.utils.data.Dataset):
    """Something of torch that is no module, and can be called."""

    def __call__(self, x):
        return np.zeros(len(x), int)


def test_a_model_in_an_adapter_is_asked_by_name(mark, proven):
    model = ViTForImageClassification.from_pretrained(proven)
    assert wmplug.verify(mark, Adapted(model)).proven
    assert not wmplug.verify(mark, Adapted(vit())).proven


class TestPeft:
    @pytest.fixture
    def folder(self, tmp_path, proven):
        """An adapter as peft writes it: LoRA of the queries, and the whole head."""
        made = tmp_path / "adapter"
        made.mkdir()
        config = {
            "base_model_name_or_path": str(proven), "peft_type": "LORA", "task_type": None, "r": 2, "lora_alpha": 4,
            "target_modules": ["query"], "modules_to_save": ["classifier"], "inference_mode": True,
            "auto_mapping": {"base_model_class": "ViTForImageClassification", "parent_library": "transformers"},
        }  # fmt: skip
        (made / "adapter_config.json").write_text(json.dumps(config))
        save_file({"base_model.model.classifier.weight": torch.zeros(10, 32)}, made / "adapter_model.safetensors")
        return made

    def edit(self, folder, **change):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    def test_without_peft_it_is_said_what_is_needed(self, folder, proven, monkeypatch):
        monkeypatch.setitem(sys.modules, "peft", None)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(SuspectError, match=rf"PEFT adapter of '{proven}'.*needs peft.*`pip install peft`.*merge"):
            suspect(folder)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"base_model_name_or_path": None}, "names no base model"),
            ({"megatron_config": {"a": 1}}, "for Megatron"),
            ({"base_model_name_or_path": "nobody/nothing"}, "neither a folder here nor in the cache of the hub"),
            ({"auto_mapping": {"base_model_class": "GPT2LMHeadModel"}}, "GPT2LMHeadModel, neither for sequence nor"),
        ],
    )
    def test_adapters_that_cannot_be_put_on_a_base(self, folder, monkeypatch, change, says):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
        self.edit(folder, **change)
        with pytest.raises(SuspectError, match=says):
            suspect(folder)

    def test_no_pickle_is_read(self, folder):
        (folder / "adapter_model.safetensors").unlink()
        (folder / "adapter_model.bin").touch()
        with pytest.raises(SuspectError, match=r"without adapter_model\.safetensors"):
            suspect(folder)


@pytest.fixture(scope="module")
def tuned(mark, proven):
    """A PeftModel on the marked model: adapters of all queries, drawn large enough to move it, and its head."""
    settings = LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"], init_lora_weights=False)
    set_seed(1)
    return get_peft_model(ViTForImageClassification.from_pretrained(proven), settings)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
def test_a_peft_model_is_asked_as_it_is_and_from_its_folder(mark, tuned, proven, tmp_path):
    tuned.save_pretrained(tmp_path / "adapter")
    live = as_suspect(tuned, mark).answer(mark.triggers.plan.inputs)
    saved = as_suspect(tmp_path / "adapter", mark).answer(mark.triggers.plan.inputs)
    bare = as_suspect(proven, mark).answer(mark.triggers.plan.inputs)
    np.testing.assert_allclose(saved, live, atol=1e-5)
    assert np.abs(bare - live).max() > 0.1


class Both:
    """A processor of pictures and texts, as AutoProcessor gives."""

    def __init__(self, **parts):
        self.__dict__.update(parts)


def test_the_part_of_a_processor_that_fits_is_taken():
    from transformers import ViTImageProcessorPil

    image = ViTImageProcessorPil(size={"height": 8, "width": 8})
    made = preparation(Both(image_processor=image, tokenizer=None), None)(np.zeros((8, 8, 3), np.uint8), 3)
    assert made["label"] == 3
    assert made["pixel_values"].shape == (3, 8, 8)
    assert preparation(Both(feature_extractor=image), None) is None
