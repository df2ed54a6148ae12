"""Encoded pictures: read whole, and written in the format of the picture that they replace."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

from wmplug.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
)


def read_picture(data: bytes, name: str) -> Image.Image:
    """A picture with all its pixels; a picture with a palette comes in RGB, whose numbers are brightness.

    Raises:
        InputError: it is damaged, too large for a picture, or moves; the message has its location, `name`.
    """
    picture = _open(data, name)
    return picture.convert("RGBA" if "transparency" in picture.info else "RGB") if picture.mode == "P" else picture


def write_like(data: bytes, new: Any, name: str) -> bytes:
    """A new picture in the format, mode and quality of an encoded one, with the same metadata.

    Args:
        data: the encoded picture to replace.
        new: a PIL image of the same size.
        name: location of the replaced one.

    Raises:
        InputError: `new` is not such an image.
    """
    from PIL import Image, JpegImagePlugin

    before = _open(data, name)
    if not isinstance(new, Image.Image):
        raise InputError(f"a changed or added record is a {type(new).__name__}: the set has PIL images")
    options: dict[str, Any] = {key: before.info[key] for key in ("icc_profile", "exif", "dpi") if key in before.info}
    if before.format == "JPEG":
        options |= {
            "qtables": before.quantization,  # type: ignore[attr-defined]
            "subsampling": max(0, JpegImagePlugin.get_sampling(before)),
            "progressive": bool(before.info.get("progressive")),
        }
    elif before.format == "WEBP":
        options["lossless"] = data[12:16] == b"VP8L"
    if before.mode == "P":
        new = new.convert("RGB").quantize(palette=before, dither=Image.Dither.NONE)
    elif new.mode != before.mode:
        new = new.convert(before.mode)
    written = io.BytesIO()
    new.save(written, format=before.format, **options)
    return written.getvalue()


def _open(data: bytes, name: str) -> Image.Image:
    import warnings

    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata do not matter here
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data))
            if getattr(picture, "n_frames", 1) > 1:
                raise InputError(f"{name} is a moving picture: give one frame of it, or leave it out")
            picture.load()
    except InputError:
        raise
    except (*_UNREADABLE, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{name} is not a whole picture ({error}): repair it, or leave it out") from error
    return picture
