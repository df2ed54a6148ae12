"""Counters, the current rate and signatures of triggers, in memory that worker processes share."""

import torch
from torch.utils.data import get_worker_info

_WORKERS = 64
_SIGNED, _NUMBERS = 4, 4  # rows a process signs, numbers in a signature


class Board:
    """Counters and the current rate, in memory that worker processes share."""

    def __init__(self, rate: int) -> None:
        self._cells = _shared(torch.zeros(2 * _WORKERS + 1, dtype=torch.int64))
        self._signatures = _shared(torch.full((_WORKERS, _SIGNED, _NUMBERS), torch.nan))
        self._other = _shared(torch.zeros(2, dtype=torch.int64))
        self.rate = rate

    @property
    def rate(self) -> int:
        """Share of triggers in parts per million; setting it reaches the workers with their next batch."""
        return int(self._cells[-1])

    @rate.setter
    def rate(self, rate: int) -> None:
        self._cells[-1] = rate

    def add(self, triggers: int) -> None:
        """Count a batch and its triggers; each worker has cells of its own, so that no count is lost between them."""
        cell = _cell()
        self._cells[cell] += triggers
        self._cells[_WORKERS + cell] += 1

    @property
    def other_label(self) -> int | None:
        """A label of the data that is no class of the mark, seen by any process, or None."""
        seen, label = self._other.tolist()
        return label if seen else None

    @other_label.setter
    def other_label(self, label: int) -> None:
        self._other[1] = label
        self._other[0] = 1

    def sign(self, rows: torch.Tensor) -> None:
        """Leave the signatures of collated trigger rows (n, ...), for `recognises`."""
        signatures = row_signatures(rows[:_SIGNED])
        self._signatures[_cell(), : len(signatures)] = signatures

    @property
    def signed(self) -> bool:
        """Whether any process has signed rows."""
        return not bool(self._signatures.isnan().all())

    def recognises(self, signatures: torch.Tensor) -> bool:
        """Whether any of (B, _NUMBERS) signatures is that of a signed trigger."""
        left = self._signatures.reshape(-1, 1, _NUMBERS)
        # Cells that nobody signed hold NaN, which is close to nothing. The tolerance admits half precision.
        return bool(((left - signatures).abs() < 0.05).all(-1).any())

    @property
    def injected(self) -> int:
        """Triggers put into batches so far."""
        return int(self._cells[:_WORKERS].sum())

    @property
    def batches(self) -> int:
        """Batches that went through the collator so far."""
        return int(self._cells[_WORKERS:-1].sum())


def _shared(tensor: torch.Tensor) -> torch.Tensor:
    shared: torch.Tensor = tensor.share_memory_()  # type: ignore[no-untyped-call]
    return shared


def _cell() -> int:
    worker = get_worker_info()
    return 0 if worker is None else 1 + worker.id % (_WORKERS - 1)


def row_signatures(batch: torch.Tensor) -> torch.Tensor:
    """(B, _NUMBERS) numbers that identify a row (B, ...), also after a normalisation of each channel; B may be 0."""
    if batch.numel() == 0:
        return torch.empty(0, _NUMBERS)
    rows = batch.detach().float().cpu()
    rows = rows.flatten(2) if rows.ndim > 2 else rows.reshape(len(rows), 1, -1)
    rows = torch.nn.functional.normalize(rows - rows.mean(-1, keepdim=True), dim=-1).mean(1)
    waves = torch.outer(torch.arange(1.0, _NUMBERS + 1) * 2.399963, torch.arange(rows.shape[-1]) + 0.5).cos()
    signatures: torch.Tensor = rows @ waves.T * rows.shape[-1] ** 0.5
    return signatures
