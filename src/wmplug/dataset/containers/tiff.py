"""TIFF with one picture in strips: all tags stay, in their order; the strips are packed like the old ones."""

from __future__ import annotations

import struct
from typing import Any

from wmplug.dataset.containers import directories
from wmplug.dataset.containers.parts import CLOSE, Unwritable, encoded, unturned

_PACKING = {1: "raw", 5: "tiff_lzw", 8: "tiff_adobe_deflate", 32773: "packbits", 32946: "tiff_deflate"}
_COMPRESSION, _OFFSETS, _ROWS, _COUNTS, _PLANES, _PREDICTOR, _TILES, _ORIENTATION = (
    259,
    273,
    278,
    279,
    284,
    317,
    322,
    274,
)
_SETTINGS = (_ROWS, _PLANES, _PREDICTOR, _ORIENTATION)


def rewritten(data: bytes, before: Any, new: Any) -> bytes:
    """The file with the pixels of `new`.

    Raises:
        Unwritable: it has tiles, planes, pixels as JPEG, or strips that do not follow each other.
    """
    _, entries, _ = next(directories.directories(data))
    found = {one.tag: one for one in entries}
    facts = {tag: directories.values(data, found[tag]) for tag in found if tag in (_COMPRESSION, _OFFSETS, _COUNTS)}
    settings = {tag: directories.values(data, found[tag])[0] for tag in _SETTINGS if tag in found}
    packing = facts.get(_COMPRESSION, [1])[0]
    if packing not in _PACKING or _TILES in found or settings.get(_PLANES, 1) != 1 or _OFFSETS not in facts:
        raise Unwritable("its pixels lie in tiles or planes, or are packed as Pillow cannot write them")
    starts, sizes = facts[_OFFSETS], facts[_COUNTS]
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    before, new = (unturned(picture, settings.get(_ORIENTATION, 1)) for picture in (before, new))  # Pillow turned them
    rows = min(settings.get(_ROWS, new.height), new.height)
    tags = {_PREDICTOR: settings[_PREDICTOR]} if settings.get(_PREDICTOR, 1) != 1 else {}
    again, made = (
        [_strip(picture, top, rows, _PACKING[packing], tags) for top in range(0, new.height, rows)]
        for picture in (before, new)
    )
    if abs(sum(map(len, again)) - sum(sizes)) > CLOSE * sum(sizes) + 8 or len(made) != len(starts):
        raise Unwritable("it is compressed in a way that Pillow cannot repeat")
    if [len(strip) for strip in made] == sizes:
        return _in_place(data, starts, made)
    if starts[1:] != ends[:-1]:
        raise Unwritable("its strips do not follow each other")
    body = b"".join(made)
    shifted = directories.moved(data, starts[0], ends[-1], body)
    _, entries, _ = next(directories.directories(bytes(shifted)))
    found = {one.tag: one for one in entries}
    lengths = [len(strip) for strip in made]
    _put(shifted, found[_COUNTS], lengths)
    _put(shifted, found[_OFFSETS], [starts[0] + sum(lengths[:number]) for number in range(len(lengths))])
    return bytes(shifted)


def _in_place(data: bytes, starts: list[int], made: list[bytes]) -> bytes:
    written = bytearray(data)
    for start, strip in zip(starts, made, strict=True):
        written[start : start + len(strip)] = strip
    return bytes(written)


def _put(data: bytearray, entry: directories.Entry, numbers: list[int]) -> None:
    code = {3: "H", 4: "I"}[entry.kind]
    if code == "H" and max(numbers) > 0xFFFF:
        raise Unwritable("its strips would be too long for their tag")
    struct.pack_into(f"{directories.order(data)}{len(numbers)}{code}", data, entry.at, *numbers)


def _strip(picture: Any, top: int, rows: int, packing: str, tags: dict[int, int]) -> bytes:
    """Some rows of the picture as the one strip of a file."""
    part = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
    data = encoded(part, "TIFF", compression=packing, tiffinfo={**tags, _ROWS: part.height})
    _, entries, _ = next(directories.directories(data))
    found = {one.tag: directories.values(data, one) for one in entries if one.tag in (_OFFSETS, _COUNTS)}
    return b"".join(data[at : at + size] for at, size in zip(found[_OFFSETS], found[_COUNTS], strict=True))
