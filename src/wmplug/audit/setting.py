"""An attacker's means: data, architectures, time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from wmplug.errors import InputError
from wmplug.schemes import Scheme
from wmplug.statistics.arrays import read_whole


@dataclass(frozen=True, eq=False)
class Setting:
    """An attacker's means, and the data that measure the copies.

    Attributes:
        inputs: (n, ...) the attacker's own inputs, as the model takes them, on the CPU.
        labels: (n,) int64, their true labels.
        test_inputs: (k, ...) inputs on which accuracy is measured; neither trained on nor asked.
        test_labels: (k,) int64.
        classes: of the task.
        architectures: functions that make an untrained network from inputs to logits (n, classes); clones are of the
            first, ensembles take turns. Take other architectures than the owner's to make cloning hard.
        queries: (m, ...) inputs of the task that the owner's model labels for the attacker; by default `inputs`.
        service: what attacks of the family `extraction` ask in place of the model, from inputs to scores;
            `ask_service` sets it.
        others: (m, ...) inputs outside the task, for an attacker without inputs of the task.
        epochs: for a network from scratch.
        tuning_epochs: for a network that is trained already.
        learning_rate: Adam's, for both.
        batch_size: for both.
        scheme: the attacker's knowledge of the watermark, all of it but the key; `run` fills it in.
        make: for `sweep` alone: from a parameter's value (None: no mark) and a seed to (mark or None, trained model).
    """

    inputs: torch.Tensor = field(repr=False)
    labels: torch.Tensor = field(repr=False)
    test_inputs: torch.Tensor = field(repr=False)
    test_labels: torch.Tensor = field(repr=False)
    classes: int
    architectures: tuple[Callable[[], torch.nn.Module], ...]
    queries: torch.Tensor | None = field(repr=False, default=None)
    others: torch.Tensor | None = field(repr=False, default=None)
    service: torch.nn.Module | None = field(repr=False, default=None)
    epochs: int = 20
    tuning_epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int = 32
    scheme: Scheme | None = None
    make: Callable[[float | None, int], tuple[Any, torch.nn.Module]] | None = None

    def __post_init__(self) -> None:
        read_whole(self.classes, "classes", 2, 2**31, "give at least 2 classes")
        for name in ("epochs", "tuning_epochs", "batch_size"):
            read_whole(getattr(self, name), name, 1, 10**6, "give at least 1")
        if not (isinstance(self.learning_rate, (int, float)) and 0 < self.learning_rate < 10):
            raise InputError(f"learning_rate={self.learning_rate!r}: give a number above 0 and below 10, 1e-3 is usual")
        self._check_labels("inputs", self.inputs, "labels", self.labels)
        self._check_labels("test_inputs", self.test_inputs, "test_labels", self.test_labels)
        for name in ("test_inputs", "queries", "others"):
            value = getattr(self, name)
            if value is not None and (_shape(value)[1:] != _shape(self.inputs)[1:] or not len(value)):
                raise InputError(
                    f"{name} have shape {_shape(value)}, inputs {_shape(self.inputs)}: give tensors of the same kind, "
                    "with at least one row"
                )
        if self.service is not None and not isinstance(self.service, torch.nn.Module):
            raise InputError(f"service is a {type(self.service).__name__}: give a torch module, as ask_service does")
        if not self.architectures or not all(callable(make) for make in self.architectures):
            raise InputError(
                f"architectures={self.architectures!r}: give functions that make an untrained network, at least one"
            )

    def _check_labels(self, name: str, inputs: Any, of: str, labels: Any) -> None:
        if not (isinstance(inputs, torch.Tensor) and isinstance(labels, torch.Tensor)):
            raise InputError(f"{name} and {of} are {type(inputs).__name__} and {type(labels).__name__}: give tensors")
        if not len(inputs) or labels.shape != (len(inputs),) or labels.dtype != torch.int64:
            raise InputError(
                f"{of} have shape {_shape(labels)} and dtype {labels.dtype} for {len(inputs)} {name}: give one int64 "
                "class for each"
            )
        if labels.min() < 0 or labels.max() >= self.classes:
            raise InputError(
                f"{of} run from {labels.min()} to {labels.max()}, classes={self.classes}: give labels from 0 to below "
                "classes="
            )

    @property
    def asked(self) -> torch.Tensor:
        """The inputs that the owner's model labels for the attacker."""
        return self.inputs if self.queries is None else self.queries

    @property
    def span(self) -> tuple[float, float]:
        """The least and the largest value in the inputs: black and white, if they are pictures."""
        return float(self.inputs.min()), float(self.inputs.max())

    def need_pictures(self, attack: str) -> None:
        """Raise InputError unless inputs are pictures (n, channels, height, width) of 1 or 3 channels."""
        if self.inputs.ndim != 4 or self.inputs.shape[1] not in (1, 3):
            raise InputError(
                f"{attack} is for pictures (n, 1 or 3, height, width), inputs have shape {_shape(self.inputs)}: leave "
                "it out"
            )


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))
