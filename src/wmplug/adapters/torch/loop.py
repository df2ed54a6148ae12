"""Plain torch training loops.

with Watermarking(mark, model, loader) as marking:      <- collate_fn wrapped, logits hook set
    for epoch in range(epochs):
        for x, y in loader:                             <- triggers are in the batch
            loss = criterion(model(x), y)               <- model(x) is shifted here where a scheme uses `logits`
            loss = marking.loss(loss)                   <- only for schemes that use `loss`
            loss.backward(); optimizer.step()
        marking.checkpoint(epoch=epoch)                 <- verifies, logs, adjusts rate="auto"
"""

import math
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch.utils.data import IterableDataset, SequentialSampler

from wmplug.adapters.torch.batches import (
    Board,
    TriggerCollate,
    base_loader,
    fit,
    own_collate,
    peek,
    prepared,
    undisturbed,
    unwrap,
    wrap,
)
from wmplug.adapters.torch.flatness import Flatness, need_radius
from wmplug.adapters.torch.modules import ModuleSuspect, forward_batch
from wmplug.adapters.torch.modules import suspect as suspect
from wmplug.adapters.torch.points import DIVERGED, OFFERED, Guard, TorchPoints, need_mark, need_points
from wmplug.claim.monitor import Monitor
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import TARGET_E
from wmplug.errors import (
    DivergenceError,
    InjectionError,
    InjectionWarning,
    InputError,
    RegisterError,
    VerificationError,
    VerificationWarning,
)
from wmplug.training import sidecar
from wmplug.training.placement import PPM, Mode, Placement, read_rate
from wmplug.training.record import Run, weights_of
from wmplug.watermark.watermark import Watermark

Failure = Literal["warn", "raise", "stop"]
L = TypeVar("L")


