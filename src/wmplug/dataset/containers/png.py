"""PNG (ISO/IEC 15948): all chunks but those of pixels stay, in their order; filters and compression are found again."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wmplug.dataset.containers.parts import CLOSE, Unwritable, encoded

Bytes = npt.NDArray[np.uint8]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNED = (b"caBX",)  # of C2PA, over the pixels
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
_WHOLE = ((0, 0, 1, 1),)
_NONE, _PAETH = 0, 4
_LEVELS = {0: (1, 0), 1: (3, 5, 4, 2), 2: (6,), 3: (9, 8, 7)}  # of zlib, by the note of its effort in the stream


class Header(NamedTuple):
    """The chunk IHDR."""

    width: int
    height: int
    depth: int
    colour: int
    compression: int
    filtering: int
    interlaced: int


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of every chunk, and what follows the last under the kind b""."""
    found: list[tuple[bytes, bytes]] = []
    at = len(SIGNATURE)
    while at + 12 <= len(data) and (not found or found[-1][0] != b"IEND"):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return [*found, (b"", data[at:])]


def rewritten(data: bytes, before: Any, new: Any) -> bytes:
    """The file with the pixels of `new`.

    Raises:
        Unwritable: it holds 16 bits a colour, a signature over its pixels, or a compression that cannot be repeated.
    """
    found = chunks(data)
    header = Header(*struct.unpack(">IIBBBBB", found[0][1]))
    if header.depth == 16:
        raise Unwritable("it has 16 bits a colour, and Pillow reads 8")
    if any(kind in _SIGNED for kind, _ in found):
        raise Unwritable("it is signed (C2PA), and other pixels would break the signature")
    streams = [content for kind, content in found if kind == b"IDAT"]
    pieces = _compressed(streams, header, before, new)
    parts, first = [SIGNATURE], True
    for kind, content in found:
        if kind != b"IDAT":
            parts.append(_chunk(kind, content) if kind else content)
        elif first:
            parts += [_chunk(kind, piece) for piece in pieces]
            first = False
    return b"".join(parts)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _compressed(streams: list[bytes], header: Header, before: Any, new: Any) -> list[bytes]:
    """The stream of the new pixels, compressed and cut like the old one."""
    old, size = b"".join(streams), len(streams[0]) if len(streams) > 1 else None
    if not header.interlaced:
        plain: dict[str, Any] = {"bits": header.depth} if before.mode == "P" else {}
        efforts: list[dict[str, Any]] = [{"optimize": True}] if old[1] >> 6 == max(_LEVELS) else []
        for options in (*efforts, *({"compress_level": level} for level in _LEVELS[old[1] >> 6])):
            if (again := _pieces(before, {**plain, **options})) == streams:
                return _pieces(new, {**plain, **options})
            if b"".join(again) == old:
                return _cut(b"".join(_pieces(new, {**plain, **options})), size)
    raw = zlib.decompress(old)
    filters = {raw[at] for at in _starts(header)}
    lines = _lines(_samples(new, header), header, next(iter(filters)) if len(filters) == 1 else None)
    if header.interlaced == 0 and len(filters) == 1 and filters == {_NONE}:
        lines = _lines(_samples(new, header), header, _NONE)
    return _cut(_deflate(lines, *_settings(old, raw)), size)


def _pieces(picture: Any, options: dict[str, Any]) -> list[bytes]:
    """The stream as Pillow writes and cuts it."""
    return [content for kind, content in chunks(encoded(picture, "PNG", **options)) if kind == b"IDAT"]


def _cut(packed: bytes, size: int | None) -> list[bytes]:
    size = size or len(packed)
    return [packed[at : at + size] for at in range(0, len(packed), size)]


def _settings(old: bytes, raw: bytes) -> tuple[int, int, int, int]:
    """Level, window, memory and strategy of zlib that give the stream again, or one of nearly its size.

    Raises:
        Unwritable: none comes close.
    """
    window, likely = 8 + (old[0] >> 4), sorted(_LEVELS[old[1] >> 6])
    levels = [*likely, *(level for level in range(10) if level not in likely)]
    best, least = (6, window, 8, 0), len(old)
    for strategy, memory, level in itertools.product((1, 0, 3, 2), (9, 8), levels):
        made = _deflate(raw, level, window, memory, strategy)
        if made == old:
            return level, window, memory, strategy
        if abs(len(made) - len(old)) < least:
            best, least = (level, window, memory, strategy), abs(len(made) - len(old))
    if least > CLOSE * len(old):
        raise Unwritable("it is compressed in a way that zlib cannot repeat")
    return best


def _deflate(raw: bytes, level: int, window: int, memory: int, strategy: int) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, max(9, window), memory, strategy)
    return packer.compress(raw) + packer.flush()


def _passes(header: Header) -> Iterator[tuple[int, int, int, int]]:
    """Top, left and steps of each pass that holds pixels."""
    for top, left, down, right in _ADAM7 if header.interlaced else _WHOLE:
        if top < header.height and left < header.width:
            yield top, left, down, right


def _starts(header: Header) -> Iterator[int]:
    """Offsets of the lines in the stream, each of which begins with its filter."""
    at, bits = 0, header.depth * _CHANNELS[header.colour]
    for top, left, down, right in _passes(header):
        size = 1 + (-(-(header.width - left) // right) * bits + 7) // 8
        for _ in range(-(-(header.height - top) // down)):
            yield at
            at += size


def _samples(picture: Any, header: Header) -> Bytes:
    """(H, W, C) numbers as the file stores them."""
    array = np.asarray(picture).astype(np.uint8).reshape(header.height, header.width, -1)
    if header.colour == 0 and picture.mode != "1" and header.depth < 8:
        array = np.rint(array / (255 // (2**header.depth - 1))).astype(np.uint8)
    return array


def _lines(samples: Bytes, header: Header, only: int | None) -> bytes:
    """The lines of all passes with one filter, or with that of the least sum of each, as libpng chooses."""
    step, parts = max(1, header.depth * samples.shape[2] // 8), []
    for top, left, down, right in _passes(header):
        part = samples[top::down, left::right].reshape(-(-(header.height - top) // down), -1)
        rows = _packed(part, header.depth)
        filtered = _filtered(rows, step)
        if only is None:
            sums = np.abs(filtered.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
            chosen = sums.argmin(axis=0)
        else:
            chosen = np.full(len(rows), only)
        lines = filtered[chosen, np.arange(len(rows))]
        parts.append(np.concatenate([chosen[:, None].astype(np.uint8), lines], axis=1).tobytes())
    return b"".join(parts)


def _packed(rows: Bytes, depth: int) -> Bytes:
    """Rows of numbers as rows of bytes."""
    if depth == 8:
        return rows
    bits = np.unpackbits(rows[..., None], axis=2)[..., 8 - depth :]
    return np.packbits(bits.reshape(len(rows), -1), axis=1)


def _filtered(rows: Bytes, step: int) -> Bytes:
    """(5, lines, bytes) the rows under each filter: none, left, above, mean and Paeth."""
    values = rows.astype(np.int16)
    left, above = np.zeros_like(values), np.zeros_like(values)
    left[:, step:], above[1:] = values[:, :-step], values[:-1]
    corner = np.zeros_like(values)
    corner[1:, step:] = values[:-1, :-step]
    guess = left + above - corner
    far = [np.abs(guess - one) for one in (left, above, corner)]
    paeth = np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, np.where(far[1] <= far[2], above, corner))
    made = [values, values - left, values - above, values - (left + above) // 2, values - paeth]
    return np.stack(made).astype(np.uint8)
