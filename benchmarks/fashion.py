"""Fashion-MNIST, one small CNN in three frameworks, and one training loop for each with and without wmplug's line.

The IDX files come with Debian's package dataset-fashion-mnist (/usr/share/datasets/fashion-mnist), or from the
dataset's own page.
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 64


@dataclass(frozen=True)
class Fashion:
    """Images (n, 28, 28) uint8 and labels (n,) int64.

    Four parts: the owner's; the thief's, with labels for the first 4,000; images that nobody trains on; a test set.
    """

    own: tuple[np.ndarray, np.ndarray]
    thief: tuple[np.ndarray, np.ndarray]
    rest: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]

    @property
    def other(self) -> tuple[np.ndarray, np.ndarray]:
        """The thief's labelled images."""
        return self.thief[0][:4000], self.thief[1][:4000]


def read(folder: Path, size: int) -> Fashion:
    """The first `size` training images are the owner's, the next 20,000 the thief's, the others nobody's."""
    train = _idx(folder / "train-images-idx3-ubyte.gz"), _idx(folder / "train-labels-idx1-ubyte.gz").astype(np.int64)
    test = _idx(folder / "t10k-images-idx3-ubyte.gz"), _idx(folder / "t10k-labels-idx1-ubyte.gz").astype(np.int64)
    parts = slice(0, size), slice(size, size + 20_000), slice(size + 20_000, None)
    return Fashion(*((train[0][part], train[1][part]) for part in parts), test)


def _idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape).copy()


def network() -> nn.Sequential:
    """A CNN of 207k parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 60),
        nn.ReLU(),
        nn.Linear(60, 10),
    )


def clone_network() -> nn.Sequential:
    """Another architecture than the owner's: strided 5 x 5 convolutions and batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(1, 24, 5, stride=2, padding=2),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, padding=1),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2352, 96),
        nn.ReLU(),
        nn.Linear(96, 10),
    )


def prepare(image: np.ndarray, answer: int) -> tuple[torch.Tensor, int]:
    """An example of the dataset."""
    return torch.as_tensor(image, dtype=torch.float32)[None] / 255, answer


def tensors(pair: tuple[np.ndarray, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (n, 1, 28, 28) float32 in [0, 1] and labels."""
    return torch.as_tensor(pair[0], dtype=torch.float32)[:, None] / 255, torch.as_tensor(pair[1])


def loader(pair: tuple[np.ndarray, np.ndarray], seed: int) -> DataLoader[Any]:
    """Shuffled batches, the same for the same seed."""
    return batches(*tensors(pair), seed)


def batches(images: torch.Tensor, targets: torch.Tensor, seed: int) -> DataLoader[Any]:
    """Shuffled batches of tensors, the same for the same seed."""
    order = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(images, targets), BATCH, shuffle=True, generator=order)


def fit(model: nn.Module, batches: DataLoader[Any], epochs: int, lr: float = 1e-3, only: Any = None) -> nn.Module:
    """A plain training loop; `only` are the parameters to train, all by default."""
    optimizer = torch.optim.Adam(model.parameters() if only is None else only, lr)
    for _ in range(epochs):
        model.train()
        for x, y in batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model.eval()
