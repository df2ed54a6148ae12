"""skorch: triggers join the batches of a NeuralNet.

net.fit(X, y)
    notify("on_train_begin")            <- collate_fn of the training iterator is wrapped, the guard set
    for epoch in range(max_epochs):
        for batch in iterator_train:    <- triggers are in the batch
            train_step(batch)
        notify("on_epoch_end")          <- verified, and put into the history
    notify("on_train_end")              <- the net's own collate_fn is given back; verified, on_failure
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.utils.data import default_collate

from wmplug import InjectionError, Watermark
from wmplug.adapters.torch import Board, Guard, ModuleSuspect, TriggerCollate, prepared
from wmplug.training import PPM, At, Marking, OneProcess, Options, Results

_COLLATE = "iterator_train__collate_fn"
_SHARED = ("rate", "mode", "verify_on", "on_failure", "target_e", "batch_size", "training_set", "require_evidence")
EVENTS = ("epoch_end", "train_end")


class SkorchLoop(OneProcess):
    """One call of fit()."""

    name: ClassVar[str] = "skorch"
    points: ClassVar[frozenset[str]] = frozenset({"samples"})
    events: ClassVar[tuple[str, ...]] = EVENTS

    def __init__(self) -> None:
        self.net: Any = None
        self.asked: Any = None
        self.board: Board | None = None
        self.stopped = False

    @property
    def at(self) -> At:
        """Batches and epochs so far."""
        rows = self.net.history
        return At(sum(row["train_batch_count"] for row in rows), len(rows))

    def suspect(self) -> ModuleSuspect:
        """The module in training."""
        return self.asked

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Add to the history's row of the epoch."""
        for name, value in numbers.items():
            self.net.history.record(name, value)

    def stop(self) -> None:
        """End training after this epoch."""
        self.stopped = True

    def set_rate(self, rate: int) -> None:
        """Set the rate, which reaches worker processes with their next batch."""
        if self.board is not None:
            self.board.rate = rate


class WatermarkCallback(Results, Callback):
    """Watermarks a net while skorch trains it.

    Args:
        mark: the watermark; its `preprocess`, where given, makes examples as the net's dataset yields them.
        rate, mode, verify_on, on_failure, target_e, batch_size, training_set, require_evidence: as in wmplug's own
            adapters. The history holds the numbers that they log.

    Raises:
        InjectionError: the scheme needs more than samples, or no trigger reaches the module.
    """

    def __init__(
        self,
        mark: Watermark | None,
        *,
        rate: Any = None,
        mode: Any = "append",
        verify_on: Sequence[str] = EVENTS,
        on_failure: Any = "warn",
        target_e: float = 1e6,
        batch_size: int = 64,
        training_set: Any = None,
        require_evidence: bool = False,
    ) -> None:
        self.mark, self.rate, self.mode, self.verify_on, self.on_failure = mark, rate, mode, verify_on, on_failure
        self.target_e, self.batch_size, self.training_set = target_e, batch_size, training_set
        self.require_evidence = require_evidence
        self._make()

    def _make(self) -> None:
        shared = {name: getattr(self, name) for name in _SHARED}
        self._loop = SkorchLoop()
        self._marking = None if self.mark is None else Marking(self.mark, self._loop, Options(**shared))

    def set_params(self, **params: Any) -> "WatermarkCallback":
        """Set options as in scikit-learn; they count from the next fit on."""
        super().set_params(**params)
        if params:
            self._make()
        return self

    def _get_param_names(self) -> list[str]:
        return ["mark", *_SHARED]

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Wrap the collate_fn."""
        if self._marking is None:
            raise InjectionError(
                "this net was pickled, and a pickle never holds the key: give its WatermarkCallback mark= again"
            )
        loop, lessons, prepare = self._loop, self.mark.lessons(), self.mark.preprocess
        loop.net, loop.board, loop.stopped = net, Board(self._marking.rate), False
        loop.asked = ModuleSuspect(net.module_, preprocess=prepare, batch_size=self.batch_size)
        self._marking.begin()
        self._marking.start(data=(X, y), arguments=self._arguments(net), model=net.module_)
        options = net.get_params_for("iterator_train")
        own = options.get("collate_fn", default_collate)
        # An exception in an earlier fit leaves the wrapper behind, since skorch has no event for that.
        own = own.collate if isinstance(own, TriggerCollate) else own
        examples = lessons if prepare is None else prepared(lessons, prepare)
        setattr(net, _COLLATE, TriggerCollate(own, examples, self._marking.placement, loop.board))
        batch = options.get("batch_size", net.batch_size)
        self._guard = Guard(loop.board, net.module_, batch * self._marking.rate / PPM)
        self._guard.install()

    def _arguments(self, net: NeuralNet) -> dict[str, Any]:
        # Not all of get_params(): the watermark is among them.
        own = {name: getattr(net, name) for name in ("max_epochs", "lr", "batch_size")}
        return {"wmplug": {"rate": self._marking.rate / PPM, "mode": self.mode}, "net": own}

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Verify the live module, log, act on a loss."""
        loop = self._loop
        self._marking.inserted(loop.board.injected, loop.at)
        if "epoch_end" in self.verify_on:
            self._marking.checkpoint(loop.at, system=net.module_)
        if loop.stopped:
            raise KeyboardInterrupt  # with which skorch ends training in order

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Give the collate_fn back, refuse a training without triggers, verify, act on failure."""
        setattr(net, _COLLATE, getattr(net, _COLLATE).collate)
        self._guard.finish()
        verify, total = "train_end" in self.verify_on, self._loop.board.injected
        self._marking.end(self._loop.at, verify=verify, again=False, system=net.module_, total=total)

    def __getstate__(self) -> dict[str, Any]:
        # Nets are pickled with their callbacks; the key, and everything derived from it, stays behind.
        kept = {name: getattr(self, name) for name in _SHARED if name != "training_set"}
        return {**kept, "mark": None, "training_set": None, "_marking": None, "_loop": SkorchLoop()}
