"""A differentiable reference network: its features of a picture, and the changes of a picture that move them.

For schemes that mark a training set of pictures without changing a label. The network is trained on the owner's set and
never sees a key. Pictures are float32 (n, C, H, W) in [0, 1], of any size: the last convolution is pooled to 7 x 7.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.extras import need
from wmplug.schemes.networks import BATCH, EPOCHS, pooled, trained

with need("torch"):
    import torch
    from torch import nn
    from torch.nn.utils import parameters_to_vector, vector_to_parameters

STEPS = 20
Array = npt.NDArray[np.float32]


class Reference:
    """The network.

    Args:
        channels: of the pictures.
        classes: of the task.
        parameters: as the property `parameters` returns them; random ones otherwise.
        seed: of random parameters.
    """

    def __init__(self, channels: int, classes: int, parameters: Array | None = None, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = pooled(channels, classes)
        self._body, self._head = network[:-1], network[-1]
        if parameters is not None:
            vector_to_parameters(torch.as_tensor(parameters), self._weights())

    def _weights(self) -> list[nn.Parameter]:
        return [*self._body.parameters(), *self._head.parameters()]

    @property
    def parameters(self) -> Array:
        """All parameters, as one vector."""
        return np.asarray(parameters_to_vector(self._weights()).detach().numpy().copy(), np.float32)

    def learn(self, pictures: Array, labels: Any, seed: int = 0) -> Reference:
        """This network, trained."""
        x, y = torch.as_tensor(pictures), torch.as_tensor(np.asarray(labels))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = nn.Sequential(self._body, self._head)
            trained(network, _scaled(x), y, epochs=EPOCHS, batch_size=BATCH, learning_rate=1e-3, smallest=1)
        return self

    def _seen(self, x: torch.Tensor) -> torch.Tensor:
        seen: torch.Tensor = self._body(_scaled(x))
        return seen

    def features(self, pictures: Array) -> Array:
        """(n, 64) inputs of the last layer."""
        with torch.no_grad():
            parts = [self._seen(part) for part in torch.split(torch.as_tensor(pictures), 1024)]
        return torch.cat(parts).numpy()

    def log_probabilities(self, pictures: Array) -> Array:
        """(n, classes) log probabilities."""
        with torch.no_grad():
            return torch.as_tensor(self._head(torch.as_tensor(self.features(pictures)))).log_softmax(1).numpy()

    def steps_along(self, pictures: Array, directions: Array, bound: float) -> Array:
        """Changes (n, C, H, W) within +-bound that move features far along a direction (n, 64) of each picture's own.

        Projected gradient ascent (Madry et al., ICLR 2018) goes up and down, and half the difference is the change:
        added, it moves features one way, subtracted, the other.
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


def _scaled(x: torch.Tensor) -> torch.Tensor:
    return (x - 0.5) * 4
