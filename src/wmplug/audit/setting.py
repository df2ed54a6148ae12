"""What an attacker has: data, architectures, time."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from wmplug.errors import InputError
from wmplug.schemes import Scheme
from wmplug.watermark.carriers import read_whole


@dataclass(frozen=True, eq=False)
class Setting:
    """What an attacker has, and how his spoils are measured.

    Attributes:
        inputs: (n, ...) his own inputs, as the model takes them, on the CPU.
        labels: (n,) int64, their true labels.
        test_inputs: (k, ...) inputs on which accuracy is measured; neither trained on nor asked.
        test_labels: (k,) int64.
        classes: of the task.
        architectures: functions that make an untrained network from inputs to logits (n, classes); clones are of the
            first, ensembles take turns. Of another make than the owner's, if cloning is to be hard.
        queries: (m, ...) inputs of the task that he has the owner's model label; by default his own.
        others: (m, ...) inputs that are not of the task, for who has none that are.
        epochs: to train a network from scratch.
        tuning_epochs: to tune one that is trained already.
        learning_rate: of Adam, for both.
        batch_size: for both.
        scheme: what he knows of the watermark, which is all but the key; `run` fills it in.
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
    epochs: int = 20
    tuning_epochs: int = 10
    learning_rate: float = 1e-3
    batch_size: int = 32
    scheme: Scheme | None = None
    make: Callable[[float | None, int], tuple[Any, torch.nn.Module]] | None = None

    def __post_init__(self) -> None:
        read_whole(self.classes, "classes", 2, 2**31, "a classifier of at least 2 classes is needed")
        for name in ("epochs", "tuning_epochs", "batch_size"):
            read_whole(getattr(self, name), name, 1, 10**6, "give at least 1")
        if not (isinstance(self.learning_rate, (int, float)) and 0 < self.learning_rate < 10):
            raise InputError(f"learning_rate={self.learning_rate!r}: a number above 0 is needed, 1e-3 is usual")
        self._check_labels("inputs", self.inputs, "labels", self.labels)
        self._check_labels("test_inputs", self.test_inputs, "test_labels", self.test_labels)
        for name in ("test_inputs", "queries", "others"):
            given = getattr(self, name)
            if given is not None and (_shape(given)[1:] != _shape(self.inputs)[1:] or not len(given)):
                raise InputError(
                    f"{name} have shape {_shape(given)}, inputs {_shape(self.inputs)}: give tensors of the same kind, "
                    "with at least one row"
                )
        if not self.architectures or not all(callable(make) for make in self.architectures):
            raise InputError(
                f"architectures={self.architectures!r}: give functions that make an untrained network, at least one"
            )

    def _check_labels(self, name: str, inputs: Any, of: str, labels: Any) -> None:
        if not (isinstance(inputs, torch.Tensor) and isinstance(labels, torch.Tensor)):
            raise InputError(f"{name} and {of} are {type(inputs).__name__} and {type(labels).__name__}: give tensors")
        if not len(inputs) or labels.shape != (len(inputs),) or labels.dtype != torch.int64:
            raise InputError(
                f"{of} have shape {_shape(labels)} and dtype {labels.dtype} for {len(inputs)} {name}: one int64 class "
                "for each is needed"
            )
        if labels.min() < 0 or labels.max() >= self.classes:
            raise InputError(f"{of} run from {labels.min()} to {labels.max()}, classes={self.classes}: they must fit")

    @property
    def asked(self) -> torch.Tensor:
        """What he has the owner's model label."""
        return self.inputs if self.queries is None else self.queries

    @property
    def span(self) -> tuple[float, float]:
        """The least and the largest value in his inputs: black and white, where they are pictures."""
        return float(self.inputs.min()), float(self.inputs.max())

    def need_pictures(self, attack: str) -> None:
        """Raise InputError unless inputs are pictures (n, channels, height, width) of 1 or 3 channels."""
        if self.inputs.ndim != 4 or self.inputs.shape[1] not in (1, 3):
            raise InputError(
                f"{attack} is for pictures (n, 1 or 3, height, width), inputs have shape {_shape(self.inputs)}: leave "
                "it out"
            )


def _shape(given: Any) -> tuple[int, ...]:
    return tuple(getattr(given, "shape", ()))
