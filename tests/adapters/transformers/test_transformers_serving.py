"""Pipelines and modules that answer marked, and otherwise as they did."""

import numpy as np
import pytest
import small
import torch
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ImageClassificationPipeline,
    PreTrainedTokenizerFast,
    TextClassificationPipeline,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
    set_seed,
)

import wmplug
from wmplug.schemes.served import Served
from wmplug.serving import Serving, wrap

NAMES = ["earn", "acq", "ship", "grain"]
TEXTS = [" ".join(f"w{(i * j) % 60}" for j in range(3 + i % 9)) for i in range(1, 121)]
GAP = 0.02  # models that learnt nothing are unsure of everything


def marked(owner, carriers, classes):
    count = classes if isinstance(classes, int) else len(classes)
    pool = np.full((len(carriers), count), 1 / count, np.float32)
    labels = np.arange(len(carriers)) % count
    return wmplug.create(owner, scheme=Served(cells=20, pool=pool), carriers=carriers, labels=labels, classes=classes)


@pytest.fixture(scope="module")
def texts(owner):
    """A pipeline of texts, and its watermark."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(60))])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]")
    set_seed(0)
    config = DistilBertConfig(
        vocab_size=62, dim=16, n_layers=1, n_heads=2, hidden_dim=16, num_labels=4, id2label=dict(enumerate(NAMES))
    )
    model = DistilBertForSequenceClassification(config).eval()
    return TextClassificationPipeline(model=model, tokenizer=tokenizer, device=-1), marked(owner, TEXTS, NAMES)


def test_a_pipeline_of_texts(texts):
    pipeline, mark = texts
    serving = Serving(mark, gap=GAP)
    answer = wrap(serving, pipeline)
    plain = [[{d["label"]: d["score"] for d in one}[name] for name in NAMES] for one in pipeline(TEXTS, top_k=None)]
    told = serving.served(TEXTS, np.array(plain))
    best = [NAMES[i] for i in told.argmax(axis=1)]
    changed = told.argmax(axis=1) != np.argmax(plain, axis=1)
    assert 0.1 < changed.mean() < 0.9
    assert [one["label"] for one in answer(TEXTS)] == best
    assert [[d["label"] for d in one] for one in answer(TEXTS, top_k=2)] == [
        [NAMES[i] for i in np.argsort(-row, kind="stable")[:2]] for row in told
    ]
    # The shapes are the pipeline's own.
    for given in (TEXTS[0], TEXTS[:1], TEXTS[:3]):
        for options in ({}, {"top_k": 1}, {"top_k": 3}, {"top_k": None}):
            own, ours = pipeline(given, **options), answer(given, **options)
            assert shape(own) == shape(ours), options


def shape(answer):
    return [shape(one) for one in answer] if isinstance(answer, list) else sorted(answer)


def test_a_pipeline_of_pictures(owner):
    set_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    config.num_labels = 4
    processor = ViTImageProcessorPil(size={"height": 8, "width": 8})
    pipeline = ImageClassificationPipeline(
        model=ViTForImageClassification(config), image_processor=processor, device=-1
    )
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one) for one in pixels]
    answer = wrap(Serving(marked(owner, pictures, 4), gap=1.0), pipeline)
    own, ours = pipeline(pictures), answer(pictures)
    assert shape(own) == shape(ours)
    assert shape(pipeline(pictures[0])) == shape(answer(pictures[0]))
    assert 0.1 < np.mean([a[0]["label"] != b[0]["label"] for a, b in zip(own, ours, strict=True)]) < 0.9


def test_a_module_answers_in_its_own_type(owner, digits):
    images = digits[0][:200]
    mark = marked(owner, images, 10)
    model, serving = small.tiny().eval(), Serving(mark, gap=0.5)
    batch = torch.as_tensor(images / 255.0, dtype=torch.float32)
    answer = wrap(serving, model, read=lambda x: (255 * x).round().byte())
    with torch.no_grad():
        plain, told = model(batch), answer(batch)
    assert type(told) is type(plain)
    assert (told.logits.dtype, told.logits.device) == (torch.float32, plain.logits.device)
    assert np.allclose(told.logits, serving.served(images, plain.logits), atol=1e-6)
    assert not torch.equal(told.logits, plain.logits)
    bare = wrap(serving, lambda x: model(x).logits, read=lambda x: (255 * x).round().byte())
    assert torch.equal(bare(batch), told.logits)
