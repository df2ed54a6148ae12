"""The directories of TIFF (revision 6.0), which EXIF uses too: their entries, and what of them moves with the data."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from wmplug.dataset.containers.parts import Unwritable

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BELOW = (330, 34665, 34853, 40965)  # SubIFDs, Exif, GPS, Interoperability
_START, _LENGTH = 513, 514  # of a thumbnail


class Entry(NamedTuple):
    """An entry of a directory.

    Attributes:
        tag: its meaning.
        kind: type of the values.
        count: number of the values.
        at: where the values are.
        place: where the entry's own four bytes of value or offset are.
    """

    tag: int
    kind: int
    count: int  # type: ignore[assignment]  # hides tuple.count
    at: int
    place: int


class Thumbnail(NamedTuple):
    """Where a thumbnail is, and the four bytes with its length."""

    start: int
    length: int
    noted: int


def order(data: bytes | bytearray) -> str:
    """The byte order, as `struct` writes it.

    Raises:
        Unwritable: the data are not such a file of 32-bit offsets.
    """
    sign = {b"II": "<", b"MM": ">"}.get(bytes(data[:2]))
    if sign is None or struct.unpack_from(f"{sign}H", data, 2)[0] != 42:
        raise Unwritable("its tags are not those of a TIFF with 32-bit offsets")
    return sign


def directories(data: bytes) -> Iterator[tuple[int, list[Entry], int]]:
    """Place of the offset of each directory, its entries, and the place of the next one's offset."""
    sign, due, seen = order(data), [4], set()
    while due:
        place = due.pop(0)
        (at,) = struct.unpack_from(f"{sign}I", data, place)
        if at == 0 or at in seen:
            continue
        seen.add(at)
        (count,) = struct.unpack_from(f"{sign}H", data, at)
        entries = [_entry(data, sign, at + 2 + 12 * number) for number in range(count)]
        due += [one.at + 4 * number for one in entries if one.tag in _BELOW for number in range(one.count)]
        due.append(at + 2 + 12 * count)
        yield place, entries, at + 2 + 12 * count


def _entry(data: bytes, sign: str, at: int) -> Entry:
    tag, kind, count = struct.unpack_from(f"{sign}HHI", data, at)
    inside = _SIZES.get(kind, 1) * count <= 4
    return Entry(tag, kind, count, at + 8 if inside else struct.unpack_from(f"{sign}I", data, at + 8)[0], at + 8)


def values(data: bytes, entry: Entry) -> list[int]:
    """The whole numbers of an entry."""
    code = {1: "B", 3: "H", 4: "I", 13: "I"}[entry.kind]
    return list(struct.unpack_from(f"{order(data)}{entry.count}{code}", data, entry.at))


def moved(data: bytes, start: int, end: int, new: bytes) -> bytearray:
    """The data with other bytes from `start` to `end`, and all offsets that lead behind them.

    What follows keeps its even place, as the standard wants.
    """
    sign, behind = order(data), end + end % 2
    gap = (start + len(new)) % 2
    by = start + len(new) + gap - behind
    shifted = bytearray(data)
    for place, entries, _ in directories(data):
        for spot in (place, *(one.place for one in entries if one.at != one.place)):
            (at,) = struct.unpack_from(f"{sign}I", data, spot)
            if at >= end:
                struct.pack_into(f"{sign}I", shifted, spot, at + by)
    return shifted[:start] + new + bytes(gap if behind <= len(data) else 0) + shifted[behind:]


def thumbnail(data: bytes) -> Thumbnail | None:
    """The thumbnail of EXIF."""
    for _, entries, _ in directories(data):
        found = {one.tag: one for one in entries}
        if _START in found and _LENGTH in found:
            (start,), (length,) = values(data, found[_START]), values(data, found[_LENGTH])
            return Thumbnail(start, length, found[_LENGTH].place)
    return None


def with_thumbnail(data: bytes, place: Thumbnail, new: bytes) -> bytes:
    """The EXIF with another thumbnail.

    Raises:
        Unwritable: other values lie behind it.
    """
    end = place.start + place.length
    if data[end:].strip(b"\0") or len(data) - end > 1:
        raise Unwritable("its thumbnail lies between other values")
    made = bytearray(data[: place.start]) + new
    struct.pack_into(f"{order(data)}I", made, place.noted, len(new))
    return bytes(made)
