"""Trigger examples in a torch DataLoader: joined to the user's examples before the user's own collator.

    for indices in batch_sampler:
        features = [dataset[i] for i in indices]
        batch = collate_fn(features)              <- TriggerCollate(collate_fn)(features)
        yield batch

Worker processes receive pickles of these objects: prepared examples and integer tables, no key.
"""

import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from wmplug.adapters.torch.schema import fit
from wmplug.errors import InjectionError, InputError
from wmplug.schemes.tilt.texts import INPUTS, LABELS
from wmplug.tasks.classes import class_of
from wmplug.training.placement import Placement

_WORKERS = 64
_SIGNED, _NUMBERS = 4, 4  # rows a process signs, numbers in a signature


class Board:
    """Counters and the current rate, in memory that worker processes share."""

    def __init__(self, rate: int) -> None:
        self._cells = _shared(torch.zeros(2 * _WORKERS + 1, dtype=torch.int64))
        self._signatures = _shared(torch.full((_WORKERS, _SIGNED, _NUMBERS), torch.nan))
        self.rate = rate

    @property
    def rate(self) -> int:
        """Share of triggers in parts per million; setting it reaches the workers with their next batch."""
        return int(self._cells[-1])

    @rate.setter
    def rate(self, rate: int) -> None:
        self._cells[-1] = rate

    def add(self, triggers: int) -> None:
        """Count a batch; each worker has cells of its own, so that no count is lost between them."""
        cell = _cell()
        self._cells[cell] += triggers
        self._cells[_WORKERS + cell] += 1

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
    """(B, _NUMBERS) numbers that identify a row (B, ...), also after a normalisation of each channel."""
    rows = batch.detach().float().cpu()
    rows = rows.flatten(2) if rows.ndim > 2 else rows.reshape(len(rows), 1, -1)
    rows = torch.nn.functional.normalize(rows - rows.mean(-1, keepdim=True), dim=-1).mean(1)
    waves = torch.outer(torch.arange(1.0, _NUMBERS + 1) * 2.399963, torch.arange(rows.shape[-1]) + 0.5).cos()
    signatures: torch.Tensor = rows @ waves.T * rows.shape[-1] ** 0.5
    return signatures


def primary(batch: Any, name: str | None = None) -> torch.Tensor | None:
    """The input tensor of a batch or of a call: by name if it has one, else the first besides the labels."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.ndim > 0 else None
    if isinstance(batch, Mapping):
        ordered = [k for k in (name, *INPUTS) if k in batch] + [k for k in batch if k not in LABELS]
        batch = [batch[k] for k in ordered]
    parts = batch if isinstance(batch, (list, tuple)) else []
    return next((tensor for part in parts if (tensor := primary(part, name)) is not None), None)


def labels_in(batch: Any) -> Any:
    """The labels of a collated batch or of a model's keyword arguments, or None."""
    if isinstance(batch, Mapping):
        return next((batch[k] for k in LABELS if k in batch), None)
    return batch[1] if isinstance(batch, (list, tuple)) and len(batch) == 2 else None


