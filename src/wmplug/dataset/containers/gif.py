"""GIF (89a) with one picture: all blocks but the coded pixels stay, in their order."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from wmplug.dataset.containers.parts import CLOSE, Unwritable

_CODES = 4096  # of LZW


class Frame(NamedTuple):
    """Where the coded pixels of the picture begin and end, and whether its lines are interlaced."""

    start: int
    end: int
    interlaced: bool


def frame(data: bytes) -> Frame:
    """The first picture of a file.

    Raises:
        Unwritable: it has none.
    """
    at = 13 + (3 << ((data[10] & 7) + 1) if data[10] & 0x80 else 0)
    while at < len(data) and data[at] == 0x21:
        at = _behind(data, at + 2)
    if data[at : at + 1] != b",":
        raise Unwritable("it has no picture where one is expected")
    packed = data[at + 9]
    start = at + 10 + (3 << ((packed & 7) + 1) if packed & 0x80 else 0)
    return Frame(start, _behind(data, start + 1), bool(packed & 0x40))


def _behind(data: bytes, at: int) -> int:
    """The place behind a chain of blocks."""
    while data[at]:
        at += 1 + data[at]
    return at + 1


def rewritten(data: bytes, before: Any, new: Any) -> bytes:
    """The file with the pixels of `new`.

    Raises:
        Unwritable: it is coded in a way that Pillow cannot repeat.
    """
    place = frame(data)
    old = data[place.start : place.end]
    if abs(len(_coded(before, place, old[0])) - len(old)) > CLOSE * len(old) + 8:
        raise Unwritable("it is coded in a way that cannot be repeated")
    return data[: place.start] + _coded(new, place, old[0]) + data[place.end :]


def _coded(picture: Any, like: Frame, size: int) -> bytes:
    """The pixels by LZW with codes from `size` + 1 bits on, begun again when the table is full."""
    rows = np.asarray(picture).astype(np.uint8)
    if like.interlaced:
        rows = np.concatenate([rows[first::step] for first, step in ((0, 8), (4, 8), (2, 4), (1, 2))])
    clear, bits, held, width, stream = 1 << size, 0, 0, size + 1, bytearray()

    def put(code: int) -> None:
        nonlocal bits, held
        held |= code << bits
        bits += width
        while bits >= 8:
            stream.append(held & 0xFF)
            held, bits = held >> 8, bits - 8

    put(clear)
    table: dict[tuple[int, int], int] = {}
    known, *others = rows.tobytes()
    for pixel in others:
        if (longer := table.get((known, pixel))) is not None:
            known = longer
            continue
        put(known)
        if (code := clear + 2 + len(table)) < _CODES:
            table[known, pixel] = code
            width += code >> width  # the first code of more bits
        else:
            put(clear)
            table, width = {}, size + 1
        known = pixel
    put(known)
    put(clear + 1)
    stream += bytes([held] * bool(bits))
    blocks = [stream[at : at + 255] for at in range(0, len(stream), 255)]
    return bytes([size]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"
