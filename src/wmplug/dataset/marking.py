"""Mark a training set: look at a sample of it, let the key decide, write a copy.

    pass 1     a uniform sample of at most 20,000 records, kept small; unmarked references say what they make of it
    (again)    the chosen records whole, where the sample kept them smaller
    create     the watermark over the chosen records: an ordinary one, with its events in the register
    pass 2     the copy; what is not chosen is copied as it is

Memory is that of the sample and the chosen records, however large the set.
"""

import math
import re
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from wmplug import plugins
from wmplug.dataset import manifest
from wmplug.dataset.records import Record, Source, Written
from wmplug.dataset.schemes import DatasetScheme, Sample
from wmplug.dataset.sources import open_source
from wmplug.errors import AmbiguityWarning, InputError
from wmplug.keys.owner import Owner
from wmplug.keys.streams import KeyStream
from wmplug.making import create
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import Inputs, read_carriers, read_whole
from wmplug.watermark.watermark import Watermark

Progress = Callable[[int, "int | None"], object]
T = TypeVar("T")
SAMPLE = 20_000
_DRAWN, _FAR = 4096, 2**40  # places of records drawn at once; further than any set goes
_SIDE, _LETTERS = 32, 4096  # what references see of a picture, of a text
_ASKED = 256  # longest side of a picture that a suspect is asked
_PLAIN = ("L", "RGB", "RGBA")
_PROOF = -6.0  # log10 p, a little less than what an e-value of a million needs


@dataclass(frozen=True, eq=False)
class Marked:
    """A marked set, or its copies.

    Attributes:
        marks: the watermark of each copy, by the name of its licensee ("" where there is one copy for all). Secret.
        written: what was written, by the same names.
        manifests: what may be published, by the same names.
    """

    marks: Mapping[str, Watermark] = field(repr=False)
    written: Mapping[str, Written]
    manifests: Mapping[str, dict[str, Any]] = field(repr=False)

    @property
    def mark(self) -> Watermark:
        """The only watermark."""
        return _only(self.marks)

    @property
    def data(self) -> Any:
        """Path of the only marked copy, or the copy itself where the set was given in memory."""
        return _only(self.written).data

    @property
    def manifest(self) -> dict[str, Any]:
        """The only manifest."""
        return _only(self.manifests)


def _only(of: Mapping[str, T]) -> T:
    if len(of) > 1:
        raise InputError(f"there are {len(of)} copies: take the one of a licensee, from .marks or .written")
    return next(iter(of.values()))


def mark(
    data: Any,
    owner: Owner,
    *,
    scheme: str | DatasetScheme = "label-twins",
    out: str | Path | None = None,
    share: float | None = None,
    copies: int | Sequence[str] | None = None,
    text: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    progress: Progress | None = None,
    **parameters: Any,
) -> Marked:
    """Mark a training set.

    The same owner, data and parameters give the same copy again. Beside a copy that goes into a file or folder OUT are
    written `OUT.manifest.json`, which may be published, and `OUT.wm`, which is secret.

    Args:
        data: a folder of class folders with images, a .csv, .tsv, .jsonl, .parquet or .npz file, tar shards, a
            `datasets.Dataset`, a pair (inputs, labels), or a `Source`.
        owner: whose key decides.
        scheme: a name or a scheme for data sets: "label-twins", "twins", "canaries" ...
        out: where the copy goes; with `copies`, the folder that they go into. Nothing for a set given in memory.
        share: of the records that are marked (or added); the scheme's own by default, and never more records than its
            `most`.
        copies: one individually marked copy for each licensee: how many, or their names.
        text: column of the text, for tables.
        label: column of the label, for tables.
        columns: of the numbers, for tables.
        classes: names of the classes in the order of their numbers.
        progress: called with (records read or written, their number or None).
        **parameters: of the scheme.

    Raises:
        InputError: something does not fit; the message names the record where it is one.
        RegisterError: the register cannot be written.
    """
    if not hasattr(owner, "pledges"):
        raise InputError(f"owner={owner!r} is a {type(owner).__name__}: open the owner first, Owner.open(folder)")
    kind = _scheme(scheme, parameters)
    names = names_of(copies)
    part = kind.rate if share is None else share
    if not (isinstance(part, (int, float)) and 0 < part <= 0.5):
        raise InputError(f"share={share!r}: a share of the records above 0 and up to 0.5 is needed, 0.01 is usual")
    source: Source = (
        data
        if callable(getattr(data, "picked", None))
        else open_source(data, text=text, label=label, columns=columns, classes=classes)
    )
    places = {name: _place(out, data, name) for name in names}
    stream = owner.pledges("dataset/sample")[0].subkeys(None).stream("schedule")
    sampled, count = sample(source, stream, progress)
    if len(source.classes) < 2:
        raise InputError(f"the set has {len(source.classes)} classes: labels of at least 2 are needed (label=COLUMN)")
    wanted = min(kind.most, max(1, round(part * count)))
    seen = Sample(_inputs(sampled), _labels(sampled), len(source.classes))
    rows, chosen = kind.chosen(seen, wanted)
    records = whole(source, [sampled[row] for row in rows], progress)
    carriers, labels = _carriers(records), _labels(records)
    marks: dict[str, Watermark] = {}
    written: dict[str, Written] = {}
    manifests: dict[str, dict[str, Any]] = {}
    for name in names:
        marks[name] = create(
            owner,
            scheme=replace(chosen, copy=name),
            carriers=carriers,
            labels=labels,
            classes=len(source.classes),
            triggers=wanted,
        )
        place = places[name]
        if place is not None and name:
            place.parent.mkdir(parents=True, exist_ok=True)
        changes = chosen.changes(marks[name].triggers, records, count)
        with _secret_beside(place, marks[name]):
            written[name] = source.write(place, changes, progress)
        manifests[name] = _published(owner, marks[name], written[name], place, float(part), source.classes)
    _warn_of_few(next(iter(marks.values())))
    return Marked(marks, written, manifests)


