"""The Trainer as a loop of `Marking`, and the state that it reads from the Trainer."""

import inspect
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast

from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import RemoveColumnsCollator

from wmplug.adapters.torch.batches import base_loader, own_collate, peek
from wmplug.adapters.torch.board import Board
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.adapters.torch.points import OFFERED
from wmplug.adapters.torch.schema import fit
from wmplug.adapters.transformers.folders import read_weights
from wmplug.errors import InputError, WmplugError
from wmplug.training.loop import At
from wmplug.watermark.watermark import Preprocess

Event = Literal["evaluate", "save", "train_end"]
EVENTS: tuple[Event, ...] = ("evaluate", "save", "train_end")
STATE = "wmplug"
T = TypeVar("T")


class TrainerLoop:
    """The objects that the Trainer passes to its callbacks in one call of train(); None before the first."""

    args: TrainingArguments
    state: TrainerState
    control: TrainerControl
    handler: CallbackHandler | None
    asked: ModuleSuspect
    board: Board | None = None

    name: ClassVar[str] = "transformers"
    points: ClassVar[frozenset[str]] = OFFERED
    calls: ClassVar[frozenset[str]] = frozenset({"classify"})
    events: ClassVar[tuple[str, ...]] = EVENTS

    @property
    def main(self) -> bool:
        """Whether this is the process of rank 0."""
        return self.state.is_world_process_zero

    @property
    def at(self) -> At:
        """Now."""
        return At(self.state.global_step, self.state.epoch)

    def suspect(self) -> ModuleSuspect:
        """The model, asked as the Trainer trains it."""
        return self.asked

    def agree(self, value: T) -> T:
        """The main process's value, broadcast."""
        shared: list[Any] = [value]
        if self.args.world_size > 1:
            broadcast_object_list(shared)
        agreed: T = shared[0]
        return agreed

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Log to log_history and to the Trainer's reporters."""
        logs = {**numbers, **({} if at.epoch is None else {"epoch": at.epoch})}
        self.state.log_history.append({**logs, "step": self.state.global_step})
        if self.handler is not None:
            asked_to_log = self.control.should_log
            self.handler.on_log(self.args, self.state, self.control, logs)
            self.control.should_log = asked_to_log

    def stop(self) -> None:
        """End training after this step."""
        self.control.should_training_stop = True

    def set_rate(self, rate: int) -> None:
        """Set the rate, which reaches worker processes with their next batch."""
        if self.board is not None:
            self.board.rate = rate

    @property
    def injected(self) -> int:
        """Triggers that reached batches in this run."""
        return 0 if self.board is None else self.board.injected

    @property
    def other_label(self) -> int | None:
        """A label of the data that is no class of the mark, or None."""
        return None if self.board is None else self.board.other_label

    @property
    def remembered(self) -> dict[str, Any]:
        """The state that a resumed Trainer restores by the callback's name."""
        return cast("dict[str, Any]", self.state.stateful_callbacks)

    def rewrite(self, folder: Path) -> None:
        """Write the state again, since the Trainer wrote it before the look that a resumed run must count."""
        path = folder / "trainer_state.json"
        if path.is_file():
            temporary = folder / f".trainer_state.{os.getpid()}"
            self.state.save_to_json(str(temporary))
            os.replace(temporary, path)


def loaded(folder: Path, like: ModuleSuspect) -> ModuleSuspect:
    """The files of a checkpoint, asked like the live model."""
    trained = cast(PreTrainedModel, like.model)
    model = read_weights(type(trained), folder)[0].to(cast(Any, trained.device))
    suspect = ModuleSuspect(model, preprocess=like.preprocess, batch_size=like.batch_size, forward=like.forward)
    suspect.description = str(folder)
    return suspect


def refuse_lossy(suspect: ModuleSuspect) -> None:
    """Save the model once and load it, as `verify_saved` does at each checkpoint.

    A model whose weights lie on several machines stays as it is.

    Raises:
        InputError: the files cannot be loaded.
    """
    if not all(parameter.numel() for parameter in suspect.model.parameters()):
        return
    with tempfile.TemporaryDirectory(prefix="wmplug-") as folder:
        try:
            cast(PreTrainedModel, suspect.model).save_pretrained(folder)
            loaded(Path(folder), suspect)
        # The model's own saving and loading may raise anything.
        except Exception as error:
            about = error if isinstance(error, WmplugError) else f"{type(error).__name__}: {error}"
            raise InputError(
                "verify_saved reads the files of each checkpoint, and those of this model cannot be read, tried before "
                f"the first step ({about}): leave verify_saved out, or mend save_pretrained and from_pretrained"
            ) from error


def fitted(prepare: Preprocess | None, loader: Any, classes: int) -> Preprocess:
    """`prepare`, then into the schema of the dataset's first example."""
    like, collate = peek(base_loader(loader).dataset), own_collate(loader)
    dropped: dict[str, Any] = {}
    if isinstance(collate, RemoveColumnsCollator) and isinstance(like, Mapping):
        # A trigger needs no counterpart to columns that the Trainer drops before the model: they are copied.
        dropped = {name: value for name, value in like.items() if name not in collate.signature_columns}
        like = {name: value for name, value in like.items() if name in collate.signature_columns}

    def made_to_fit(x: Any, answer: int) -> Any:
        example = (x, answer) if prepare is None else prepare(x, answer)
        result: Any = example if like is None else fit(example, like, classes)
        return {**result, **dropped} if dropped else result

    return made_to_fit


def weight(args: TrainingArguments, model: Any) -> float:
    """The weight of a term in each forward's loss, since the Trainer sums losses over an accumulated batch."""
    accepts = getattr(model, "accepts_loss_kwargs", None)
    if accepts is None:
        parameters = inspect.signature(model.forward).parameters.values()
        accepts = any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    if not accepts:
        return 1.0
    ranks = args.world_size if args.average_tokens_across_devices else 1
    return 1.0 / (args.gradient_accumulation_steps * ranks)


def calling_handler() -> CallbackHandler | None:
    """The Trainer's list of callbacks, from the calling frame, since nothing that it hands out leads there."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(caller := frame.f_locals.get("self"), CallbackHandler):
            return caller
        frame = frame.f_back
    return None
