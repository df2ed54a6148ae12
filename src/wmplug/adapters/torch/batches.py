"""Trigger examples in a torch DataLoader: joined to the user's examples before the user's own collator.

    for indices in batch_sampler:
        features = [dataset[i] for i in indices]
        batch = collate_fn(features)              <- TriggerCollate(collate_fn)(features)
        yield batch

Worker processes receive pickles of these objects: prepared examples and integer tables, no key.
"""

import copy
import dataclasses
import itertools
import random
import warnings
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from wmplug.adapters.torch.board import Board
from wmplug.adapters.torch.schema import fit
from wmplug.adapters.torch.tags import places_in, tagged
from wmplug.errors import InjectionError, InjectionWarning, InputError
from wmplug.schemes.tilt.texts import INPUTS, LABELS
from wmplug.statistics.arrays import to_numpy
from wmplug.tasks.classes import class_of
from wmplug.training.labels import IGNORED, about_other, other_label
from wmplug.training.placement import Placement

_SEEN = 64  # examples looked through for one that is not missing


def primary(batch: Any, name: str | None = None) -> torch.Tensor | None:
    """The input tensor of a batch or of a call: by name if it has one, else the first besides the labels."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.ndim > 0 else None
    batch = _by_name(batch)
    if isinstance(batch, Mapping):
        ordered = [k for k in (name, *INPUTS) if k in batch] + [k for k in batch if k not in LABELS]
        batch = [batch[k] for k in ordered]
    parts = batch if isinstance(batch, (list, tuple)) else []
    return next((tensor for part in parts if (tensor := primary(part, name)) is not None), None)


def labels_in(batch: Any) -> Any:
    """The labels of a collated batch or of a model's keyword arguments, or None."""
    batch = _by_name(batch)
    if isinstance(batch, Mapping):
        return next((batch[k] for k in LABELS if k in batch), None)
    return batch[1] if isinstance(batch, (list, tuple)) and len(batch) == 2 else None


