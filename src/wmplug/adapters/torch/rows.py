"""Rows that keep their identity through a collator that is not ours.

A collator may sort its batch (for `pack_padded_sequence`), shuffle it, drop rows or return two views of each. The place
of a row in the batch then says nothing about the question in it. So each example carries a tag in place of its label,
and the collated batch shows the tags in the order of its rows. Where no tags come back, examples are collated and asked
one by one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from wmplug.adapters.torch.batches import undisturbed
from wmplug.adapters.torch.tags import places_in, tagged
from wmplug.errors import SuspectError
from wmplug.statistics.arrays import IntArray

Collate = Callable[[list[Any]], Any]
Forward = Callable[[torch.nn.Module, Any], torch.Tensor]


class AskedRows:
    """A model, asked through the loop's own collator: a row of scores for each example, in the order of the examples.

    Args:
        collate: the user's collate_fn.
        forward: `forward(model, batch) -> (rows, classes)`, as the loop calls the model.

    Attributes:
        moved: whether the collator was seen to change the order or number of rows.
        alone: whether examples are collated and asked one by one.
    """

    def __init__(self, collate: Collate, forward: Forward) -> None:
        self.collate, self.forward = collate, forward
        self.moved = self.alone = False

    def __call__(self, model: torch.nn.Module, examples: list[Any]) -> torch.Tensor:
        """Scores (n, classes) for n examples; several rows of one example, such as views, count as their mean.

        Raises:
            SuspectError: the collator drops an example that is asked alone.
        """
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
            marked = tagged(examples)
            batch = None if marked is None else self._collated(marked)
            places = places_in(batch, len(examples))
        # A collator may look labels up somewhere; then these are asked one by one, with labels of the task.
        except Exception:
            return None, None
        return batch, places if places is not None and len(np.unique(places)) == len(examples) else None

    def _sorted(self, scores: torch.Tensor, places: IntArray, count: int) -> torch.Tensor:
        if len(places) == count and bool((places == np.arange(count)).all()):
            return scores
        self.moved = True
        if len(places) == count:
            return scores[torch.as_tensor(np.argsort(places), device=scores.device)]
        index = torch.as_tensor(places, device=scores.device)
        sums = scores.new_zeros((count, *scores.shape[1:])).index_add(0, index, scores)
        shares = torch.bincount(index, minlength=count).to(scores.dtype)
        return sums / shares.reshape(-1, *(1,) * (scores.ndim - 1))

    def _one(self, model: torch.nn.Module, example: Any) -> torch.Tensor:
        scores = self.forward(model, self._collated([example]))
        if scores.ndim == 0:  # of a model that squeezes its one score
            scores = scores.reshape(1)
        if len(scores) == 0:
            raise SuspectError("the collator drops this example, so it cannot be asked: keep it, or pass forward=")
        return scores if len(scores) == 1 else scores.mean(0, keepdim=True)