@contextmanager
def _secret_beside(place: Path | None, mark: Watermark) -> Iterator[None]:
    """The watermark lies there before its copy does, and no longer if that fails: no copy is ever without it."""
    if place is None:
        yield
        return
    secret = _beside(place, ".wm")
    try:
        mark.save(secret)
    except OSError as error:
        raise InputError(
            f"{secret} was not written: {error.strerror or error}; nothing was, give another place"
        ) from error
    try:
        yield
    except BaseException:
        secret.unlink()
        raise


def _warn_of_few(mark: Watermark) -> None:
    candidates = mark.triggers.plan.candidates
    best = -sum(math.log10(len(options)) for options in candidates)
    if best > _PROOF:
        warnings.warn(
            f"{len(candidates)} draws tell whether a model was trained on the copy, and at best log10 p = {best:.1f}: "
            "for proof raise share=, or mark more records",
            AmbiguityWarning,
            stacklevel=3,
        )


def names_of(copies: int | Sequence[str] | None) -> list[str]:
    """Names of the copies; one without a name where nobody asked for any.

    Raises:
        InputError: names that no file can have, or the same twice.
    """
    if copies is None:
        return [""]
    if isinstance(copies, int):
        number = read_whole(copies, "copies", 1, 10_000, "1 to 10000 copies")
        return [f"copy-{i:0{len(str(number))}d}" for i in range(1, number + 1)]
    names = list(copies)
    if (
        isinstance(copies, str)
        or not names
        or not all(isinstance(n, str) and re.fullmatch(r"\w[\w. -]*", n) for n in names)
    ):
        raise InputError(f"copies={copies!r}: give a number, or names of letters, digits, '.', '_', '-' and spaces")
    if len(set(names)) < len(names):
        raise InputError("copies= names one licensee twice: both would get the same copy")
    return names


def _scheme(scheme: str | DatasetScheme, parameters: dict[str, Any]) -> DatasetScheme:
    kind = plugins.registry().scheme(scheme) if isinstance(scheme, str) else type(scheme)
    if not issubclass(kind, DatasetScheme):
        raise InputError(
            f"scheme {kind.name!r} marks a model in training: for a data set, label-twins is the usual one"
        )
    known = [f.name for f in fields(kind) if f.name not in ("copy", "pool")]
    if unknown := sorted(set(parameters) - set(known)):
        raise InputError(f"scheme {kind.name!r} has no parameter {', '.join(unknown)}; there are: {', '.join(known)}")
    return kind(**parameters) if isinstance(scheme, str) else replace(scheme, **parameters)