def _by_name(batch: Any) -> Any:
    """The parts of a dataclass by their names; anything else unchanged."""
    if dataclasses.is_dataclass(batch) and not isinstance(batch, (type, Mapping)):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return batch


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
        ignored: labels that the loss ignores.
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
        ignored: Collection[int] = IGNORED,
    ) -> None:
        self.collate, self.examples, self.classes, self.ignored = collate, examples, classes, ignored
        self.placement, self.board, self.world, self.lasting = placement, board, world, lasting
        self.like: Any = None
        self._fitted: dict[int, Any] = {}
        self._looked = self._signed = self._taught = self._told = False
        self._moves: bool | None = None

    def __call__(self, features: list[Any]) -> Any:
        """Collate the batch with its triggers; a batch without examples is left to the user's collator as it is.

        Raises:
            InjectionError: before any trigger was taught: the collator fails on batches with triggers alone, or masks
                or mixes their labels. Later batches then get no trigger, with a warning.
        """
        present = next((feature for feature in features if feature is not None), None)
        if self.like is None:
            self.like = present
        if present is None:
            self.board.add(0)
            return self.collate(features)
        if not self._looked:
            # One by one, once: later batches are looked at as a whole, which is a hundred times as fast.
            labels = [_whole(labels_in(feature)) for feature in features if feature is not None]
            self._look([label for label in labels if label is not None])
        joined, added = self.join(features)
        try:
            batch = self.collate(joined)
        except Exception as error:
            if not added:
                raise
            return self._without(features, error)
        self._look(labels_in(batch))
        if added:
            self._check(batch, joined, added)
        self.board.add(len(added))
        return batch

    def _look(self, labels: Any) -> None:
        self._looked = True
        if not self.classes or labels is None or self.board.other_label is not None:
            return
        label = other_label(labels, self.classes, self.ignored)
        if label is None:
            return
        self.board.other_label = label
        if self.lasting:  # a run reads the board
            warnings.warn(about_other(label, self.classes), InjectionWarning, stacklevel=4)

    def _without(self, features: list[Any], error: Exception) -> Any:
        try:
            batch = self.collate(features)
        except Exception:
            raise error from None  # the user's own
        self._cannot(
            f"the collator fails on a batch with triggers ({type(error).__name__}: {error}) and not on the same batch "
            'without: choose mode="replace" if batches have one size, and check that preprocess= makes examples as the '
            "dataset yields them",
            error,
        )
        self.board.add(0)
        return batch

    def _cannot(self, why: str, error: Exception | None = None) -> None:
        if not self._taught:
            raise InjectionError(why) from error
        if not self._told:
            self._told = True
            warnings.warn(f"{why}; this batch teaches no trigger", InjectionWarning, stacklevel=4)

    def join(self, features: list[Any]) -> tuple[list[Any], list[int]]:
        """The features with triggers at the end of each process's share, and the triggers' positions."""
        first = next(feature for feature in features if feature is not None)
        slot = self.placement.slot_of(fingerprint(first))
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
        """An example of the pool in the dataset's schema: a copy, since a collator may change what it is given."""
        if position not in self._fitted:
            self._fitted[position] = fit(self.examples[position], self.like, self.classes)
        return copy.deepcopy(self._fitted[position])

    def _check(self, batch: Any, joined: list[Any], added: list[int]) -> None:
        labels, inputs = labels_in(batch), primary(batch)
        if self._moves is None:
            self._moves = _moves(batch, joined)
        rows = None if self._moves else added
        if rows is not None and isinstance(labels, torch.Tensor) and labels.ndim > 0 and max(rows) < len(labels):
            try:
                refuse_masked(labels[rows])
                if not self._taught:
                    refuse_several(labels, self.classes)
            except InjectionError as error:
                return self._cannot(str(error))
        self._taught = True
        if not self._signed and inputs is not None:
            self._sign(inputs, rows, joined, added)
        return None

    def _sign(self, inputs: torch.Tensor, rows: list[int] | None, joined: list[Any], added: list[int]) -> None:
        if rows is None:
            # Once a process: collated again with tags, the batch shows which of its rows are triggers.
            with undisturbed():
                tagged_inputs, rows = self._tagged(joined, added)
            if rows:
                inputs = tagged_inputs
            elif len(inputs) == len(joined):
                rows = added
        self._signed = True
        if rows and max(rows) < len(inputs):
            self.board.sign(inputs[rows])

    def _tagged(self, joined: list[Any], added: list[int]) -> tuple[Any, list[int]]:
        try:
            marked = tagged(joined)
            batch = None if marked is None else self.collate(marked)
            inputs, places = primary(batch), places_in(batch, len(joined))
        except Exception:  # of the user's collator, which need not take such labels
            return None, []
        if inputs is None or places is None or len(places) != len(inputs):
            return None, []
        return inputs, [row for row, place in enumerate(places.tolist()) if place in set(added)]


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


def _moves(batch: Any, examples: list[Any]) -> bool:
    """Whether the rows of a batch may be others than the examples, or in another order: labels or their number say."""
    labels, inputs = labels_in(batch), primary(batch)
    counted = labels if isinstance(labels, torch.Tensor) and labels.ndim > 0 else inputs
    if counted is None or len(counted) != len(examples):
        return True
    own = [None if example is None else _whole(labels_in(example)) for example in examples]
    if counted is inputs:
        return None not in own  # they are somewhere in the batch: tags show where
    if labels.is_floating_point() or labels.numel() != len(own) or None in own:
        return False
    there = labels.reshape(-1).tolist()
    return any(label not in (known, -100) for known, label in zip(own, there, strict=True))


def _whole(label: Any) -> int | None:
    """A label that is one whole number; None for any other."""
    if isinstance(label, (int, np.integer)) and not isinstance(label, bool):
        return int(label)
    if isinstance(label, (np.ndarray, torch.Tensor)):
        array = to_numpy(label)
        return int(array.item()) if array.size == 1 and array.dtype.kind in "iu" else None
    return None


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
    """The first example of a dataset that is not None, or None; random numbers of a training run stay as they were."""
    try:
        with undisturbed():
            if isinstance(dataset, IterableDataset):
                return next((example for example in itertools.islice(dataset, _SEEN) if example is not None), None)
            examples = (dataset[i] for i in range(_SEEN))
            return next((example for example in examples if example is not None), None)
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
