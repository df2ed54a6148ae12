"""The transformers Trainer, and trainers built on it.

    Trainer.train():
        loader = accelerator.prepare(DataLoader(..., collate_fn=data_collator))
        on_train_begin                              <- collate_fn wrapped, hooks of `logits` and `loss` set
        for epoch in epochs:
            for features in loader:                 <- triggers join the features before the user's collator
                batch = collate_fn(features)
                loss = model(**batch).loss          <- shifted or added to, if the scheme uses `logits` or `loss`
                loss.backward(); optimizer.step()
                on_step_end                         <- rate and looks go into TrainerState, for a resumed run
                if evaluate: on_evaluate(metrics)   <- verify, log, metrics["eval_watermark_..."]
                if save:     on_save                <- verify (once a step), log, checkpoint-N/wmplug.json
        if load_best_model_at_end: load it
        on_train_end                                <- verify, log, on_failure, hooks removed

Every verification logs `watermark/log10_p`, `watermark/log10_e`, `watermark/matches`, `watermark/rate` and
`watermark/state` (0 inconclusive, 1 evidence, 2 proven); TensorBoard shows them under `train/`.
For `metric_for_best_model` there are `eval_watermark_log10_e` and `eval_watermark_matches` (greater is better) and
`eval_watermark_log10_p` (with `greater_is_better=False`).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import CallbackHandler
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from wmplug.adapters.torch.batches import TriggerCollate, base_loader, own_collate, prepared, undisturbed, wrap
from wmplug.adapters.torch.board import Board
from wmplug.adapters.torch.flatness import Flatness, need_radius
from wmplug.adapters.torch.guard import Guard
from wmplug.adapters.torch.injection import ignored_by, refuse_held
from wmplug.adapters.torch.modules import ModuleSuspect, forward_batch, refuse_other_order
from wmplug.adapters.torch.points import DIVERGED, TorchPoints, need_head, strip
from wmplug.adapters.torch.rows import AskedRows
from wmplug.adapters.transformers.loop import (
    EVENTS,
    STATE,
    Event,
    TrainerLoop,
    calling_handler,
    fitted,
    loaded,
    refuse_lossy,
    weight,
)
from wmplug.adapters.transformers.suspects import preparation, refuse_regression
from wmplug.claim.terms import TARGET_E
from wmplug.errors import InjectionWarning, InputError, VerificationWarning
from wmplug.tasks.classes import count_of
from wmplug.training import sidecar
from wmplug.training.marking import Marking, Results
from wmplug.training.options import Failure, Options, Rate
from wmplug.training.placement import PPM, Mode
from wmplug.training.record import weights_of
from wmplug.watermark.watermark import Preprocess, Watermark


@dataclass
class _Run:
    """The hooks in the model and the loader for one call of train()."""

    points: TorchPoints
    guard: Guard | None
    flatness: Flatness | None

    def install(self, suspect: ModuleSuspect) -> None:
        self.points.install(suspect)
        if self.flatness is not None:
            self.flatness.install()
        if self.guard is not None:
            self.guard.install()

    def finish(self) -> None:
        self.points.remove()
        self.points.finish()
        if self.flatness is not None:
            self.flatness.remove()
        if self.guard is not None:
            self.guard.finish()


class WatermarkCallback(Results, TrainerCallback):
    """Watermarks the model that a Trainer trains, and verifies it at checkpoints.

    Triggers are prepared by `mark.preprocess`, else by the Trainer's `processing_class` if that is a tokenizer or an
    image processor, else taken unchanged; then fitted to the dataset's first example (a dataset without index is
    iterated once for it). After a resume the same triggers come in the same steps; only with `rate="auto"` may batches
    that were prefetched when the rate changed get another number of them.

    Args:
        mark: the watermark, or the path of one that was made without preprocess=.
        rate: share of triggers in what the model sees, above 0 and at most .5; the scheme's by default, or "auto".
        mode: `append` to the batch, or `replace` rows of it.
        verify_on: when to verify; the model of one step is verified once.
        on_failure: when the watermark was proven and is lost (`Monitor.lost`), or is not proven at the end: "warn";
            "raise" VerificationError; "stop" warns and ends training.
        target_e: e-value from which on the watermark counts as proven.
        batch_size: inputs in one forward pass of a verification.
        training_set: the training set to commit to in the register; by default what the loader reads.
        require_evidence: end a run that cannot be recorded in the mark's register, instead of warning.
        verify_saved: also load the files just written (main process) and verify those.
        head: the module, or its name, that returns logits; only for schemes that shift them, if it is not found.
        flat: share of their norm by which weights may move while the triggers hold; 0.02 is usual, 0 is off. The mark
            survives fine-tuning better, and a retrained last layer worse; a step costs two more passes of 16 triggers.

    Raises:
        InputError: an option out of range.
        InjectionError: the scheme needs a point of training that this adapter does not offer.
    """

    def __init__(
        self,
        mark: Watermark | str | Path,
        *,
        rate: Rate = None,
        mode: Mode = "append",
        verify_on: Sequence[Event] = EVENTS,
        on_failure: Failure = "warn",
        target_e: float = TARGET_E,
        batch_size: int = 64,
        training_set: Any = None,
        require_evidence: bool = False,
        verify_saved: bool = False,
        head: str | torch.nn.Module | None = None,
        flat: float = 0.0,
    ) -> None:
        options = Options(
            rate=rate,
            mode=mode,
            verify_on=verify_on,
            on_failure=on_failure,
            target_e=target_e,
            batch_size=batch_size,
            training_set=training_set,
            require_evidence=require_evidence,
        )
        self._loop = TrainerLoop()
        self._marking = Marking(mark, self._loop, options)
        mark = self._marking.mark
        need_head(mark, head)
        need_radius(flat, mark)
        self.mark, self._verify_saved, self._head, self._flat = mark, verify_saved, head, flat
        self._run: _Run | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Wrap the loader's collate_fn, set hooks, and ask the model one question to see that it can be asked.

        Raises:
            InputError: triggers do not fit the dataset, the model has another number of classes or, for verify_saved,
                no from_pretrained, or the Trainer has a second WatermarkCallback.
            InjectionError: the loader does not collate, or a `Watermarking` of a torch loop holds it or the model.
            RegisterError: the run cannot be recorded, and evidence is required.
        """
        model, loader, handler = kwargs["model"], kwargs["train_dataloader"], calling_handler()
        if handler is not None:
            self._go_first(handler)
        if self._verify_saved and not isinstance(model, PreTrainedModel):
            raise InputError(
                f"verify_saved loads files with from_pretrained, which a {type(model).__name__} lacks: leave it out, "
                "or train a PreTrainedModel"
            )
        refuse_regression(model)
        refuse_held(model, loader)
        refuse_other_order(model, self.mark.task)
        strip(model)
        prepare = self.mark.preprocess or preparation(kwargs.get("processing_class"), model)
        prepare = fitted(prepare, loader, count_of(self.mark.task, "transformers"))
        suspect = self._suspect(model, loader, prepare)
        loop, marking = self._loop, self._marking
        loop.args, loop.state, loop.control, loop.handler, loop.asked = args, state, control, handler, suspect
        loop.board = board = Board(marking.rate)
        if saved := loop.remembered.get(STATE):
            marking.load_state_dict(saved)
        marking.begin()
        points = TorchPoints(self.mark, model, head=self._head, in_loss=True, weight=weight(args, model))
        guard = self._inject(args, model, loader, prepare, board)
        self._rehearse(suspect)
        marking.start(data=base_loader(loader).dataset, arguments=args, model=model)
        flatness = Flatness(self.mark, suspect, self._flat, marking.rate / PPM) if self._flat else None
        self._run = _Run(points, guard, flatness)
        self._run.install(suspect)

    def _suspect(self, model: torch.nn.Module, loader: Any, prepare: Preprocess) -> ModuleSuspect:
        collate = own_collate(loader)
        return ModuleSuspect(
            model,
            preprocess=prepare,
            batch_size=self._marking.options.batch_size,
            forward=AskedRows(collate, forward_batch),
        )

    def _go_first(self, handler: CallbackHandler) -> None:
        marking = [callback for callback in handler.callbacks if isinstance(callback, WatermarkCallback)]
        if len(marking) > 1:
            raise InputError(
                f"the Trainer has {len(marking)} WatermarkCallbacks, and each would undo the one before: train with one"
            )
        # Metrics exist when EarlyStopping looks, and TensorBoard is still open at the end.
        handler.callbacks.remove(self)
        handler.callbacks.insert(0, self)

    def _inject(
        self, args: TrainingArguments, model: torch.nn.Module, loader: Any, prepare: Preprocess, board: Board
    ) -> Guard | None:
        if "samples" not in self.mark.scheme.points:
            return None
        classes, placement = count_of(self.mark.task, "transformers"), self._marking.placement
        examples = prepared(self.mark.lessons(), prepare, classes)
        # Only accelerate's dispatcher has the attribute: the main process collates, and the others get their part.
        dispatched = hasattr(loader, "split_batches")
        world = args.world_size if dispatched else 1
        ignored = ignored_by(model)
        wrap(
            loader,
            lambda collate: TriggerCollate(collate, examples, placement, board, world, False, classes, ignored),
        )
        if dispatched and args.process_index > 0:
            return None
        return Guard(board, model, args.train_batch_size * board.rate / PPM, self._marking.heed)

    def _rehearse(self, suspect: ModuleSuspect) -> None:
        devices = {p.device.index for p in suspect.model.parameters() if p.device.type == "cuda"}
        with undisturbed(devices):
            self._marking.rehearse(
                suspect,
                "the watermark's classes= must be the model's num_labels, the model's output must have logits, and its "
                "forward() must take what the data collator returns besides the labels",
            )
            if self._verify_saved and self._marking.loop.main:
                refuse_lossy(suspect)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Put rate and looks where the Trainer saves them; end a training whose weights diverged."""
        if self._run is None:
            return
        self._marking.heed(self._loop.other_label)
        self._remember()
        if self._run.points.diverged:
            control.should_training_stop = True
            self._restore(self._run)

    def _remember(self) -> None:
        self._loop.remembered[STATE] = self._marking.state_dict()

    def _restore(self, run: _Run) -> None:
        run.points.restore()
        warnings.warn(
            f"{DIVERGED}; training stops at {self._loop.at}, and the model is reset to the weights from the beginning "
            "of the epoch",
            InjectionWarning,
            stacklevel=3,
        )

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the weights, in case the training diverges."""
        if self._run is not None:
            self._run.points.keep()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Record the number of triggers in this run."""
        if self._run is not None:
            self._marking.inserted(self._loop.injected, self._loop.at)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Verify, log, and put the result among the metrics.

        Raises:
            VerificationError: the watermark was proven, is lost, and on_failure is "raise".
        """
        if self._run is None or "evaluate" not in self._marking.options.verify_on:
            return
        verdict = self._marking.checkpoint(self._loop.at)
        self._remember()
        # The default objective of a search is the sum of all metrics, which must stay the user's.
        if verdict is not None and not state.is_hyper_param_search:
            numbers = {"log10_p": verdict.log10_p, "log10_e": verdict.log10_e, "matches": verdict.matches}
            kwargs["metrics"].update({f"eval_watermark_{name}": value for name, value in numbers.items()})

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Verify, log, and write the sidecar; with verify_saved, verify the files too.

        Raises:
            VerificationError: as in `on_evaluate`, or the model proves the watermark and the files do not.
        """
        if self._run is None:
            return
        folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        here, before = state.is_world_process_zero and folder.is_dir(), self._marking.state_dict()
        try:
            self._marking.checkpoint(
                self._loop.at,
                verify="save" in self._marking.options.verify_on,
                system=weights_of(folder) if here else None,
                beside=folder / sidecar.NAME if here else None,
                files=(lambda: loaded(folder, self._loop.asked)) if here and self._verify_saved else None,
            )
        finally:
            self._remember()
            if here and self._marking.state_dict() != before:
                self._rewrite(folder)

    def _rewrite(self, folder: Path) -> None:
        try:
            self._loop.rewrite(folder)
        except OSError as error:
            warnings.warn(
                f"the look at {self._loop.at} cannot be added to {folder}/trainer_state.json ({error}): a run that is "
                "resumed from there does not count it",
                VerificationWarning,
                stacklevel=3,
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove the hooks, verify the final model, act on failure.

        Raises:
            InjectionError: no trigger reached the model in the whole run.
            VerificationError: the watermark is not proven, and on_failure is "raise".
        """
        if (run := self._run) is None:
            return
        self._run = None
        if not run.points.diverged:
            run.points.look()
            if run.points.diverged:
                self._restore(run)
        run.finish()
        # The best model may have been loaded since the last look.
        again, verify = bool(args.load_best_model_at_end), "train_end" in self._marking.options.verify_on
        model, total = self._loop.asked.model, self._loop.injected
        try:
            self._marking.end(self._loop.at, verify=verify, again=again, system=model, total=total)
        finally:
            self._remember()
