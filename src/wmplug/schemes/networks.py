"""Small convolutional networks for unmarked references, closer to a suspect than perceptrons are, and their training.

Ids of saved watermarks depend on the order of layers, initialisation and batches: keep it.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.extras import need

with need("torch"):
    import torch
    from torch import nn

FEATURES = 64  # inputs of the last layer of `pooled`
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


def pooled(channels: int, classes: int) -> nn.Sequential:
    """Two convolutions, pooled to 7 x 7, for pictures of any size."""
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveMaxPool2d(7),
        nn.Flatten(),
        nn.Linear(32 * 49, FEATURES),
        nn.ReLU(),
        nn.Linear(FEATURES, classes),
    )


def _deep(channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for before, after, stride in ((channels, 24, 2), (24, 48, 2), (48, 64, 1)):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64 * 16, classes))


def learners() -> list[Callable[[Pictures, Any, int, int], Callable[[Pictures], Any]]]:
    """Functions (pictures (n, C, H, W), labels, classes, seed) that train a network and return its predict function."""
    return [_learner(make) for make in (_strided, pooled, _deep)]


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


def trained(
    model: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    only: Iterable[nn.Parameter] | None = None,
    smallest: int = 2,
) -> nn.Module:
    """A plain training loop with Adam; the order comes from torch's global generator.

    Args:
        model: trained in place.
        inputs: (n, ...).
        targets: (n,) labels or (n, classes) probabilities.
        epochs: to train.
        batch_size: inputs a step.
        learning_rate: Adam's.
        only: the parameters to train; all by default.
        smallest: size of a batch that is trained on, unless it holds all inputs; batch normalisation needs two.

    Returns:
        The model, in eval mode.
    """
    optimizer = torch.optim.Adam(model.parameters() if only is None else only, learning_rate)
    device = next((p.device for p in model.parameters()), None)
    for _ in range(epochs):
        model.train()
        for rows in torch.split(torch.randperm(len(inputs)), batch_size):
            if len(rows) < min(smallest, len(inputs)):
                continue
            optimizer.zero_grad()
            scores = model(like_parameters(inputs[rows], model))
            loss = nn.functional.cross_entropy(scores, targets[rows].to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def like_parameters(x: Any, model: nn.Module) -> Any:
    """`x` on the model's device, floats in the model's dtype."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None or not isinstance(x, torch.Tensor):
        return x
    return x.to(parameter.device, parameter.dtype if x.is_floating_point() else x.dtype)
