"""What `wmplug audit` attacks where it is given no model: a small CNN on the digits that come with scikit-learn."""

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
    """A thief with 300 labelled digits of his own who can have the owner's asked too."""
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


def mark(scheme: str, **parameters: Any) -> Watermark:
    """A watermark of an owner whose key is in this file, so good for nothing but this."""
    images, labels = parts()
    if scheme in ("tilt", "combined"):
        # Digits leave so little freedom that it takes a strong tilt.
        parameters = {"delta": 1.0, "directions": 20, "blends": 3000, **parameters}
    if scheme == "combined":
        # Of 1,200 digits a run is short, and 100 triggers are to be seen some thirty times each.
        parameters = {"share": 0.2, **parameters}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmbiguityWarning)  # an audit shows what it comes to
        return create(
            made_up_owner("digits"),
            scheme=scheme,
            carriers=images[:_OWN],
            labels=labels[:_OWN],
            classes=CLASSES,
            preprocess=example,
            **parameters,
        )


def trained(watermark: Watermark | None, seed: int) -> nn.Module:
    """The owner's network after a plain loop, in which the mark is one line."""
    images, labels = parts()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network()
        data = TensorDataset(_tensor(images[:_OWN]), torch.from_numpy(labels[:_OWN]))
        loader = DataLoader(data, _BATCH, shuffle=True)
        if watermark is None:
            return _loop(model, loader)
        # A run over 1,200 digits is short, so that more has to come with each batch than elsewhere.
        rate = _RATE if "logits" in watermark.scheme.points else watermark.scheme.rate
        with Watermarking(watermark, model, loader, rate=rate):
            return _loop(model, loader)


def made(value: float | None, seed: int, *, scheme: str = "combined") -> tuple[Watermark | None, nn.Module]:
    """A model marked with delta=value, or an unmarked one, as `sweep` wants it."""
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
    """(count, 8, 8) uint8 grey cuttings of the photographs that come with scikit-learn."""
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
