"""A reference network that can be differentiated: what it sees in a picture, and how a picture has to change for that.

For schemes that mark a training set of pictures without changing a label. The network is trained on the owner's set and
never meets a key. Pictures are float32 (n, C, H, W) in [0, 1]; any size, since the last convolution is pooled to 7 x 7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

EPOCHS, BATCH, STEPS = 5, 64, 20
FEATURES = 64
Array = npt.NDArray[np.float32]


class Reference:
    """The network.

    Args:
        channels: of the pictures.
        classes: of the task.
        parameters: as `parameters` gave them; random ones otherwise.
        seed: of these.
    """

    def __init__(self, channels: int, classes: int, parameters: Array | None = None, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._body = nn.Sequential(
                nn.Conv2d(channels, 16, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(16, 32, 3, padding=1),
                nn.ReLU(),
                nn.AdaptiveMaxPool2d(7),
                nn.Flatten(),
                nn.Linear(32 * 49, FEATURES),
                nn.ReLU(),
            )
            self._head = nn.Linear(FEATURES, classes)
        if parameters is not None:
            vector_to_parameters(torch.as_tensor(parameters), self._weights())

    def _weights(self) -> list[nn.Parameter]:
        return [*self._body.parameters(), *self._head.parameters()]

    @property
    def parameters(self) -> Array:
        """All of them, as one vector."""
        return np.asarray(parameters_to_vector(self._weights()).detach().numpy().copy(), np.float32)

    def learn(self, pictures: Array, labels: Any, seed: int = 0) -> Reference:
        """This network, trained."""
        optimizer = torch.optim.Adam(self._weights(), 1e-3)
        x, y = torch.as_tensor(pictures), torch.as_tensor(np.asarray(labels))
        order = torch.Generator().manual_seed(seed)
        for _ in range(EPOCHS):
            for rows in torch.split(torch.randperm(len(x), generator=order), BATCH):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(self._head(self._seen(x[rows])), y[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return self

    def _seen(self, x: torch.Tensor) -> torch.Tensor:
        seen: torch.Tensor = self._body((x - 0.5) * 4)
        return seen

    def features(self, pictures: Array) -> Array:
        """(n, 64) what the last layer is given."""
        with torch.no_grad():
            parts = [self._seen(part) for part in torch.split(torch.as_tensor(pictures), 1024)]
        return torch.cat(parts).numpy()

    def log_probabilities(self, pictures: Array) -> Array:
        """(n, classes) of the classes."""
        with torch.no_grad():
            return torch.as_tensor(self._head(torch.as_tensor(self.features(pictures)))).log_softmax(1).numpy()

    def steps_along(self, pictures: Array, directions: Array, bound: float) -> Array:
        """Changes (n, C, H, W) within +-bound that move features far along a direction (n, 64) of each picture's own.

        By projected gradient ascent (Madry et al., ICLR 2018), up and down, of which half the difference is taken: what
        it adds moves features one way, subtracted the other.
        """
        x, u = torch.as_tensor(pictures), torch.as_tensor(directions)
        up, down = (self._climbed(x, side * u, bound) for side in (1, -1))
        return np.asarray(((up - down) / 2).numpy(), np.float32)

    def _climbed(self, x: torch.Tensor, u: torch.Tensor, bound: float) -> torch.Tensor:
        change = torch.zeros_like(x)
        for _ in range(STEPS):
            change.requires_grad_(True)
            along = (self._seen(x + change) * u).sum()
            (slope,) = torch.autograd.grad(along, change)
            with torch.no_grad():
                change = (change + bound / 8 * slope.sign()).clamp(-bound, bound)
                change = (x + change).clamp(0, 1) - x
        return change.detach()
