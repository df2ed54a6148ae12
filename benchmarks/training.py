"""One training loop for each framework; wmplug is the one line that depends on `mark`.

Each takes (mark or None, data, seed, epochs) and returns a torch module from (n, 1, 28, 28) floats to logits. Keras
runs on its torch backend here, so that the same attacks and the same accuracy serve all three.
"""

import dataclasses
import functools
import tempfile
from typing import Any

import fashion
import keras
import torch
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments

import wmplug.adapters.keras
import wmplug.adapters.torch
import wmplug.adapters.transformers
from wmplug import Watermark


def torch_loop(mark: Watermark | None, data: fashion.Fashion, seed: int, epochs: int, flat: float = 0.0) -> nn.Module:
    """A plain loop."""
    torch.manual_seed(seed)
    model, batches = fashion.network(), fashion.loader(data.own, seed)
    if mark is None:
        return fashion.fit(model, batches, epochs)
    with wmplug.adapters.torch.Watermarking(mark, model, batches, flat=flat) as marking:
        fashion.fit(model, batches, epochs)
        marking.checkpoint()
    return model


class Classifier(nn.Module):
    """The CNN with the interface a Trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        self.net = fashion.network()

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, Any]:
        """Logits, and the loss where labels are given."""
        logits = self.net(pixel_values)
        return (
            {"logits": logits}
            if labels is None
            else {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}
        )


def trainer_loop(mark: Watermark | None, data: fashion.Fashion, seed: int, epochs: int) -> nn.Module:
    """The transformers Trainer."""
    torch.manual_seed(seed)
    x, y = fashion.tensors(data.own)
    examples = [{"pixel_values": image, "labels": label} for image, label in zip(x, y, strict=True)]
    model = Classifier()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                folder,
                num_train_epochs=epochs,
                per_device_train_batch_size=fashion.BATCH,
                learning_rate=1e-3,
                lr_scheduler_type="constant",
                seed=seed,
                save_strategy="no",
                report_to=[],
                logging_strategy="no",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=examples,
            callbacks=[] if mark is None else [wmplug.adapters.transformers.WatermarkCallback(mark)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.net


class ChannelsLast(nn.Module):
    """A Keras model behind torch's axis order."""

    def __init__(self, inner: keras.Model) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        return self.inner(x.movedim(1, -1))


def keras_network() -> keras.Model:
    """The same CNN."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(60, activation="relu"),
            layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def keras_loop(mark: Watermark | None, data: fashion.Fashion, seed: int, epochs: int) -> nn.Module:
    """Keras model.fit."""
    keras.utils.set_random_seed(seed)
    model = keras_network()
    callbacks = []
    if mark is not None:
        callbacks.append(wmplug.adapters.keras.WatermarkCallback(channels_last(mark), verify_on=("train_end",)))
    x, y = fashion.tensors(data.own)
    model.fit(x.movedim(1, -1).numpy(), y.numpy(), fashion.BATCH, epochs, verbose=0, callbacks=callbacks)
    return ChannelsLast(model)


def channels_last(mark: Watermark) -> Watermark:
    """The watermark with examples as Keras takes them."""
    return dataclasses.replace(
        mark, preprocess=lambda image, answer: (image[..., None].astype("float32") / 255, answer)
    )


LOOPS = {
    "torch": torch_loop,
    "torch-flat": functools.partial(torch_loop, flat=0.02),
    "transformers": trainer_loop,
    "keras": keras_loop,
}
