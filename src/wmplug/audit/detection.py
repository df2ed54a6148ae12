"""Detection: a thief who serves stolen weights inspects each query, and answers suspicious ones at random.

A detector scores how suspicious an input is. Its threshold is the score with the wanted share of false alarms on clean
inputs: half of the attacker's inputs fit the detector, the other half calibrate it.
"""

from typing import Any

import torch
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import nn

from wmplug.audit.setting import Setting
from wmplug.audit.training import answers, before, head, labels_of

_OVERLAYS = 16
_COMPONENTS = 10


class Detector(nn.Module):
    """A model that answers flagged inputs at random: a second choice would show what the first was in the scores.

    Args:
        model: asked.
        clean: (n, ...) inputs without triggers.
        alarms: share of the clean inputs that it may flag.
    """

    def __init__(self, model: nn.Module, clean: torch.Tensor, alarms: float) -> None:
        super().__init__()
        self.model = model
        half = len(clean) // 2
        self.learn(clean[:half])
        self.threshold = float(torch.quantile(self.suspicion(clean[half:]), 1 - alarms))

    def learn(self, clean: torch.Tensor) -> None:
        """Fit the detector to clean inputs."""

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """(n,) dissimilarity of each input to clean ones; larger is more suspicious."""
        raise NotImplementedError(f"{type(self).__name__} defines no suspicion")

    def flags(self, x: torch.Tensor) -> torch.Tensor:
        """(n,) bool: whether the input counts as a trigger."""
        return self.suspicion(x) > self.threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes), normal ones for flagged inputs, the same for each batch."""
        logits: torch.Tensor = self.model(x)
        drawn = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
        return torch.where(self.flags(x).to(logits.device)[:, None], drawn.to(logits), logits)


class ByEntropy(Detector):
    """STRIP: a trigger decides the answer even under an overlaid clean picture (Gao et al., ACSAC 2019)."""

    def learn(self, clean: torch.Tensor) -> None:
        """Keep some as overlays."""
        self.overlays = clean[:_OVERLAYS]

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """The negative entropy of the answers under overlays."""
        total = torch.zeros(len(x))
        for overlay in self.overlays:
            shares = answers(self.model, 0.5 * (x.cpu() + overlay)).softmax(1)
            total += torch.special.entr(shares).sum(1)
        return -total / len(self.overlays)


class ByDuplicates(Detector):
    """Queries that lie nearer to an earlier one than queries of the task do (Chen et al., SPAI 2020)."""

    def learn(self, clean: torch.Tensor) -> None:
        """Fill the memory, which then drops its oldest entry with every query."""
        self.memory, self.size = clean.flatten(1), len(clean)

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """The negative distance to the nearest earlier query."""
        rows = x.flatten(1).cpu()
        apart = torch.cdist(rows, torch.cat([self.memory, rows]))
        later = torch.ones(len(rows), len(rows)).triu().bool()
        apart[:, len(self.memory) :].masked_fill_(later, torch.inf)
        self.memory = torch.cat([self.memory, rows])[-self.size :]
        return -apart.amin(1)


class ByClusters(Detector):
    """Activations far from both clusters of the answered class (activation clustering, Chen et al. 2018)."""

    def __init__(self, model: nn.Module, clean: torch.Tensor, alarms: float, classes: int) -> None:
        self.classes = classes
        super().__init__(model, clean, alarms)

    def learn(self, clean: torch.Tensor) -> None:
        """Fit two clusters a class, in ten principal components of the last layer's inputs."""
        seen, labels = self._activations(clean), labels_of(answers(self.model, clean))
        self.components: Any = PCA(min(_COMPONENTS, *seen.shape), random_state=0).fit(seen.numpy())
        reduced = self.components.transform(seen.numpy())
        self.clusters: list[Any] = []
        for label in range(self.classes):
            mine = reduced[(labels == label).numpy()]
            mine = mine if len(mine) > 1 else reduced
            self.clusters.append(KMeans(2, n_init=10, random_state=0).fit(mine))

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """Distance to the nearer cluster of its class."""
        labels = labels_of(answers(self.model, x)).tolist()
        reduced = self.components.transform(self._activations(x).numpy())
        apart = [self.clusters[label].transform(row[None]).min() for label, row in zip(labels, reduced, strict=True)]
        return torch.tensor(apart, dtype=torch.float64)

    def _activations(self, x: torch.Tensor) -> torch.Tensor:
        return before(self.model, head(self.model, self.classes), x)


def entropy(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags inputs whose answer stays the same under overlaid clean pictures (Gao et al. 2019)."""
    return ByEntropy(model, setting.inputs, alarms)


def duplicates(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags queries that nearly repeat an earlier one (Chen et al. 2020)."""
    return ByDuplicates(model, setting.inputs, alarms)


def clusters(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags inputs whose activations are unlike those of their class (Chen et al. 2018)."""
    return ByClusters(model, setting.inputs, alarms, setting.classes)
