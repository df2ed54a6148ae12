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
    watermark/e_value                       at most 1e30, TensorBoard holds no more
    watermark/matches                       secret answers given
    watermark/rate                          share of triggers in what the model sees
    watermark/state                         0 inconclusive, 1 evidence, 2 proven

Metrics of `compile(metrics=...)` are computed on the user's rows; `loss` is what is minimised and includes triggers.
"""

import functools
import inspect
import math
import warnings
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import keras
import numpy as np

from wmplug.adapters.keras.batches import as_array
from wmplug.adapters.keras.step import TriggerStep, strip
from wmplug.adapters.keras.suspects import KerasSuspect
from wmplug.claim.monitor import Monitor
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import TARGET_E
from wmplug.errors import (
    InjectionWarning,
    InputError,
    SuspectError,
    VerificationError,
    VerificationWarning,
)
from wmplug.training.placement import PPM, Mode, Placement, read_rate
from wmplug.training.record import Run
from wmplug.watermark.watermark import Watermark

Event = Literal["epoch_end", "train_end"]


OnFailure = Literal["warn", "raise", "stop"]


EVENTS: tuple[Event, ...] = ("epoch_end", "train_end")


_LOUDEST = 30.0  # a float32 scalar ends near 1e38


_STATES = ("inconclusive", "evidence", "proven")


class WatermarkCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras' base class is untyped
    """Watermarks the model that `fit` trains, and verifies it after each epoch.

    Triggers are prepared once by `mark.preprocess(input, answer) -> (x, y)`, else taken as they are, then given the
    shape of a batch's rows. Pictures 0..255 stay 0..255: where the dataset is scaled before the model, a preprocess
    does the same, and integers for a dataset of floats are refused without one. Which triggers go into a step depends
    on `optimizer.iterations` alone; a run resumed from weights with their optimizer (BackupAndRestore) goes on as if
    uninterrupted, except that the number of looks starts anew. The batches that gradient_accumulation_steps joins get
    the same triggers. A `fit` that ends in an exception leaves the model shadowed; the next `fit` takes that off.

    Args:
        mark: the watermark.
        rate: share of triggers in what the model sees, above 0 and at most .5; the scheme's default, or "auto" (a new
            rate at the end of an epoch compiles the step anew).
        mode: `append` to the batch, or `replace` its last rows. Shapes never change: where a fractional rate gives a
            step one trigger less, `append` repeats the user's last row and `replace` lets it stay.
        verify_on: where to verify.
        on_failure: when the final model does not prove the watermark: "warn"; "raise" VerificationError; "stop" warns
            and also ends training as soon as a watermark that was proven is lost (`Monitor.lost`).
        target_e: e-value from which on the watermark counts as proven.
        batch_size: inputs a forward pass when verifying.
        training_set: what to commit to in the register as the training set; by default what `fit` was given.
        require_evidence: end a run that cannot be recorded in the mark's register, instead of a warning.

    Attributes:
        verdict: the last one, or None.

    Raises:
        InputError: an option out of range, or the name of a file for a watermark.
    """

    def __init__(
        self,
        mark: Watermark,
        *,
        rate: float | Literal["auto"] | None = None,
        mode: Mode = "append",
        verify_on: Sequence[Event] = EVENTS,
        on_failure: OnFailure = "warn",
        target_e: float = TARGET_E,
        batch_size: int = 64,
        training_set: Any = None,
        require_evidence: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(mark, Watermark):
            given = repr(mark) if isinstance(mark, (str, PathLike)) else f"a {type(mark).__name__}"
            raise InputError(f"mark is {given}: give a Watermark, from wmplug.load(path) or wmplug.create(...)")
        if isinstance(verify_on, str) or not set(verify_on) <= set(EVENTS):
            raise InputError(f"verify_on is {verify_on!r}: give a tuple of some of {', '.join(EVENTS)}")
        if on_failure not in ("warn", "raise", "stop"):
            raise InputError(f"on_failure={on_failure!r}: choose 'warn', 'raise' or 'stop'")
        self.mark = mark
        self._start, self._auto = read_rate(rate, mark.scheme.rate)
        self.rate = self._start
        # A scheme that touches other points only has a table that nobody reads.
        pool = len(mark.triggers.plan.taught) or 1
        self._placement = Placement.draw(mark.subkeys.stream("schedule"), pool, mode)
        self._verify_on, self._on_failure, self._batch_size = frozenset(verify_on), on_failure, batch_size
        self._monitor, self._target_e = Monitor(mark, target_e=target_e), target_e
        self._step: TriggerStep | None = None
        self._kept: list[Any] = []
        self._training_set, self._require = training_set, require_evidence
        self.verdict: Verdict | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Shadow the model's training step; looks and rate start anew.

        Raises:
            InputError: preprocess does not return (x, y) with the answer as y, or the fit has two of these callbacks;
                in the first step, that triggers do not fit the batch.
            InjectionError: in the first step, that training went around wmplug.
            RegisterError: the run cannot be recorded, and evidence is required.
        """
        self.rate, self.verdict = self._start, None
        self._monitor = Monitor(self.mark, target_e=self._target_e)
        step = TriggerStep(
            [_example(self.mark, x, y) for x, y in self.mark.lessons()],
            self._placement,
            self.rate,
            self.mark.scheme,
            functools.partial(self.mark.scheme.constants, self.mark.triggers),
            self.mark.classes,
        )
        self._run = Run(self.mark, "keras", require=self._require)
        data = _fitted_data(self.model) if self._training_set is None else self._training_set
        self._run.start(data=data, arguments=self._arguments(), model=self.model)
        step.attach(self.model)
        self._step = step
        self._say(
            f"{self.rate / PPM:.1%} of what the model sees are triggers ({self._placement.mode}); the training loss "
            "includes them, metrics do not"
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Number the steps, as another callback may have restored a checkpoint; keep the weights."""
        if self._step is not None:
            self._step.count_from(self.model)
            if self.mark.scheme.points & {"logits", "loss"}:
                self._kept = self.model.get_weights()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Verify, log, adjust the rate.

        Raises:
            InjectionError: the scheme's points were not all reached.
        """
        if (step := self._step) is None:
            return
        step.check()
        if step.whole_metrics and "samples" in self.mark.scheme.points:
            step.whole_metrics = False
            warnings.warn(
                f"{type(self.model).__name__}.train_step does not call compute_metrics: its metrics include triggers",
                InjectionWarning,
                stacklevel=2,
            )
        self._run.inserted(step.triggers(self._steps), step=self._steps, epoch=epoch + 1)
        if self._kept and not np.isfinite(float((logs or {}).get("loss", 0.0))):
            self._diverged(epoch)
        if "epoch_end" not in self._verify_on or (verdict := self._look()) is None:
            return
        self._run.checkpoint(verdict, step=self._steps, epoch=epoch + 1, system=self.model)
        if logs is not None:
            logs.update(_logged(verdict, self.rate))
        if self._on_failure == "stop" and self._monitor.lost:
            self.model.stop_training = True
            self._fail(f"the watermark was proven and is not after epoch {epoch + 1} ({verdict}): training stops")
        self._adjust(step, verdict)

    def on_train_end(self, logs: Any = None) -> None:
        """Give the model its methods back, verify, act on failure.

        Raises:
            VerificationError: the watermark is not proven, and on_failure is "raise".
        """
        strip(self.model)
        step, self._step = self._step, None
        # Averaged weights, or the best, may have been put in place since the last epoch's look.
        verdict = self._look() if "train_end" in self._verify_on else self.verdict
        if step is not None:
            self._run.finish(verdict, step=self._steps, epoch=None, system=self.model, total=step.triggers(self._steps))
        if verdict is None:
            return
        self._say(str(verdict))
        if not verdict.proven:
            self._fail(f"the trained model does not prove the watermark ({verdict}): train longer or raise rate=")

    def _diverged(self, epoch: int) -> None:
        self.model.set_weights(self._kept)
        self.model.stop_training = True
        warnings.warn(
            f"the loss of epoch {epoch + 1} is not finite, and the watermark took part in it: training stops, and the "
            "model has the weights of the beginning of the epoch again; lower the learning rate, clip gradients, or "
            "lower delta= (whether it diverges without the watermark too, tells which)",
            InjectionWarning,
            stacklevel=3,
        )

    @property
    def _steps(self) -> int:
        return int(self.model.optimizer.iterations)

    def _arguments(self) -> dict[str, Any]:
        found = {"rate": self.rate / PPM, "mode": self._placement.mode}
        return {"wmplug": found, "fit": self.params, "compile": self.model.get_compile_config()}

    def _look(self) -> Verdict | None:
        step = self._steps
        suspect = KerasSuspect(self.model, preprocess=self.mark.preprocess, batch_size=self._batch_size)
        try:
            self.verdict = self._monitor.look(suspect, step=step, run={"adapter": "keras"})
        except SuspectError as error:
            self._fail(f"the model cannot be verified at step {step}: {error}")
            return None
        return self.verdict

    def _adjust(self, step: TriggerStep, verdict: Verdict) -> None:
        if self._auto is None:
            return
        rate = self._auto.next(self.rate, verdict.log10_e, math.log10(verdict.target_e))
        if rate != self.rate:
            self.rate = step.rate = rate
            step.retrace(self.model)

    def _fail(self, message: str) -> None:
        if self._on_failure == "raise":
            raise VerificationError(message)
        warnings.warn(message, VerificationWarning, stacklevel=3)

    def _say(self, message: str) -> None:
        if self.params.get("verbose"):
            print(f"wmplug: {message}")


def _fitted_data(model: keras.Model) -> Any:
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


def _logged(verdict: Verdict, rate: int) -> dict[str, float]:
    return {
        "watermark/log10_p": verdict.log10_p,
        "watermark/log10_e": verdict.log10_e,
        "watermark/e_value": 10 ** min(verdict.log10_e, _LOUDEST),
        "watermark/matches": float(verdict.matches),
        "watermark/rate": rate / PPM,
        "watermark/state": float(_STATES.index(verdict.state)),
    }


def _example(mark: Watermark, given: Any, answer: int) -> tuple[Any, int]:
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
