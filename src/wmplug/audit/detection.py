"""Who serves stolen weights looks at each query first, and answers those that smell of a trigger with another class.

A detector says how suspicious an input is; its threshold is where the clean inputs it was calibrated on give so many
false alarms. Half of the attacker's inputs serve to fit, the other half to calibrate.
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
    """A model that answers inputs it flags with its second choice.

    Args:
        model: asked.
        clean: (n, ...) inputs without triggers.
        alarms: share of these that it may flag.
    """

    def __init__(self, model: nn.Module, clean: torch.Tensor, alarms: float) -> None:
        super().__init__()
        self.model = model
        half = len(clean) // 2
        self.learn(clean[:half])
        self.threshold = float(torch.quantile(self.suspicion(clean[half:]), 1 - alarms))

    def learn(self, clean: torch.Tensor) -> None:
        """Look at clean inputs."""

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """(n,) how little each input is like clean ones; larger is worse."""
        raise NotImplementedError(f"{type(self).__name__} defines no suspicion")

    def flags(self, x: torch.Tensor) -> torch.Tensor:
        """(n,) bool: taken for a trigger."""
        return self.suspicion(x) > self.threshold

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes), the best two exchanged where x is flagged."""
        logits: torch.Tensor = self.model(x)
        best = logits.topk(2, dim=1)
        told = logits.scatter(1, best.indices, best.values.flip(1))
        return torch.where(self.flags(x).to(logits.device)[:, None], told, logits)


class ByEntropy(Detector):
    """STRIP: a trigger decides the answer also under a clean picture laid over it (Gao et al., ACSAC 2019)."""

    def learn(self, clean: torch.Tensor) -> None:
        """Keep some to lay over."""
        self.overlays = clean[:_OVERLAYS]

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """Less entropy of the answers than usual."""
        total = torch.zeros(len(x))
        for overlay in self.overlays:
            shares = answers(self.model, 0.5 * (x.cpu() + overlay)).softmax(1)
            total += torch.special.entr(shares).sum(1)
        return -total / len(self.overlays)


class ByDuplicates(Detector):
    """Queries that lie nearer to one of those before than queries of the task do (Chen et al., SPAI 2020)."""

    def learn(self, clean: torch.Tensor) -> None:
        """Fill the memory, which then forgets the oldest for every query."""
        self.memory, self.size = clean.flatten(1), len(clean)

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """Less distance to the nearest of the queries before."""
        rows = x.flatten(1).cpu()
        apart = torch.cdist(rows, torch.cat([self.memory, rows]))
        later = torch.ones(len(rows), len(rows)).triu().bool()
        apart[:, len(self.memory) :].masked_fill_(later, torch.inf)
        self.memory = torch.cat([self.memory, rows])[-self.size :]
        return -apart.amin(1)


class ByClusters(Detector):
    """Activations far from both clusters of the class that was answered (activation clustering, Chen et al. 2018)."""

    def __init__(self, model: nn.Module, clean: torch.Tensor, alarms: float, classes: int) -> None:
        self.classes = classes
        super().__init__(model, clean, alarms)

    def learn(self, clean: torch.Tensor) -> None:
        """Two clusters a class, among ten principal components of what the last layer is given."""
        seen, said = self._activations(clean), labels_of(answers(self.model, clean))
        self.components: Any = PCA(min(_COMPONENTS, *seen.shape), random_state=0).fit(seen.numpy())
        reduced = self.components.transform(seen.numpy())
        self.clusters: list[Any] = []
        for label in range(self.classes):
            mine = reduced[(said == label).numpy()]
            mine = mine if len(mine) > 1 else reduced
            self.clusters.append(KMeans(2, n_init=10, random_state=0).fit(mine))

    def suspicion(self, x: torch.Tensor) -> torch.Tensor:
        """Distance to the nearer cluster of its class."""
        said = labels_of(answers(self.model, x)).tolist()
        reduced = self.components.transform(self._activations(x).numpy())
        apart = [self.clusters[label].transform(row[None]).min() for label, row in zip(said, reduced, strict=True)]
        return torch.tensor(apart, dtype=torch.float64)

    def _activations(self, x: torch.Tensor) -> torch.Tensor:
        return before(self.model, head(self.model, self.classes), x)


def entropy(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags inputs whose answer stays the same under clean pictures (Gao et al. 2019)."""
    return ByEntropy(model, setting.inputs, alarms)


def duplicates(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags queries that are nearly one of those before (Chen et al. 2020)."""
    return ByDuplicates(model, setting.inputs, alarms)


def clusters(model: nn.Module, setting: Setting, seed: int, *, alarms: float) -> nn.Module:
    """Flags inputs whose activations are unlike those of their class (Chen et al. 2018)."""
    return ByClusters(model, setting.inputs, alarms, setting.classes)
