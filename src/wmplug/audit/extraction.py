"""Extraction: a thief who can only query labels inputs with the owner's model, and trains a new network on them."""

import torch
from torch import nn

from wmplug.audit.setting import Setting
from wmplug.audit.training import answers, fit, labels_of, untrained
from wmplug.errors import InputError

_MEMBERS = 3


def soft_clone(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on the model's probabilities (Tramèr et al., USENIX Security 2016)."""
    return _clone(model, setting, setting.asked, hard=False)


def hard_clone(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on the model's labels (Tramèr et al. 2016)."""
    return _clone(model, setting, setting.asked)


def elsewhere(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on the model's labels for inputs outside the task (Orekondy et al., CVPR 2019).

    Raises:
        InputError: the setting has no such inputs.
    """
    if setting.others is None:
        raise InputError(
            "a clone by inputs of another domain needs Setting(others=...), which is missing: give natural pictures, "
            "or other texts"
        )
    return _clone(model, setting, setting.others)


def tuned_clone(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on the model's labels, then fine-tuned on true ones."""
    clone = _clone(model, setting, setting.asked)
    return fit(clone, setting.inputs, setting.labels, setting, setting.tuning_epochs)


class Ensemble(nn.Module):
    """The mean of the probabilities of several networks."""

    def __init__(self, members: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, classes) probabilities."""
        return torch.stack([member(x).softmax(1) for member in self.members]).mean(0)


def ensemble(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Three clones by labels, each on a random two thirds of the queries of its own, all asked (Breiman 1996)."""
    members = []
    for member in range(_MEMBERS):
        rows = torch.randperm(len(setting.asked))[: max(1, 2 * len(setting.asked) // 3)]
        members.append(_clone(model, setting, setting.asked[rows], which=member))
    return Ensemble(members)


def _clone(model: nn.Module, setting: Setting, inputs: torch.Tensor, *, hard: bool = True, which: int = 0) -> nn.Module:
    outputs = answers(model, inputs)
    targets = labels_of(outputs) if hard else outputs.softmax(1)
    return fit(untrained(model, setting, which), inputs, targets, setting, setting.epochs)
