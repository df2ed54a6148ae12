"""Who knows the scheme, and all of it but the key."""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from wmplug.adapters.torch import Watermarking
from wmplug.audit.setting import Setting
from wmplug.audit.training import answers, device_of, fit, labels_of
from wmplug.errors import AmbiguityWarning, InputError
from wmplug.keys.owner import Owner, commitment_of
from wmplug.keys.sealing import Seal
from wmplug.keys.streams import KeyStream
from wmplug.making import create
from wmplug.schemes import pictures
from wmplug.schemes.tilt import features

_GUESSES = 500
_REFERENCES = 3
_DIRECTIONS = 30


def overwritten(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """A mark of the thief's own, by the same scheme, taught as long as a mark is (Uchida et al., ICMR 2017).

    He has few labels, so he trains on what the model says of all he can ask.

    Raises:
        InputError: his inputs do not do for the scheme.
    """
    if setting.scheme is None:
        raise InputError("overwriting needs Setting(scheme=...), the scheme of the owner: `run` gives it")
    labels = labels_of(answers(model, setting.asked))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmbiguityWarning)  # he takes what he gets
        mark = create(
            made_up_owner(f"rival {seed}"),
            scheme=setting.scheme,
            carriers=setting.asked.numpy(),
            labels=labels.numpy(),
            classes=setting.classes,
            preprocess=_example,
        )
    loader = DataLoader(TensorDataset(setting.asked, labels), setting.batch_size, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), setting.learning_rate)
    device = device_of(model)
    with Watermarking(mark, model, loader):
        for _ in range(setting.epochs):
            model.train()
            for x, y in loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x.to(device)), y.to(device)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return model


def made_up_owner(name: str) -> Owner:
    """An owner without files whose key follows from the name, so that a run can be made again; it protects nothing."""
    root = hashlib.sha256(f"wmplug/audit/{name}".encode()).digest()
    return Owner(name, commitment_of(root), Path("no-register"), (root,), Seal.make("none", salt=root[:16], n=2**10))


def _example(carrier: Any, answer: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.as_tensor(carrier), torch.tensor(answer)


def guessed_triggers(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Fine-tuned on true labels and on made pictures as random-label makes them, under ever new random answers."""
    own = setting.inputs.numpy()
    images, first = pictures.channels_last(own)
    stream = KeyStream(hashlib.sha256(f"guess {seed}".encode()).digest())
    made = torch.from_numpy(pictures.like(pictures.abstract(stream, _GUESSES, *images.shape[1:]), own, first))
    inputs = torch.cat([setting.inputs, made])
    for _ in range(setting.tuning_epochs):
        labels = torch.cat([setting.labels, torch.randint(setting.classes, (_GUESSES,))])
        fit(model, inputs, labels, setting, 1)
    return model


class Untilted(nn.Module):
    """A model less a linear function of the features that tilt uses.

    Args:
        model: asked.
        directions: scikit-learn's whitening of these features.
        slope: (directions, classes).
    """

    def __init__(self, model: nn.Module, directions: PCA, slope: torch.Tensor) -> None:
        super().__init__()
        self.model, self.directions, self.slope = model, directions, slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes)."""
        logits: torch.Tensor = self.model(x)
        return logits - (_projected(self.directions, x) @ self.slope).to(logits)


def guessed_tilt(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Logits less what, linear in tilt's own features, tells them from those of unmarked networks of the thief's."""
    references = [
        fit(make().to(device_of(model)), setting.inputs, setting.labels, setting, setting.epochs)
        for make in (setting.architectures * _REFERENCES)[:_REFERENCES]
    ]
    asked = setting.asked
    found = features.of_carriers(asked.numpy())
    directions = PCA(min(_DIRECTIONS, *found.shape), whiten=True, random_state=0).fit(found)
    mean = torch.stack([_centred(answers(reference, asked)) for reference in references]).mean(0)
    beyond = _centred(answers(model, asked)) - mean
    fitted = Ridge().fit(_projected(directions, asked).numpy(), beyond.numpy())
    return Untilted(model, directions, torch.from_numpy(np.asarray(fitted.coef_.T, np.float32)))


def _projected(directions: PCA, x: torch.Tensor) -> torch.Tensor:
    found = directions.transform(features.of_carriers(x.detach().cpu().numpy()))
    return torch.from_numpy(found.astype(np.float32))


def _centred(logits: torch.Tensor) -> torch.Tensor:
    return logits - logits.mean(1, keepdim=True)
