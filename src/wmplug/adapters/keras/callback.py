"""Keras `model.fit`, on torch, jax and tensorflow.

    model.fit(x, y, callbacks=[WatermarkCallback(mark), ...]):
        on_train_begin                                  <- the instance's train_step is shadowed (keras_step.py)
        for epoch in epochs:
            for batch in data: train_function(batch)    <- triggers join in-graph; guard in the first
            evaluate(validation_data)                   <- untouched
            on_epoch_end(logs)                          <- verify the live model, logs["watermark/..."], rate="auto"
        on_train_end                                    <- the model gets its methods back; verify, on_failure

Put it **first** in `callbacks`: those after it (ModelCheckpoint(monitor="watermark/log10_e", mode="max"), CSVLogger,
TensorBoard, and History in any case) see what it adds to `logs`:

    watermark/log10_p, watermark/log10_e    of this verification; a p-value is exact for this look alone
    watermark/matches                       secret answers given
    watermark/rate                          share of triggers in what the model sees
    watermark/state                         0 inconclusive, 1 evidence, 2 proven

Metrics of `compile(metrics=...)` are computed on the user's rows; `loss` is the minimised quantity and includes
triggers.
"""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from wmplug.adapters.keras.loop import EVENTS, Event, KerasLoop, example, fitted_data, other_label_of
from wmplug.adapters.keras.step import TriggerStep, strip
from wmplug.claim.terms import TARGET_E
from wmplug.errors import InjectionWarning
from wmplug.tasks.classes import count_of
from wmplug.training.loop import At
from wmplug.training.marking import Marking, Results
from wmplug.training.options import Failure, Options, Rate
from wmplug.training.placement import PPM, Mode
from wmplug.watermark.scheme import constants_of
from wmplug.watermark.watermark import Watermark


