"""skorch: triggers join the batches of a NeuralNet.

net.fit(X, y)
    notify("on_train_begin")            <- collate_fn of the training iterator is wrapped, the guard set
    for epoch in range(max_epochs):
        for batch in iterator_train:    <- triggers are in the batch
            train_step(batch)
        notify("on_epoch_end")          <- verified, and put into the history
    notify("on_train_end")              <- the net's own collate_fn is given back
"""

from typing import Any, ClassVar

from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.utils.data import default_collate

from wmplug import InjectionError, Monitor, Watermark
from wmplug.adapters.torch.batches import Board, TriggerCollate, prepared
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.adapters.torch.points import Guard, need_points
from wmplug.training.placement import PPM, Placement, read_rate

_COLLATE = "iterator_train__collate_fn"


class WatermarkCallback(Callback):
    """Watermarks a net while skorch trains it.

    Args:
        mark: the watermark; its `preprocess`, where given, makes examples as the net's dataset yields them.
        rate: share of triggers in what the model sees; the scheme's by default.

    Attributes:
        verdicts_: of each epoch; the history holds them as `watermark_log10_p`, `watermark_matches`.

    Raises:
        InjectionError: the scheme needs more than samples, or no trigger reaches the module.
    """

    points: ClassVar[frozenset[str]] = frozenset({"samples"})

    def __init__(self, mark: Watermark | None, rate: float | None = None) -> None:
        self.mark, self.rate = mark, rate

    def on_train_begin(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Wrap the collate_fn."""
        if self.mark is None:
            raise InjectionError("this net was pickled, and the key is never: give its WatermarkCallback mark= again")
        need_points("skorch", self.mark.scheme, self.points)
        rate = read_rate(self.rate, self.mark.scheme.rate)[0]
        lessons, prepare = self.mark.lessons(), self.mark.preprocess
        examples = lessons if prepare is None else prepared(lessons, prepare)
        placement = Placement.draw(self.mark.subkeys.stream("schedule"), len(examples), "append")
        options = net.get_params_for("iterator_train")
        board = Board(rate)
        own = options.get("collate_fn", default_collate)
        # An exception in an earlier fit left the wrapper behind: skorch has no event for that.
        own = own.collate if isinstance(own, TriggerCollate) else own
        setattr(net, _COLLATE, TriggerCollate(own, examples, placement, board))
        self.verdicts_, self.monitor_ = [], Monitor(self.mark)
        self.guard_ = Guard(board, net.module_, options.get("batch_size", net.batch_size) * rate / PPM)
        self.guard_.install()

    def on_epoch_end(self, net: NeuralNet, **kwargs: Any) -> None:
        """Verify the live module."""
        suspect = ModuleSuspect(net.module_, preprocess=self.mark.preprocess)
        epoch = len(net.history)
        verdict = self.monitor_.look(suspect, step=epoch, run={"adapter": "skorch", "epoch": epoch})
        self.verdicts_.append(verdict)
        net.history.record("watermark_log10_p", verdict.log10_p)
        net.history.record("watermark_matches", verdict.matches)

    def on_train_end(self, net: NeuralNet, X: Any = None, y: Any = None, **kwargs: Any) -> None:
        """Give the collate_fn back, and refuse a training that saw no trigger."""
        setattr(net, _COLLATE, getattr(net, _COLLATE).collate)
        self.guard_.finish()

    def __getstate__(self) -> dict[str, Any]:
        # Nets are pickled with their callbacks; the key, and what was made with it, stays behind.
        return {"mark": None, "rate": self.rate}
