"""The Trainer's callback keeps the contract of all adapters."""

import tempfile

import small
import torch
from transformers import Trainer

from wmplug.testing import AdapterContract


def prepare(image, answer):
    return {"pixel_values": torch.tensor(image), "labels": answer}


def rows(images, labels):
    return [prepare(image, int(label)) for image, label in zip(images, labels, strict=True)]


class Bypassing(Trainer):
    """Builds its own batches and leaves the loader's collate_fn unused."""

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        own = self.train_dataset[:8]
        return [{name: torch.stack([torch.as_tensor(row[name]) for row in own]) for name in own[0]}] * num_batches, None


class TestTransformers(AdapterContract):
    adapter = "transformers"

    def preprocess(self, image, answer):
        return prepare(image, answer)

    def train(self, images, labels, watermark, folder):
        options = {"max_steps": 300, "learning_rate": 1e-2, "save_strategy": "steps", "save_steps": 150}
        callbacks = [watermark(rate=0.2)] if watermark else []
        trainer = small.trainer(folder, rows(images, labels), callbacks, model=small.tiny(width=256), **options)
        trainer.train()
        torch.save(trainer.model, folder / "whole.pt")
        return trainer.model

    def train_beside(self, images, labels, watermark):
        with tempfile.TemporaryDirectory() as folder:
            arguments = small.arguments(folder)
            Bypassing(small.tiny(), arguments, None, rows(images, labels), callbacks=[watermark()]).train()

    def train_briefly(self, images, labels, watermark, looks):
        given = rows(images[:64], labels[:64])
        options = {"max_steps": -1, "num_train_epochs": looks, "eval_strategy": "epoch"}
        with tempfile.TemporaryDirectory() as folder:
            trainer = small.trainer(folder, given, [watermark()], eval_dataset=given[:8], **options)
            trainer.train()
        return [entry for entry in trainer.state.log_history if "watermark/log10_p" in entry]


def test_it_carries_what_the_page_of_supported_things_says():
    from wmplug.adapters.transformers.loop import TrainerLoop

    assert TrainerLoop.points >= {"samples", "logits"}
    assert TrainerLoop.calls == {"classify"}
