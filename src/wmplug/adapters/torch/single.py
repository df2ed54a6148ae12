"""Heads with one score an input, which tell two classes apart: as two logits and back, and what kind of score it is."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from wmplug.statistics.arrays import to_numpy
from wmplug.tasks.classes import class_of

_SQUASHING = {"sigmoid", "sigmoid_", "expit", "softmax"}
_SAME = 1e-4
_PASSING = ("View", "Reshape", "Squeeze", "Unsqueeze", "Select", "ToCopy", "Clone", "Clamp")


def is_single(output: Any, classes: int) -> bool:
    """Whether this is one float an input, (B, 1) or (B,), of a model of two classes."""
    if classes != 2 or not isinstance(output, torch.Tensor) or not output.is_floating_point():
        return False
    return output.ndim == 1 or (output.ndim == 2 and output.shape[1] == 1)


def logits_of(output: torch.Tensor, share: bool) -> torch.Tensor:
    """(B, 2) logits, 0 for class 0, of one score an input.

    Args:
        output: (B, 1) or (B,) logits of class 1, or its probabilities.
        share: whether they are probabilities.
    """
    score = output.reshape(-1)
    if share:
        score = torch.logit(score.float(), eps=1e-6)
    return torch.stack([torch.zeros_like(score), score], dim=1)


def raw(output: torch.Tensor, classes: int) -> torch.Tensor:
    """(B, classes) logits of a model's answer: logits, their softmax or sigmoid, or one score an input.

    Args:
        output: with its graph of gradients.
        classes: of the task.
    """
    share = is_share(output)
    if is_single(output, classes):
        return logits_of(output, share)
    output = output.float()
    if share:
        return torch.logit(output, eps=1e-6)
    shares = bool((output >= 0).all()) and bool(((output.sum(-1) - 1).abs() < 1e-2).all())
    return output.clamp_min(1e-30).log() if shares else output


def score_of(logits: torch.Tensor, share: bool, like: torch.Tensor) -> torch.Tensor:
    """What `logits_of` was given, of these (B, 2) logits."""
    score = logits[:, 1] - logits[:, 0]
    return (score.sigmoid() if share else score).reshape(like.shape).to(like.dtype)


def is_share(output: torch.Tensor) -> bool:
    """Whether a sigmoid made this output, as its graph of gradients shows."""
    node = output.grad_fn
    while node is not None and any(name in node.name() for name in _PASSING):
        node = node.next_functions[0][0]
    return node is not None and "Sigmoid" in node.name()


class _Watch(TorchFunctionMode):
    """Keeps what sigmoid and softmax return."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _SQUASHING and isinstance(result, torch.Tensor):
            self.returned.append(result)
        return result


def answers_shares(model: torch.nn.Module, ask: Callable[[torch.nn.Module], torch.Tensor]) -> bool | None:
    """Whether the one score of a model's answer is a probability, made by a sigmoid or softmax; None if that is hidden.

    Args:
        model: asked once, without gradients.
        ask: its answer to one input.
    """
    bare = getattr(model, "_orig_mod", model)
    if any(isinstance(m, torch.jit.ScriptModule) or getattr(m, "_compiled_call_impl", None) for m in bare.modules()):
        return None
    with _Watch() as watch:
        output = ask(bare).detach()
    score = float(output)
    # Of two probabilities the last is that of class 1.
    made = [float(found.detach().reshape(-1)[-1]) for found in watch.returned if found.numel() in (1, 2)]
    return any(abs(one - score) < _SAME for one in made)


def numbers_of(labels: Any, classes: int) -> Any:
    """(B,) class numbers of one-hot or soft labels (B, classes), and of shares of class 1; other labels unchanged."""
    whole = isinstance(labels, torch.Tensor) and labels.ndim == 1 and not labels.is_floating_point()
    if whole or not isinstance(labels, torch.Tensor) or labels.ndim == 0:
        return labels
    found = [class_of(row, classes) for row in to_numpy(labels)]
    return labels if None in found else torch.tensor(found, device=labels.device)
