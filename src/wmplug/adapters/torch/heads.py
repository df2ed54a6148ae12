"""The module of a torch model that returns its logits: named by the user, or found by watching the model answer."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax, logit

from wmplug.errors import InjectionError
from wmplug.statistics.arrays import to_numpy
from wmplug.tasks.classes import is_share, is_single

Returned = Mapping[torch.nn.Module, list[torch.Tensor]]
_APART = 0.02  # share of the largest logit; half precision and another order of sums stay well below
_UNLIKELY = -15.0  # log-probability below which two count as equal


def find_head(
    model: torch.nn.Module, classes: int, head: str | torch.nn.Module | None, in_loss: bool
) -> torch.nn.Module:
    """The module that returns the (B, classes) logits, or (B, 1) for two classes; by default the likeliest.

    Raises:
        InjectionError: no module has that name, or none could be the head.
    """
    if isinstance(head, str):
        named = dict(model.named_modules())
        if head not in named:
            raise InjectionError(
                f"head={head!r} names no module of {type(model).__name__}: choose one, its last are {list(named)[-5:]}"
            )
        found: torch.nn.Module = named[head]
        return found
    if head is not None:
        if all(head is not module for module in model.modules()):
            raise InjectionError(
                f"head= is a {type(head).__name__} outside {type(model).__name__}: give a module of the model in "
                "training"
            )
        return head
    # Before the model itself: if a log_softmax follows the logits, they must be shifted ahead of it.
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
    """The outputs of each module that could be the head, in the order of the modules, while the model answers."""
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
    """The last module whose output is the model's answer; the model itself if there is none.

    Args:
        guess: returned if no module was seen.
        model: the whole model.
        returned: by `watched`.
        scores: (n, classes) the model's answer: logits, their softmax or sigmoid; of one score each its probability.
        in_loss: whether the model computes its loss itself, so that its output comes too late.

    Raises:
        InjectionError: there is none, and the model's own output comes too late.
    """
    if not any(returned.values()):
        return guess
    if fitting := [module for module, parts in returned.items() if _says(parts, scores)]:
        return fitting[-1]
    if in_loss:
        raise InjectionError(
            f"{type(model).__name__} answers differently from each of its Linear modules with {scores.shape[1]} "
            "outputs, so the head cannot be found: name the module that returns the logits (head=...)"
        )
    return model


def _linear(model: torch.nn.Module, classes: int) -> list[torch.nn.Module]:
    widths = (1, 2) if classes == 2 else (classes,)
    return [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m.out_features in widths]


def _says(parts: list[torch.Tensor], scores: npt.NDArray[np.floating]) -> bool:
    """Whether the scores are these logits, up to a constant in each row."""
    if not parts or sum(len(part) for part in parts) != len(scores) or any(part.ndim != 2 for part in parts):
        return False
    logits, answer = np.concatenate([to_numpy(part) for part in parts]).astype(np.float64), scores.astype(np.float64)
    if is_single(answer) or logits.shape[1] == 1:
        return is_single(answer) and logits.shape[1] == 1 and _squashes(logits.ravel(), answer.ravel())
    if is_share(answer) and _squashes(logits, answer):
        return True
    if answer.min() >= 0 and np.allclose(answer.sum(axis=1), 1, atol=1e-3):
        logits, answer = (np.maximum(x, _UNLIKELY) for x in (log_softmax(logits, axis=1), np.log(answer + 1e-12)))
    apart, size = logits - answer, answer - answer.mean(axis=1, keepdims=True)
    apart -= apart.mean(axis=1, keepdims=True)
    return bool(np.abs(apart).max() <= _APART * np.abs(size).max() + 1e-6)


def _squashes(logits: npt.NDArray[np.float64], answer: npt.NDArray[np.float64]) -> bool:
    """Whether each answer is the sigmoid of its logit."""
    with np.errstate(divide="ignore"):
        wanted = np.clip(logit(answer), _UNLIKELY, -_UNLIKELY)
    apart = np.abs(np.clip(logits, _UNLIKELY, -_UNLIKELY) - wanted)
    return bool(apart.max() <= _APART * np.abs(wanted).max() + 1e-6)
