"""What the demo trains: a small vision transformer on scikit-learn's digits. Imported by the demo alone, with torch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from sklearn.datasets import load_digits
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from wmplug.adapters.torch.modules import evaluating
from wmplug.adapters.transformers import WatermarkCallback
from wmplug.watermark.watermark import Watermark

CLASSES = 10
_BATCH = 32


@dataclass(frozen=True)
class Part:
    """Some of the digits: images (n, 8, 8) uint8 in 0..255, labels (n,) int64."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def examples(self) -> list[dict[str, Any]]:
        """As the Trainer takes them."""
        return [example(image, int(label)) for image, label in zip(self.images, self.labels, strict=True)]


@dataclass(frozen=True)
class Row:
    """One checkpoint of a marked run."""

    step: int
    epoch: float
    loss: float
    accuracy: float
    matches: int
    log10_p: float


def example(image: npt.NDArray[np.uint8], answer: int) -> dict[str, Any]:
    """A digit as the model's dataset yields it; the watermark's `preprocess`."""
    return {"pixel_values": image[None].astype(np.float32) / 127.5 - 1.0, "labels": answer}


def parts(seed: int) -> tuple[Part, Part, Part]:
    """900 digits to train on, 400 others to fine-tune on, 497 to test on."""
    data = load_digits()
    images, labels = np.rint(data.images * 15.9375).astype(np.uint8), data.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(images))
    train, other, test = np.split(order, [900, 1300])
    return Part(images[train], labels[train]), Part(images[other], labels[other]), Part(images[test], labels[test])


def train(
    part: Part,
    test: Part,
    folder: Path,
    *,
    seed: int,
    epochs: int,
    rate: float = 1e-3,
    mark: Watermark | None = None,
    start: ViTForImageClassification | None = None,
    tell: Callable[[Row], None] | None = None,
) -> tuple[ViTForImageClassification, list[dict[str, Any]]]:
    """Train with a real Trainer; the mark, if there is one, takes one callback.

    Args:
        part: to train on.
        test: to evaluate on.
        folder: for checkpoints, which only a marked run writes.
        seed: of weights and order.
        epochs: to train.
        rate: learning rate.
        mark: to teach.
        start: a model to copy and go on from.
        tell: called at each checkpoint of a marked run.

    Returns:
        The model and the Trainer's log_history.
    """
    with _quiet():
        transformers.set_seed(seed)
        model = ViTForImageClassification(_config())
        if start is not None:
            model.load_state_dict(start.state_dict())
        steps = -(-len(part.images) // _BATCH) * 2
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=epochs,
            learning_rate=rate,
            per_device_train_batch_size=_BATCH,
            per_device_eval_batch_size=256,
            weight_decay=0.01,
            warmup_steps=30,
            logging_steps=steps // 2,
            eval_strategy="no" if mark is None else "steps",
            save_strategy="no" if mark is None else "steps",
            eval_steps=steps,
            save_steps=steps,
            seed=seed,
            disable_tqdm=True,
            report_to=[],
            use_cpu=not torch.cuda.is_available(),
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=part.examples(),
            eval_dataset=test.examples(),
            compute_metrics=_accuracy,
            callbacks=[] if mark is None else [WatermarkCallback(mark), _Told(tell)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model, trainer.state.log_history


def accuracy(model: ViTForImageClassification, test: Part) -> float:
    """Share of the test digits that the model gets right."""
    with evaluating(model):
        pixels = torch.from_numpy(np.stack([e["pixel_values"] for e in test.examples()])).to(model.device)
        return float((model(pixels).logits.argmax(-1).cpu().numpy() == test.labels).mean())


def save(model: ViTForImageClassification, folder: Path) -> None:
    """A folder that `wmplug verify` can be given."""
    with _quiet():
        model.save_pretrained(folder)


def _config() -> ViTConfig:
    config = ViTConfig(
        image_size=8,
        patch_size=4,
        num_channels=1,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # The usual .02 is meant for models ten times as wide; from there this one needs three times the steps.
        initializer_range=0.08,
    )
    config.num_labels = CLASSES
    return config


def _accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


class _Told(TrainerCallback):
    """Reports every checkpoint as it comes, out of what the Trainer logs."""

    def __init__(self, tell: Callable[[Row], None] | None) -> None:
        self.tell, self.step = tell, -1
        self.seen: dict[str, Any] = {}

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.seen.update(logs or {})
        if self.tell is not None and "watermark/log10_p" in (logs or {}) and state.global_step != self.step:
            self.step = state.global_step
            self.tell(row(state.global_step, self.seen))


def row(step: int, logged: Mapping[str, Any]) -> Row:
    """What was last logged, as a row."""
    return Row(
        step,
        float(logged["epoch"]),
        float(logged["loss"]),
        float(logged["eval_accuracy"]),
        int(logged["watermark/matches"]),
        float(logged["watermark/log10_p"]),
    )


def curve(history: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one logged number."""
    found = [(int(entry["step"]), float(entry[name])) for entry in history if name in entry]
    return [step for step, _ in found], [value for _, value in found]


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing from transformers but errors meanwhile; what it was set to is restored."""
    noise: Any = transformers.logging  # untyped
    verbosity, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        yield
    finally:
        noise.set_verbosity(verbosity)
        if bars:
            noise.enable_progress_bar()
