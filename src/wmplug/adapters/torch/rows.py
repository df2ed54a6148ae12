"""Rows that keep their identity through a collator that is not ours.

A collator may sort its batch (for `pack_padded_sequence`), shuffle it, drop rows or return two views of each. The place
of a row in the batch then says nothing about the question in it. So each example carries a tag in place of its label,
and the collated batch shows the tags in the order of its rows. Where no tags come back, examples are collated and asked
one by one. A collator that changes inputs at random, or by the rest of the batch, is left out: the questions are asked
as `verify` asks them afterwards.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from wmplug.adapters.torch.batches import primary, undisturbed
from wmplug.adapters.torch.tags import PADDING, places_in, tagged
from wmplug.errors import SuspectError
from wmplug.statistics.arrays import IntArray

Collate = Callable[[list[Any]], Any]
Forward = Callable[[torch.nn.Module, Any], torch.Tensor]
_LOOKED_AT, _TRIES = 8, 8  # examples and calls that show whether a collator changes inputs


class AskedRows:
    """A model, asked through the loop's own collator: a row of scores for each example, in the order of the examples.

    Args:
        collate: the user's collate_fn.
        forward: `forward(model, batch) -> (rows, classes)`, as the loop calls the model.

    Attributes:
        moved: whether the collator was seen to change the order or number of rows.
        alone: whether examples are collated and asked one by one.
        plain: whether the collator changes inputs, so that it is left out; None until an example was asked.
    """

    def __init__(self, collate: Collate, forward: Forward) -> None:
        self.collate, self.forward = collate, forward
        self.moved = self.alone = False
        self.plain: bool | None = False if collate is default_collate else None

    def __call__(self, model: torch.nn.Module, examples: list[Any]) -> torch.Tensor:
        """Scores (n, classes) for n examples; several rows of one example, such as views, count as their mean.

        Raises:
            SuspectError: the collator drops an example that is asked alone; or it changes inputs, and the model cannot
                be asked without it.
        """
        if self.plain is None:
            self.plain = changes(self.collate, examples[:_LOOKED_AT])
            self._refuse_converting(examples[0])
        if self.plain:
            return self._plainly(model, examples)
        if len(examples) > 1 and not self.alone and self.collate is default_collate:
            return self.forward(model, self._collated(examples))
        if len(examples) > 1 and not self.alone:
            batch, places = self._tagged(examples)
            scores = None if places is None else self.forward(model, batch)
            if scores is not None and places is not None and len(scores) == len(places):
                return self._sorted(scores, places, len(examples))
            self.moved = self.alone = True
        return torch.cat([self._one(model, example) for example in examples])

    @contextmanager
    def one_by_one(self) -> Iterator[None]:
        """Ask one by one for a while, so that the model itself sees the examples in their order."""
        before, self.alone = self.alone, True
        try:
            yield
        finally:
            self.alone = before

    def _collated(self, examples: list[Any]) -> Any:
        with undisturbed():
            return self.collate(examples)

    def _tagged(self, examples: list[Any]) -> tuple[Any, IntArray | None]:
        try:
            with undisturbed():
                batch, places = _placed(self.collate, examples)
        # A collator may look labels up somewhere; then these are asked one by one, with labels of the task.
        except Exception:
            return None, None
        return batch, places

    def _sorted(self, scores: torch.Tensor, places: IntArray, count: int) -> torch.Tensor:
        if len(places) == count and bool((places == np.arange(count)).all()):
            return scores
        self.moved = True
        if PADDING in places:
            kept = np.flatnonzero(places != PADDING)
            scores, places = scores[torch.as_tensor(kept, device=scores.device)], places[kept]
        if len(places) == count:
            return scores[torch.as_tensor(np.argsort(places), device=scores.device)]
        index = torch.as_tensor(places, device=scores.device)
        sums = scores.new_zeros((count, *scores.shape[1:])).index_add(0, index, scores)
        shares = torch.bincount(index, minlength=count).to(scores.dtype)
        return sums / shares.reshape(-1, *(1,) * (scores.ndim - 1))

    def _refuse_converting(self, example: Any) -> None:
        if not self.plain:
            return
        try:
            own = primary(self._collated([copy.deepcopy(example)]))
            plain = primary(default_collate([_with_arrays(example)]))
        except Exception as error:  # of examples that no default collates, such as pictures
            raise self._needed(error) from error
        if own is not None and plain is not None and (own.dtype, own.ndim) != (plain.dtype, plain.ndim):
            raise self._needed(f"it makes {own.dtype} {tuple(own.shape)} of {plain.dtype} {tuple(plain.shape)}")

    def _plainly(self, model: torch.nn.Module, examples: list[Any]) -> torch.Tensor:
        try:
            scores = [self.forward(model, default_collate([_with_arrays(example)])) for example in examples]
        except Exception as error:  # of the user's model
            raise self._needed(error) from error
        return torch.cat([score.reshape(1) if score.ndim == 0 else score for score in scores])

    @staticmethod
    def _needed(why: Any) -> SuspectError:
        about = f"{type(why).__name__}: {why}" if isinstance(why, Exception) else why
        return SuspectError(
            "the collator changes inputs at random, or by the rest of the batch, so that questions must be asked "
            f"without it, and cannot ({about}): change inputs in the dataset or in the loop, and let the collator only "
            "join them"
        )

    def _one(self, model: torch.nn.Module, example: Any) -> torch.Tensor:
        batch, places = self._tagged([example])
        scores = self.forward(model, self._collated([example]) if places is None else batch)
        if scores.ndim == 0:  # of a model that squeezes its one score
            scores = scores.reshape(1)
        if places is not None and len(places) == len(scores):
            scores = scores[torch.as_tensor(np.flatnonzero(places != PADDING), device=scores.device)]
        if len(scores) == 0:
            raise SuspectError("the collator drops this example, so it cannot be asked: keep it, or pass forward=")
        return scores if len(scores) == 1 else scores.mean(0, keepdim=True)


def changes(collate: Collate, examples: list[Any]) -> bool:
    """Whether a collator changes an example in one call otherwise than in another, or in other company.

    Args:
        collate: the user's; random numbers of a training run stay as they were.
        examples: some, as the dataset yields them.
    """
    calls: list[list[Any]] = []
    with undisturbed():
        for few in (examples[:1], examples):
            try:
                calls += [_inputs_of(collate, few) for _ in range(_TRIES)]
            # It is asked next, where an error of its own is told, or that it takes no tags is seen.
            except Exception:
                continue
    first: dict[int, Any] = {}
    return any(_differ(first.setdefault(i, inputs), inputs) for call in calls for i, inputs in enumerate(call))


def _inputs_of(collate: Collate, examples: list[Any]) -> list[Any]:
    """The inputs of each example, of all its views; none if the batch does not show where they are."""
    given = copy.deepcopy(examples)  # a collator may change what it is given
    if len(given) == 1:
        return [primary(collate(given))]
    batch, places = _placed(collate, given)
    inputs = primary(batch)
    if places is None or inputs is None or len(inputs) != len(places):
        return []
    return [inputs[torch.as_tensor(places == place)] for place in range(len(given))]


def _placed(collate: Collate, examples: list[Any]) -> tuple[Any, IntArray | None]:
    """The batch collated with tags, and which example each row is; None unless all are there beyond doubt."""
    marked = tagged(examples)
    batch = None if marked is None else collate(marked)
    places = places_in(batch, len(examples))
    whole = places is not None and len(np.unique(places[places != PADDING])) == len(examples)
    return batch, places if whole else None


def _differ(one: Any, other: Any) -> bool:
    # Texts are padded to the longest of a batch: rows of another length tell nothing.
    if one is None or other is None or one.shape != other.shape:
        return False
    return not torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-6, equal_nan=True)


def _with_arrays(example: Any) -> Any:
    """An example whose lists of numbers are tensors, as a batch of one needs them."""
    if isinstance(example, Mapping):
        return {name: _array(value) for name, value in example.items()}
    return tuple(map(_array, example)) if isinstance(example, (tuple, list)) else example


def _array(value: Any) -> Any:
    return torch.tensor(value) if isinstance(value, list) else value
