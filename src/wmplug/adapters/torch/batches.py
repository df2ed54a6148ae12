"""Trigger examples in a torch DataLoader: joined to the user's examples before the user's own collator.

    for indices in batch_sampler:
        features = [dataset[i] for i in indices]
        batch = collate_fn(features)              <- TriggerCollate(collate_fn)(features)
        yield batch

What is here is pickled to worker processes: prepared examples and integer tables, no key.
"""

import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from wmplug.errors import InjectionError, InputError
from wmplug.schemes.tilt.texts import INPUTS, LABELS
from wmplug.statistics.arrays import to_numpy
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
        """Count a batch; each worker has cells of its own, so that nothing is lost between them."""
        cell = _cell()
        self._cells[cell] += triggers
        self._cells[_WORKERS + cell] += 1

    def sign(self, rows: torch.Tensor) -> None:
        """Leave the signatures of collated trigger rows (n, ...), for `recognises`."""
        made = row_signatures(rows[:_SIGNED])
        self._signatures[_cell(), : len(made)] = made

    @property
    def signed(self) -> bool:
        """Whether any process has left signatures."""
        return not bool(self._signatures.isnan().all())

    def recognises(self, signatures: torch.Tensor) -> bool:
        """Whether any of (B, _NUMBERS) signatures is that of a signed trigger."""
        left = self._signatures.reshape(-1, 1, _NUMBERS)
        # NaN, where nobody signed, is close to nothing. The tolerance lets half precision pass.
        return bool(((left - signatures).abs() < 0.05).all(-1).any())

    @property
    def injected(self) -> int:
        """Triggers that were put into batches so far."""
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
    """(B, _NUMBERS) numbers by which a row (B, ...) is known again, also after a normalisation of each channel."""
    rows = batch.detach().float().cpu()
    rows = rows.flatten(2) if rows.ndim > 2 else rows.reshape(len(rows), 1, -1)
    rows = torch.nn.functional.normalize(rows - rows.mean(-1, keepdim=True), dim=-1).mean(1)
    waves = torch.outer(torch.arange(1.0, _NUMBERS + 1) * 2.399963, torch.arange(rows.shape[-1]) + 0.5).cos()
    signatures: torch.Tensor = rows @ waves.T * rows.shape[-1] ** 0.5
    return signatures


