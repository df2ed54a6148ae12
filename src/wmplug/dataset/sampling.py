"""The records that a scheme chooses from: a uniform sample of small copies, and the chosen ones whole."""

import hashlib
import math
from collections import Counter, deque
from collections.abc import Iterator
from typing import Any

import numpy as np

from wmplug.dataset.records import Progress, Record, Source
from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import Inputs, read_carriers

SAMPLE = 20_000
_DRAWN, _FAR = 4096, 2**40  # places of records drawn at once; a place beyond the end of any set
_SIDE, _LETTERS = 32, 4096  # side of a picture, and length of a text, for references
_BRIEF = 64  # bytes of an input that are kept as they are
_ASKED = 256  # longest side of a picture for a suspect
_PLAIN = ("L", "RGB", "RGBA")


def sample(source: Source, stream: KeyStream, progress: Progress | None = None) -> tuple[list[Record], int]:
    """A uniform sample of at most 20,000 records in their order, made small, and the number of all records.

    By skips over a reservoir (Li 1994, algorithm L): a skipped record costs nothing. The stream is the owner's, so that
    the choice of records stays secret.

    Raises:
        InputError: a record lacks a label, or the set is empty.
    """
    first = None
    if (count := source.counted()) is not None:  # so it is known which of them stay
        kept = []
        for record in source.picked(_held(stream, count), progress):
            _check_shape(record, first := first or record)
            kept.append(_small(record))
    else:
        places: deque[int] = deque()

        def due() -> Iterator[int]:
            for indices, slots in _kept_next(stream):
                places.extend(slots.tolist())
                yield from indices.tolist()

        reservoir: dict[int, Record] = {}
        for record in source.picked(due(), progress):
            _check_shape(record, first := first or record)
            reservoir[places.popleft()] = _small(record)
        kept, count = sorted(reservoir.values(), key=lambda record: record.index), source.count
    if not kept or count is None:
        raise InputError("the set has no records: check the path")
    return source.numbered(kept), count


def single(source: Source, sampled: list[Record], progress: Progress | None = None) -> list[Record]:
    """Those of the sampled records whose input no other record of the set has, found in a pass over all.

    Raises:
        InputError: none is left.
    """
    times = Counter(map(_key, sampled))
    times.subtract(times)
    for record in source.records(progress):
        if (key := _key(_small(record))) in times:
            times[key] += 1
    found = [record for record in sampled if times[_key(record)] == 1]
    if not found:
        raise InputError(
            "each record that was drawn from the set occurs twice or more, and two labels of one record would show "
            "what the key drew: leave copies out, or choose a scheme that changes no label, such as twins"
        )
    return found


def _key(record: Record) -> str | bytes:
    """What records of one set share whose small inputs are the same to a model: minus zero is zero."""
    given = record.input
    if isinstance(given, str):
        return given
    data: bytes = (given + 0.0 if given.dtype.kind == "f" else given).tobytes()
    return data if len(data) <= _BRIEF else hashlib.blake2b(data, digest_size=16).digest()


def _kept_next(stream: KeyStream) -> Iterator[tuple[IntArray, IntArray]]:
    """Ascending indices of records, and the slots of the reservoir that they take; without an end."""
    yield np.arange(SAMPLE), np.arange(SAMPLE)
    index, shrunk = SAMPLE - 1, 0.0
    while True:
        drawn = stream.uniform(3, _DRAWN)
        shrinking = shrunk + np.cumsum(np.log1p(-drawn[0])) / SAMPLE
        skips = np.log1p(-drawn[1]) / np.log1p(-np.exp(shrinking))
        indices = index + np.cumsum(1 + np.minimum(skips, _FAR).astype(np.int64))
        yield indices, (drawn[2] * SAMPLE).astype(np.int64)
        index, shrunk = indices[-1], shrinking[-1]


def _held(stream: KeyStream, count: int) -> list[int]:
    """The indices, ascending, of the records that a reservoir holds in the end."""
    held = np.zeros(min(SAMPLE, count), np.int64)
    for indices, slots in _kept_next(stream):
        inside = indices < count
        held[slots[inside]] = indices[inside]  # of those that take one slot, the last stays
        if not inside.all():
            break
    found: list[int] = np.sort(held).tolist()
    return found


def _check_shape(record: Record, first: Record) -> None:
    one, other = record.input, first.input
    if isinstance(one, np.ndarray) and (one.shape, one.dtype) != (other.shape, other.dtype):
        raise InputError(
            f"{record.name} has shape {one.shape} and dtype {one.dtype}, and {first.name} {other.shape} and "
            f"{other.dtype}: bring all records to one, or leave this one out"
        )


def _small(record: Record) -> Record:
    """The record with an input small enough to keep thousands of; the record itself if its input is small."""
    if record.label is None:
        raise InputError(
            f"{record.name} has no label, and this scheme marks only labelled sets: name their column (label=COLUMN)"
        )
    given = record.input
    if isinstance(given, str):
        return record if len(given) <= _LETTERS else record._replace(input=given[:_LETTERS])
    if not isinstance(given, np.ndarray):
        from PIL import Image

        small = given.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        return record._replace(input=np.asarray(small))
    sides = given.shape[1:] if given.ndim == 3 and given.shape[0] <= 4 < given.shape[-1] else given.shape[:2]
    step = math.ceil(max(sides) / _SIDE) if given.ndim > 1 else 1
    if step == 1:
        return record
    return record._replace(input=given[:, ::step, ::step] if sides == given.shape[1:] else given[::step, ::step])


def whole(source: Source, chosen: list[Record], progress: Progress | None = None) -> list[Record]:
    """The chosen records with their inputs as they are in the set, in the same order."""
    found: list[Record] = list(chosen)
    wanted = {record.index: place for place, record in enumerate(chosen) if not _is_whole(record)}
    if not wanted:
        return found
    for record in source.numbered(source.picked(sorted(wanted), progress, check=False)):
        found[wanted[record.index]] = record
    return found


def _is_whole(record: Record) -> bool:
    """Whether a sampled record is certainly the same as in the set: short texts, rows of numbers."""
    given = record.input
    return len(given) < _LETTERS if isinstance(given, str) else isinstance(given, np.ndarray) and given.ndim == 1


def inputs_of(records: list[Record]) -> Inputs:
    """The inputs, as one array or as they are."""
    return read_carriers([record.input for record in records], "sampled records")[0]


def labels_of(records: list[Record]) -> IntArray:
    """(n,) class numbers."""
    return np.array([record.label for record in records], np.int64)


def carriers_of(records: list[Record]) -> list[Any]:
    """The inputs as a suspect gets them: pictures in one size and mode, others as they are."""
    inputs = [record.input for record in records]
    if not hasattr(inputs[0], "getpalette"):
        return inputs
    from PIL import ImageOps

    modes = {picture.mode for picture in inputs}
    mode = modes.pop() if len(modes) == 1 and modes <= set(_PLAIN) else "RGB"
    ((width, height), _), *others = Counter(picture.size for picture in inputs).most_common()
    if others:
        width, height = (int(np.median([picture.size[axis] for picture in inputs])) for axis in (0, 1))
    less = min(1.0, _ASKED / max(width, height))
    size = max(1, round(width * less)), max(1, round(height * less))
    return [
        plain if plain.size == size else ImageOps.fit(plain, size)
        for plain in (picture if picture.mode == mode else picture.convert(mode) for picture in inputs)
    ]