class Watermarking:
    """Watermarks a model while a plain torch loop trains it; a context manager around that loop.

    Args:
        mark: the watermark; its `preprocess`, where given, makes examples as the dataset yields them.
        model: the one being trained.
        loader: the DataLoader the loop iterates; its collate_fn is wrapped in place, and given back at the end.
        rate: share of triggers in what the model sees; the scheme's by default, "auto" to let verdicts adjust it.
        mode: `append` triggers to each batch, or `replace` samples (static shapes).
        target_e: e-value at which a verdict is `proven`.
        on_failure: when a mark that was proven is lost (`Monitor.lost`), or is not proven at the end: `warn`, `raise`,
            or `stop` (warns and sets `stopped`, for the loop to read).
        head: the module, or its name, that returns logits; only for schemes that shift them, where it is not found.
        forward: `forward(model, batch) -> logits`, as the loop calls the model; for checkpoints. By default the model
            is given the first part of the batch, or all but the labels by name.
        log: called with each entry of `history`.
        training_set: what to commit to in the register as the training set; by default what the loader reads.
        parameters: of the run, to be recorded too: argparse's namespace, a dataclass, a mapping.
        require_evidence: end a run that cannot be recorded in the mark's register, instead of a warning.
        flat: share of their norm by which weights may move and the triggers still hold; 0.02 is usual, 0 is off. More
            is left after fine-tuning, less where only the last layer is retrained; costs two passes of 16 triggers.

    Attributes:
        history: one dict for each checkpoint: step, epoch, and watermark/log10_p, e_value, matches and rate.
        verdicts: of the checkpoints.
        stopped: whether the loop should end (`on_failure="stop"`).

    Raises:
        InjectionError: the adapter does not offer what the scheme needs.
        InputError: an option out of range; on entering, a model with another number of classes, or triggers that do
            not fit the dataset.
        DivergenceError: in a training step, the weights became NaN or infinite while the scheme took part in the loss.
    """

    adapter: ClassVar[str] = "torch"
    points: ClassVar[frozenset[str]] = OFFERED

    def __init__(
        self,
        mark: Watermark,
        model: torch.nn.Module,
        loader: Any,
        *,
        rate: float | Literal["auto"] | None = None,
        mode: Mode = "append",
        target_e: float = TARGET_E,
        on_failure: Failure = "warn",
        head: str | torch.nn.Module | None = None,
        forward: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
        log: Callable[[dict[str, Any]], None] | None = None,
        training_set: Any = None,
        parameters: Any = None,
        require_evidence: bool = False,
        flat: float = 0.0,
    ) -> None:
        need_mark(mark, head)
        need_radius(flat, mark)
        need_points(self.adapter, mark.scheme, self.points)
        if on_failure not in ("warn", "raise", "stop"):
            raise InputError(f"on_failure={on_failure!r}: choose 'warn', 'raise' or 'stop'")
        start, self._auto = read_rate(rate, mark.scheme.rate)
        self.mark, self.model, self.loader, self.mode = mark, model, loader, mode
        self.board = Board(start)
        self.on_failure, self.log = on_failure, log
        self.history: list[dict[str, Any]] = []
        self.verdicts: list[Verdict] = []
        self.stopped = False
        self._head, self._forward, self._rate = head, forward or forward_batch, start
        self._monitor = Monitor(mark, target_e=target_e)
        self._like: Any = None
        self._collate: TriggerCollate | None = None
        self._training_set, self._parameters, self._require = training_set, parameters, require_evidence
        self._flat = flat
        self._flatness: Flatness | None = None

    def __enter__(self) -> "Watermarking":
        refuse_held(self.bare, self.loader)
        self._points = TorchPoints(self.mark, self.bare, head=self._head, on_divergence=_diverged)
        self._guard: Guard | None = None
        if "samples" in self.mark.scheme.points:
            self.board.rate = self._rate
            self._collate = _wrap(self.loader, self.mark, self.board, self.mode, self._world())
            if self._collates():
                batch = getattr(base_loader(self.loader), "batch_size", None) or 1
                self._guard = Guard(self.board, self.bare, batch * self._rate / PPM)
        self._before = self.board.injected
        try:
            self._ask_once()
            self._run = Run(self.mark, self.adapter, require=self._require, main=self._writes())
            self._run.start(data=self._data(), arguments=self._arguments(), model=self.bare)
        except (InputError, RegisterError):
            self._release()
            raise
        self._points.install(self.suspect())
        self._points.keep()
        if self._flat:
            self._flatness = Flatness(self.mark, self.suspect(), self._flat, self._rate / PPM)
            self._flatness.install()
        if self._guard is not None:
            self._guard.install()
        _ACTIVE.add(self)
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
        last, at = (self.verdicts[-1], self.history[-1]) if self.verdicts else (None, {"step": None, "epoch": None})
        self._run.finish(last, step=at["step"], epoch=at["epoch"], system=self.bare, total=self._injected)
        if self.verdicts and not self.verdicts[-1].proven:
            self._fail(f"training ended with {self.verdicts[-1]}")

    def _release(self) -> None:
        _ACTIVE.discard(self)
        self._points.remove()
        if self._flatness is not None:
            self._flatness.remove()
        if self._guard is not None:
            self._guard.remove()
        if self._collate is not None:
            unwrap(self.loader)
            # Workers that live on, and loaders that accelerate made of this one, keep their copy of the wrapper.
            self.board.rate = 0

    def _refuse_unseen(self) -> None:
        # Processes that do not collate have no guard; a proven mark was learnt, however the loop calls the model.
        watched = self._guard is not None or self.mark.scheme.points & {"logits", "loss"}
        seen = self._points.forwards or (self._guard is not None and self._guard.forwards)
        if watched and not seen and not (self.verdicts and self.verdicts[-1].proven):
            raise InjectionError(
                f"the model given to wmplug ({type(self.bare).__name__}) was never called in training mode inside the "
                "with-block, so whether it learnt the watermark is unknown: give the very model that the loop trains, "
                "call model.train() and then model(x) as a whole (not model.forward), and train inside the with-block"
            )

    def _ask_once(self) -> None:
        """Refuse a model of another task before it is trained; one that the loop calls in its own way is let be."""
        if isinstance(getattr(base_loader(self.loader), "dataset", None), IterableDataset):
            return  # a stream may not give its first example twice
        model = getattr(self.bare, "_orig_mod", self.bare)  # compiled for one row, the model would be compiled again
        devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
        question = self.mark.triggers.first
        try:
            with undisturbed(devices):
                scores = self.suspect(model).answer([question])
        except Exception:
            return
        if scores.ndim == 2 and scores.shape[1] != self.mark.classes:
            raise InputError(
                f"{type(model).__name__} gives {scores.shape[1]} scores an input, the watermark was made for "
                f"{self.mark.classes} classes: make it with classes= of the model (or, where the model's first output "
                "is not its scores, pass forward=, a function from (model, batch) to logits)"
            )

    def _need_active(self, what: str) -> None:
        if self not in _ACTIVE:
            raise InjectionError(
                f"{what} was called outside the with-block, where nothing is watermarked: call it inside `with "
                "Watermarking(...) as marking:`; afterwards, wmplug.verify(mark, model) asks the model"
            )

    @property
    def bare(self) -> torch.nn.Module:
        """The model without what distribution wrapped around it."""
        inner = getattr(self.model, "module", None)
        parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
        return inner if isinstance(self.model, parallel) and isinstance(inner, torch.nn.Module) else self.model

    def loss(self, loss: torch.Tensor, labels: Any = None) -> torch.Tensor:
        """The mean loss of the batch just forwarded, with the scheme's own term where it has one.

        Args:
            loss: scalar.
            labels: (B,), for schemes that read them.

        Raises:
            InjectionError: the model was not called in training mode before, or this is outside the with-block.
        """
        self._need_active("loss()")
        return self._points.loss(loss, labels)

    def suspect(self, model: torch.nn.Module | None = None) -> ModuleSuspect:
        """The model (or another one) as a suspect that is asked the way the loop trains: same schema, same collate."""
        collate, like = own_collate(self.loader), self._example()

        def prepare(value: Any, answer: int) -> Any:
            example = (value, answer) if self.mark.preprocess is None else self.mark.preprocess(value, answer)
            return example if like is None else fit(example, like)

        def forward(module: torch.nn.Module, examples: list[Any]) -> torch.Tensor:
            return self._forward(module, collate(examples))

        return ModuleSuspect(self.bare if model is None else model, preprocess=prepare, forward=forward)

    def checkpoint(
        self, *, step: int | None = None, epoch: float | None = None, path: str | Path | None = None
    ) -> Verdict:
        """Verify the live model with all triggers; log it, adjust rate="auto", and say so if the mark was lost.

        Args:
            step: of training, for the record.
            epoch: the same.
            path: of a checkpoint just written, a file or a folder; `wmplug.json` (public part and verdict, nothing
                secret) is put next to the file or into the folder, which is made where it is missing.

        Raises:
            InjectionError: this is outside the with-block.
            DivergenceError: the scheme takes part in the loss, and the weights are NaN or infinite.
            SuspectError: the model gives another number of classes, or NaN for every trigger.
            VerificationError: the mark was proven before, is lost, and on_failure is `raise`.
        """
        self._need_active("checkpoint()")
        # Before the look, which counts once it is taken.
        beside = None if path is None or not self._writes() else sidecar.place(Path(path))
        self._points.look()
        found = self._monitor.look(
            self.suspect(), step=step, run={"adapter": self.adapter, "epoch": epoch}, tell=self._writes()
        )
        verdict, self._monitor.looks = self._agree(found, self._monitor.looks)
        self._points.keep()
        self.verdicts.append(verdict)
        self.history.append(
            {
                "step": step,
                "epoch": epoch,
                "watermark/log10_p": verdict.log10_p,
                "watermark/e_value": verdict.e_value,
                "watermark/matches": verdict.matches,
                "watermark/rate": self._rate / PPM,
            }
        )
        self._report(self.history[-1])
        self._run.inserted(self._injected, step=step, epoch=epoch)
        written = None if path is None else Path(path) if Path(path).is_file() else weights_of(Path(path))
        system = written if written is not None and written.exists() else self.bare
        self._run.checkpoint(verdict, step=step, epoch=epoch, system=system)
        if beside is not None:
            sidecar.write(beside, self.mark, verdict=verdict)
        if self._auto is not None:
            self._rate = self._auto.next(self._rate, verdict.log10_e, math.log10(self._monitor.target_e))
            self.board.rate = self._rate
        if self._monitor.lost:
            self._fail(f"the watermark was proven earlier in this run and now is {verdict}")
        return verdict

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as this one would have: the rate and the looks so far; nothing secret."""
        return {"rate": self._rate, "looks": list(self._monitor.looks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._rate = self.board.rate = int(state["rate"])
        self._monitor.looks = [float(look) for look in state["looks"]]

    def _example(self) -> Any:
        if self._like is None:
            seen = None if self._collate is None else self._collate.like
            self._like = peek(base_loader(self.loader).dataset) if seen is None else seen
        return self._like

    def _fail(self, why: str) -> None:
        why += ": train longer, raise rate=, or read `history` for where it was lost"
        if self.on_failure == "raise":
            raise VerificationError(why)
        self.stopped = self.on_failure == "stop"
        warnings.warn(why, VerificationWarning, stacklevel=3)

    @property
    def _injected(self) -> int:
        return self.board.injected - self._before

    def _data(self) -> Any:
        return getattr(base_loader(self.loader), "dataset", None) if self._training_set is None else self._training_set

    def _arguments(self) -> dict[str, Any]:
        loader = base_loader(self.loader)
        found = {"batch_size": getattr(loader, "batch_size", None), "rate": self._rate / PPM, "mode": self.mode}
        return {"wmplug": found, "given": self._parameters}

    # What a distributed loop does otherwise.

    def _world(self) -> int:
        return 1

    def _collates(self) -> bool:
        return True

    def _writes(self) -> bool:
        return True

    def _agree(self, verdict: Verdict, looks: list[float]) -> tuple[Verdict, list[float]]:
        return verdict, looks

    def _report(self, entry: dict[str, Any]) -> None:
        if self.log is not None:
            self.log(entry)


def _diverged(points: TorchPoints) -> None:
    # The optimizer is the loop's own: its moments are as broken, so that no training could go on from here.
    points.restore()
    raise DivergenceError(
        f"{DIVERGED}; the model has the weights of the last checkpoint() again (else those it came with), and "
        "needs a new optimizer"
    )


# Those inside their with-block; one whose frame died without leaving it is collected, and holds nothing any more.
_ACTIVE: "weakref.WeakSet[Watermarking]" = weakref.WeakSet()


def refuse_held(model: torch.nn.Module | None, loader: Any) -> None:
    """Refuse to undo what another watermarking has set.

    Args:
        model: not wrapped for distribution; None where only the loader is touched.
        loader: any; a DataLoader's collate_fn tells whose it is.

    Raises:
        InjectionError: another `Watermarking` is inside its with-block with this model or loader.
    """
    collate = getattr(base_loader(loader), "collate_fn", None)
    modules = set() if model is None else {*model.modules()}
    for other in tuple(_ACTIVE):
        held = "loader" if isinstance(collate, TriggerCollate) and collate.board is other.board else None
        if model is not None and (other.bare in modules or model in {*other.bare.modules()}):
            held = "model"
        if held is not None:
            raise InjectionError(
                f"another Watermarking (mark {other.mark.id[:8]}) is active on this {held}, and a second one would "
                "undo it: one watermark a run; leave the other's with-block first"
            )


def inject(loader: L, mark: Watermark, *, rate: float | Literal["auto"] | None = None, mode: Mode = "append") -> L:
    """Put triggers into what a loader yields, without the rest of `Watermarking`.

    Args:
        loader: a DataLoader; its collate_fn is wrapped in place.
        mark: the watermark; its scheme works on samples alone.
        rate: share of triggers in what the model sees; the scheme's by default.
        mode: `append` or `replace`.

    Returns:
        The same loader.

    Raises:
        InjectionError: the loader does not collate or has triggers already, or the scheme needs more than samples.
        InputError: triggers do not fit the dataset; the message shows both.
    """
    need_mark(mark)
    need_points("torch.inject", mark.scheme, {"samples"})
    if rate == "auto":
        raise InputError('rate="auto" follows verdicts, and inject() makes none: use Watermarking')
    refuse_held(None, loader)
    _wrap(loader, mark, Board(read_rate(rate, mark.scheme.rate)[0]), mode, lasting=True)
    return loader


def _wrap(
    loader: Any, mark: Watermark, board: Board, mode: Mode, world: int = 1, lasting: bool = False
) -> TriggerCollate:
    lessons = mark.lessons()
    examples = lessons if mark.preprocess is None else prepared(lessons, mark.preprocess)
    placement = Placement.draw(mark.subkeys.stream("schedule", mode), len(examples), mode)
    made = wrap(loader, lambda collate: TriggerCollate(collate, examples, placement, board, world, lasting))
    base = base_loader(loader)
    dataset = base.dataset
    if base.batch_size is not None and isinstance(base.sampler, SequentialSampler):
        # Triggers follow from what a batch contains, and here every epoch has the same batches.
        shown = len(base) * base.batch_size * board.rate / PPM
        if shown < 3 * len(examples):
            warnings.warn(
                f"the loader does not shuffle, so every epoch shows the same {shown:.0f} or so of {len(examples)} "
                "triggers: set shuffle=True",
                InjectionWarning,
                stacklevel=4,
            )
    # Before training, where it costs an example; a stream may not give the same one twice.
    if not isinstance(dataset, IterableDataset) and (like := peek(dataset)) is not None:
        made.like = like
        try:
            for position in range(len(examples)):
                made.fit(position)
        except InputError:
            unwrap(loader)
            raise
    return made
