"""The model that `wmplug audit` attacks by default: a small CNN on the digits that come with scikit-learn."""

import dataclasses
import itertools
import warnings
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from wmplug.adapters.torch import Watermarking
from wmplug.audit.adaptive import made_up_owner
from wmplug.audit.setting import Setting
from wmplug.errors import AmbiguityWarning
from wmplug.making import create
from wmplug.watermark.watermark import Watermark

CLASSES = 10
EPOCHS = 40
_RATE = 0.36
_BATCH = 32
_OWN, _OTHER = 1200, 300  # of 1,797; the rest tests
_FOREIGN = 3000


def network() -> nn.Module:
    """The owner's, a CNN of 66k parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )


def perceptron() -> nn.Module:
    """A clone's, without convolutions."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, CLASSES))


def deeper() -> nn.Module:
    """Another clone's."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES)
    )


def example(image: Any, answer: int) -> tuple[torch.Tensor, int]:
    """A digit as the network takes it; the watermark's `preprocess`."""
    return torch.as_tensor(image, dtype=torch.float32)[None] / 255, answer


def parts() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """All digits, (1797, 8, 8) uint8 in 0..255, and labels, in a fixed order: the owner's, the thief's, the test's."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return np.rint(data.images * 15.9375).astype(np.uint8)[order], data.target.astype(np.int64)[order]


def setting() -> Setting:
    """A thief with 300 labelled digits who can also query the owner's model."""
    images, labels = parts()
    x, y = _tensor(images), torch.from_numpy(labels)
    thief, test = slice(_OWN, _OWN + _OTHER), slice(_OWN + _OTHER, None)
    return Setting(
        inputs=x[thief],
        labels=y[thief],
        test_inputs=x[test],
        test_labels=y[test],
        classes=CLASSES,
        architectures=(perceptron, deeper),
        queries=x[: thief.stop],
        others=_tensor(foreign(_FOREIGN)),
        epochs=EPOCHS,
        tuning_epochs=EPOCHS // 2,
        batch_size=_BATCH,
        make=made,
    )


def copying() -> Setting:
    """A copyist who asks a service about the 300 digits at nine places each, shifted by a pixel or none."""
    alone = setting()
    moves = itertools.product((-1, 0, 1), repeat=2)
    queries = torch.cat([alone.inputs.roll(move, (2, 3)) for move in moves])
    return dataclasses.replace(alone, queries=queries, others=None, make=None)


def pictures(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """(n, 8, 8) uint8: the network's inputs (n, 1, 8, 8) in the form of the carriers, as a service is asked."""
    return np.asarray((x[:, 0] * 255).round().to(torch.uint8).numpy())


def owned() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The owner's 1,200 digits and labels, the carriers of each watermark here."""
    images, labels = parts()
    return images[:_OWN], labels[:_OWN]


def mark(scheme: str, **parameters: Any) -> Watermark:
    """A watermark of an owner whose key is derived from this file, so that it serves this audit alone."""
    images, labels = owned()
    if scheme in ("tilt", "combined"):
        # Digits leave so little freedom that the tilt must be strong.
        parameters = {"delta": 1.0, "directions": 20, "blends": 3000, **parameters}
    if scheme == "combined":
        # A run over 1,200 digits is short, and each of 100 triggers should come some thirty times.
        parameters = {"share": 0.2, **parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmbiguityWarning)  # the audit itself shows the effect
        return create(
            made_up_owner("digits"),
            scheme=scheme,
            carriers=images,
            labels=labels,
            classes=CLASSES,
            preprocess=example,
            **parameters,
        )


def trained(watermark: Watermark | None, seed: int) -> nn.Module:
    """The owner's network after a plain loop with the mark as one line."""
    images, labels = owned()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network()
        data = TensorDataset(_tensor(images), torch.from_numpy(labels))
        loader = DataLoader(data, _BATCH, shuffle=True)
        if watermark is None:
            return _loop(model, loader)
        # A run over 1,200 digits is short, so each batch gets more triggers than usual.
        rate = _RATE if "logits" in watermark.scheme.points else watermark.scheme.rate
        with Watermarking(watermark, model, loader, rate=rate):
            return _loop(model, loader)


def made(value: float | None, seed: int, *, scheme: str = "combined") -> tuple[Watermark | None, nn.Module]:
    """The `make` of a sweep: a model marked with delta=value, or an unmarked one with None for its mark."""
    watermark = None if value is None else mark(scheme, delta=value)
    return watermark, trained(watermark, seed)


def _loop(model: nn.Module, loader: DataLoader[Any]) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(EPOCHS):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def foreign(count: int) -> np.ndarray[Any, Any]:
    """(count, 8, 8) uint8 grey crops of the photographs that come with scikit-learn."""
    photographs = [np.asarray(photo, np.float64).mean(axis=2) for photo in load_sample_images().images]
    rng = np.random.default_rng(0)
    cuttings = []
    for photo in (photographs[number] for number in rng.integers(len(photographs), size=count)):
        size = 8 * int(rng.integers(1, 9))
        top, left = (int(rng.integers(side - size)) for side in photo.shape)
        blocks = photo[top : top + size, left : left + size].reshape(8, size // 8, 8, size // 8)
        cuttings.append(blocks.mean(axis=(1, 3)))
    return np.asarray(np.rint(np.stack(cuttings)), np.uint8)


def _tensor(images: Any) -> torch.Tensor:
    return torch.from_numpy(images).float()[:, None] / 255
