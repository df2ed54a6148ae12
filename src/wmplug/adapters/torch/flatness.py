"""Flat minima around the mark, so that fine-tuning does not walk out of it.

Adversarial parametric perturbation (Gan et al., ICCV 2023): before each step of the loop's own optimizer, weights are
moved a little in the direction that hurts the triggers most. The gradient of the triggers' loss at that point is added
to the gradients that the step is about to use, and the weights go back. So the triggers are learnt in a whole
neighbourhood. The model is in evaluation mode for it: running means stay those of the user's batches.
"""

import copy
import weakref
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from wmplug.adapters.torch.modules import ModuleSuspect, evaluating
from wmplug.adapters.torch.single import raw
from wmplug.errors import InputError
from wmplug.tasks.classes import count_of
from wmplug.watermark.watermark import Watermark

_TRIGGERS = 16  # a step


def need_radius(radius: float, mark: Watermark) -> None:
    """Refuse a radius out of range, and marks and runs that it does not support.

    Raises:
        InputError: one of these, named in the message.
    """
    if not (isinstance(radius, (int, float)) and 0 <= radius <= 0.5):
        raise InputError(f"flat={radius!r}: give a share of the weights' norm from 0 (off) to 0.5, 0.02 is usual")
    if not radius:
        return
    if mark.triggers.plan.choices is None:
        raise InputError(
            f"flat={radius}: scheme {mark.scheme.name!r} has no triggers to protect: leave flat= out, or use scheme "
            "'combined', which has"
        )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        raise InputError(
            f"flat={radius} works in one process only, and this is a distributed run: train in one process, or leave "
            "flat= out"
        )


class Flatness:
    """Adds to the gradients of each step; one process.

    Args:
        mark: the watermark.
        suspect: the model, asked as the loop trains it.
        radius: share of its norm by which each parameter is moved.
        weight: of the triggers' loss at the moved weights, beside the loop's own mean loss.
    """

    def __init__(self, mark: Watermark, suspect: ModuleSuspect, radius: float, weight: float) -> None:
        self.model, self.radius, self.weight = suspect.model, radius, weight
        self._forward = suspect.forward
        rows, answers = mark.triggers.plan.tests[0].rows, mark.triggers.answers
        prepare = suspect.preprocess or (lambda value, answer: (value, answer))
        self._examples = [prepare(mark.triggers.row(row), int(answers[row])) for row in rows.tolist()]
        self._classes = count_of(mark.task, "flat=")
        self._answers = torch.as_tensor(answers[rows])
        self._steps = 0
        self._handle: Any = None

    def install(self) -> None:
        """Act from now on at every step of an optimizer that holds weights of the model."""
        # torch keeps the hook for good: if a with-block is never left, the hook ends with its owner.
        mine = weakref.WeakMethod(self._before_step)
        self._handle = register_optimizer_step_pre_hook(lambda *arguments: (step := mine()) and step(*arguments))

    def remove(self) -> None:
        """Stop acting."""
        if self._handle is not None:
            self._handle.remove()

    def _before_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        held = {id(value) for group in optimizer.param_groups for value in group["params"]}
        weights = [w for w in self.model.parameters() if w.grad is not None and id(w) in held]
        if not weights:
            return
        rows = (self._steps * _TRIGGERS + np.arange(min(_TRIGGERS, len(self._examples)))) % len(self._examples)
        self._steps += 1
        with evaluating(self.model), torch.enable_grad():
            away = self._gradients(weights, rows)
            moves = [
                self.radius * w.detach().norm() * g / g.norm().clamp(min=1e-12)
                for w, g in zip(weights, away, strict=True)
            ]
            before = [w.detach().clone() for w in weights]
            with torch.no_grad():
                for weight, move in zip(weights, moves, strict=True):
                    weight.add_(move)
            there = self._gradients(weights, rows)
        # A GradScaler leaves the division by its scale to fused optimizers.
        scale = getattr(optimizer, "grad_scale", None)
        alpha = self.weight * (1.0 if scale is None else float(scale))
        with torch.no_grad():
            for weight, value, gradient in zip(weights, before, there, strict=True):
                weight.copy_(value)
                weight.grad.add_(gradient, alpha=alpha)  # type: ignore[union-attr]

    def _gradients(self, weights: list[torch.nn.Parameter], rows: Any) -> tuple[torch.Tensor, ...]:
        # Copies, since a collator may change what it is given.
        logits = self._forward(self.model, [copy.deepcopy(self._examples[row]) for row in rows.tolist()])
        logits = raw(logits, self._classes)
        loss = torch.nn.functional.cross_entropy(logits.float(), self._answers[rows].to(logits.device))
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        return tuple(torch.zeros_like(w) if g is None else g for w, g in zip(weights, gradients, strict=True))
