"""A transformers model, pipeline or checkpoint folder as a suspect, and the preparation of its inputs."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    ImageClassificationPipeline,
    Pipeline,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextClassificationPipeline,
)
from transformers.image_processing_utils import BaseImageProcessor

from wmplug.adapters.torch.modules import ModuleSuspect, evaluating, forward_batch, unwrapped
from wmplug.adapters.transformers import folders
from wmplug.errors import InputError, SuspectError
from wmplug.schemes.tilt.texts import LABELS
from wmplug.suspects.protocols import Suspect
from wmplug.watermark.watermark import Preprocess


def preparation(processor: Any, model: Any) -> Preprocess | None:
    """A preprocess from a tokenizer or an image processor; None if `processor` is neither and has neither.

    Args:
        processor: a Trainer's `processing_class`, or the one in a checkpoint folder; of a processor of several kinds
            of input, its image processor, else its tokenizer.
        model: its `max_position_embeddings` bounds a text if the tokenizer names no bound.
    """
    if isinstance(processor, PreTrainedTokenizerBase):
        positions = getattr(getattr(model, "config", None), "max_position_embeddings", None) or sys.maxsize
        limit = min(processor.model_max_length, positions)
        bound = {} if limit == sys.maxsize else {"truncation": True, "max_length": limit}
        return lambda text, answer: {**processor(text, **bound), "label": answer}
    if isinstance(processor, BaseImageProcessor):
        return lambda image, answer: {
            "pixel_values": processor(images=picture(image), return_tensors="pt")["pixel_values"][0],
            "label": answer,
        }
    parts = (getattr(processor, part, None) for part in ("image_processor", "tokenizer"))
    return next((found for part in parts if part is not None and (found := preparation(part, model))), None)


def picture(image: Any) -> Any:
    """A PIL picture of an 8-bit array; anything else unchanged, since the processor knows its scale."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        return image
    from PIL import Image

    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


class PipelineSuspect:
    """A text-classification or image-classification pipeline; label names are read through config.label2id."""

    def __init__(self, pipeline: Pipeline, batch_size: int = 64) -> None:
        self.description = f"{type(pipeline).__name__} of {type(pipeline.model).__name__}"
        self.pipeline, self.batch_size = pipeline, batch_size
        numbers: dict[str, int] = cast(Any, pipeline.model.config).label2id
        self.names = tuple(sorted(numbers, key=lambda name: numbers[name]))

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Scores (n, labels) as float NumPy."""
        numbers: dict[str, int] = cast(Any, self.pipeline.model.config).label2id
        pictures: list[Any] = [picture(x) for x in inputs]
        options = {"truncation": True} if isinstance(self.pipeline, TextClassificationPipeline) else {}
        with evaluating(self.pipeline.model):
            found = self.pipeline(pictures, top_k=len(numbers), batch_size=self.batch_size, **options)
        scores = np.full((len(pictures), len(numbers)), np.nan)
        for row, labels in zip(scores, found, strict=True):
            for label in labels:
                if label["label"] not in numbers:
                    raise SuspectError(
                        f"the pipeline answers {label['label']!r}, which config.label2id does not list: set label2id "
                        "and id2label of the model's config alike"
                    )
                row[numbers[label["label"]]] = label["score"]
        return scores


def suspect(target: Any, *, preprocess: Preprocess | None = None, batch_size: int = 64) -> Suspect | None:
    """A transformers model, classification pipeline or checkpoint folder as a suspect.

    Args:
        target: PreTrainedModel, PeftModel around one, pipeline, or a folder with config.json or adapter_config.json.
        preprocess: as in training; by default the folder's tokenizer or image processor, else the input itself.
        batch_size: inputs a forward pass.

    Raises:
        SuspectError: another kind of pipeline, or a folder that the Auto classes cannot load as a whole.
    """
    if isinstance(target, Pipeline):
        if not isinstance(target, (TextClassificationPipeline, ImageClassificationPipeline)):
            raise SuspectError(
                f"a {type(target).__name__} returns no classes: give a pipeline for text or image classification"
            )
        return PipelineSuspect(target, batch_size)
    if isinstance(target, (str, os.PathLike)):
        if not any((Path(target) / name).is_file() for name in (folders.CONFIG, folders.ADAPTER)):
            return None
        model, processor, description = folders.load(Path(target))
        result = _model_suspect(model, preprocess or preparation(processor, model), batch_size)
        result.description = description
        return result
    return _model_suspect(target, preprocess, batch_size) if isinstance(_inner(target), PreTrainedModel) else None


def _inner(model: Any) -> Any:
    """The model itself, or the one that a PeftModel of any version or a wrapper of torch holds."""
    model = unwrapped(model)
    inside = getattr(model, "get_base_model", None)
    return inside() if callable(inside) and isinstance(model, torch.nn.Module) else model


def refuse_regression(model: Any) -> None:
    """Refuse a model with one output that transformers trains with the mean squared error.

    Raises:
        InputError: its config asks for a regression, or for nothing, which is one where `num_labels` is 1.
    """
    inner = _inner(model)
    config, library = getattr(inner, "config", None), type(inner).__module__.startswith("transformers.")
    problem = getattr(config, "problem_type", None)
    if getattr(config, "num_labels", None) == 1 and (problem == "regression" or (problem is None and library)):
        raise InputError(
            f"{type(inner).__name__} has num_labels=1 and regresses (problem_type={problem!r}), and a watermark is "
            'taught to a classifier: set num_labels=2, or problem_type="multi_label_classification" with labels [0.0] '
            "and [1.0]"
        )


def _model_suspect(target: Any, preprocess: Preprocess | None, batch_size: int) -> ModuleSuspect:
    model: PreTrainedModel = _inner(target)
    padding = getattr(model.config, "pad_token_id", None) or 0

    def forward(module: torch.nn.Module, examples: list[Any]) -> torch.Tensor:
        rows = [_named(example, model) for example in examples]
        names = [name for name in rows[0] if name not in LABELS]
        batch = {n: _join([r[n] for r in rows], padding if n == "input_ids" else 0) for n in names}
        return forward_batch(module, batch)

    return ModuleSuspect(target, preprocess=preprocess, batch_size=batch_size, forward=forward)


def _named(example: Any, model: PreTrainedModel) -> Mapping[str, Any]:
    if isinstance(example, Mapping):
        return example
    value = example[0] if isinstance(example, (tuple, list)) else example
    if isinstance(value, str):
        raise SuspectError(
            f"a {type(model).__name__} alone cannot read text: give its checkpoint folder with the tokenizer in it, a "
            "pipeline, or the preprocess= of training"
        )
    return {model.main_input_name: value}


def _join(values: list[Any], padding: int) -> torch.Tensor:
    tensors = [torch.as_tensor(value) for value in values]
    if tensors[0].ndim == 1:
        return pad_sequence(tensors, batch_first=True, padding_value=padding)
    return torch.stack(tensors)
