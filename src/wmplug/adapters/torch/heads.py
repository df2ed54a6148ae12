"""Which module of a torch model returns its logits: named by the user, or found by watching the model answer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax

from wmplug.errors import InjectionError
from wmplug.statistics.arrays import to_numpy

Returned = Mapping[torch.nn.Module, list[torch.Tensor]]
_APART = 0.02  # of the largest logit, which half precision and another order of sums stay well below
_UNLIKELY = -15.0  # log-probability below which two are alike


def find_head(
    model: torch.nn.Module, classes: int, head: str | torch.nn.Module | None, in_loss: bool
) -> torch.nn.Module:
    """The module that returns the (B, classes) logits; where nobody names it, the likeliest.

    Raises:
        InjectionError: there is none by that name, or none that could be it.
    """
    if isinstance(head, str):
        named = dict(model.named_modules())
        if head not in named:
            raise InjectionError(f"{type(model).__name__} has no module {head!r}: its last are {list(named)[-5:]}")
        found: torch.nn.Module = named[head]
        return found
    if head is not None:
        if all(head is not module for module in model.modules()):
            raise InjectionError(f"head= is a {type(head).__name__} that is no part of {type(model).__name__}")
        return head
    # Before the model itself: logits that a log_softmax follows must be shifted ahead of it.
    if linear := _linear(model, classes):
        return linear[-1]
    if in_loss:
        raise InjectionError(
            f"{type(model).__name__} has no Linear with {classes} outputs, so the head cannot be found: name the "
            f"module that returns the (B, {classes}) logits (head=...)"
        )
    return model


@contextmanager
def watched(model: torch.nn.Module, classes: int) -> Iterator[Returned]:
    """What each module that could be the head returns, in the order of the modules, while the model answers."""
    returned: dict[torch.nn.Module, list[torch.Tensor]] = {module: [] for module in _linear(model, classes)}
    handles = [
        module.register_forward_hook(lambda module, args, output: returned[module].append(output))
        for module in returned
    ]
    try:
        yield returned
    finally:
        for handle in handles:
            handle.remove()


def settled(
    guess: torch.nn.Module, model: torch.nn.Module, returned: Returned, scores: npt.NDArray[np.floating], in_loss: bool
) -> torch.nn.Module:
    """The last module that returned what the model answered; the model itself where none did.

    Args:
        guess: stands where nothing was seen.
        model: the whole of it.
        returned: by `watched`.
        scores: (n, classes) that the model answered: logits, or what a softmax made of them.
        in_loss: the model computes its loss itself, so that what it returns is too late.

    Raises:
        InjectionError: none did, and the model itself is too late.
    """
    if not any(returned.values()):
        return guess
    if fitting := [module for module, parts in returned.items() if _says(parts, scores)]:
        return fitting[-1]
    if in_loss:
        raise InjectionError(
            f"{type(model).__name__} answers otherwise than each Linear in it with {scores.shape[1]} outputs, so the "
            "head cannot be found: name the module that returns the logits (head=...)"
        )
    return model


def _linear(model: torch.nn.Module, classes: int) -> list[torch.nn.Module]:
    return [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features == classes]


def _says(parts: list[torch.Tensor], scores: npt.NDArray[np.floating]) -> bool:
    """Whether the scores are these logits, but for what all classes of a row have in common."""
    if not parts or sum(len(part) for part in parts) != len(scores) or any(part.ndim != 2 for part in parts):
        return False
    logits, known = np.concatenate([to_numpy(part) for part in parts]).astype(np.float64), scores.astype(np.float64)
    if known.min() >= 0 and np.allclose(known.sum(axis=1), 1, atol=1e-3):
        logits, known = (np.maximum(x, _UNLIKELY) for x in (log_softmax(logits, axis=1), np.log(known + 1e-12)))
    apart, size = logits - known, known - known.mean(axis=1, keepdims=True)
    apart -= apart.mean(axis=1, keepdims=True)
    return bool(np.abs(apart).max() <= _APART * np.abs(size).max() + 1e-6)
