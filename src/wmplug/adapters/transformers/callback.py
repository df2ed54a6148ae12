"""The transformers Trainer, and what is built on it.

    Trainer.train():
        loader = accelerator.prepare(DataLoader(..., collate_fn=data_collator))
        on_train_begin                              <- collate_fn wrapped, hooks of `logits` and `loss` set
        for epoch in epochs:
            for features in loader:                 <- triggers join the features before the user's collator
                batch = collate_fn(features)
                loss = model(**batch).loss          <- shifted or added to, where the scheme uses `logits` or `loss`
                loss.backward(); optimizer.step()
                on_step_end                         <- rate and looks go into TrainerState, for a resumed run
                if evaluate: on_evaluate(metrics)   <- verify, log, metrics["eval_watermark_..."]
                if save:     on_save                <- verify (once a step), log, checkpoint-N/wmplug.json
        if load_best_model_at_end: load it
        on_train_end                                <- verify, log, on_failure, hooks removed

Every verification logs `watermark/log10_p`, `watermark/log10_e`, `watermark/e_value` (cut at 1e30, which TensorBoard's
floats still hold), `watermark/matches`, `watermark/rate` and `watermark/state`; TensorBoard shows them under `train/`.
For `metric_for_best_model` there are `eval_watermark_log10_e` and `eval_watermark_matches` (greater is better) and
`eval_watermark_log10_p` (with `greater_is_better=False`).
"""

import inspect
import math
import operator
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, RemoveColumnsCollator

from wmplug.adapters.torch.batches import Board, TriggerCollate, base_loader, fit, own_collate, peek, prepared, wrap
from wmplug.adapters.torch.flatness import Flatness, need_radius
from wmplug.adapters.torch.loop import refuse_held
from wmplug.adapters.torch.modules import ModuleSuspect, forward_batch
from wmplug.adapters.torch.points import DIVERGED, Guard, TorchPoints, need_mark, need_points, strip
from wmplug.adapters.transformers.suspects import preparation
from wmplug.adapters.transformers.suspects import suspect as suspect
from wmplug.claim.monitor import Monitor
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import TARGET_E
from wmplug.errors import InjectionWarning, InputError, SuspectError, VerificationError, VerificationWarning
from wmplug.tasks.classes import read_answers
from wmplug.training import sidecar
from wmplug.training.placement import PPM, Mode, Placement, read_rate
from wmplug.training.record import Run, weights_of
from wmplug.watermark.watermark import Preprocess, Watermark

Event = Literal["evaluate", "save", "train_end"]
EVENTS: tuple[Event, ...] = ("evaluate", "save", "train_end")
STATE = "wmplug"
_LOUDEST = 30.0


@dataclass
class _Run:
    """What lasts one call of train()."""

    args: TrainingArguments
    state: TrainerState
    control: TrainerControl
    handler: CallbackHandler | None
    board: Board
    monitor: Monitor
    suspect: ModuleSuspect
    points: TorchPoints
    guard: Guard | None
    record: Run
    last: Verdict | None = None
    flatness: Flatness | None = None

    @property
    def remembered(self) -> dict[str, Any]:
        return {
            "root": self.monitor.mark.public["root"],
            "rate": self.board.rate,
            "looks": list(self.monitor.looks),
        }


