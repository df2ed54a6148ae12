"""`model.fit` as a loop of `Marking`, and what is read out of it."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import keras

from wmplug.adapters.keras.batches import as_array
from wmplug.adapters.keras.step import TriggerStep
from wmplug.adapters.keras.suspects import KerasSuspect
from wmplug.errors import InputError
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
        step: what shadows the model's methods; None outside of training.
        logs: what fit() gave its callbacks to add to, at this moment.
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
        """Of the optimizer, so far."""
        return int(self.model.optimizer.iterations)

    def suspect(self) -> KerasSuspect:
        """The model in training."""
        return KerasSuspect(self.model, preprocess=self.preprocess, batch_size=self.batch_size)

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Into what History and the callbacks after this one see."""
        if self.logs is not None:
            self.logs.update(numbers)

    def stop(self) -> None:
        """After this epoch."""
        self.model.stop_training = True

    def set_rate(self, rate: int) -> None:
        """Compiles the step anew."""
        if self.step is not None and self.step.rate != rate:
            self.step.rate = rate
            self.step.retrace(self.model)


def fitted_data(model: keras.Model) -> Any:
    """What `fit` was given: nothing that it hands to callbacks leads there, but its frame does."""
    frame = inspect.currentframe()
    while frame is not None:
        found = frame.f_locals
        if frame.f_code.co_name == "fit" and found.get("self") is model:
            x, y = found.get("x"), found.get("y")
            if y is None:
                return x
            return {**_named("x", x), **_named("y", y)} if isinstance(x, Mapping) or isinstance(y, Mapping) else (x, y)
        frame = frame.f_back
    return None


def _named(name: str, given: Any) -> dict[str, Any]:
    return {f"{name}.{key}": column for key, column in given.items()} if isinstance(given, Mapping) else {name: given}


def example(mark: Watermark, given: Any, answer: int) -> tuple[Any, int]:
    """A lesson as (x, y), prepared by the watermark's preprocess where it has one.

    Raises:
        InputError: preprocess returned something else, or another label.
    """
    if mark.preprocess is None:
        return given, answer
    made = mark.preprocess(given, answer)
    if not isinstance(made, tuple) or len(made) != 2 or (label := as_array(made[1])).size != 1:
        what = f"a tuple of {len(made)}" if isinstance(made, tuple) else f"a {type(made).__name__}"
        raise InputError(
            f"preprocess returned {what}: with Keras it turns (input, answer) into (x, y) as the dataset yields them, "
            "y one integer class"
        )
    if label.reshape(())[()] != answer:
        raise InputError(
            f"preprocess returned the label {label.reshape(())[()]!r} for the answer {answer}: it has to return the "
            "answer it is given as y, the model is to learn that"
        )
    return made[0], answer
