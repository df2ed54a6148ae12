"""Plain torch training loops.

with Watermarking(mark, model, loader) as marking:      <- collate_fn wrapped, logits hook set
    for epoch in range(epochs):
        for x, y in loader:                             <- triggers are in the batch
            loss = criterion(model(x), y)               <- model(x) is shifted here if the scheme uses `logits`
            loss = marking.loss(loss)                   <- only for schemes that use `loss`
            loss.backward(); optimizer.step()
        marking.checkpoint(epoch=epoch)                 <- verifies, logs, adjusts rate="auto"
"""

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch.utils.data import IterableDataset

from wmplug.adapters.torch.batches import TriggerCollate, base_loader, own_collate, peek, undisturbed, unwrap
from wmplug.adapters.torch.board import Board
from wmplug.adapters.torch.flatness import Flatness, need_radius
from wmplug.adapters.torch.guard import Guard
from wmplug.adapters.torch.injection import ACTIVE, ignored_by, refuse_held, wrap_for
from wmplug.adapters.torch.modules import ModuleSuspect, forward_batch, refuse_other_order
from wmplug.adapters.torch.points import DIVERGED, OFFERED, Hook, TorchPoints, need_head
from wmplug.adapters.torch.rows import AskedRows
from wmplug.adapters.torch.schema import fit
from wmplug.claim.terms import TARGET_E
from wmplug.claim.verdict import Verdict
from wmplug.errors import DivergenceError, InjectionError, InjectionWarning, InputError, RegisterError
from wmplug.tasks.classes import count_of
from wmplug.training import sidecar
from wmplug.training.loop import At, OneProcess
from wmplug.training.marking import Marking, Results
from wmplug.training.options import Failure, Options, Rate
from wmplug.training.placement import PPM, Mode
from wmplug.training.record import weights_of
from wmplug.watermark.watermark import Watermark

Event = Literal["train_end"]
EVENTS: tuple[Event, ...] = ("train_end",)


class TorchLoop(OneProcess):
    """A plain torch loop: one process, which calls `checkpoint` by itself.

    Args:
        of: the with-block around it.
    """

    name: ClassVar[str] = "torch"
    points: ClassVar[frozenset[str]] = OFFERED
    events: ClassVar[tuple[str, ...]] = EVENTS

    def __init__(self, of: Any) -> None:
        # A with-block whose frame died inside it must be collected at once, so this holds no strong reference.
        self._of = weakref.ref(of)

    @property
    def of(self) -> Any:
        """The with-block that holds this loop."""
        return self._of()

    def suspect(self) -> ModuleSuspect:
        """The model, asked as the loop trains it."""
        found: ModuleSuspect = self.of.suspect()
        return found

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Call the user's own function, with numbers only: a loop that numbers no steps gets no step."""
        if self.of.log is not None:
            moment = {name: value for name, value in (("step", at.step), ("epoch", at.epoch)) if value is not None}
            self.of.log({**moment, **numbers})

    def stop(self) -> None:
        """Set `stopped`, which the loop should read."""
        self.of.stopped = True

    def set_rate(self, rate: int) -> None:
        """Set the rate, which reaches worker processes with their next batch."""
        self.of.board.rate = rate