class WatermarkCallback(TrainerCallback):
    """Watermarks the model that a Trainer trains, and verifies it at checkpoints.

    Triggers are prepared by `mark.preprocess`, else by the Trainer's `processing_class` where that is a tokenizer or an
    image processor, else taken as they are; then fitted to the dataset's first example (a dataset without index is
    iterated once for it). After a resume the same triggers come in the same steps; only with `rate="auto"` may the
    batches that were prefetched when the rate changed get another number of them.

    Args:
        mark: the watermark.
        rate: share of triggers in what the model sees, above 0 and at most .5; the scheme's by default, or "auto".
        mode: `append` to the batch, or `replace` rows of it.
        verify_on: when to verify; the model of one step is verified once.
        verify_saved: also load the files just written (main process) and verify those.
        on_failure: when the watermark was proven and is lost (`Monitor.lost`), or is not proven at the end: "warn";
            "raise" VerificationError; "stop" warns and ends training.
        target_e: e-value from which on the watermark counts as proven.
        batch_size: inputs a forward pass when verifying.
        head: the module, or its name, that returns logits; only for schemes that shift them, where it is not found.
        training_set: what to commit to in the register as the training set; by default what the loader reads.
        require_evidence: end a run that cannot be recorded in the mark's register, instead of a warning.
        flat: share of their norm by which weights may move and the triggers still hold; 0.02 is usual, 0 is off. More
            is left after fine-tuning, less where only the last layer is retrained; costs two passes of 16 triggers.

    Raises:
        InputError: an option out of range.
        InjectionError: the scheme needs a point of training that this adapter does not offer.
    """

    def __init__(
        self,
        mark: Watermark,
        *,
        rate: float | Literal["auto"] | None = None,
        mode: Mode = "append",
        verify_on: Sequence[Event] = EVENTS,
        verify_saved: bool = False,
        on_failure: Literal["warn", "raise", "stop"] = "warn",
        target_e: float = TARGET_E,
        batch_size: int = 64,
        head: str | torch.nn.Module | None = None,
        training_set: Any = None,
        require_evidence: bool = False,
        flat: float = 0.0,
    ) -> None:
        need_mark(mark, head)
        need_radius(flat, mark)
        need_points("transformers", mark.scheme)
        if isinstance(verify_on, str):
            raise InputError(f"verify_on is {verify_on!r}: give a tuple of some of {', '.join(EVENTS)}")
        if unknown := set(verify_on) - set(EVENTS):
            raise InputError(f"verify_on has {sorted(unknown)}: choose from {', '.join(EVENTS)}")
        if on_failure not in ("warn", "raise", "stop"):
            raise InputError(f"on_failure={on_failure!r}: choose 'warn', 'raise' or 'stop'")
        if not _at_least_one(batch_size):
            raise InputError(f"batch_size={batch_size!r}: give a whole number, at least 1")
        self.mark, self.mode, self.verify_on, self.verify_saved = mark, mode, frozenset(verify_on), verify_saved
        self.on_failure, self.target_e, self.batch_size, self.head = on_failure, target_e, batch_size, head
        self._rate, self._auto = read_rate(rate, mark.scheme.rate)
        self._training_set, self._require, self._flat = training_set, require_evidence, flat
        self._run: _Run | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wrap the loader's collate_fn, set hooks, and ask the model one question to see that it can be asked.

        Raises:
            InputError: triggers do not fit the dataset, the model has another number of classes or, for verify_saved,
                no from_pretrained, or there is a second WatermarkCallback.
            InjectionError: the loader does not collate, or a `Watermarking` of a torch loop holds it or the model.
            RegisterError: the run cannot be recorded, and evidence is required.
        """
        model, loader, handler = kwargs["model"], kwargs["train_dataloader"], _calling_handler()
        if handler is not None:
            self._go_first(handler)
        if self.verify_saved and not isinstance(model, PreTrainedModel):
            raise InputError(
                f"verify_saved loads files with from_pretrained, which a {type(model).__name__} has not: leave it out, "
                "or train a PreTrainedModel"
            )
        refuse_held(model, loader)
        strip(model)
        saved = _saved(state, self.mark)
        board = Board(saved.get("rate", self._rate) if self._auto else self._rate)
        prepare = _fitted(self.mark.preprocess or preparation(kwargs.get("processing_class"), model), loader)
        collate = own_collate(loader)
        run = _Run(
            args=args,
            state=state,
            control=control,
            handler=handler,
            board=board,
            monitor=Monitor(self.mark, target_e=self.target_e, looks=saved.get("looks", ())),
            suspect=ModuleSuspect(
                model,
                preprocess=prepare,
                batch_size=self.batch_size,
                forward=lambda module, examples: forward_batch(module, collate(examples)),
            ),
            points=TorchPoints(self.mark, model, head=self.head, in_loss=True, weight=_weight(args, model)),
            guard=self._inject(args, model, loader, prepare, board),
            record=Run(self.mark, "transformers", require=self._require, main=state.is_world_process_zero),
        )
        self._ask_once(run)
        data = base_loader(loader).dataset if self._training_set is None else self._training_set
        run.record.start(data=data, arguments=args, model=model)
        run.points.install(run.suspect)
        if self._flat:
            run.flatness = Flatness(self.mark, run.suspect, self._flat, board.rate / PPM)
            run.flatness.install()
        if run.guard is not None:
            run.guard.install()
        self._run = run

    def _go_first(self, handler: CallbackHandler) -> None:
        marking = [callback for callback in handler.callbacks if isinstance(callback, WatermarkCallback)]
        if len(marking) > 1:
            raise InputError(
                f"the Trainer has {len(marking)} WatermarkCallbacks, and each would undo the one before: train with one"
            )
        # Metrics are there when EarlyStopping looks, and TensorBoard is still open at the end.
        handler.callbacks.remove(self)
        handler.callbacks.insert(0, self)

    def _inject(
        self, args: TrainingArguments, model: torch.nn.Module, loader: Any, prepare: Preprocess, board: Board
    ) -> Guard | None:
        if "samples" not in self.mark.scheme.points:
            return None
        examples = prepared(self.mark.lessons(), prepare)
        placement = Placement.draw(self.mark.subkeys.stream("schedule", self.mode), len(examples), self.mode)
        # Only accelerate's dispatcher has the attribute: the main process collates, the others get their part.
        dispatched = hasattr(loader, "split_batches")
        world = args.world_size if dispatched else 1
        wrap(loader, lambda collate: TriggerCollate(collate, examples, placement, board, world))
        if dispatched and args.process_index > 0:
            return None
        return Guard(board, model, args.train_batch_size * board.rate / PPM)

    def _ask_once(self, run: _Run) -> None:
        try:
            answer = run.suspect.answer([self.mark.triggers.first])
            if read_answers(answer, self.mark.classes, run.suspect.description) == [None]:
                raise SuspectError(f"{run.suspect.description} answers NaN before it is trained")
        except SuspectError as error:
            raise InputError(
                f"the model cannot be asked: {error} (the watermark's classes= must be the model's num_labels, and its "
                "output must have logits)"
            ) from error

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put rate and looks where the Trainer saves them; end a training that broke the weights."""
        if (run := self._run) is None:
            return
        _remember(run)
        if run.points.diverged:
            control.should_training_stop = True
            self._restore(run)

    def _restore(self, run: _Run) -> None:
        run.points.restore()
        warnings.warn(
            f"{DIVERGED}; training stops at step {run.state.global_step}, and the model has the weights of the "
            "beginning of the epoch again",
            InjectionWarning,
            stacklevel=3,
        )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the weights, for a training that breaks them."""
        if self._run is not None:
            self._run.points.keep()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record how many triggers came."""
        if self._run is not None:
            self._run.record.inserted(self._run.board.injected, step=state.global_step, epoch=state.epoch)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Verify, log, and put the result among the metrics.

        Raises:
            VerificationError: the watermark was proven, is lost, and on_failure is "raise".
        """
        if self._run is None or "evaluate" not in self.verify_on:
            return
        if (verdict := self._look(self._run)) is not None:
            self._run.record.checkpoint(verdict, step=state.global_step, epoch=state.epoch)
            found = {"log10_p": verdict.log10_p, "log10_e": verdict.log10_e, "matches": verdict.matches}
            kwargs["metrics"].update({f"eval_watermark_{name}": value for name, value in found.items()})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Verify, log, and write the sidecar; with verify_saved, verify the files too.

        Raises:
            VerificationError: as in `on_evaluate`, or the files do not prove what the model does.
        """
        if (run := self._run) is None:
            return
        looks = len(run.monitor.looks)
        live = self._look(run) if "save" in self.verify_on else None
        folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if not (state.is_world_process_zero and folder.is_dir()):
            return
        run.record.checkpoint(live, step=state.global_step, epoch=state.epoch, system=weights_of(folder))
        saved = self._look_at_files(run, folder) if self.verify_saved else None
        if len(run.monitor.looks) > looks:
            # The Trainer wrote its state before this event; a resumed run shall know of these looks.
            _rewrite_state(state, folder)
        found = {"step": state.global_step, "rate": run.board.rate / PPM, "verdict": live, "saved": saved}
        sidecar.write(folder / sidecar.NAME, self.mark, **found)
        # The second look of a step weighs less: the same answers are no failure.
        if saved and live and live.proven and not saved.proven and saved.matches < live.matches:
            self._fail(run, f"the model in memory proves the watermark, the files in {folder} do not ({saved})")

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove what was set, verify the final model, act on failure.

        Raises:
            InjectionError: no trigger came in the whole run.
            VerificationError: the watermark is not proven, and on_failure is "raise".
        """
        if (run := self._run) is None:
            return
        self._run = None
        if not run.points.diverged:
            run.points.look()
            if run.points.diverged:
                self._restore(run)
        run.points.remove()
        run.points.finish()
        if run.flatness is not None:
            run.flatness.remove()
        if run.guard is not None:
            run.guard.finish()
        if "train_end" in self.verify_on:
            # The best model may have been loaded since the last look.
            self._look(run, afresh=bool(args.load_best_model_at_end))
        total, step = run.board.injected, state.global_step
        run.record.finish(run.last, step=step, epoch=state.epoch, system=run.suspect.model, total=total)
        if run.last is not None and not run.last.proven:
            self._fail(run, f"the trained model does not prove the watermark ({run.last}): train longer or raise rate=")

    def _look(self, run: _Run, afresh: bool = False) -> Verdict | None:
        step = run.state.global_step
        if run.last is not None and run.last.step == step and not afresh:
            return run.last
        # Every rank asks, since a sharded model answers only when all take part; all go by what main found, since
        # buffers such as running means differ between them.
        found: list[Any] = [self._ask(run, run.suspect), run.monitor.looks]
        if run.args.world_size > 1:
            broadcast_object_list(found)
        verdict, run.monitor.looks = found
        if not isinstance(verdict, Verdict):
            self._fail(run, verdict)
            return None
        run.last = verdict
        if self._auto is not None:
            run.board.rate = self._auto.next(run.board.rate, verdict.log10_e, math.log10(self.target_e))
        _report(run, "watermark", verdict)
        if run.monitor.lost:
            self._fail(run, f"the watermark was proven earlier and is not at step {step} ({verdict}): raise rate=")
        return verdict

    def _look_at_files(self, run: _Run, folder: Path) -> Verdict | None:
        live = run.suspect
        trained = cast(PreTrainedModel, live.model)
        model = type(trained).from_pretrained(folder).to(cast(Any, trained.device))
        asked = ModuleSuspect(model, preprocess=live.preprocess, batch_size=live.batch_size, forward=live.forward)
        asked.description = str(folder)
        verdict = self._ask(run, asked)
        if not isinstance(verdict, Verdict):
            self._fail(run, verdict)
            return None
        _report(run, "watermark/saved", verdict)
        return verdict

    def _ask(self, run: _Run, asked: ModuleSuspect) -> Verdict | str:
        about = {"adapter": "transformers", "epoch": run.state.epoch}
        try:
            main = run.state.is_world_process_zero
            return run.monitor.look(asked, step=run.state.global_step, run=about, tell=main)
        except SuspectError as error:
            # NaN throughout: whether a run that is lost for other reasons ends, is for on_failure to say.
            return f"step {run.state.global_step} cannot be verified: {error}"

    def _fail(self, run: _Run, message: str) -> None:
        if self.on_failure == "raise":
            raise VerificationError(message)
        run.control.should_training_stop |= self.on_failure == "stop"
        warnings.warn(message, VerificationWarning, stacklevel=3)


def _at_least_one(value: Any) -> bool:
    try:
        return operator.index(value) >= 1
    except TypeError:
        return False


def _fitted(prepare: Preprocess | None, loader: Any) -> Preprocess:
    """`prepare`, then into the schema of the dataset's first example."""
    like, collate = peek(base_loader(loader).dataset), own_collate(loader)
    dropped: dict[str, Any] = {}
    if isinstance(collate, RemoveColumnsCollator) and isinstance(like, Mapping):
        # Columns the Trainer drops before the model need no counterpart in a trigger: they are copied along.
        dropped = {name: value for name, value in like.items() if name not in collate.signature_columns}
        like = {name: value for name, value in like.items() if name in collate.signature_columns}

    def fitted(x: Any, answer: int) -> Any:
        example = (x, answer) if prepare is None else prepare(x, answer)
        made: Any = example if like is None else fit(example, like)
        return {**made, **dropped} if dropped else made

    return fitted


