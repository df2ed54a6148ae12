"""Removal: a thief changes stolen weights to remove the mark."""

import torch
from torch import nn
from torch.nn.utils import prune

from wmplug.audit.setting import Setting
from wmplug.audit.training import accuracy, answers, fit, head, layers

_BEARABLE = 0.04  # accuracy that fine-pruning gives up, as in its paper
_STEPS = 20


def fine_tuned(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """All layers, on true labels, at the learning rate of the training (Adi et al., USENIX Security 2018, FTAL)."""
    return fit(model, setting.inputs, setting.labels, setting, setting.tuning_epochs)


def last_layer(model: nn.Module, setting: Setting, seed: int, *, anew: bool = False) -> nn.Module:
    """The last layer alone, continued or new (Adi et al. 2018, FTLL and RTLL)."""
    last = head(model, setting.classes)
    if anew:
        last.reset_parameters()
    return fit(model, setting.inputs, setting.labels, setting, setting.tuning_epochs, last.parameters())


def pruned(model: nn.Module, setting: Setting, seed: int, *, share: float) -> nn.Module:
    """The smallest weights over all layers set to zero (Han et al., NeurIPS 2015).

    Args:
        model: changed in place.
        setting: not used.
        seed: not used.
        share: of all weights, biases not counted.
    """
    weights = [(layer, "weight") for layer in layers(model)]
    prune.global_unstructured(weights, prune.L1Unstructured, amount=share)
    for layer, name in weights:
        prune.remove(layer, name)  # type: ignore[no-untyped-call]
    return model


def fine_pruned(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Idle units of the last hidden layer removed, then all fine-tuned (Liu et al., RAID 2018).

    The layer is the last convolution, or the last hidden layer where there is none; units go, the idlest first, until
    accuracy on the thief's inputs falls by four points.
    """
    last = head(model, setting.classes)
    hidden = [m for m in layers(model) if m is not last]
    layer = next((m for m in reversed(hidden) if isinstance(m, nn.Conv2d)), hidden[-1] if hidden else last)
    order = _activity(model, layer, setting.inputs).argsort()
    weight = layer.get_parameter("weight").detach().clone()
    least = accuracy(model, setting.inputs, setting.labels) - _BEARABLE
    removed = 0
    for count in torch.linspace(0, len(order) - 1, _STEPS).long().tolist():
        with torch.no_grad():
            layer.get_parameter("weight")[order[:count]] = 0
        if accuracy(model, setting.inputs, setting.labels) < least:
            break
        removed = count
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weight)
    for name in ("weight", "bias"):
        if getattr(layer, name, None) is not None:
            mask = torch.ones_like(getattr(layer, name))
            mask[order[:removed]] = 0
            prune.custom_from_mask(layer, name, mask)  # type: ignore[no-untyped-call]
    tuned = fit(model, setting.inputs, setting.labels, setting, setting.tuning_epochs)
    for name in ("weight", "bias"):
        if getattr(layer, name, None) is not None:
            prune.remove(layer, name)  # type: ignore[no-untyped-call]
    return tuned


def _activity(model: nn.Module, layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """(units,) mean of a layer's positive outputs."""
    sums: list[torch.Tensor] = []
    handle = layer.register_forward_hook(
        lambda _, __, out: sums.append(
            out.clamp(min=0).flatten(2).mean(2).sum(0) if out.ndim > 2 else out.relu().sum(0)
        )
    )
    try:
        answers(model, inputs)
    finally:
        handle.remove()
    return torch.stack(sums).sum(0)


def halved(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Weights kept in 16 bits (IEEE half precision)."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half())
    return model


def quantised(model: nn.Module, setting: Setting, seed: int, *, bits: int) -> nn.Module:
    """Weights rounded to this number of bits, symmetric, one scale an output channel (Jacob et al., CVPR 2018)."""
    most = 2 ** (bits - 1) - 1
    with torch.no_grad():
        for layer in layers(model):
            weight = layer.get_parameter("weight")
            scale = weight.abs().flatten(1).amax(1).clamp(min=1e-12) / most
            zero = torch.zeros_like(scale, dtype=torch.int32)
            weight.copy_(torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -most, most))
    return model


def noisy(model: nn.Module, setting: Setting, seed: int, *, share: float) -> nn.Module:
    """Gaussian noise on every weight, with this share of its layer's standard deviation."""
    with torch.no_grad():
        for layer in layers(model):
            weight = layer.get_parameter("weight")
            weight.add_(torch.randn(weight.shape).to(weight) * weight.std() * share)
    return model