class TriggerCollate:
    """A collate_fn that adds triggers to the features, then calls the user's.

    Args:
        collate: the user's collate_fn.
        examples: the pool, as the dataset yields examples.
        placement: their places in the batches.
        board: rate and counters.
        world: number of processes that batches are split over after collation; the count is a multiple of it, spread
            evenly.
        lasting: whether it stays on the loader for good.
        classes: number of classes; 0 takes integer labels alone.
    """

    def __init__(
        self,
        collate: Callable[[list[Any]], Any],
        examples: Sequence[Any],
        placement: Placement,
        board: Board,
        world: int = 1,
        lasting: bool = False,
        classes: int = 0,
    ) -> None:
        self.collate, self.examples, self.classes = collate, examples, classes
        self.placement, self.board, self.world, self.lasting = placement, board, world, lasting
        self.like: Any = None
        self._fitted: dict[int, Any] = {}
        self._signed = False

    def __call__(self, features: list[Any]) -> Any:
        """Collate the batch with its triggers."""
        if self.like is None:
            self.like = features[0]
        joined, added = self.join(features)
        batch = self.collate(joined)
        if added:
            self._check(batch, len(joined), added)
        self.board.add(len(added))
        return batch

    def join(self, features: list[Any]) -> tuple[list[Any], list[int]]:
        """The features with triggers at the end of each process's share, and the triggers' positions."""
        slot = self.placement.slot_of(fingerprint(features[0]))
        share = -(-len(features) // self.world)
        # Each process gets as many as the first, or the shares would be cut elsewhere.
        count = self.placement.count(slot, max(1, len(features) // self.world), self.board.rate)
        joined: list[Any] = []
        added: list[int] = []
        for rank in range(self.world):
            kept = features[rank * share : (rank + 1) * share]
            if self.placement.mode == "replace":
                count = min(count, len(kept))
                kept = kept[: len(kept) - count]
            rows = self.placement.rows((slot + rank) % 2**40, count, max(1, count))
            joined += kept
            added += range(len(joined), len(joined) + count)
            joined += [self.fit(int(row)) for row in rows]
        return joined, added

    def fit(self, position: int) -> Any:
        """An example of the pool in the dataset's schema, made once."""
        if position not in self._fitted:
            self._fitted[position] = fit(self.examples[position], self.like, self.classes)
        return self._fitted[position]

    def _check(self, batch: Any, size: int, added: list[int]) -> None:
        labels, inputs = labels_in(batch), primary(batch)
        if isinstance(labels, torch.Tensor) and labels.ndim > 0 and len(labels) == size:
            refuse_masked(labels[added])
            if not self._signed:
                refuse_several(labels, self.classes)
        if not self._signed and inputs is not None and len(inputs) == size:
            self._signed = True
            self.board.sign(inputs[added])


def prepared(lessons: Iterable[tuple[Any, int]], prepare: Callable[[Any, int], Any], classes: int = 0) -> list[Any]:
    """The examples that `prepare(input, answer)` makes from the lessons; `classes` as in `class_of`.

    Raises:
        InputError: an example has another label than the answer it was made for.
    """
    examples = []
    for x, answer in lessons:
        examples.append(prepare(x, answer))
        label = labels_in(examples[-1])
        told = None if label is None else class_of(label, classes)
        if told not in (None, answer):
            raise InputError(
                f"preprocess was called with the answer {answer} and made an example with the label {told}, so "
                "another watermark would be taught: preprocess(input, answer) must return that answer as the label"
            )
    return examples


def refuse_masked(labels: torch.Tensor) -> None:
    """Refuse a batch whose triggers would not be learnt.

    Args:
        labels: (n, ...) collated labels of the triggers.

    Raises:
        InjectionError: all are masked.
    """
    if bool((labels == -100).all()):
        raise InjectionError(
            "the collator masked the labels of all triggers (-100), so training would ignore them: use a collator that "
            "keeps labels (DataCollatorForLanguageModeling(mlm=False) overwrites them)"
        )


def refuse_several(labels: torch.Tensor, classes: int) -> None:
    """Refuse a batch whose labels are no classes.

    Args:
        labels: (n, ...) collated labels; integers may be anything.
        classes: of the task; 0 if unknown, so that no float is a class.

    Raises:
        InjectionError: floats that are neither (n, classes) shares with sum 1 nor, of two classes, shares of class 1.
    """
    if not labels.is_floating_point() or all(class_of(label, classes) is not None for label in labels):
        return
    raise InjectionError(
        f"the collator makes labels of shape {tuple(labels.shape)} and dtype {labels.dtype} that name no class of "
        f"{classes}: several labels an input and numbers to regress are not supported; use a collator that makes one "
        f"integer class, or {classes} shares that sum to 1, of each example (one share of class 1 will do for two)"
    )


def base_loader(loader: Any) -> Any:
    """The DataLoader, also inside accelerate's own."""
    return getattr(loader, "base_dataloader", loader)


def wrap(loader: Any, collate: Callable[[Callable[[list[Any]], Any]], TriggerCollate]) -> TriggerCollate:
    """Wrap the collate_fn of a loader in place; a wrapper left by an earlier run is replaced, not stacked.

    Args:
        loader: a DataLoader, or accelerate's around one.
        collate: makes the wrapper around the user's collate_fn.

    Raises:
        InjectionError: the loader does not collate (batch_size=None), is not a DataLoader, or was passed to `inject`.
    """
    base = base_loader(loader)
    if not hasattr(base, "collate_fn"):
        raise InjectionError(
            f"the loader is a {type(loader).__name__} without a collate_fn, so wmplug cannot add triggers: pass the "
            "DataLoader that makes the batches"
        )
    if getattr(base, "batch_size", 1) is None and getattr(base, "batch_sampler", None) is None:
        raise InjectionError(
            "this DataLoader has batch_size=None and does not collate, so wmplug cannot add triggers: let it batch "
            "(batch_size=...), or batch in a collate_fn"
        )
    if isinstance(base.collate_fn, TriggerCollate) and base.collate_fn.lasting:
        raise InjectionError(
            "inject() put a watermark's triggers into this loader already, and a second watermark would undo that: "
            "make a new DataLoader, one for each watermark"
        )
    wrapper = collate(own_collate(loader))
    base.collate_fn = wrapper
    # Persistent workers that run already hold the old collate_fn and would never get the new one otherwise.
    if getattr(base, "_iterator", None) is not None:
        base._iterator = None
    return wrapper


def own_collate(loader: Any) -> Any:
    """The user's collate_fn, wrapped or not."""
    inner = base_loader(loader).collate_fn
    return inner.collate if isinstance(inner, TriggerCollate) else inner


def unwrap(loader: Any) -> None:
    """Give the loader its own collate_fn back."""
    base_loader(loader).collate_fn = own_collate(loader)


@contextmanager
def undisturbed(devices: Iterable[int] = ()) -> Iterator[None]:
    """Leave the random numbers of a training run as they were, on the CPU and on CUDA devices of these numbers."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def peek(dataset: Any) -> Any:
    """The first example of a dataset, or None; the random numbers of a training run stay as they were."""
    try:
        with undisturbed():
            return next(iter(dataset), None) if isinstance(dataset, IterableDataset) else dataset[0]
    except (IndexError, KeyError):
        return None  # not indexed by numbers: the first batch shows an example


def fingerprint(value: Any, crc: int = 0) -> int:
    """A stable 32-bit checksum of an example's content; public, and good only for distinguishing batches."""
    if isinstance(value, Mapping):
        for key in sorted(value):
            crc = fingerprint(value[key], zlib.crc32(str(key).encode(), crc))
        return crc
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    if isinstance(value, np.ndarray) or hasattr(value, "tobytes"):
        return zlib.crc32(value.tobytes(), crc)
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(v, (int, float)) for v in value):
            return zlib.crc32(np.asarray(value).tobytes(), crc)
        for item in value:
            crc = fingerprint(item, crc)
        return crc
    return zlib.crc32(repr(value).encode() if isinstance(value, (str, bytes, int, float, bool)) else b"", crc)
