"""Evasion: a thief who serves stolen weights changes inputs or outputs."""

import io
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import nn

from wmplug.audit.setting import Setting

Change = Callable[[torch.Tensor], torch.Tensor]


def _unchanged(x: torch.Tensor) -> torch.Tensor:
    return x


class Interface(nn.Module):
    """A model behind an interface that changes inputs or answers.

    Args:
        model: asked.
        entering: change of a batch of inputs.
        leaving: change of its logits (n, classes).
    """

    def __init__(self, model: nn.Module, *, entering: Change = _unchanged, leaving: Change = _unchanged) -> None:
        super().__init__()
        self.model, self.entering, self.leaving = model, entering, leaving

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (n, classes), or labels (n,)."""
        return self.leaving(self.model(self.entering(x)))


def labels_only(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Returns the class without scores (Tramèr et al., USENIX Security 2016)."""
    return Interface(model, leaving=_label)


def rounded(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Returns probabilities to one decimal (Tramèr et al. 2016)."""
    return Interface(model, leaving=_rounded)


def smoothed_labels(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Mixes a fifth of the uniform distribution into the probabilities it returns."""
    return Interface(model, leaving=_mixed)


def jpeg(model: nn.Module, setting: Setting, seed: int, *, quality: int = 75) -> nn.Module:
    """Compresses every picture before the model sees it (Guo et al., ICLR 2018)."""
    setting.need_pictures("jpeg")
    return Interface(model, entering=partial(_jpeg, span=setting.span, quality=quality))


def resized(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Makes every picture a quarter smaller and large again (Xie et al., ICLR 2018)."""
    setting.need_pictures("resize")
    return Interface(model, entering=_resized)


def cropped(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Cuts a sixteenth of every picture at each side, and makes it large again (Guo et al. 2018)."""
    setting.need_pictures("crop")
    return Interface(model, entering=_cropped)


def coarse(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Leaves eight levels of every value (feature squeezing: Xu et al., NDSS 2018)."""
    return Interface(model, entering=partial(_coarse, span=setting.span))


class AtRandom(nn.Module):
    """Answers a share of the inputs at random.

    Args:
        model: asked.
        share: of inputs.
        seed: of the answers, which are the same for each batch.
    """

    def __init__(self, model: nn.Module, share: float, seed: int) -> None:
        super().__init__()
        self.model, self.share, self.seed = model, share, seed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (n, classes)."""
        logits: torch.Tensor = self.model(x)
        drawn = torch.Generator().manual_seed(self.seed)
        chosen = torch.rand(len(x), 1, generator=drawn) < self.share
        return torch.where(chosen.to(logits.device), torch.randn(logits.shape, generator=drawn).to(logits), logits)


def at_random(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Answers a tenth of the inputs at random."""
    return AtRandom(model, 0.1, seed)


class Smoothed(nn.Module):
    """Shares of the votes that a model casts on noisy copies of its input.

    Args:
        model: asked.
        sigma: standard deviation of the noise.
        copies: votes.
        seed: of the noise, which is the same for each batch.
    """

    def __init__(self, model: nn.Module, sigma: float, copies: int, seed: int) -> None:
        super().__init__()
        self.model, self.sigma, self.copies, self.seed = model, sigma, copies, seed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, classes) shares."""
        noise = torch.Generator().manual_seed(self.seed)
        votes = torch.zeros(0)
        for _ in range(self.copies):
            noisy = x + self.sigma * torch.randn(x.shape, generator=noise).to(x)
            logits = self.model(noisy)
            vote = nn.functional.one_hot(logits.argmax(1), logits.shape[1]) / self.copies
            votes = votes.to(vote) + vote if len(votes) else vote
        return votes


def smoothed(model: nn.Module, setting: Setting, seed: int) -> nn.Module:
    """Randomized smoothing: 32 votes under noise of a quarter of the inputs' spread (Cohen et al., ICML 2019)."""
    return Smoothed(model, 0.25 * float(setting.inputs.std()), 32, seed)


def _label(logits: torch.Tensor) -> torch.Tensor:
    return logits.argmax(1)


def _rounded(logits: torch.Tensor) -> torch.Tensor:
    shares = logits.softmax(1).mul(10).round()
    # With very many classes none may reach a tenth.
    shares = torch.where(shares.sum(1, keepdim=True) > 0, shares, torch.ones_like(shares))
    return shares / shares.sum(1, keepdim=True)


def _mixed(logits: torch.Tensor) -> torch.Tensor:
    return 0.8 * logits.softmax(1) + 0.2 / logits.shape[1]


def _jpeg(x: torch.Tensor, span: tuple[float, float], quality: int) -> torch.Tensor:
    low, high = span
    bytes_ = ((x - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8).movedim(1, -1).cpu().numpy()
    compressed = np.stack([_compressed(picture, quality) for picture in bytes_])
    return low + torch.from_numpy(compressed).movedim(-1, 1).to(x) / 255 * (high - low)


def _compressed(
    picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], quality: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    file = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(file, "JPEG", quality=quality)
    with Image.open(file) as read:
        return np.asarray(read, np.uint8).reshape(picture.shape)


def _cropped(x: torch.Tensor) -> torch.Tensor:
    size = tuple(x.shape[2:])
    cut = [max(1, round(side / 16)) for side in size]
    inner = x[:, :, cut[0] : size[0] - cut[0], cut[1] : size[1] - cut[1]]
    return nn.functional.interpolate(inner, size, mode="bilinear", antialias=True)


def _coarse(x: torch.Tensor, span: tuple[float, float]) -> torch.Tensor:
    low, high = span
    return low + ((x - low) / (high - low) * 7).round() / 7 * (high - low)


def _resized(x: torch.Tensor) -> torch.Tensor:
    size = tuple(x.shape[2:])
    smaller = tuple(max(1, round(0.75 * side)) for side in size)
    small = nn.functional.interpolate(x, smaller, mode="bilinear", antialias=True)
    return nn.functional.interpolate(small, size, mode="bilinear", antialias=True)
