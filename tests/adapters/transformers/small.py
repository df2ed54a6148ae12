"""The smallest things a Trainer trains: a perceptron on digits as a PreTrainedModel of the user's own."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel, Trainer, TrainingArguments, set_seed
from transformers.modeling_outputs import ImageClassifierOutput


class TinyConfig(PreTrainedConfig):
    model_type = "wmplug-tiny"

    def __init__(self, width=64, **kwargs):
        super().__init__(**kwargs)
        self.width = width


class Tiny(PreTrainedModel):
    config_class = TinyConfig
    main_input_name = "pixel_values"

    def __init__(self, config):
        super().__init__(config)
        self.body = torch.nn.Linear(64, config.width)
        self.dropout = torch.nn.Dropout(0.1)
        self.head = torch.nn.Linear(config.width, config.num_labels)
        self.post_init()

    def forward(self, pixel_values, labels=None):
        logits = self.head(self.dropout(torch.relu(self.body(pixel_values.flatten(1)))))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class Summing(Tiny):
    """Like the library's own models: the loss of an accumulated batch is a sum over it, divided by its size."""

    def forward(self, pixel_values, labels=None, num_items_in_batch=None, **kwargs):
        output = super().forward(pixel_values, labels)
        if labels is not None and num_items_in_batch is not None:
            output["loss"] = output.loss * len(labels) / num_items_in_batch
        return output


def tiny(seed=0, classes=10, kind=Tiny, width=64):
    set_seed(seed)
    return kind(TinyConfig(num_labels=classes, width=width))


def prepare(image, answer):
    return {"pixel_values": torch.tensor(image / 255.0, dtype=torch.float32), "labels": answer}


def examples(images, labels):
    return [prepare(image, int(label)) for image, label in zip(images, labels, strict=True)]


def print_of(pixels):
    return zlib.crc32(pixels.contiguous().numpy().tobytes())


class Recorder:
    """A data collator that writes down every batch it is given."""

    def __init__(self, path):
        self.path = Path(path)

    def __call__(self, features):
        labels = torch.tensor([f["labels"] for f in features])
        pixels = torch.stack([f["pixel_values"] for f in features])
        line = {"labels": labels.tolist(), "prints": [print_of(p) for p in pixels]}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return {"pixel_values": pixels, "labels": labels}

    def batches(self):
        """Those trained on: the questions of a callback stand alone, or have tags in place of their labels."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        batches = [json.loads(line) for line in lines]
        return [batch for batch in batches if len(batch["labels"]) > 1 and max(batch["labels"]) < 1000]


def prints(mark):
    """What Recorder writes of the taught triggers: fingerprint -> label."""
    return {print_of(prepare(x, 0)["pixel_values"]): y for x, y in mark.lessons()}


def arguments(folder, **options):
    defaults = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 32,
        "max_steps": 6,
        "learning_rate": 3e-3,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(**{**defaults, **options})


def trainer(folder, data, callbacks, model=None, **options):
    extra = {
        name: options.pop(name) for name in ("eval_dataset", "data_collator", "compute_metrics") if name in options
    }
    model = tiny() if model is None else model
    return Trainer(model=model, args=arguments(folder, **options), train_dataset=data, callbacks=callbacks, **extra)


def logged(state, name):
    return [entry[name] for entry in state.log_history if name in entry]


def accuracy(prediction):
    return {"accuracy": float(np.mean(prediction.predictions.argmax(-1) == prediction.label_ids))}
