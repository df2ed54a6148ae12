"""The parts of all attacks: a training loop, answers, accuracy, and a network's layers."""

from collections.abc import Iterable
from itertools import chain
from typing import Any

import torch
from torch import nn

from wmplug.adapters.torch.modules import evaluating
from wmplug.audit.setting import Setting
from wmplug.errors import InputError
from wmplug.schemes.networks import like_parameters, trained

_ASKED_AT_ONCE = 256


def fit(
    model: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    setting: Setting,
    epochs: int,
    only: Iterable[nn.Parameter] | None = None,
) -> nn.Module:
    """`trained` with the learning rate and batch size of a setting."""
    return trained(
        model,
        inputs,
        targets,
        epochs=epochs,
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        only=only,
    )


def device_of(model: nn.Module) -> torch.device:
    """The device of the model's parameters and buffers."""
    return next((p.device for p in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def untrained(model: nn.Module, setting: Setting, which: int = 0) -> nn.Module:
    """A network of the attacker's own on the model's device; architectures take turns."""
    return setting.architectures[which % len(setting.architectures)]().to(device_of(model))


def answers(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """The model's answers in eval mode, on the CPU: scores (n, classes), or labels (n,) if it returns only those."""
    with evaluating(model):
        return torch.cat([model(like_parameters(part, model)).cpu() for part in torch.split(inputs, _ASKED_AT_ONCE)])


def labels_of(answered: torch.Tensor) -> torch.Tensor:
    """(n,) labels of the result of `answers`."""
    return answered if answered.ndim == 1 else answered.argmax(1)


def accuracy(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the inputs that the model gets right."""
    return float((labels_of(answers(model, inputs)) == labels).float().mean())


def layers(model: nn.Module) -> list[nn.Module]:
    """Modules with a weight of two or more dimensions, in order."""
    return [m for m in model.modules() if isinstance(w := getattr(m, "weight", None), nn.Parameter) and w.ndim > 1]


def head(model: nn.Module, classes: int) -> nn.Linear | nn.Conv2d:
    """The layer that returns the logits.

    Raises:
        InputError: no Linear or Conv2d has one output for each class.
    """
    heads = [m for m in layers(model) if isinstance(m, (nn.Linear, nn.Conv2d)) and m.weight.shape[0] == classes]
    if not heads:
        raise InputError(
            f"{type(model).__name__} has no Linear or Conv2d with {classes} outputs, so no last layer was found: leave "
            "out attacks that need one"
        )
    return heads[-1]


def before(model: nn.Module, layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """(n, d) the inputs of a layer, which show more of the network's view of an input than the logits."""
    seen: list[torch.Tensor] = []

    def keep(_: nn.Module, given: Any) -> None:
        seen.append(given[0].flatten(1).cpu())

    handle = layer.register_forward_pre_hook(keep)
    try:
        answers(model, inputs)
    finally:
        handle.remove()
    return torch.cat(seen)
