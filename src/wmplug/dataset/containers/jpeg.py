"""JPEG (ITU-T T.81): all segments but the coded pixels stay, in their order; tables of codes keep their places."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from wmplug.dataset.containers import directories
from wmplug.dataset.containers.parts import Unwritable, encoded

_SCAN_END = re.compile(rb"\xff(?=[^\x00\xd0-\xd7\xff])")
_TABLES, _QUANTA, _SCAN, _RESTART, _END = 0xC4, 0xDB, 0xDA, 0xDD, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP1, _APP11, _APP13 = 0xE1, 0xEB, 0xED
_EXIF = b"Exif\x00\x00"
_PREVIEWS = ((_APP13, b"8BIM\x04\x0c"), (_APP13, b"8BIM\x04\x09"), (_APP1, b"xmpGImg:image"), (_APP1, b"xapGImg:image"))
_ALIKE = 12.0  # mean difference in grey levels of a thumbnail from its picture made small

Table = tuple[int, int]  # class and number


class Segment(NamedTuple):
    """A marker with its content, and the coded pixels behind it."""

    marker: int
    content: bytes
    coded: bytes = b""


class Coding(NamedTuple):
    """All that gives the coded pixels their meaning.

    Attributes:
        frame: kind, precision and size, and of each component its sampling and its quantisation.
        scans: of each scan the components, the part of their coefficients, and the distance of restarts.
        codes: of each scan the tables of codes of each component.
    """

    frame: tuple[Any, ...]
    scans: list[tuple[Any, ...]]
    codes: list[list[tuple[bytes, bytes]]]


def segments(data: bytes) -> tuple[list[Segment], bytes]:
    """The segments behind the start, and the bytes from the end marker on.

    Raises:
        Unwritable: it has no end, or bytes that belong nowhere.
    """
    found: list[Segment] = []
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF or data[at + 1] in (0x00, 0xFF):
            raise Unwritable("it has bytes between its segments")
        if (marker := data[at + 1]) == _END:
            return found, data[at:]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        content, at = data[at + 4 : end], end
        if marker == _SCAN:
            stop = _SCAN_END.search(data, at)
            found.append(Segment(marker, content, data[at : stop.start() if stop else len(data)]))
            at = stop.start() if stop else len(data)
        else:
            found.append(Segment(marker, content))
    if data[at : at + 2] == b"\xff\xd9":
        return found, data[at:]
    raise Unwritable("it has no end")


def rewritten(data: bytes, before: Any, new: Any) -> bytes:
    """The file with the pixels of `new`; a thumbnail in its EXIF becomes that of the new ones.

    Raises:
        Unwritable: it is signed, has previews elsewhere, or is arranged as Pillow cannot write it.
    """
    old, tail = segments(data)
    for one in old:
        if one.marker == _APP11 and one.content[:2] == b"JP":
            raise Unwritable("it is signed (C2PA), and other pixels would break the signature")
        if any(one.marker == marker and preview in one.content for marker, preview in _PREVIEWS):
            raise Unwritable("it holds a preview of its pixels")
    kept, coding = [_with_thumbnail(one, before, new) for one in old], _coding(old)
    for options in ({}, {"optimize": True}):
        made, _ = segments(encoded(new, "JPEG", **_options(old, before), **options))
        if (other := _coding(made)).frame != coding.frame or other.scans != coding.scans:
            raise Unwritable("its pixels are arranged or sampled as Pillow cannot write them")
        if other.codes == coding.codes or options or coding.frame[0] == 0xC2:
            break
    coded = iter([one.coded for one in made if one.marker == _SCAN])
    parts, scan = [b"\xff\xd8"], 0
    for one in kept:
        content = _tables(one.content, scan, old, made) if one.marker == _TABLES else one.content
        parts.append(bytes([0xFF, one.marker]) + (len(content) + 2).to_bytes(2, "big") + content)
        if one.marker == _SCAN:
            parts.append(next(coded))
            scan += 1
    found = b"".join([*parts, tail])
    if _coding(segments(found)[0])[1:] != other[1:]:
        raise Unwritable("its tables of codes are arranged as Pillow cannot write them")
    return found


def _options(old: Sequence[Segment], before: Any) -> dict[str, Any]:
    from PIL import JpegImagePlugin

    sampling = JpegImagePlugin.get_sampling(before)
    options = {"qtables": before.quantization, "progressive": bool(before.info.get("progressive"))}
    if before.mode == "RGB" and sampling < 0:
        raise Unwritable("its colours are sampled as Pillow cannot write them")
    for one in old:
        if one.marker == _RESTART and any(one.content):
            options["restart_marker_blocks"] = int.from_bytes(one.content, "big")
        if one.marker == 0xEE and one.content[:5] == b"Adobe" and before.mode == "RGB" and one.content[11] == 0:
            options["keep_rgb"] = True
    if before.mode == "L":  # which has no colours to sample, and yet notes how it would
        (factors,) = (one.content[7] for one in old if one.marker in _FRAMES)
        sampling = {0x11: 0, 0x21: 1, 0x22: 2}.get(factors, 0)
    return {**options, "subsampling": sampling}


def _coding(found: Sequence[Segment]) -> Coding:
    quanta: dict[int, bytes] = {}
    codes: dict[Table, bytes] = {}
    frame: tuple[Any, ...] = ()
    order: list[int] = []
    restart, scans, used = b"\0\0", [], []
    for one in found:
        if one.marker == _QUANTA:
            quanta |= dict(_quanta_in(one.content))
        elif one.marker == _TABLES:
            codes |= dict(_tables_in(one.content))
        elif one.marker == _RESTART:
            restart = one.content
        elif one.marker in _FRAMES:
            parts = [one.content[at : at + 3] for at in range(6, len(one.content), 3)]
            order = [part[0] for part in parts]
            frame = one.marker, one.content[:6], *((part[1], quanta.get(part[2], b"")) for part in parts)
        elif one.marker == _SCAN:
            parts = _scanned(one.content)
            scans.append(([order.index(part[0]) for part in parts], one.content[1 + 2 * len(parts) :], restart))
            keys = [_keys(part[1]) for part in parts]
            used.append([(codes.get(one, b""), codes.get(other, b"")) for one, other in keys])
    return Coding(frame, scans, used)


def _scanned(content: bytes) -> list[bytes]:
    return [content[at : at + 2] for at in range(1, 1 + 2 * content[0], 2)]


def _keys(byte: int) -> tuple[Table, Table]:
    return (0, byte >> 4), (1, byte & 15)


def _quanta_in(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(content):
        size = 128 if content[at] >> 4 else 64
        values = np.frombuffer(content[at + 1 : at + 1 + size], ">u2" if size == 128 else np.uint8)
        yield content[at] & 15, values.astype(np.uint16).tobytes()
        at += 1 + size


def _tables_in(content: bytes) -> Iterator[tuple[Table, bytes]]:
    at = 0
    while at < len(content):
        size = 16 + sum(content[at + 1 : at + 17])
        yield (content[at] >> 4, content[at] & 15), content[at + 1 : at + 1 + size]
        at += 1 + size


def _tables(content: bytes, scan: int, old: Sequence[Segment], made: Sequence[Segment]) -> bytes:
    """The tables of one segment before a scan, each with the new codes of where it is used first."""
    found = []
    theirs, codes = [one for one in old if one.marker == _SCAN], _coding(made).codes
    for key, table in _tables_in(content):
        uses = (
            new
            for number in range(scan, len(theirs))
            for part, tables in zip(_scanned(theirs[number].content), codes[number], strict=True)
            for mine, new in zip(_keys(part[1]), tables, strict=True)
            if mine == key and new
        )
        found.append(bytes([key[0] << 4 | key[1]]) + next(uses, table))
    return b"".join(found)


def _with_thumbnail(one: Segment, before: Any, new: Any) -> Segment:
    """The EXIF segment with a thumbnail of the new picture, if it has one of the old."""
    if one.marker != _APP1 or not one.content.startswith(_EXIF):
        return one
    exif = one.content[len(_EXIF) :]
    if (place := directories.thumbnail(exif)) is None:
        return one
    from PIL import Image

    old = exif[place.start : place.start + place.length]
    with Image.open(_file(old)) as small:
        small.load()
        modes = [picture.convert("L").resize(small.size, Image.Resampling.BOX) for picture in (before, new)]
        away = np.abs(np.asarray(small.convert("L"), float) - np.asarray(modes[0], float)).mean()
        if small.format != "JPEG" or away > _ALIKE:
            raise Unwritable("its thumbnail is not its picture made small")
        made = rewritten(old, small, new.convert(small.mode).resize(small.size, Image.Resampling.BOX))
    content = _EXIF + directories.with_thumbnail(exif, place, made)
    if len(content) > 0xFFFD:
        raise Unwritable("its thumbnail would no longer fit")
    return one._replace(content=content)


def _file(data: bytes) -> Any:
    import io

    return io.BytesIO(data)