def primary(batch: Any, name: str | None = None) -> torch.Tensor | None:
    """The input tensor of a batch or of a call: by name where it has one, else the first that is not the labels."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.ndim > 0 else None
    if isinstance(batch, Mapping):
        ordered = [k for k in (name, *INPUTS) if k in batch] + [k for k in batch if k not in LABELS]
        batch = [batch[k] for k in ordered]
    parts = batch if isinstance(batch, (list, tuple)) else []
    return next((found for part in parts if (found := primary(part, name)) is not None), None)


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
        placement: which of them go where.
        board: rate and counters.
        world: batches are split over so many processes after collation; the count is a multiple of it, spread evenly.
        lasting: nothing takes it off the loader again.
    """

    def __init__(
        self,
        collate: Callable[[list[Any]], Any],
        examples: Sequence[Any],
        placement: Placement,
        board: Board,
        world: int = 1,
        lasting: bool = False,
    ) -> None:
        self.collate, self.examples = collate, examples
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
        """The features with triggers at the end of each process's share, and where these are."""
        slot = self.placement.slot_of(fingerprint(features[0]))
        share = -(-len(features) // self.world)
        # Each process gets as many as the first, or the shares would be cut at other places.
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
        """One of the pool in the dataset's schema, made once."""
        if position not in self._fitted:
            self._fitted[position] = fit(self.examples[position], self.like)
        return self._fitted[position]

    def _check(self, batch: Any, size: int, added: list[int]) -> None:
        labels, inputs = labels_in(batch), primary(batch)
        if isinstance(labels, torch.Tensor) and labels.ndim > 0 and len(labels) == size:
            refuse_masked(labels[added])
        if not self._signed and inputs is not None and len(inputs) == size:
            self._signed = True
            self.board.sign(inputs[added])


def prepared(lessons: Iterable[tuple[Any, int]], prepare: Callable[[Any, int], Any]) -> list[Any]:
    """What `prepare(input, answer)` makes of each lesson.

    Raises:
        InputError: an example has another label than the answer it was made for.
    """
    examples = []
    for x, answer in lessons:
        examples.append(prepare(x, answer))
        label = labels_in(examples[-1])
        array = to_numpy(label) if isinstance(label, (int, np.integer, np.ndarray, torch.Tensor)) else np.empty(0)
        if array.size == 1 and array.dtype.kind in "iu" and array.item() != answer:
            raise InputError(
                f"preprocess was given the answer {answer} and made an example with the label {array.item()}, so "
                "another watermark would be taught: preprocess(input, answer) has to return that answer as the label"
            )
    return examples


def refuse_masked(labels: torch.Tensor) -> None:
    """Refuse a batch whose triggers would not be learnt.

    Args:
        labels: (n, ...) of the triggers, collated.

    Raises:
        InjectionError: all are masked, or they are soft.
    """
    if labels.is_floating_point() and labels.ndim > 1:
        raise InjectionError(
            f"the collator makes soft targets of shape {tuple(labels.shape)} (mixup?), which are not supported yet: "
            "use a collator that keeps one integer class an example"
        )
    if bool((labels == -100).all()):
        raise InjectionError(
            "the collator masked the labels of all triggers (-100), so training would ignore them: use a collator that "
            "keeps labels (DataCollatorForLanguageModeling(mlm=False) overwrites them)"
        )


def base_loader(loader: Any) -> Any:
    """The DataLoader, also where accelerate put its own around it."""
    return getattr(loader, "base_dataloader", loader)


def wrap(loader: Any, collate: Callable[[Callable[[list[Any]], Any]], TriggerCollate]) -> TriggerCollate:
    """Wrap the collate_fn of a loader in place; a wrapper left by an earlier run is replaced, not stacked.

    Args:
        loader: a DataLoader, or accelerate's around one.
        collate: makes the wrapper around the user's collate_fn.

    Raises:
        InjectionError: the loader does not collate (batch_size=None), is no DataLoader, or was given to `inject`.
    """
    base = base_loader(loader)
    if not hasattr(base, "collate_fn"):
        raise InjectionError(
            f"the loader is a {type(loader).__name__} without a collate_fn, so there is nowhere to add triggers: give "
            "the DataLoader that makes the batches"
        )
    if getattr(base, "batch_size", 1) is None and getattr(base, "batch_sampler", None) is None:
        raise InjectionError(
            "this DataLoader has batch_size=None and does not collate, so there is nowhere to add triggers: let it "
            "batch (batch_size=...), or batch in a collate_fn"
        )
    if isinstance(base.collate_fn, TriggerCollate) and base.collate_fn.lasting:
        raise InjectionError(
            "inject() put a watermark's triggers into this loader already, and a second watermark would undo that: "
            "make a new DataLoader, one for each watermark"
        )
    made = collate(own_collate(loader))
    base.collate_fn = made
    # Persistent workers that run already hold the old collate_fn; without this they would never get the new one.
    if getattr(base, "_iterator", None) is not None:
        base._iterator = None
    return made


def own_collate(loader: Any) -> Any:
    """The user's collate_fn, wrapped or not."""
    inner = base_loader(loader).collate_fn
    return inner.collate if isinstance(inner, TriggerCollate) else inner


def unwrap(loader: Any) -> None:
    """Give the loader its own collate_fn back."""
    base_loader(loader).collate_fn = own_collate(loader)


@contextmanager
def undisturbed(devices: Iterable[int] = ()) -> Iterator[None]:
    """Leaves no trace in the random numbers of a training run, on the CPU and on CUDA devices of these numbers."""
    state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)


def peek(dataset: Any) -> Any:
    """The first example of a dataset, or None; leaves no trace in the random numbers of a training run."""
    try:
        with undisturbed():
            return next(iter(dataset), None) if isinstance(dataset, IterableDataset) else dataset[0]
    except (IndexError, KeyError):
        return None  # indexed by something else than numbers: the first batch shows an example


def fingerprint(value: Any, crc: int = 0) -> int:
    """A stable 32-bit number of an example's content; no secret, only a way to tell batches apart."""
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


