"""Encoded pictures: read as they are shown, and written in the file of the picture that they replace."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from wmplug.dataset.sources.borders import border
from wmplug.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_ORIENTATION = 274  # the tag of EXIF
_WRITABLE = frozenset(("1", "L", "LA", "P", "RGB", "RGBA"))
_SEVERAL = frozenset(("MPO", "TIFF"))  # formats whose further pictures no loader reads
_STEPS = 1 << 14  # colours at a time that are compared with a palette


def read_picture(data: bytes, name: str) -> Image.Image:
    """A picture with all its pixels, turned as it is shown.

    One with a palette comes in RGB, whose numbers are brightness, and one with a transparent colour in RGBA. Of a file
    with several pictures that are not shown one after the other (MPO, TIFF), it is the first.

    Raises:
        InputError: it is damaged, too large for a picture, or moves; the message has its location, `name`.
    """
    return _shown(_open(data, name))


def write_like(data: bytes, new: Any, name: str) -> bytes:
    """A new picture in the file of another, whose other parts keep their bytes; see `containers`.

    Args:
        data: the encoded picture to replace.
        new: a PIL image of the size in which it is shown.
        name: location of the replaced one.

    Raises:
        InputError: `new` is not such an image, or the file cannot be written again so that nobody sees it.
    """
    from PIL import Image

    from wmplug.dataset.containers import WRITERS, Unwritable

    before = _open(data, name)
    if not isinstance(new, Image.Image):
        raise InputError(f"a changed or added record is a {type(new).__name__}: the set has PIL images")
    shown = _shown(before)
    if new.size != shown.size:
        raise InputError(f"a changed or added record has the size {new.size}, and {name} {shown.size}: give that size")
    if new.mode == shown.mode and new.tobytes() == shown.tobytes():
        return data
    advice = "leave it out, save all pictures plainly, or choose a scheme that changes no picture, such as label-twins"
    with border(f"{name} cannot be written with other pixels", advice):
        if before.mode not in _WRITABLE or getattr(before, "n_frames", 1) > 1 or before.format not in WRITERS:
            count = getattr(before, "n_frames", 1)
            raise Unwritable(f"it holds {count} {before.format} of mode {before.mode}")
        stored = _stored(new.convert(shown.mode) if new.mode != shown.mode else new, before)
        written = WRITERS[str(before.format)](data, before, stored)
        again = _open(written, name)
        exact = before.format not in ("JPEG", "WEBP") or before.mode == "P"
        if (again.mode, again.size) != (before.mode, before.size) or (exact and again.tobytes() != stored.tobytes()):
            raise Unwritable("Pillow reads other pixels from it than were written")
    return written


def _open(data: bytes, name: str) -> Image.Image:
    """The first picture as it is stored."""
    from PIL import Image

    with border(f"{name} is not a whole picture", "repair it, or leave it out"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd metadata do not matter here
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        picture = Image.open(io.BytesIO(data))
        if getattr(picture, "n_frames", 1) > 1 and picture.format not in _SEVERAL:
            raise InputError(f"{name} is a moving picture: give one frame of it, or leave it out")
        picture.load()
    return picture


def _shown(picture: Image.Image) -> Image.Image:
    """The picture turned, and in a mode whose numbers are colours."""
    from PIL import ImageOps

    clear = "transparency" in picture.info
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA" if clear or picture.mode == "PA" else "RGB")
    elif picture.mode == "LA" or (clear and picture.mode in ("L", "RGB")):
        picture = picture.convert("RGBA")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged EXIF
        return ImageOps.exif_transpose(picture) if picture.getexif().get(_ORIENTATION, 1) != 1 else picture


def _stored(new: Image.Image, before: Image.Image) -> Image.Image:
    """A new picture turned and in the mode in which the old one is stored."""
    from wmplug.dataset.containers.parts import unturned

    new = unturned(new, before.getexif().get(_ORIENTATION, 1))
    clear = before.info.get("transparency")
    if before.mode == "P":
        return _in_palette(new, before)
    if clear is not None and before.mode in ("L", "RGB"):
        return _with_clear_colour(new, before.mode, clear)
    if before.mode == "1":
        return new.convert("L").point(lambda grey: 255 * (grey >= 128), "1")
    return new if new.mode == before.mode else new.convert(before.mode)


def _in_palette(new: Image.Image, before: Image.Image) -> Image.Image:
    """The picture in the palette of another, each colour as the nearest that it uses."""
    from PIL import Image

    mode = "RGBA" if "transparency" in before.info else "RGB"
    indices = np.unique(np.asarray(before))
    table = _colours_of(before, indices, mode)
    pixels = np.asarray(new.convert(mode)).reshape(-1, len(mode))
    colours, which = np.unique(pixels, axis=0, return_inverse=True)
    nearest = np.empty(len(colours), np.uint8)
    for at in range(0, len(colours), _STEPS):
        away = colours[at : at + _STEPS, None].astype(np.int32) - table[None].astype(np.int32)
        nearest[at : at + _STEPS] = indices[np.square(away).sum(axis=2).argmin(axis=1)]
    made = Image.fromarray(nearest[which.reshape(-1)].reshape(new.height, new.width), "P")
    palette: Any = before.palette
    made.putpalette(palette.palette, palette.mode)
    made.info = dict(before.info)
    return made


def _colours_of(before: Image.Image, indices: Any, mode: str) -> Any:
    """(n, 3 or 4) the colours of some numbers of a palette."""
    plain, stored = np.asarray(before.convert(mode)).reshape(-1, len(mode)), np.asarray(before).reshape(-1)
    first = np.searchsorted(indices, stored)
    places = np.zeros(len(indices), np.int64)
    places[first] = np.arange(len(stored))
    return plain[places]


def _with_clear_colour(new: Image.Image, mode: str, clear: Any) -> Image.Image:
    """Opaque pixels in their colours, and clear ones in the one colour that the file calls transparent."""
    from PIL import Image

    pixels = np.asarray(new.convert("RGBA"))
    colours = pixels[..., :3] if mode == "RGB" else np.asarray(new.convert("RGB").convert("L"))[..., None]
    key = np.array(clear if mode == "RGB" else [clear], np.uint8)
    same, opaque = (colours == key).all(axis=-1), pixels[..., 3] >= 128
    made = np.where(opaque[..., None], colours, key)
    made[same & opaque, -1] ^= 1  # the nearest colour that stays opaque
    return Image.fromarray(made if mode == "RGB" else made[..., 0], mode)
