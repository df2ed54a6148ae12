"""accelerate loops: `Watermarking` as for plain torch, in one process or several, before or after `prepare`.

model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
with Watermarking(mark, model, loader, accelerator=accelerator) as marking:
    for epoch in range(epochs):
        for x, y in loader:                             <- every process finds its triggers in its batch
            loss = marking.loss(criterion(model(x), y))
            accelerator.backward(loss); optimizer.step()
        marking.checkpoint(epoch=epoch)                 <- all processes verify, and get the main one's verdict
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard
from accelerate.utils import broadcast_object_list
from torch.utils.data import IterableDataset

from wmplug.adapters.torch import loop as plain
from wmplug.claim.terms import TARGET_E
from wmplug.training.loop import At
from wmplug.training.options import Failure, Rate
from wmplug.training.placement import Mode
from wmplug.watermark.watermark import Watermark

T = TypeVar("T")


class AccelerateLoop(plain.TorchLoop):
    """A loop in one process or several."""

    name: ClassVar[str] = "accelerate"

    @property
    def main(self) -> bool:
        """Whether this is the accelerator's main process."""
        return bool(self.of.accelerator.is_main_process)

    def agree(self, value: T) -> T:
        """The main process's, broadcast."""
        shared: list[Any] = [value]
        broadcast_object_list(shared)
        agreed: T = shared[0]
        return agreed

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Call the user's own function on the main process, and the accelerator's trackers."""
        if self.main:
            super().log(numbers, at)
        if self.of.accelerator.trackers:
            self.of.accelerator.log(dict(numbers), step=at.step)


class Watermarking(plain.Watermarking):
    """Watermarks a model while an accelerate loop trains it; a context manager around that loop.

    The numbers of each look go to the accelerator's trackers too. With
    `accelerator.register_for_checkpointing(marking)` a resumed run continues its looks and rate="auto".

    Args:
        mark: the watermark, or the path of one that was made without preprocess=.
        model: before or after `prepare`.
        loader: before or after `prepare`; if batches are split over processes, each gets its share of the triggers.
        accelerator: the loop's.
        rate, mode, verify_on, on_failure, target_e, batch_size, training_set, require_evidence: as for plain torch.
        head, forward, parameters, flat: as for plain torch.
        log: as for plain torch, called on the main process.
    """

    _loop: ClassVar[type[plain.TorchLoop]] = AccelerateLoop

    def __init__(
        self,
        mark: Watermark | str | Path,
        model: torch.nn.Module,
        loader: Any,
        *,
        rate: Rate = None,
        mode: Mode = "append",
        verify_on: Sequence[plain.Event] = (),
        on_failure: Failure = "warn",
        target_e: float = TARGET_E,
        batch_size: int = 64,
        training_set: Any = None,
        require_evidence: bool = False,
        accelerator: Accelerator,
        head: str | torch.nn.Module | None = None,
        forward: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
        log: Callable[[dict[str, Any]], None] | None = None,
        parameters: Any = None,
        flat: float = 0.0,
    ) -> None:
        self.accelerator = accelerator
        super().__init__(
            mark,
            model,
            loader,
            rate=rate,
            mode=mode,
            verify_on=verify_on,
            on_failure=on_failure,
            target_e=target_e,
            batch_size=batch_size,
            training_set=training_set,
            require_evidence=require_evidence,
            head=head,
            forward=forward,
            log=log,
            parameters=parameters,
            flat=flat,
        )

    @property
    def bare(self) -> torch.nn.Module:
        """The model without the wrappers of distributed training."""
        inner: torch.nn.Module = self.accelerator.unwrap_model(self.model)
        return inner

    @property
    def dispatched(self) -> bool:
        """Whether the main process collates for all and batches are split afterwards."""
        if isinstance(self.loader, (DataLoaderDispatcher, DataLoaderShard)):
            return isinstance(self.loader, DataLoaderDispatcher)
        wanted: bool | None = self.accelerator.dispatch_batches
        return isinstance(self.loader.dataset, IterableDataset) if wanted is None else wanted

    def _world(self) -> int:
        return int(self.accelerator.num_processes) if self.dispatched else 1

    def _collates(self) -> bool:
        return bool(self.accelerator.is_main_process) or not self.dispatched
