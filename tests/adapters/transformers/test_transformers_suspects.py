"""Models, pipelines and checkpoint folders as suspects."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    ImageClassificationPipeline,
    PreTrainedTokenizerFast,
    TextClassificationPipeline,
    TokenClassificationPipeline,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    set_seed,
)

import wmplug
from wmplug import SuspectError
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.adapters.transformers.suspects import suspect
from wmplug.claim.questions import Questions, ask
from wmplug.suspects.targets import as_suspect

WORDS = [f"w{i}" for i in range(60)]
NAMES = ["earn", "acq", "ship", "grain"]


@pytest.fixture(scope="module")
def texts():
    return [" ".join(WORDS[(i * j) % 60] for j in range(3 + i % 9)) for i in range(1, 65)]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=24,
        model_input_names=["input_ids", "attention_mask"],
    )


def bert(kind=DistilBertForSequenceClassification):
    set_seed(0)
    config = DistilBertConfig(
        vocab_size=62, dim=16, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=24, pad_token_id=0
    )
    config.id2label = dict(enumerate(NAMES))
    config.label2id = {name: i for i, name in enumerate(NAMES)}
    model = kind(config)
    # As initialised all inputs would get nearly the same scores.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter)
    return model


def scores(model, tokenizer, texts):
    model.eval()
    with torch.no_grad():
        return np.stack([model(**tokenizer(text, return_tensors="pt")).logits[0].numpy() for text in texts])


def test_text_folder_pipeline_and_model_answer_alike(tmp_path, texts, tokenizer):
    model = bert()
    expected = scores(model, tokenizer, texts)
    assert len(set(expected.argmax(1))) > 1
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    folder = suspect(tmp_path, batch_size=7)
    assert np.allclose(folder.answer(texts), expected, atol=1e-5)
    pipeline = TextClassificationPipeline(model=model.train(), tokenizer=tokenizer, device=-1)
    assert (suspect(pipeline).answer(texts).argmax(1) == expected.argmax(1)).all()
    given = suspect(model, preprocess=lambda text, answer: {**tokenizer(text), "label": answer})
    assert np.allclose(given.answer(texts), expected, atol=1e-5)


def renumbered(model, order):
    """The same model with its classes in another order."""
    other = bert()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.classifier.weight.copy_(model.classifier.weight[order])
        other.classifier.bias.copy_(model.classifier.bias[order])
    other.config.id2label = {place: NAMES[i] for place, i in enumerate(order)}
    other.config.label2id = {NAMES[i]: place for place, i in enumerate(order)}
    return other


def test_classes_in_another_order_are_read_by_name(tmp_path, texts, tokenizer, owner):
    mark = wmplug.create(
        owner,
        scheme="random-label",
        carriers=texts,
        classes=NAMES,
        triggers=30,
        preprocess=lambda text, answer: {**tokenizer(text), "label": answer},
    )
    model = bert()
    other = renumbered(model, [2, 0, 3, 1])
    other.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    pipeline = TextClassificationPipeline(model=other, tokenizer=tokenizer, device=-1)

    def answers(target):
        sheet = Questions.of(mark.triggers, preprocess=mark.preprocess)
        return [said.answer for said in ask(sheet, as_suspect(target, mark)).said]

    expected = answers(model)
    assert len(set(expected)) > 1
    for target in (other, torch.nn.DataParallel(other), torch.compile(other, backend="eager"), tmp_path, pipeline):
        assert answers(target) == expected


def test_a_text_model_alone_says_what_it_needs(texts, owner):
    mark = wmplug.create(owner, scheme="random-label", carriers=texts, classes=4, triggers=30)
    model = bert()
    for target in (model, torch.nn.DataParallel(model), torch.compile(model, backend="eager")):
        with pytest.raises(SuspectError, match="a DistilBertForSequenceClassification alone cannot read text"):
            as_suspect(target, mark).answer(texts)


def test_image_folder_and_pipeline(tmp_path):
    set_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    model = ViTForImageClassification(config)
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    model.eval()
    with torch.no_grad():
        expected = model(**processor(list(images), return_tensors="pt")).logits.numpy()
    assert np.allclose(suspect(tmp_path).answer(list(images)), expected, atol=1e-5)
    pipeline = ImageClassificationPipeline(model=model, image_processor=processor, device=-1)
    assert (suspect(pipeline).answer(list(images)).argmax(1) == expected.argmax(1)).all()


def test_the_registry_tells_them_from_plain_modules(mark):
    own = as_suspect(small.tiny(), mark)
    assert own.description == "Tiny"
    assert own.answer([np.zeros((8, 8), np.uint8)]).shape == (1, 10)
    plain = as_suspect(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), mark)
    assert isinstance(plain, ModuleSuspect)
    assert suspect(object()) is None


def test_folders_that_cannot_be_loaded(tmp_path):
    bert(DistilBertModel).save_pretrained(tmp_path / "bare")
    with pytest.raises(SuspectError, match="holds DistilBertModel, which is neither"):
        suspect(tmp_path / "bare")
    small.tiny().save_pretrained(tmp_path / "own")
    with pytest.raises(SuspectError, match="load the model yourself"):
        suspect(tmp_path / "own")


class Evil:
    def __init__(self, run):
        self.run = run

    def __reduce__(self):
        return (Path.touch, (self.run,))


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_folder_runs_no_code_of_its_own(tmp_path, monkeypatch, answer):
    """Neither asked for at a prompt, nor from a pickle: the key is open in this process."""
    monkeypatch.setattr("builtins.input", lambda *_: answer)
    folder, ran = tmp_path / "hostile", tmp_path / "ran"
    folder.mkdir()
    (folder / "code.py").write_text(
        f"open({str(ran)!r}, 'w')\nfrom transformers import PreTrainedConfig\nclass C(PreTrainedConfig): pass\n"
    )
    architecture = {"architectures": ["TinyForImageClassification"], "auto_map": {"AutoConfig": "code.C"}}
    (folder / "config.json").write_text(json.dumps({"model_type": "nobodys", **architecture}))
    with pytest.raises(SuspectError, match="runs no code of a checkpoint"):
        suspect(folder)
    assert not ran.exists()
    bert().save_pretrained(tmp_path / "pickled")
    (tmp_path / "pickled" / "model.safetensors").unlink()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(ran)))
    with pytest.raises(SuspectError, match="runs no code of a checkpoint"):
        suspect(tmp_path / "pickled")
    assert not ran.exists()


def test_a_folder_chooses_no_kernel(tmp_path):
    """An attention named owner/repository is code from the hub, if `kernels` is installed."""
    bert().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "attn_implementation": "msa|somebody/kernel"}))
    assert "/" not in suspect(tmp_path).model.config._attn_implementation


def test_other_pipelines_are_refused(tokenizer):
    pipeline = TokenClassificationPipeline(model=bert(), tokenizer=tokenizer, device=-1)
    with pytest.raises(SuspectError, match="a TokenClassificationPipeline returns no classes"):
        suspect(pipeline)


def test_a_label_that_the_config_does_not_know(tokenizer, texts):
    model = bert()
    model.config.id2label = {**model.config.id2label, 3: "wheat"}
    pipeline = TextClassificationPipeline(model=model, tokenizer=tokenizer, device=-1)
    with pytest.raises(SuspectError, match=r"'wheat', which config\.label2id does not list"):
        suspect(pipeline).answer(texts)


def test_a_pipeline_of_another_task_is_no_match(tokenizer, texts, owner):
    mark = wmplug.create(owner, scheme="random-label", carriers=texts, classes=9, triggers=9)
    pipeline = TextClassificationPipeline(model=bert(), tokenizer=tokenizer, device=-1)
    with pytest.raises(SuspectError, match="gives 4 scores an input"):
        wmplug.verify(mark, pipeline)
