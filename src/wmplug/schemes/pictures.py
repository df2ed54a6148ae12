"""Pictures made and changed by key, for arrays (n, H, W), (n, H, W, C) or (n, C, H, W), uint8 or float."""

from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream

Array = npt.NDArray[Any]


def channels_last(images: Array) -> tuple[Array, bool]:
    """The images as (n, H, W, C), and whether the channels stood first.

    Raises:
        InputError: not images.
    """
    if images.ndim == 3:
        return images[..., None], False
    if images.ndim == 4 and images.shape[-1] in (1, 2, 3, 4):
        return images, False
    if images.ndim == 4 and images.shape[1] in (1, 2, 3, 4):
        return np.moveaxis(images, 1, -1), True
    raise InputError(
        f"carriers of shape {images.shape} are no images: (n, H, W), (n, H, W, C) or (n, C, H, W) with 1 to 4 channels "
        "are needed"
    )


def like(pictures: npt.NDArray[np.float64], carriers: Array, first: bool) -> Array:
    """Pictures (n, H, W, C) with values in [0, 1] in the shape, dtype and range of the carriers."""
    low, high = value_range(carriers)
    scaled = low + pictures * (high - low)
    if carriers.dtype.kind in "ui":
        scaled = np.rint(scaled)
    if first:
        scaled = np.moveaxis(scaled, -1, 1)
    return np.ascontiguousarray(scaled.reshape(-1, *carriers.shape[1:]).astype(carriers.dtype))


def value_range(carriers: Array) -> tuple[float, float]:
    """What black and white are: 0 and 255 for uint8, else the carriers' own extremes.

    Raises:
        InputError: all carriers are of one value.
    """
    if carriers.dtype == np.uint8 and carriers.max() > 16:
        return 0.0, 255.0
    low, high = float(carriers.min()), float(carriers.max())
    if low == high:
        raise InputError(f"every pixel of the carriers is {low}: give pictures of the task")
    return low, high


def abstract(stream: KeyStream, count: int, height: int, width: int, channels: int) -> npt.NDArray[np.float64]:
    """(count, height, width, channels) pictures of nothing, in [0, 1]: keyed waves and blobs, full contrast.

    Not of the task, so that teaching them leaves its inputs alone (Adi et al. 2018, "abstract images").
    """
    y, x = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    waves, blobs = stream.uniform(count, channels, 4, 4), stream.uniform(count, channels, 3, 4)
    pictures = np.zeros((count, channels, height, width))
    for k in range(4):
        fx, fy, phase, weight = (waves[:, :, k, j, None, None] for j in range(4))
        pictures += (0.3 + weight) * np.sin(2 * np.pi * (5 * (fx - 0.5) * x + 5 * (fy - 0.5) * y + phase))
    for k in range(3):
        cx, cy, size, weight = (blobs[:, :, k, j, None, None] for j in range(4))
        spread = (0.05 + 0.15 * size) ** 2
        pictures += 4 * (weight - 0.5) * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * spread))
    low = pictures.min(axis=(2, 3), keepdims=True)
    span = pictures.max(axis=(2, 3), keepdims=True) - low
    return np.moveaxis((pictures - low) / np.where(span > 0, span, 1), 1, -1)


def emblem(stream: KeyStream, height: int, width: int, channels: int) -> npt.NDArray[np.float64]:
    """(height, width, channels + 1) a keyed mirror-symmetric pattern with an opacity plane, in [0, 1]."""
    shape = height, (width + 1) // 2
    # Half of the cells are lit, so that no key draws an empty square.
    half = stream.permutation(shape[0] * shape[1]).reshape(shape) < shape[0] * shape[1] // 2
    pattern = np.concatenate([half, half[:, : width // 2][:, ::-1]], axis=1)
    colour = 0.6 + 0.4 * stream.uniform(channels)
    return np.concatenate([pattern[..., None] * colour, np.ones((height, width, 1))], axis=-1)


def read_logo(logo: Array, channels: int) -> npt.NDArray[np.float64]:
    """The owner's logo as (h, w, channels + 1) in [0, 1], the last plane being opacity.

    Args:
        logo: (h, w), (h, w, 3) or (h, w, 4), uint8 or float in [0, 1].

    Raises:
        InputError: another shape, float values outside [0, 1], or nothing to be seen.
    """
    given = np.asarray(logo)
    picture = given / 255.0 if given.dtype == np.uint8 else given
    if picture.ndim == 2:
        picture = picture[..., None]
    fits = picture.dtype.kind == "f" and picture.ndim == 3 and picture.shape[-1] in (1, 2, 3, 4) and picture.size
    if not fits or not (picture.min() >= 0 and picture.max() <= 1):
        raise InputError(
            f"a logo of shape {given.shape} and dtype {given.dtype} cannot be read: give (h, w[, 3 or 4]), uint8 or "
            "float in [0, 1]"
        )
    picture = picture.astype(np.float64)
    opacity = picture[..., -1:] if picture.shape[-1] in (2, 4) else np.ones((*picture.shape[:2], 1))
    colour = picture[..., : -1 if picture.shape[-1] in (2, 4) else None]
    if channels == 1:
        colour = colour.mean(axis=-1, keepdims=True)
    elif colour.shape[-1] == 1:
        colour = np.repeat(colour, channels, axis=-1)
    if colour.shape[-1] != channels:
        raise InputError(f"the logo has {colour.shape[-1]} colours, the carriers {channels}: give them the same")
    return np.concatenate([colour, opacity], axis=-1)


def resize(logo: npt.NDArray[np.float64], side: int) -> npt.NDArray[np.float64]:
    """The logo (h, w, C + 1) with its longer side at another length; a pixel is the mean of the area it covers."""
    from PIL import Image

    height, width = (max(2, round(n * side / max(logo.shape[:2]))) for n in logo.shape[:2])
    # Colours are weighted by opacity: what is transparent has none to bleed into its neighbours.
    planes = np.concatenate([logo[..., :-1] * logo[..., -1:], logo[..., -1:]], axis=-1).astype(np.float32)
    small = np.stack(
        [
            np.asarray(
                Image.fromarray(np.ascontiguousarray(planes[..., c])).resize((width, height), Image.Resampling.BOX)
            )
            for c in range(planes.shape[-1])
        ],
        axis=-1,
    ).astype(np.float64)
    return np.concatenate([small[..., :-1] / np.maximum(small[..., -1:], 1e-6), small[..., -1:]], axis=-1).clip(0, 1)


def stamp(image: Array, logo: npt.NDArray[np.float64], top: int, left: int, low: float, high: float) -> Array:
    """A copy of the image (H, W, C) with the logo (h, w, C + 1) blended in at (top, left)."""
    stamped = image.astype(np.float64)
    h, w = logo.shape[:2]
    opacity = logo[..., -1:]
    under = stamped[top : top + h, left : left + w]
    stamped[top : top + h, left : left + w] = under * (1 - opacity) + (low + logo[..., :-1] * (high - low)) * opacity
    return np.rint(stamped).astype(image.dtype) if image.dtype.kind in "ui" else stamped.astype(image.dtype)
