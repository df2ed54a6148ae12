"""Filters: detectors that know natural inputs, and flag what is foreign to the task; they need no trigger to learn."""

from typing import Any

import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from wmplug.audit.detection import Detector
from wmplug.audit.evasion import Interface
from wmplug.audit.extraction import Ensemble
from wmplug.audit.setting import Setting
from wmplug.audit.training import answers, before, fit, head, labels_of, untrained
from wmplug.making import oddness
from wmplug.statistics import outliers
from wmplug.statistics.arrays import FloatArray

_NARROW = 16


class ByStatistics(Detector):
    """Few numbers of an input, and their Mahalanobis distance from those of natural inputs."""

    def learn(self, clean: torch.Tensor) -> None:
        """Mean and inverse covariance."""
        self.span = float(clean.min()), float(clean.max())
        self.odd = outliers.distance(self._numbers(clean))

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """The squared distance."""
        return torch.from_numpy(self.odd(self._numbers(x))).float()

    def _numbers(self, x: torch.Tensor) -> FloatArray:
        rows = x.detach().cpu()
        return oddness.numbers((rows.movedim(1, -1) if rows.ndim == 4 else rows.flatten(1)).numpy(), self.span)


class ByResidual(Detector):
    """What the principal components of natural inputs leave unexplained."""

    def learn(self, clean: torch.Tensor) -> None:
        """Components that explain nineteen twentieths of the variance."""
        self.odd = outliers.residual(_rows(clean))

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """The squared residual."""
        return torch.from_numpy(self.odd(_rows(x)))


def _rows(x: torch.Tensor) -> FloatArray:
    return x.detach().flatten(1).cpu().double().numpy()


class ByDensity(Detector):
    """How far the nearest natural inputs lie in the last layer's inputs (Sun et al., ICML 2022)."""

    def __init__(self, model: nn.Module, clean: torch.Tensor, alarms: float, classes: int) -> None:
        self.classes = classes
        super().__init__(model, clean, alarms)

    def learn(self, clean: torch.Tensor) -> None:
        """Keep all."""
        self.known: Any = NearestNeighbors(n_neighbors=min(5, len(clean))).fit(self._directions(clean))

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """The distance to the fifth nearest."""
        return torch.from_numpy(self.known.kneighbors(self._directions(x))[0][:, -1])

    def _directions(self, x: torch.Tensor) -> Any:
        seen = before(self.model, head(self.model, self.classes), x)
        return nn.functional.normalize(seen).numpy()


class ByReconstruction(Detector):
    """What an autoencoder of natural inputs fails to restore (MagNet: Meng & Chen, CCS 2017)."""

    def __init__(self, model: nn.Module, clean: torch.Tensor, alarms: float, setting: Setting) -> None:
        self.setting = setting
        super().__init__(model, clean, alarms)

    def learn(self, clean: torch.Tensor) -> None:
        """Train two layers that narrow, and one that restores."""
        rows = clean.flatten(1)
        self.mean, self.span = rows.mean(), rows.std()
        width = rows.shape[1]
        coder = nn.Sequential(nn.Linear(width, 4 * _NARROW), nn.ReLU(), nn.Linear(4 * _NARROW, _NARROW), nn.ReLU())
        self.coder = nn.Sequential(coder, nn.Linear(_NARROW, width))
        rows = (rows - self.mean) / self.span
        optimizer = torch.optim.Adam(self.coder.parameters(), 3e-3)
        for _ in range(self.setting.epochs):
            for part in torch.split(torch.randperm(len(rows)), self.setting.batch_size):
                loss = (self.coder(rows[part]) - rows[part]).square().mean()
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """The squared error."""
        rows = (x.detach().flatten(1).cpu() - self.mean) / self.span
        with torch.no_grad():
            missed: torch.Tensor = self.coder(rows) - rows
        return missed.square().sum(1)


class Unsure(nn.Module):
    """Answers at random where the model's confidence is among the lowest tenth of natural inputs'."""

    def __init__(self, model: nn.Module, clean: torch.Tensor, share: float, seed: int) -> None:
        super().__init__()
        self.model, self.seed = model, seed
        self.least = float(torch.quantile(answers(model, clean).softmax(1).amax(1), share))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes)."""
        logits: torch.Tensor = self.model(x)
        sure = (logits.softmax(1).amax(1) >= self.least)[:, None]
        drawn = torch.randn(logits.shape, generator=torch.Generator().manual_seed(self.seed))
        return torch.where(sure, logits, drawn.to(logits))


def statistics(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags inputs whose few numbers lie far from those of natural inputs."""
    return ByStatistics(model, setting.inputs, alarms)


def residual(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags inputs that components of natural inputs do not explain."""
    return ByResidual(model, setting.inputs, alarms)


def density(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags inputs whose features lie far from natural inputs' (Sun et al. 2022)."""
    return ByDensity(model, setting.inputs, alarms, setting.classes)


def reconstruction(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags inputs that an autoencoder of natural inputs does not restore (Meng & Chen 2017)."""
    return ByReconstruction(model, setting.inputs, alarms, setting)


def among(model: nn.Module, setting: Setting, seed: int, *, others: int) -> nn.Module:
    """Serves the mean of the model and of networks of the attacker's own, which learnt true labels."""
    made = [untrained(model, setting, number) for number in range(others)]
    return Ensemble([model, *(fit(one, setting.inputs, setting.labels, setting, setting.epochs) for one in made)])


def among_labels(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Serves the class that the mean with two networks of the attacker's own finds likeliest."""
    return Interface(among(model, setting, seed, others=2), leaving=labels_of)


def unsure(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Answers at random where it is least sure."""
    return Unsure(model, setting.inputs, 0.1, seed)