class Watermarking(Results):
    """Watermarks a model while a plain torch loop trains it; a context manager around that loop.

    Args:
        mark: the watermark; its `preprocess`, where given, makes examples as the dataset yields them.
        model: the model in training.
        loader: the DataLoader the loop iterates; its collate_fn is wrapped in place, and given back at the end.
        rate: share of triggers in what the model sees; the scheme's by default, "auto" to let verdicts adjust it.
        mode: `append` triggers to each batch, or `replace` samples (static shapes).
        verify_on: when to verify besides `checkpoint`: at the end of the with-block (`train_end`), or never.
        on_failure: when a mark that was proven is lost (`Monitor.lost`), or is not proven at the end: `warn`, `raise`,
            or `stop` (warns and sets `stopped`, for the loop to read).
        target_e: e-value from which on the watermark counts as proven.
        batch_size: inputs in one forward pass of a verification.
        training_set: the training set to commit to in the register; by default what the loader reads.
        require_evidence: end a run that cannot be recorded in the mark's register, instead of warning.
        head: the module, or its name, that returns logits; only for schemes that shift them, if it is not found.
        forward: `forward(model, batch) -> logits`, as the loop calls the model; for checkpoints. By default the model
            gets the first part of the batch, or all parts but the labels by name.
        log: called with the numbers of each look; step and epoch are among them where `checkpoint` is given them.
        parameters: of the run, to be recorded too: argparse's namespace, a dataclass, a mapping.
        flat: share of their norm by which weights may move while the triggers hold; 0.02 is usual, 0 is off. The mark
            survives fine-tuning better, and a retrained last layer worse; a step costs two more passes of 16 triggers.

    Attributes:
        verdict: the last one, or None.
        verdicts: of all looks in this run.
        history: one dict for each look: step, epoch, and watermark/log10_p, log10_e, matches, rate and state
            (0 inconclusive, 1 evidence, 2 proven).
        stopped: whether the loop should end (`on_failure="stop"`).

    Everything that a checkpoint does is tried on one batch of triggers before the first step: on entering, or where the
    dataset shows no example before (a stream), in the first training forward. A collator may sort, shuffle, drop or
    repeat rows: each row is found again by a tag in place of its label, or else asked alone. An object whose with-block
    was never entered watermarks nothing, and warns in the model's first training forward.

    Raises:
        InjectionError: the scheme needs a point of training that the adapter does not offer.
        InputError: an option out of range; on entering, a model that cannot be asked as the loop trains it (pass
            `forward=`) or has another number of classes, or triggers that do not fit the dataset.
        DivergenceError: in a training step, the weights became NaN or infinite while the scheme took part in the loss.
    """

    points: ClassVar[frozenset[str]] = OFFERED
    _loop: ClassVar[type[TorchLoop]] = TorchLoop

    def __init__(
        self,
        mark: Watermark | str | Path,
        model: torch.nn.Module,
        loader: Any,
        *,
        rate: Rate = None,
        mode: Mode = "append",
        verify_on: Sequence[Event] = (),
        on_failure: Failure = "warn",
        target_e: float = TARGET_E,
        batch_size: int = 64,
        training_set: Any = None,
        require_evidence: bool = False,
        head: str | torch.nn.Module | None = None,
        forward: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
        log: Callable[[dict[str, Any]], None] | None = None,
        parameters: Any = None,
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
        self._marking = Marking(mark, self._loop(self), options)
        mark = self._marking.mark
        need_head(mark, head)
        need_radius(flat, mark)
        self.mark, self.model, self.loader, self.log = mark, model, loader, log
        self.board = Board(self._marking.rate)
        self.stopped = False
        self._head, self._forward, self._parameters, self._flat = head, forward or forward_batch, parameters, flat
        self._like: Any = None
        self._rows: AskedRows | None = None
        self._collate: TriggerCollate | None = None
        self._guard: Guard | None = None
        self._flatness: Flatness | None = None
        self._first: Hook | None = None
        self._unentered: Hook | None = Hook(_Unentered()).before(self.bare)

    def __enter__(self) -> "Watermarking":
        if self._unentered is not None:
            self._unentered.handle.remove()
            self._unentered = None
        refuse_held(self.bare, self.loader)
        refuse_other_order(self.bare, self.mark.task)
        self._points = TorchPoints(self.mark, self.bare, head=self._head, on_divergence=_diverged)
        self._marking.begin()
        self._before = self.board.injected
        share = self._marking.rate / PPM
        if "samples" in self.mark.scheme.points:
            self._collate = wrap_for(self.loader, self.mark, self._marking.placement, self.board, self._world())
            batch = getattr(base_loader(self.loader), "batch_size", None) or 1
            self._collate.ignored = ignored_by(self.bare)
            watched, heed = self._collates(), self._marking.heed
            self._guard = Guard(self.board, self.bare, batch * share, heed) if watched else None
        try:
            # A stream may not yield its first example twice.
            stream = isinstance(self._data(), IterableDataset)
            if rehearsed := not stream and self._example() is not None:
                self._rehearse()
            self._marking.start(data=self._data(), arguments=self._arguments(), model=self.bare)
        except (InputError, RegisterError):
            self._release()
            raise
        self._points.install(self.suspect())
        self._points.keep()
        if self._flat:
            self._flatness = Flatness(self.mark, self.suspect(), self._flat, share)
            self._flatness.install()
        if self._guard is not None:
            self._guard.install()
        if not rehearsed:
            self._first = Hook(_Rehearsal(self)).before(self.bare)
        ACTIVE.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._release()
        if kind is not None:
            return
        self._points.look()
        self._refuse_unseen()
        self._points.finish()
        if self._guard is not None:
            self._guard.finish()
        last = At(self.history[-1]["step"], self.history[-1]["epoch"]) if self.verdicts else At()
        verify = "train_end" in self._marking.options.verify_on
        self._marking.end(last, verify=verify, again=True, system=self.bare, total=self._injected)

    def _release(self) -> None:
        ACTIVE.discard(self)
        self._points.remove()
        if self._first is not None:
            self._first.handle.remove()
        if self._flatness is not None:
            self._flatness.remove()
        if self._guard is not None:
            self._guard.remove()
        if self._collate is not None:
            unwrap(self.loader)
            # Persistent workers, and loaders that accelerate made from this one, keep their copy of the wrapper.
            self.board.rate = 0

    def _refuse_unseen(self) -> None:
        # Processes that do not collate have no guard; a proven mark was learnt in whatever way the loop calls the
        # model.
        watched = self._guard is not None or self.mark.scheme.points & {"logits", "loss"}
        seen = self._points.forwards or (self._guard is not None and self._guard.forwards)
        if watched and not seen and not (self.verdict is not None and self.verdict.proven):
            raise InjectionError(
                f"the model given to wmplug ({type(self.bare).__name__}) was never called in training mode inside the "
                "with-block, so whether it learnt the watermark is unknown: give the very model that the loop trains, "
                "call model.train() and then model(x) as a whole (not model.forward), and train inside the with-block"
            )

    def _rehearse(self) -> None:
        """Refuse a model that a checkpoint could not ask, before it is trained."""
        model = getattr(self.bare, "_orig_mod", self.bare)  # a model compiled for one row would be compiled again
        devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
        with undisturbed(devices):
            self._marking.rehearse(
                self.suspect(model),
                "pass forward=, a function from (model, batch) to logits, if the loop calls the model in its own way; "
                "the watermark's classes= must be the number of scores that the model gives",
            )

    def _need_active(self, what: str) -> None:
        if self not in ACTIVE:
            raise InjectionError(
                f"{what} was called outside the with-block, where nothing is watermarked: call it inside `with "
                "Watermarking(...) as marking:`; afterwards, wmplug.verify(mark, model) asks the model"
            )

    @property
    def bare(self) -> torch.nn.Module:
        """The model without the wrappers of distributed training."""
        inner = getattr(self.model, "module", None)
        parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
        return inner if isinstance(self.model, parallel) and isinstance(inner, torch.nn.Module) else self.model

    def loss(self, loss: torch.Tensor, labels: Any = None) -> torch.Tensor:
        """The mean loss of the batch just forwarded, with the scheme's own term if it has one.

        Args:
            loss: scalar.
            labels: (B,), for schemes that read them.

        Raises:
            InjectionError: the model was not called in training mode before, or the call is outside the with-block.
        """
        self._need_active("loss()")
        return self._points.loss(loss, labels)

    def suspect(self, model: torch.nn.Module | None = None) -> ModuleSuspect:
        """The model (or another one) as a suspect that is asked the way the loop trains: same schema, same collate."""
        collate, like = own_collate(self.loader), self._example()
        classes = count_of(self.mark.task, self._marking.loop.name)
        if self._rows is None or self._rows.collate is not collate:
            self._rows = AskedRows(collate, self._forward)

        def prepare(value: Any, answer: int) -> Any:
            example = (value, answer) if self.mark.preprocess is None else self.mark.preprocess(value, answer)
            return example if like is None else fit(example, like, classes)

        return ModuleSuspect(
            self.bare if model is None else model,
            preprocess=prepare,
            batch_size=self._marking.options.batch_size,
            forward=self._rows,
        )

    def checkpoint(
        self, *, step: int | None = None, epoch: float | None = None, path: str | Path | None = None
    ) -> Verdict | None:
        """Verify the live model with all triggers; log it, adjust rate="auto", and report a lost mark.

        Args:
            step: of training, for the record.
            epoch: the same.
            path: of a checkpoint just written, a file or a folder; `wmplug.json` (public part and verdict, nothing
                secret) is written next to the file or into the folder, which is made if it is missing.

        Returns:
            The verdict; None, with a warning, if the model could not be asked: training goes on.

        Raises:
            InjectionError: the call is outside the with-block.
            DivergenceError: the scheme takes part in the loss, and the weights are NaN or infinite.
            VerificationError: the mark was proven before and is lost, or something could not be done, and on_failure is
                `raise`.
        """
        self._need_active("checkpoint()")
        at = At(step, epoch)
        beside = None if path is None or not self._marking.loop.main else self._place(Path(path))
        self._points.look()
        self._marking.heed(self.board.other_label)
        self._marking.inserted(self._injected, at)
        written = None if path is None else Path(path) if Path(path).is_file() else weights_of(Path(path))
        system = written if written is not None and written.exists() else self.bare
        verdict = self._marking.checkpoint(at, again=True, system=system, beside=beside)
        self._points.keep()
        return verdict

    def _place(self, path: Path) -> Path | None:
        try:
            return sidecar.place(path)
        except OSError as error:
            self._marking.cannot(f"{sidecar.NAME} has no place at {path} ({error})", error)
            return None

    def _example(self) -> Any:
        if self._like is None:
            seen = None if self._collate is None else self._collate.like
            self._like = peek(base_loader(self.loader).dataset) if seen is None else seen
        return self._like

    @property
    def _injected(self) -> int:
        return self.board.injected - self._before

    def _data(self) -> Any:
        return getattr(base_loader(self.loader), "dataset", None)

    def _arguments(self) -> dict[str, Any]:
        loader = base_loader(self.loader)
        own = {"batch_size": getattr(loader, "batch_size", None), "rate": self._marking.rate / PPM}
        own["mode"] = self._marking.options.mode
        return {"wmplug": own, "given": self._parameters}

    # A distributed loop overrides these.

    def _world(self) -> int:
        return 1

    def _collates(self) -> bool:
        return True


class _Unentered:
    """Warns in a training forward that a `Watermarking` was made and its with-block never entered."""

    def __init__(self) -> None:
        self._told = False

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if module.training and not self._told:
            self._told = True
            warnings.warn(
                f"Watermarking(...) was made for this {type(module).__name__}, and its with-block was not entered, so "
                "this training step teaches no watermark: train inside `with Watermarking(...) as marking:`",
                InjectionWarning,
                stacklevel=2,
            )


class _Rehearsal:
    """Rehearses a checkpoint in the first training forward, when a batch has shown what examples look like."""

    def __init__(self, of: Watermarking) -> None:
        self._of = weakref.ref(of)

    def __call__(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        of = self._of()
        if of is None or not module.training or of._first is None:
            return
        of._first.handle.remove()
        of._first = None
        of._rehearse()


def _diverged(points: TorchPoints) -> None:
    # The optimizer is the loop's own, and its moments are broken too, so that training cannot continue from here.
    points.restore()
    raise DivergenceError(
        f"{DIVERGED}; the model is reset to the weights of the last checkpoint() (else its initial ones), and needs a "
        "new optimizer"
    )
