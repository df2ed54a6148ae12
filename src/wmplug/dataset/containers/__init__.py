"""Files of pictures: other pixels in the file of a picture, whose other parts keep their bytes and their order.

A rewritten file must not be told from an untouched one: it has the same parts, settings and compression. Where that
cannot be done, the picture is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from wmplug.dataset.containers import gif, jpeg, png, rasters, tiff, webp
from wmplug.dataset.containers.parts import Unwritable

__all__ = ["WRITERS", "Unwritable"]

Writer: TypeAlias = Callable[[bytes, Any, Any], bytes]

# Each takes the file, its picture as Pillow opens it, and the new picture in its mode and size, stored as that is.
WRITERS: Mapping[str, Writer] = {
    "PNG": png.rewritten,
    "JPEG": jpeg.rewritten,
    "WEBP": webp.rewritten,
    "GIF": gif.rewritten,
    "BMP": rasters.bmp,
    "PPM": rasters.pnm,
    "TIFF": tiff.rewritten,
}
