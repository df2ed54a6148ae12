"""Neural cleanse (Wang et al., IEEE S&P 2019): find the patch that turns all into one class; unlearn it."""

from dataclasses import dataclass

import torch
from torch import nn

from wmplug.adapters.torch.modules import like_parameters
from wmplug.audit.setting import Setting
from wmplug.audit.training import device_of, fit

_STEPS, _BATCH = 120, 32
_WORKS, _PATIENCE = 0.99, 10  # share of inputs that a patch must turn before it is made smaller; steps in between
_SUSPICIOUS = 2.0  # anomaly index, as in the paper
_STAMPED = 0.2


@dataclass(frozen=True)
class Patch:
    """What turns inputs into one class.

    Attributes:
        mask: (1, H, W), or the shape of an input that is no picture, in [0, 1].
        pattern: the shape of an input.
    """

    mask: torch.Tensor
    pattern: torch.Tensor

    def on(self, x: torch.Tensor) -> torch.Tensor:
        """Inputs with the patch."""
        return (1 - self.mask) * x + self.mask * self.pattern

    @property
    def size(self) -> float:
        """L1 norm of the mask."""
        return float(self.mask.abs().sum())


def cleansed(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Patches of the classes with an anomaly index above 2 (else the smallest patch) unlearnt on true labels."""
    patches = [found(model, setting, label) for label in range(setting.classes)]
    sizes = torch.tensor([patch.size for patch in patches])
    index = anomalies(sizes)
    chosen = [int(label) for label in (index > _SUSPICIOUS).nonzero()] or [int(sizes.argmin())]
    inputs = setting.inputs.clone()
    for label in chosen:
        rows = torch.randperm(len(inputs))[: round(_STAMPED * len(inputs) / len(chosen))]
        inputs[rows] = patches[label].on(setting.inputs[rows])
    return fit(model, inputs, setting.labels, setting, setting.tuning_epochs)


def anomalies(sizes: torch.Tensor) -> torch.Tensor:
    """(classes,) by how many deviations (1.4826 times their median) a patch is smaller than the median one."""
    below = sizes.median() - sizes
    return below / (1.4826 * below.abs().median()).clamp(min=1e-9)


def found(model: nn.Module, setting: Setting, label: int) -> Patch:
    """The smallest patch for one class that gradient descent finds, by a price on size that follows its success."""
    shape = setting.inputs.shape[1:]
    device = device_of(model)
    mask = torch.zeros((1, *shape[1:]) if len(shape) == 3 else shape, device=device, requires_grad=True)
    pattern = torch.zeros(shape, device=device, requires_grad=True)
    low, high = setting.span
    optimizer = torch.optim.Adam([mask, pattern], 0.1)
    price, turned = 1e-3, 0.0

    def patch() -> Patch:
        return Patch(mask.sigmoid(), low + (high - low) * pattern.sigmoid())

    frozen = model.eval().requires_grad_(False)
    for step in range(_STEPS):
        x = like_parameters(setting.inputs[torch.randint(len(setting.inputs), (_BATCH,))], model)
        made = patch()
        logits = frozen(made.on(x))
        target = torch.full((len(x),), label, device=device)
        optimizer.zero_grad()
        (nn.functional.cross_entropy(logits, target) + price * made.mask.sum()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        turned += float((logits.argmax(1) == label).float().mean()) / _PATIENCE
        if step % _PATIENCE == _PATIENCE - 1:
            price *= 1.5 if turned >= _WORKS else 1 / 1.5
            turned = 0.0
    model.requires_grad_(True)
    best = patch()
    return Patch(best.mask.detach().cpu(), best.pattern.detach().cpu())
