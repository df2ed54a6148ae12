"""BMP and Netpbm without compression: the pixels are put where the old ones were."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np

from wmplug.dataset.containers.parts import Unwritable

_HEAD = re.compile(rb"(P[456])((?:\s+|#[^\n]*\n)+(\d+)){2}(?:(?:\s+|#[^\n]*\n)+(\d+))?\s")


def bmp(data: bytes, before: Any, new: Any) -> bytes:
    """The file with the pixels of `new`.

    Raises:
        Unwritable: it is compressed, or of 16 bits.
    """
    start, size = struct.unpack_from("<II", data, 10)
    width, height, _, bits, packing = struct.unpack_from("<iiHHI", data, 18) if size >= 40 else (0, 0, 0, 0, 1)
    if packing not in (0, 3) or bits not in (1, 4, 8, 24, 32):
        raise Unwritable("it is compressed, or of an unusual depth")
    rows = [np.asarray(new).astype(np.uint8).reshape(abs(height), width, -1)][0]
    if bits < 8:
        packed = np.packbits(np.unpackbits(rows, axis=2)[..., 8 - bits :].reshape(len(rows), -1), axis=1)
    else:
        old = np.frombuffer(data, np.uint8, abs(height) * (stride := (width * bits + 31) // 32 * 4), start)
        packed = old.reshape(abs(height), stride)[:: -1 if height > 0 else 1][:, : width * bits // 8].copy()
        pixels = packed.reshape(len(rows), width, -1)
        pixels[..., : rows.shape[2]] = rows[..., [2, 1, 0, 3][: rows.shape[2]]] if bits >= 24 else rows
    line = np.zeros((abs(height), (width * bits + 31) // 32 * 4), np.uint8)
    line[:, : packed.shape[1]] = packed
    body = line[:: -1 if height > 0 else 1].tobytes()
    return data[:start] + body + data[start + len(body) :]


def pnm(data: bytes, before: Any, new: Any) -> bytes:
    """The file with the pixels of `new`; its comments stay.

    Raises:
        Unwritable: its pixels are written as text, or with other than 255 steps.
    """
    head = _HEAD.match(data)
    if head is None or head[1] == b"P4" or (head[4] or head[3]) != b"255":
        raise Unwritable("its pixels are written as text, or with other than 255 steps")
    body = np.asarray(new).tobytes()
    return data[: head.end()] + body + data[head.end() + len(body) :]
