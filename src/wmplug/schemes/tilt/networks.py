"""Small convolutional networks for a pool of unmarked references: closer to what a suspect is than perceptrons are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from wmplug.adapters.torch.modules import trained

EPOCHS, BATCH = 5, 64
Pictures = npt.NDArray[np.float32]


def _strided(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 24, 5, stride=2, padding=2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(7),
        nn.Flatten(),
        nn.Linear(48 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def _pooled(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(7),
        nn.Flatten(),
        nn.Linear(32 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, classes),
    )


def _deep(channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after, stride in ((channels, 24, 2), (24, 48, 2), (48, 64, 1)):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, classes))


def learners() -> list[Callable[[Pictures, Any, int, int], Callable[[Pictures], Any]]]:
    """Functions (pictures (n, C, H, W), labels, classes, seed) that train a network and return what predicts."""
    return [_learner(make) for make in (_strided, _pooled, _deep)]


def _learner(make: Callable[[int, int], nn.Module]) -> Callable[[Pictures, Any, int, int], Callable[[Pictures], Any]]:
    def learn(pictures: Pictures, labels: Any, classes: int, seed: int) -> Callable[[Pictures], Any]:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = trained(
                make(pictures.shape[1], classes).to(device),
                torch.as_tensor(pictures),
                torch.as_tensor(labels),
                epochs=EPOCHS,
                batch_size=BATCH,
                learning_rate=1e-3,
            )

        def predict(asked: Pictures) -> Any:
            with torch.no_grad():
                parts = (torch.as_tensor(asked[i : i + 1024]) for i in range(0, len(asked), 1024))
                return torch.cat([model(part.to(device)).softmax(1).cpu() for part in parts]).numpy()

        return predict

    return learn