def sample(source: Source, stream: KeyStream, progress: Progress | None = None) -> tuple[list[Record], int]:
    """A uniform sample of at most 20,000 records in their order, made small, and how many there are.

    By skips over a reservoir (Li 1994, algorithm L): a record that is passed over costs nothing. The stream is the
    owner's, so that nobody else knows which records were looked at.

    Raises:
        InputError: a record has no label, or there are no records.
    """
    kept: list[Record] = []
    places: deque[int] = deque()

    def due() -> Iterator[int]:
        yield from range(SAMPLE)
        index, shrunk = SAMPLE - 1, 0.0
        while True:
            drawn = stream.uniform(3, _DRAWN)
            shrinking = shrunk + np.cumsum(np.log1p(-drawn[0])) / SAMPLE
            skips = np.log1p(-drawn[1]) / np.log1p(-np.exp(shrinking))
            indices = index + np.cumsum(1 + np.minimum(skips, _FAR).astype(np.int64))
            places.extend((drawn[2] * SAMPLE).astype(np.int64).tolist())
            yield from indices.tolist()
            index, shrunk = indices[-1], shrinking[-1]

    first = None
    for record in source.picked(due(), progress):
        _check_shape(record, first := first or record)
        if len(kept) < SAMPLE:
            kept.append(_small(record))
        else:
            kept[places.popleft()] = _small(record)
    if not kept or source.count is None:
        raise InputError("the set has no records: check the path")
    return sorted(source.numbered(kept), key=lambda record: record.index), source.count


def _check_shape(record: Record, first: Record) -> None:
    one, other = record.input, first.input
    if isinstance(one, np.ndarray) and (one.shape, one.dtype) != (other.shape, other.dtype):
        raise InputError(
            f"{record.name} has shape {one.shape} and dtype {one.dtype}, and {first.name} {other.shape} and "
            f"{other.dtype}: bring all records to one, or leave this one out"
        )


def _small(record: Record) -> Record:
    """The record with an input small enough to keep thousands of; itself, where it is."""
    if record.label is None:
        raise InputError(f"{record.name} has no label: only labelled sets can be marked so (label=COLUMN)")
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
    """Whether a sampled record is for certain as it is in the set: texts that are not long, rows of numbers."""
    given = record.input
    return len(given) < _LETTERS if isinstance(given, str) else isinstance(given, np.ndarray) and given.ndim == 1


def _inputs(records: list[Record]) -> Inputs:
    return read_carriers([record.input for record in records], "sampled records")[0]


def _labels(records: list[Record]) -> IntArray:
    return np.array([record.label for record in records], np.int64)


def _carriers(records: list[Record]) -> list[Any]:
    """The inputs as a suspect is asked them: pictures in one size and mode, others as they are."""
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


def _place(out: str | Path | None, data: Any, name: str) -> Path | None:
    """Where a copy goes; those for licensees lie in one folder, called after them.

    Raises:
        InputError: something is there; better now than after hours.
    """
    if out is None:
        return None
    is_file = isinstance(data, (str, Path)) and Path(data).is_file()
    place = Path(out) / (name + (Path(data).suffix if is_file else "")) if name else Path(out)
    taken = place.exists() and not (place.is_dir() and not any(place.iterdir()))
    if not name and not place.parent.is_dir():
        raise InputError(f"{place.parent} is no folder: make it, then write {place.name} into it")
    for path in (place, _beside(place, ".wm"), _beside(place, manifest.SUFFIX)):
        if taken or (path != place and path.exists()):
            raise InputError(f"{path} is there already: give a new name or an empty folder, nothing is written over")
    return place


def _beside(place: Path, suffix: str) -> Path:
    return place.with_name(place.name + suffix)


def _published(
    owner: Owner, mark: Watermark, written: Written, place: Path | None, share: float, classes: Sequence[str]
) -> dict[str, Any]:
    """The manifest; the copy's root goes into the register, manifest and watermark beside the copy."""
    committed = plugins.load("wmplug.register.assets.dataset:dataset")(written.data)
    if mark.register is not None:
        register = plugins.load("wmplug.register:Register").of(owner)
        register.append("dataset.committed", {**committed, "watermark": mark.id}, event_id=f"dataset/{mark.id}")
    found = manifest.of(mark, written, committed, share, classes)
    if place is not None:
        path = _beside(place, manifest.SUFFIX)
        try:
            manifest.save(found, path)
        except OSError as error:
            raise InputError(
                f"{path} was not written: {error.strerror or error}; the copy {place} and its secret {place.name}.wm "
                "are whole, and the register knows them: only what would be published is missing"
            ) from error
    return found
