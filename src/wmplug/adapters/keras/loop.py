"""`model.fit` as a loop of `Marking`, and the data and examples that it reads from `fit`."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import tree

from wmplug.adapters.keras.batches import as_array
from wmplug.adapters.keras.step import TriggerStep
from wmplug.adapters.keras.suspects import KerasSuspect
from wmplug.errors import InputError
from wmplug.tasks.classes import class_of, count_of
from wmplug.training.labels import IGNORED, other_label
from wmplug.training.loop import At, OneProcess
from wmplug.watermark.watermark import Preprocess, Watermark

Event = Literal["epoch_end", "train_end"]
EVENTS: tuple[Event, ...] = ("epoch_end", "train_end")


class KerasLoop(OneProcess):
    """One call of fit().

    Args:
        batch_size: inputs in one forward pass of a verification.

    Attributes:
        model: the one that fit() trains.
        preprocess: the watermark's.
        step: the shadow over the model's methods; None outside of training.
        logs: the dict of this moment that fit() lets its callbacks add to.
    """

    name: ClassVar[str] = "keras"
    points: ClassVar[frozenset[str]] = frozenset({"samples", "logits", "loss"})
    events: ClassVar[tuple[str, ...]] = EVENTS

    model: keras.Model

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.preprocess: Preprocess | None = None
        self.step: TriggerStep | None = None
        self.logs: dict[str, Any] | None = None

    @property
    def steps(self) -> int:
        """The optimizer's steps so far."""
        return int(self.model.optimizer.iterations)

    def suspect(self) -> KerasSuspect:
        """The model in training."""
        return KerasSuspect(self.model, preprocess=self.preprocess, batch_size=self.batch_size)

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Add to the logs that History and the later callbacks see."""
        if self.logs is not None:
            self.logs.update(numbers)

    def stop(self) -> None:
        """End training after this epoch."""
        self.model.stop_training = True

    def set_rate(self, rate: int) -> None:
        """Compile the step anew."""
        if self.step is not None and self.step.rate != rate:
            self.step.rate = rate
            self.step.retrace(self.model)


def fitted_data(model: keras.Model) -> Any:
    """The data that `fit` was given, from its frame, since nothing that it hands to callbacks leads there."""
    x, y = _given(model)
    if y is None:
        return x
    return {**_named("x", x), **_named("y", y)} if isinstance(x, Mapping) or isinstance(y, Mapping) else (x, y)


def other_label_of(model: keras.Model, labels: Any, classes: int) -> int | None:
    """A label that is none of the classes, and that the model's loss does not ignore.

    Args:
        model: compiled.
        labels: of a batch; None for all that `fit` was given as an array.
        classes: of the task.
    """
    given = _given(model)[1] if labels is None else labels
    leaves = [part for part in tree.flatten(given) if hasattr(part, "dtype")]
    own = (getattr(loss, "ignore_class", None) for loss in tree.flatten(getattr(model, "loss", None)))
    ignored = IGNORED | {index for index in own if isinstance(index, int)}
    return other_label(as_array(leaves[0]), classes, ignored) if len(leaves) == 1 else None


def _given(model: keras.Model) -> tuple[Any, Any]:
    frame = inspect.currentframe()
    while frame is not None:
        names = frame.f_locals
        if frame.f_code.co_name == "fit" and names.get("self") is model:
            return names.get("x"), names.get("y")
        frame = frame.f_back
    return None, None


def _named(name: str, value: Any) -> dict[str, Any]:
    return {f"{name}.{key}": column for key, column in value.items()} if isinstance(value, Mapping) else {name: value}


def example(mark: Watermark, value: Any, answer: int) -> tuple[Any, int]:
    """A lesson as (x, y), prepared by the watermark's preprocess where it has one.

    Raises:
        InputError: preprocess returned something else, or another label.
    """
    if mark.preprocess is None:
        return value, answer
    classes = count_of(mark.task, "keras")
    pair = mark.preprocess(value, answer)
    given = as_array(pair[1]) if isinstance(pair, tuple) and len(pair) == 2 else np.empty(0)
    label: Any = class_of(given, classes)
    if label is None and given.size == 1:  # Keras takes class numbers as floats too
        label = given.reshape(())[()]
    if label is None:
        what = f"a tuple of {len(pair)}" if isinstance(pair, tuple) else f"a {type(pair).__name__}"
        raise InputError(
            f"preprocess returned {what}: with Keras it must turn (input, answer) into (x, y) as the dataset yields "
            "them, y one integer class, or one-hot as its batches are"
        )
    if label != answer:
        raise InputError(
            f"preprocess returned the label {label!r} for the answer {answer}: it must return the "
            "given answer as y, because that is what the model should learn"
        )
    return pair[0], answer
