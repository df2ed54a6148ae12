"""What the formats share: the refusal, and the search for the settings that a file was written with."""

from __future__ import annotations

import io
from typing import Any

CLOSE = 0.02  # of the size: how near the settings found must come to a file, when they write its own pixels again


class Unwritable(ValueError):
    """The file cannot be written again so that nobody sees it."""


def unturned(picture: Any, orientation: int) -> Any:
    """A picture as it is shown, turned back to how a file with this orientation (EXIF) stores it."""
    from PIL import Image

    turns = Image.Transpose
    undo = {
        2: turns.FLIP_LEFT_RIGHT,
        3: turns.ROTATE_180,
        4: turns.FLIP_TOP_BOTTOM,
        5: turns.TRANSPOSE,
        6: turns.ROTATE_90,
        7: turns.TRANSVERSE,
        8: turns.ROTATE_270,
    }.get(orientation)
    return picture if undo is None else picture.transpose(undo)


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    """A picture as Pillow writes it."""
    file = io.BytesIO()
    picture.save(file, format=kind, **options)
    return file.getvalue()
