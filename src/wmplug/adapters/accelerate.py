"""accelerate loops: `Watermarking` as for plain torch, in one process or several, before or after `prepare`.

model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
with Watermarking(mark, model, loader, accelerator=accelerator) as marking:
    for epoch in range(epochs):
        for x, y in loader:                             <- every process finds its triggers in its batch
            loss = marking.loss(criterion(model(x), y))
            accelerator.backward(loss); optimizer.step()
        marking.checkpoint(epoch=epoch)                 <- all processes verify, and get the main one's verdict
"""

from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard
from accelerate.utils import broadcast_object_list
from torch.utils.data import IterableDataset

from wmplug.adapters import torch as plain
from wmplug.claim.verdict import Verdict
from wmplug.watermark.watermark import Watermark


class Watermarking(plain.Watermarking):
    """Watermarks a model while an accelerate loop trains it; a context manager around that loop.

    Entries of `history` go to the accelerator's trackers too, and `accelerator.register_for_checkpointing(marking)`
    makes rate="auto" go on where a resumed run left it.

    Args:
        mark: the watermark.
        model: before or after `prepare`.
        loader: before or after `prepare`; where batches are split over processes, each gets its share of the triggers.
        accelerator: of the loop.
        **options: as for plain torch; `log` is called on the main process.
    """

    adapter: ClassVar[str] = "accelerate"

    def __init__(
        self, mark: Watermark, model: torch.nn.Module, loader: Any, *, accelerator: Accelerator, **options: Any
    ) -> None:
        super().__init__(mark, model, loader, **options)
        self.accelerator = accelerator

    @property
    def bare(self) -> torch.nn.Module:
        """The model without what distribution wrapped around it."""
        inner: torch.nn.Module = self.accelerator.unwrap_model(self.model)
        return inner

    @property
    def dispatched(self) -> bool:
        """Whether the main process collates for all, and batches are cut up afterwards."""
        if isinstance(self.loader, (DataLoaderDispatcher, DataLoaderShard)):
            return isinstance(self.loader, DataLoaderDispatcher)
        wanted: bool | None = self.accelerator.dispatch_batches
        return isinstance(self.loader.dataset, IterableDataset) if wanted is None else wanted

    def _world(self) -> int:
        return int(self.accelerator.num_processes) if self.dispatched else 1

    def _collates(self) -> bool:
        return bool(self.accelerator.is_main_process) or not self.dispatched

    def _writes(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def _agree(self, verdict: Verdict, looks: list[float]) -> tuple[Verdict, list[float]]:
        # Buffers such as running means differ a little between processes until the next forward pass.
        shared: list[Any] = [verdict, looks]
        broadcast_object_list(shared)
        return shared[0], shared[1]

    def _report(self, entry: dict[str, Any]) -> None:
        if self._writes():
            super()._report(entry)
        if self.accelerator.trackers:
            numbers = {name: value for name, value in entry.items() if name.startswith("watermark/")}
            self.accelerator.log(numbers, step=entry["step"])
