"""tilt of texts through the Trainer: from `input_ids` as a collator pads them, beside triggers."""

import pytest
import small
from transformers import (
    DataCollatorWithPadding,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    set_seed,
)

import wmplug
from wmplug.adapters.transformers import WatermarkCallback


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(240))])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=14,
        model_input_names=["input_ids", "attention_mask"],
    )


def trained(folder, tokenizer, rows, callbacks):
    set_seed(0)
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=32,
        n_layers=1,
        n_heads=2,
        hidden_dim=64,
        max_position_embeddings=14,
        num_labels=4,
        pad_token_id=0,
    )
    trainer = Trainer(
        DistilBertForSequenceClassification(config),
        small.arguments(folder, per_device_train_batch_size=32, max_steps=300, learning_rate=5e-3),
        DataCollatorWithPadding(tokenizer),
        rows,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    trainer.train()
    return trainer.model


def test_the_default_against_cloning_is_taught_by_one_callback(tmp_path, owner, rival, topics, tokenizer):
    texts, labels = topics
    texts = [text.rsplit(" ", i % 4)[0] for i, text in enumerate(texts)]  # of several lengths
    rows = [{**tokenizer(text), "label": int(label)} for text, label in zip(texts, labels, strict=True)]
    options = {
        "against": "theft+cloning",
        "carriers": texts,
        "labels": labels,
        "classes": 4,
        "triggers": 40,
        "preprocess": lambda text, answer: {**tokenizer(text, truncation=True), "label": answer},
        "delta": 1.0,
        "directions": 8,
        "blends": 3000,
    }
    mark, rivals = (wmplug.create(who, **options) for who in (owner, rival))
    model = trained(tmp_path, tokenizer, rows, [WatermarkCallback(mark, rate=1 / 3, verify_on=("train_end",))])
    triggers, signs = wmplug.verify(mark, model, exhaustive=True).parts
    assert triggers.log10_p < -6
    assert signs.log10_p < -4
    assert wmplug.verify(rivals, model, exhaustive=True).log10_p > -3
    twin = trained(tmp_path, tokenizer, rows, [])
    assert wmplug.verify(mark, twin, exhaustive=True).log10_p > -3