def _weight(args: TrainingArguments, model: Any) -> float:
    """Of a term added to each forward's loss, where the Trainer sums losses over an accumulated batch."""
    accepts = getattr(model, "accepts_loss_kwargs", None)
    if accepts is None:
        parameters = inspect.signature(model.forward).parameters.values()
        accepts = any(parameter.kind == inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    if not accepts:
        return 1.0
    ranks = args.world_size if args.average_tokens_across_devices else 1
    return 1.0 / (args.gradient_accumulation_steps * ranks)


def _calling_handler() -> CallbackHandler | None:
    """The Trainer's list of callbacks, which is calling us: nothing it hands out leads there, but its frame does."""
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(caller := frame.f_locals.get("self"), CallbackHandler):
            return caller
        frame = frame.f_back
    return None


def _saved(state: TrainerState, mark: Watermark) -> dict[str, Any]:
    saved = cast("dict[str, Any]", state.stateful_callbacks).get(STATE, {})
    return saved if saved.get("root") == mark.public["root"] else {}


def _remember(run: _Run) -> None:
    cast("dict[str, Any]", run.state.stateful_callbacks)[STATE] = run.remembered


def _rewrite_state(state: TrainerState, folder: Path) -> None:
    path = folder / "trainer_state.json"
    if path.is_file():
        temporary = folder / f".trainer_state.{os.getpid()}"
        state.save_to_json(str(temporary))
        os.replace(temporary, path)


def _report(run: _Run, prefix: str, verdict: Verdict) -> None:
    """Into log_history, and to whatever the Trainer reports to."""
    logs: dict[str, Any] = {
        f"{prefix}/log10_p": verdict.log10_p,
        f"{prefix}/log10_e": verdict.log10_e,
        f"{prefix}/e_value": 10 ** min(verdict.log10_e, _LOUDEST),
        f"{prefix}/matches": verdict.matches,
        f"{prefix}/rate": run.board.rate / PPM,
        f"{prefix}/state": verdict.state,
    }
    if run.state.epoch is not None:
        logs["epoch"] = run.state.epoch
    run.state.log_history.append({**logs, "step": run.state.global_step})
    _remember(run)
    if run.handler is not None:
        asked_to_log = run.control.should_log
        run.handler.on_log(run.args, run.state, run.control, logs)
        run.control.should_log = asked_to_log
