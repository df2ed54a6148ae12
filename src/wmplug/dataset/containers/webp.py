"""WebP (RIFF): all chunks but those of pixels stay, in their order; the quality is found again by the size."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from wmplug.dataset.containers.parts import CLOSE, Unwritable, encoded

_PIXELS = (b"VP8 ", b"VP8L", b"ALPH")
_SIGNED = (b"C2PA",)
_LOSSLESS = [{"method": method, "quality": effort} for method in (4, 6, 0) for effort in (80, 75, 100, 0, 50)]


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of every chunk."""
    found, at, end = [], 12, 8 + struct.unpack_from("<I", data, 4)[0]
    while at + 8 <= min(end, len(data)):
        (length,) = struct.unpack_from("<I", data, at + 4)
        found.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def rewritten(data: bytes, before: Any, new: Any) -> bytes:
    """The file with the pixels of `new`.

    Raises:
        Unwritable: it is signed, or no settings come close to its size.
    """
    found = chunks(data)
    if any(kind in _SIGNED for kind, _ in found):
        raise Unwritable("it is signed (C2PA), and other pixels would break the signature")
    made = dict(chunks(encoded(new, "WEBP", exact=True, **_settings(found, before))))
    if {kind for kind, _ in found if kind in _PIXELS} != {kind for kind in made if kind in _PIXELS}:
        raise Unwritable("its pixels lie in other chunks than Pillow writes")
    body = b"".join(_chunk(kind, made[kind] if kind in _PIXELS else content) for kind, content in found)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _settings(found: Iterable[tuple[bytes, bytes]], before: Any) -> dict[str, Any]:
    """The options that write the picture again in about its size."""
    size = _size(found)
    if any(kind == b"VP8L" for kind, _ in found):
        options = [{"lossless": True, **one} for one in _LOSSLESS]
    else:
        low, high = 0, 100
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if _written(before, {"quality": middle}) >= size else (middle, high)
        options = [{"quality": quality} for quality in (low, high)]
    away = [abs(_written(before, one) - size) for one in options]
    if min(away) > max(8, (CLOSE if "lossless" in options[0] else 5 * CLOSE) * size):
        raise Unwritable("it is compressed in a way that Pillow cannot repeat")
    return options[away.index(min(away))]


def _written(picture: Any, options: dict[str, Any]) -> int:
    return _size(chunks(encoded(picture, "WEBP", exact=True, **options)))


def _size(found: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes of the colours; those of transparency do not depend on the quality."""
    return sum(len(content) for kind, content in found if kind in (b"VP8 ", b"VP8L"))