def fit(example: Any, like: Any) -> Any:
    """The example in the schema of the dataset's own: same container, keys, kinds, shapes and dtypes.

    Args:
        example: a trigger, as `preprocess` made it, or (input, answer).
        like: an example of the dataset.

    Raises:
        InputError: it does not fit; the message shows both.
    """
    if isinstance(like, Mapping):
        return _fit_mapping(example, like)
    if isinstance(like, (tuple, list)) and isinstance(example, (tuple, list)) and len(like) == len(example):
        values = [_fit_value(e, v, f"[{i}]") for i, (e, v) in enumerate(zip(example, like, strict=True))]
        return type(like)(*values) if hasattr(like, "_fields") else type(like)(values)
    raise InputError(
        f"a trigger is {_show(example)}, the dataset yields {_show(like)}: pass preprocess=, a function from (input, "
        "answer) to an example of the dataset"
    )


def _fit_mapping(example: Any, like: Mapping[str, Any]) -> dict[str, Any]:
    label = next((k for k in LABELS if k in like), None)
    if isinstance(example, (tuple, list)) and len(example) == 2 and label is not None:
        inputs = [k for k in like if k != label and not np.isscalar(like[k])] or [k for k in like if k != label]
        if len(inputs) == 1:
            example = {inputs[0]: example[0], label: example[1]}
    if isinstance(example, Mapping):
        given = {(label if k in LABELS and label else k): v for k, v in example.items()}
        if all(k in given for k in like):
            return {k: _fit_value(given[k], like[k], f"[{k!r}]") for k in like}
    raise InputError(
        f"a trigger is {_show(example)}, the dataset yields {_show(like)}: pass preprocess=, a function from (input, "
        "answer) to a dict with the dataset's keys"
    )


def _fit_value(value: Any, like: Any, where: str) -> Any:
    if _is_class(value) and _is_soft(like):
        raise InputError(
            f"a trigger's {where} is the class {value}, the dataset's is {_show(like)}: soft targets, several labels "
            "an input and numbers to regress are not supported yet; give one integer class an example"
        )
    if isinstance(like, torch.Tensor):
        made = torch.as_tensor(np.asarray(value)) if not isinstance(value, torch.Tensor) else value
        _refuse_misfit(made, like, where, made.is_floating_point(), like.is_floating_point())
        return made.reshape(like.shape if made.numel() == like.numel() else made.shape).to(like.dtype)
    if isinstance(like, np.ndarray):
        array = np.asarray(value)
        _refuse_misfit(array, like, where, array.dtype.kind == "f", like.dtype.kind == "f")
        return array.reshape(like.shape if array.size == like.size else array.shape).astype(like.dtype)
    if isinstance(like, (int, np.integer)) and np.ndim(value) == 0:
        return type(like)(value)
    if isinstance(like, list) and not isinstance(value, (list, str)):
        return np.asarray(value).tolist()
    if isinstance(like, str) != isinstance(value, str) or hasattr(like, "getbands") != hasattr(value, "getbands"):
        raise InputError(
            f"a trigger's {where} is {_show(value)}, the dataset's {_show(like)}: pass preprocess=, a function from "
            "(input, answer) to an example"
        )
    return value


def _is_class(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_soft(like: Any) -> bool:
    if isinstance(like, (torch.Tensor, np.ndarray)):
        return like.ndim > 0 or str(like.dtype).rpartition(".")[2].startswith(("float", "bfloat"))
    return isinstance(like, (list, tuple, float, np.floating))


def _refuse_misfit(value: Any, like: Any, where: str, floats: bool, like_floats: bool) -> None:
    shape, wanted = tuple(value.shape), tuple(like.shape)
    squeezed = [tuple(n for n in s if n != 1) for s in (shape, wanted)]
    # A sequence may have any length: the user's collator pads it.
    if not (squeezed[0] == squeezed[1] or len(shape) == len(wanted) == 1):
        problem = f"has shape {shape}, the dataset's {wanted}"
    elif floats != like_floats and len(wanted) > 0:
        problem = f"is {value.dtype}, the dataset's {like.dtype}, and wmplug does not guess the scale"
    else:
        return
    raise InputError(f"a trigger's {where} {problem}: pass preprocess=, a function from (input, answer) to an example")


def _show(example: Any) -> str:
    if isinstance(example, Mapping):
        return "{" + ", ".join(f"{k}: {_show(v)}" for k, v in example.items()) + "}"
    if isinstance(example, (tuple, list)) and len(example) <= 4:
        return "(" + ", ".join(_show(v) for v in example) + ")"
    shape = getattr(example, "shape", None)
    return type(example).__name__ + (f"{tuple(shape)}" if shape is not None else "")
