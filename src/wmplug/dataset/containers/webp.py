"""WebP (RIFF): all chunks but those of pixels stay, in their order; the quality is worked out from the quantisers.

These stand in the header of the coded pixels (RFC 6386, 9.2 to 9.6), where anybody reads them. A search for the quality
that gives the file's size again would miss: the decoded picture is smoother than the one that was encoded.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from wmplug.dataset.containers.parts import CLOSE, Unwritable, encoded

_PIXELS = (b"VP8 ", b"VP8L", b"ALPH")
_SIGNED = (b"C2PA",)
_METHODS = (4, 0)  # efforts; those between and above differ by a few bytes in a hundred
_AGAIN = 0.96  # of the size: what the decoded picture comes to, encoded again
_SPREAD = 0.9 * 50 / 100 / 128  # of the quantisers over the segments, as Pillow leaves it
_NEAR = 5  # how near the outermost segment's quality must come to what all of them say
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


def _settings(found: Sequence[tuple[bytes, bytes]], before: Any) -> dict[str, Any]:
    """The options that write the picture again with its quantisers, or, without loss, in about its size.

    Raises:
        Unwritable: none does.
    """
    size, coded = _size(found), dict(found).get(b"VP8 ")
    if coded is None:
        return _nearest(before, [{"lossless": True, **one} for one in _LOSSLESS], size, max(8, CLOSE * size))
    options = [{"quality": _quality(*quantisers(coded)), "method": method} for method in _METHODS]
    return _nearest(before, options, _AGAIN * size, max(16, 10 * CLOSE * size))


def _nearest(before: Any, options: Sequence[dict[str, Any]], size: float, limit: float) -> dict[str, Any]:
    """The options that write the picture in the nearest size, or the first in just that."""
    best, least = options[0], math.inf
    for one in options:
        away = abs(_size(_written(before, one)) - size)
        if away < least:
            best, least = one, away
        if not least:
            break
    if least > limit:
        raise Unwritable("it is compressed in a way that Pillow cannot repeat")
    return best


def _quality(steps: Sequence[int], shares: Sequence[float]) -> int:
    """The quality of libwebp that leads to these quantisers of segments with these shares of the picture.

    libwebp gives a segment the step 127 (1 - c^(1 - a x)), where c is the cube root of a function of the quality, a is
    0.9 * 50 / 100 / 128, and x tells how smooth the segment is: 0 on average, and 127 or -127 for one of the outermost.

    Raises:
        Unwritable: no quality does.
    """
    logs = [math.log(max(1 - (step + 0.5) / 127, 1e-3)) for step, share in zip(steps, shares, strict=True) if share]
    mean = sum(log * share for log, share in zip(logs, filter(None, shares), strict=True)) / sum(shares)
    ends = [max(logs) / (1 - 127 * _SPREAD), min(logs) / (1 + 127 * _SPREAD)] if max(logs) > min(logs) else [mean]
    about, *exact = [math.exp(3 * log) for log in (mean, *ends)]
    found = [100 * (1.5 * one if one < 0.5 else (one + 1) / 2) for one in (about, *exact)]
    quality = min(found[1:], key=lambda one: abs(one - found[0]))
    if abs(quality - found[0]) > _NEAR:
        raise Unwritable("its quality varies over the picture as Pillow cannot repeat it")
    return min(max(round(quality), 0), 100)


def _written(picture: Any, options: dict[str, Any]) -> list[tuple[bytes, bytes]]:
    return chunks(encoded(picture, "WEBP", exact=True, **options))


def _size(found: Iterable[tuple[bytes, bytes]]) -> int:
    """Bytes of the colours; those of transparency do not depend on the quality."""
    return sum(len(content) for kind, content in found if kind in (b"VP8 ", b"VP8L"))


def quantisers(coded: bytes) -> tuple[list[int], list[float]]:
    """The quantiser, from 0 to 127, of each segment of pixels coded with loss, and its share of the picture."""
    read = _Bits(coded[10:])
    read.number(2)  # colour space, clamping
    steps, odds, absolute = [0] * 4, [255] * 3, 0
    if read.number(1):
        mapped, changed = read.number(1), read.number(1)
        if changed:
            absolute = read.number(1)
            steps = [read.optional(7) for _ in range(4)]
            _ = [read.optional(6) for _ in range(4)]  # strength of the filter
        if mapped:
            odds = [read.number(8) if read.number(1) else 255 for _ in range(3)]
    read.number(10)  # kind, strength and sharpness of the filter
    if read.number(1) and read.number(1):
        _ = [read.optional(6) for _ in range(8)]
    read.number(2)  # partitions
    base = read.number(7)
    first, second, third = (one / 255 for one in odds)
    shares = [first * second, first * (1 - second), (1 - first) * third, (1 - first) * (1 - third)]
    return [min(max(step if absolute else base + step, 0), 127) for step in steps], shares


class _Bits:
    """Bits of even odds in the arithmetic code of VP8 (RFC 6386, 7.3)."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._span, self._left = data, 2, 255, 8
        self._value = int.from_bytes(data[:2], "big")

    def _bit(self) -> int:
        split = 1 + ((self._span - 1) >> 1)
        if bit := self._value >= split << 8:
            self._value -= split << 8
        self._span = self._span - split if bit else split
        while self._span < 128:
            self._value, self._span, self._left = self._value << 1, self._span << 1, self._left - 1
            if not self._left:
                self._value |= int.from_bytes(self._data[self._at : self._at + 1], "big")
                self._at, self._left = self._at + 1, 8
        return int(bit)

    def number(self, bits: int) -> int:
        """A number of so many bits."""
        found = 0
        for _ in range(bits):
            found = found << 1 | self._bit()
        return found

    def optional(self, bits: int) -> int:
        """A number with its sign, or 0 if none is noted."""
        if not self.number(1):
            return 0
        found = self.number(bits)
        return -found if self.number(1) else found
