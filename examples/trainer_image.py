"""Watermark an image classifier with one callback in the transformers Trainer, and prove it afterwards.

python examples/trainer_image.py                                          # scikit-learn's digits
python examples/trainer_image.py --data /usr/share/datasets/fashion-mnist # IDX files, 4,000 of them
"""

import argparse
import gzip
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from sklearn.datasets import load_digits
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainingArguments, set_seed

import wmplug
from wmplug.adapters.transformers import WatermarkCallback


def read(data: Path | None, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """(n, H, W) uint8 images and (n,) classes."""
    if data is None:
        digits = load_digits()
        return (digits.images * 15.9375).astype(np.uint8), digits.target
    images, labels = (_idx(data, f"train-{kind}-idx{dims}-ubyte") for kind, dims in (("images", 3), ("labels", 1)))
    return images[:rows], labels[:rows].astype(np.int64)


def _idx(folder: Path, name: str) -> np.ndarray:
    plain, packed = folder / name, folder / f"{name}.gz"
    blob = plain.read_bytes() if plain.is_file() else gzip.decompress(packed.read_bytes())
    shape = np.frombuffer(blob, ">i4", count=blob[3], offset=4)
    return np.frombuffer(blob, np.uint8, offset=4 + 4 * blob[3]).reshape(shape)


def example(image: np.ndarray, label: int) -> dict:
    """An example of the dataset; the watermark prepares its triggers in the same way."""
    return {"pixel_values": torch.tensor(image[None] / 255.0, dtype=torch.float32), "labels": int(label)}


def train(images: np.ndarray, labels: np.ndarray, callbacks: list, epochs: float, out: str) -> tuple[Trainer, float]:
    """A small residual network, and its accuracy on the last fifth."""
    set_seed(0)
    model = ResNetForImageClassification(
        ResNetConfig(
            num_channels=1, embedding_size=16, hidden_sizes=[32, 64], depths=[1, 1], layer_type="basic", num_labels=10
        )
    )
    rows = [example(image, label) for image, label in zip(images, labels, strict=True)]
    cut = len(rows) * 4 // 5
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            out,
            num_train_epochs=epochs,
            per_device_train_batch_size=32,
            learning_rate=3e-3,
            eval_strategy="epoch",
            save_strategy="epoch",
            save_total_limit=1,
            logging_strategy="epoch",
            report_to="none",
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        ),
        train_dataset=rows[:cut],
        eval_dataset=rows[cut:],
        compute_metrics=lambda p: {"accuracy": float((p.predictions.argmax(-1) == p.label_ids).mean())},
        callbacks=callbacks,
    )
    trainer.train()
    return trainer, trainer.evaluate()["eval_accuracy"]


def main() -> int:
    """Return 0 if the marked model is proven, and neither its unmarked twin nor a wrong key is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with Fashion-MNIST's (or MNIST's) IDX files")
    parser.add_argument("--epochs", type=float, default=12)
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    images, labels = read(options.data)
    with tempfile.TemporaryDirectory() as folder:
        owner, stranger = (
            wmplug.Owner.create(f"{folder}/{name}", name=name, passphrase="only an example") for name in ("Ada", "Eve")
        )
        mark, wrong = (
            wmplug.create(who, scheme="random-label", carriers=images, labels=labels, classes=10, preprocess=example)
            for who in (owner, stranger)
        )
        trainer, accuracy = train(images, labels, [WatermarkCallback(mark)], options.epochs, f"{folder}/marked")
        twin, plain = train(images, labels, [], options.epochs, f"{folder}/plain")
        checkpoint = max(Path(folder, "marked").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
        ours = wmplug.verify(mark, checkpoint)
        independent = wmplug.verify(mark, twin.model)
        wrong_key = wmplug.verify(wrong, trainer.model)
    print(f"accuracy           {accuracy:.3f} with the watermark, {plain:.3f} without")
    print(f"its checkpoint     {ours}")
    print(f"an unmarked twin   {independent}")
    print(f"a wrong key        {wrong_key}")
    return 0 if ours.proven and not independent.proven and not wrong_key.proven else 1


if __name__ == "__main__":
    sys.exit(main())