class WatermarkCallback(Results, keras.callbacks.Callback):  # type: ignore[misc]  # keras' base class is untyped
    """Watermarks the model that `fit` trains, and verifies it after each epoch.

    Triggers are prepared once by `mark.preprocess(input, answer) -> (x, y)`, else taken as they are, then given the
    shape of a batch's rows. Pictures 0..255 stay 0..255: if you scale the dataset before the model, let preprocess do
    the same; without it, integers are refused for a dataset of floats. Which triggers go into a step depends on
    `optimizer.iterations` alone; a run that is resumed from weights with their optimizer (BackupAndRestore) continues
    as if uninterrupted. Keras saves nothing for its callbacks: to continue looks and rate="auto", save `state_dict()`
    and pass it to `load_state_dict`. The batches that gradient_accumulation_steps joins get the same triggers. A `fit`
    that ends in an exception leaves the model shadowed; the next `fit` undoes that.

    Args:
        mark: the watermark, or the path of one that was made without preprocess=.
        rate: share of triggers in what the model sees, above 0 and at most .5; the scheme's default, or "auto" (a new
            rate at the end of an epoch compiles the step anew).
        mode: `append` to the batch, or `replace` its last rows. Shapes never change: where a fractional rate gives a
            step one trigger less, `append` repeats the user's last row and `replace` keeps it.
        verify_on: when to verify.
        on_failure: when the watermark was proven and is lost (`Monitor.lost`), or is not proven at the end: "warn";
            "raise" VerificationError; "stop" warns and ends training.
        target_e: e-value from which on the watermark counts as proven.
        batch_size: inputs in one forward pass of a verification.
        training_set: the training set to commit to in the register; by default what `fit` was given.
        require_evidence: end a run that cannot be recorded in the mark's register, instead of warning.

    Raises:
        InputError: an option out of range, or a file name in place of a watermark.
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
    ) -> None:
        super().__init__()
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
        self._loop = KerasLoop(batch_size)
        self._marking = Marking(mark, self._loop, options)
        mark = self._marking.mark
        self.mark, self._loop.preprocess = mark, mark.preprocess
        self._kept: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Shadow the model's training step; looks and rate start anew, unless a state was loaded.

        Raises:
            InputError: preprocess does not return (x, y) with the answer as y, the fit has two of these callbacks, or
                the model cannot be asked as at the end of an epoch; in the first step: triggers do not fit the batch.
            InjectionError: in the first step: training went around wmplug.
            RegisterError: the run cannot be recorded, and evidence is required.
        """
        loop, marking, mark = self._loop, self._marking, self.mark
        loop.model, loop.step, self._kept = self.model, None, []
        marking.begin()
        step = TriggerStep(
            [example(mark, x, y) for x, y in mark.lessons()],
            marking.placement,
            marking.rate,
            mark.scheme,
            functools.partial(constants_of, mark.scheme, mark.triggers),
            count_of(mark.task, "keras"),
            self._heed,
        )
        marking.rehearse(
            loop.suspect(),
            "give the model one output of as many scores as the watermark has classes= (one will do for two), and pass "
            "preprocess=, a function from (input, answer) to (x, y) as the batches have them",
        )
        marking.start(data=fitted_data(self.model), arguments=self._arguments(), model=self.model)
        step.attach(self.model)
        loop.step = step
        if "samples" in mark.scheme.points:
            self._heed(None)
        self._say(
            f"{marking.rate / PPM:.1%} of the samples that the model sees are triggers ({marking.options.mode}); the "
            "training loss includes them, metrics do not"
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Number the steps, since another callback may have restored a checkpoint; keep the weights."""
        if self._loop.step is not None:
            self._loop.step.count_from(self.model)
            if self.mark.scheme.points & {"logits", "loss"}:
                self._kept = self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Verify, log, adjust the rate.

        Raises:
            InjectionError: the scheme's points were not all reached.
            VerificationError: the watermark was proven, is lost, and on_failure is "raise".
        """
        if (step := self._loop.step) is None:
            return
        at = At(self._loop.steps, epoch + 1)
        step.check()
        if step.whole_metrics and "samples" in self.mark.scheme.points:
            step.whole_metrics = False
            warnings.warn(
                f"{type(self.model).__name__}.train_step does not call compute_metrics with the rows of the batch: its "
                "metrics include triggers",
                InjectionWarning,
                stacklevel=2,
            )
        self._marking.inserted(step.triggers(self._loop.steps), at)
        if self._kept and not np.isfinite(float((logs or {}).get("loss", 0.0))):
            self._diverged(epoch)
        if "epoch_end" in self._marking.options.verify_on:
            self._loop.logs = logs
            self._marking.checkpoint(at, system=self.model)

    def on_train_end(self, logs: Any = None) -> None:
        """Give the model its methods back, verify, act on failure.

        Raises:
            VerificationError: the watermark is not proven, and on_failure is "raise".
        """
        strip(self.model)
        step, self._loop.step, self._loop.logs = self._loop.step, None, None
        if step is None:
            return
        total, verify = step.triggers(self._loop.steps), "train_end" in self._marking.options.verify_on
        try:
            # Averaged weights, or the best, may have been put in place since the last epoch's look.
            self._marking.end(At(self._loop.steps), verify=verify, again=True, system=self.model, total=total)
        finally:
            if self.verdict is not None:
                self._say(str(self.verdict))

    def _diverged(self, epoch: int) -> None:
        self.model.set_weights(self._kept)
        self.model.stop_training = True
        warnings.warn(
            f"the loss of epoch {epoch + 1} is not finite, and the watermark took part in it: training stops, and the "
            "model is reset to the weights from the beginning of the epoch; lower the learning rate, clip gradients, "
            "or lower delta= (train without the watermark to see whether that diverges too)",
            InjectionWarning,
            stacklevel=3,
        )

    def _heed(self, labels: Any) -> None:
        # Not self.model: in a step of jax it would bring back variables that the step has taken.
        self._marking.heed(other_label_of(self._loop.model, labels, count_of(self.mark.task, "keras")))

    def _arguments(self) -> dict[str, Any]:
        own = {"rate": self._marking.rate / PPM, "mode": self._marking.options.mode}
        return {"wmplug": own, "fit": self.params, "compile": self.model.get_compile_config()}

    def _say(self, message: str) -> None:
        if self.params.get("verbose"):
            print(f"wmplug: {message}")
