"""Cleaning: a copyist who trains on the model's answers, and does something against what these may hold of a mark."""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from wmplug.audit.extraction import hard_clone
from wmplug.audit.setting import Setting
from wmplug.audit.training import accuracy, answers, fit, labels_of, untrained
from wmplug.errors import InputError

_UNSURE = 0.1  # share of the answers
_FOLDS = 5
_ASKINGS, _NOISE = 9, 0.1  # of the inputs' spread
_SMOOTHING = 0.1
_PATIENCE = 3


def drop_unsure(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained without the tenth of the answers that have the lowest confidence."""
    outputs = answers(model, setting.asked)
    return _learnt(model, setting, labels_of(outputs), ~_unsure(outputs))


def drop_disputed(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained without answers that a network of the other folds' answers disputes (Brodley & Friedl, JAIR 1999)."""
    labels = labels_of(answers(model, setting.asked))
    folds, own = torch.randperm(len(labels)) % _FOLDS, torch.empty_like(labels)
    for fold in range(_FOLDS):
        judge = _learnt(model, setting, labels, folds != fold)
        own[folds == fold] = labels_of(answers(judge, setting.asked[folds == fold]))
    return _learnt(model, setting, labels, own == labels)


def majority(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on the majority of nine answers, each to the input under noise (Cao & Gong, ACSAC 2017)."""
    votes = [labels_of(answers(model, noisy)) for noisy in askings(setting)]
    return _learnt(model, setting, torch.stack(votes).mode(0).values)


def askings(setting: Setting) -> Iterator[torch.Tensor]:
    """(m, ...) the queries as `majority` asks them, nine times; the same under every seed: a service is asked once."""
    drawn = torch.Generator().manual_seed(0)
    spread, (low, high) = _NOISE * float(setting.inputs.std()), setting.span
    for _ in range(_ASKINGS):
        yield (setting.asked + spread * torch.randn(setting.asked.shape, generator=drawn)).clamp(low, high)


def agreement(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained where another service agrees: a network of the attacker's own, which learnt true labels."""
    labels = labels_of(answers(model, setting.asked))
    other = fit(untrained(model, setting, 1), setting.inputs, setting.labels, setting, setting.epochs)
    return _learnt(model, setting, labels, labels_of(answers(other, setting.asked)) == labels)


def relabelled(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on labels of an own network in the tenth of the lowest confidence; it learnt the others (Lee 2013)."""
    outputs = answers(model, setting.asked)
    labels, unsure = labels_of(outputs), _unsure(outputs)
    own = labels_of(answers(_learnt(model, setting, labels, ~unsure), setting.asked))
    return _learnt(model, setting, torch.where(unsure, own, labels))


def augmented(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on inputs that change in every epoch (Krizhevsky et al., NeurIPS 2012).

    Pictures are shifted by up to an eighth of a side, and half of them mirrored. Other inputs get noise of a quarter of
    their spread.
    """
    labels, clone = labels_of(answers(model, setting.asked)), untrained(model, setting)
    for _ in range(setting.epochs):
        fit(clone, _changed(setting.asked), labels, setting, 1)
    return clone


def mixup(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on mixtures of two inputs under mixtures of their labels, in uniform shares (Zhang et al., ICLR 2018)."""
    x, clone = setting.asked, untrained(model, setting)
    targets = _one_hot(labels_of(answers(model, x)), setting)
    for _ in range(setting.epochs):
        share, other = torch.rand(len(x), 1), torch.randperm(len(x))
        inputs = (share * x.flatten(1) + (1 - share) * x[other].flatten(1)).reshape(x.shape)
        fit(clone, inputs, share * targets + (1 - share) * targets[other], setting, 1)
    return clone


def label_smoothing(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on labels with a tenth of the uniform distribution (Szegedy et al., CVPR 2016)."""
    targets = _one_hot(labels_of(answers(model, setting.asked)), setting)
    targets = (1 - _SMOOTHING) * targets + _SMOOTHING / setting.classes
    return fit(untrained(model, setting), setting.asked, targets, setting, setting.epochs)


def stopped_early(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained until three epochs bring nothing on a fifth of the answers, which is held out (Prechelt 1998)."""
    labels, clone = labels_of(answers(model, setting.asked)), untrained(model, setting)
    rows = torch.randperm(len(labels))
    held, kept = rows[: -(-len(rows) // 5)], rows[-(-len(rows) // 5) :]
    best, weights, since = -1.0, clone.state_dict(), 0
    for _ in range(setting.epochs):
        fit(clone, setting.asked[kept], labels[kept], setting, 1)
        right = accuracy(clone, setting.asked[held], labels[held])
        since = 0 if right > best else since + 1
        if since == 0:
            best, weights = right, copy.deepcopy(clone.state_dict())
        if since == _PATIENCE:
            break
    clone.load_state_dict(weights)
    return clone


def second_clone(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Trained on the labels of a hard clone in place of the model's (Furlanello et al., ICML 2018)."""
    first = hard_clone(model, setting, seed)
    return _learnt(model, setting, labels_of(answers(first, setting.asked)), which=1)


def _learnt(
    model: nn.Module, setting: Setting, labels: torch.Tensor, kept: torch.Tensor | None = None, which: int = 0
) -> nn.Module:
    """A network trained on the queries under these labels, or on the kept of them, (m,) bool."""
    inputs = setting.asked
    if kept is not None:
        inputs, labels = inputs[kept], labels[kept]
    if not len(inputs):
        raise InputError(f"of {len(setting.asked)} answers none is left to train on: give Setting(queries=...) more")
    return fit(untrained(model, setting, which), inputs, labels, setting, setting.epochs)


def _unsure(outputs: torch.Tensor) -> torch.Tensor:
    """(m,) bool: whether the answer is in the tenth of the lowest confidence.

    Raises:
        InputError: the model returns labels without scores.
    """
    if outputs.ndim == 1:
        raise InputError("the model returns labels, and confidence shows in scores alone: leave this attack out")
    unsure = torch.zeros(len(outputs), dtype=torch.bool)
    unsure[outputs.softmax(1).amax(1).argsort()[: round(_UNSURE * len(outputs))]] = True
    return unsure


def _one_hot(labels: torch.Tensor, setting: Setting) -> torch.Tensor:
    return nn.functional.one_hot(labels, setting.classes).float()


def _changed(x: torch.Tensor) -> torch.Tensor:
    if x.ndim != 4:
        return x + 0.25 * x.std() * torch.randn_like(x)
    moves = torch.zeros(len(x), 2, 3)
    moves[:, 0, 0] = 2.0 * torch.randint(2, (len(x),)) - 1
    moves[:, 1, 1] = 1
    moves[:, :, 2] = torch.rand(len(x), 2) / 2 - 0.25  # a side is 2 long
    grid = nn.functional.affine_grid(moves, list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, padding_mode="border", align_corners=False)
