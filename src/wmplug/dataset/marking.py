"""Mark a training set: look at a sample of it, let the key decide, write a copy.

    pass 1     a uniform sample of at most 20,000 records, kept small, for the unmarked references
    (again)    what occurs once in a set larger than the sample, for schemes that change labels
    (again)    the chosen records whole, where the sample kept them smaller
    create     the watermark over the chosen records: an ordinary one, with its events in the register
    pass 2     the copy; what is not chosen is copied as it is

It needs memory for the sample and the chosen records, however large the set.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from wmplug import plugins
from wmplug.dataset import manifest
from wmplug.dataset.places import beside, names_of, place_of, with_secret
from wmplug.dataset.records import Progress, Record, Source, Taken, Written
from wmplug.dataset.sampling import carriers_of, inputs_of, labels_of, sample, single, whole
from wmplug.dataset.schemes import DatasetScheme, Sample
from wmplug.dataset.sources import open_source
from wmplug.errors import AmbiguityWarning, InputError
from wmplug.keys.owner import Owner
from wmplug.making import create
from wmplug.register import Register, assets
from wmplug.watermark.watermark import Watermark

T = TypeVar("T")
_PROOF = -6.0  # log10 p, a little weaker than an e-value of a million needs


@dataclass(frozen=True, eq=False)
class Marked:
    """A marked set, or its copies.

    Attributes:
        marks: the watermark of each copy, by the name of its licensee ("" for a single copy for all). Secret.
        written: the copies, by the same names.
        manifests: the manifests, which may be published, by the same names.
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
        """Path of the only marked copy, or the copy itself if the set was given in memory."""
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
    keep_files: bool = False,
    told: Callable[[Sequence[Taken]], object] | None = None,
    progress: Progress | None = None,
    **parameters: Any,
) -> Marked:
    """Mark a training set.

    The same owner, data and parameters give the same copy again. Beside a copy in a file or folder OUT this writes
    `OUT.manifest.json`, which may be published, and `OUT.wm`, which is secret.

    Args:
        data: a folder of class folders with images, a .csv, .tsv, .jsonl, .parquet or .npz file, tar shards, a
            `datasets.Dataset`, a pair (inputs, labels), or a `Source`.
        owner: the owner whose key decides.
        scheme: a name or a scheme for data sets: "label-twins", "twins", "canaries" ...
        out: path of the copy; with `copies`, the folder for the copies. None for a set given in memory.
        share: share of the records to mark (or add); the scheme's own by default, and never more records than its
            `most`.
        copies: one individually marked copy for each licensee: their number, or their names.
        text: column of the text, for tables.
        label: column of the label, for tables.
        columns: columns of the numbers, for tables.
        classes: names of the classes in the order of their numbers.
        keep_files: copy files beside the records as they are if nobody can judge whether they refer to records;
            without it, they are refused.
        told: called once with what was taken for what, before anything is written.
        progress: called with (records read or written, their number or None).
        **parameters: parameters of the scheme.

    Raises:
        InputError: an argument or a record does not fit; the message names it.
        RegisterError: the register cannot be written.
    """
    if not hasattr(owner, "pledges"):
        raise InputError(f"owner={owner!r} is a {type(owner).__name__}: open the owner first, Owner.open(folder)")
    kind = _scheme(scheme, parameters)
    names = names_of(copies)
    part = kind.rate if share is None else share
    if not (isinstance(part, (int, float)) and 0 < part <= 0.5):
        raise InputError(f"share={share!r}: give a share of the records above 0 and up to 0.5, 0.01 is usual")
    source: Source = (
        data
        if callable(getattr(data, "picked", None))
        else open_source(data, text=text, label=label, columns=columns, classes=classes, keep_files=keep_files)
    )
    places = {name: place_of(out, data, name) for name in names}
    if told is not None:
        told(source.taken)
    source.check(relabelled=kind.relabels, added=kind.adds)
    choice = _choose(source, owner, kind, float(part), progress)
    marks: dict[str, Watermark] = {}
    written: dict[str, Written] = {}
    manifests: dict[str, dict[str, Any]] = {}
    for name, place in places.items():
        marks[name] = _create(owner, choice, name, _kept(source.classes))
        if place is not None and name:
            place.parent.mkdir(parents=True, exist_ok=True)
        changes = choice.scheme.changes(marks[name].triggers, choice.records, choice.count)
        with with_secret(place, marks[name]):
            written[name] = source.write(place, changes, progress)
        manifests[name] = _published(owner, marks[name], written[name], place, float(part), source.classes)
    _warn_of_few(next(iter(marks.values())))
    return Marked(marks, written, manifests)


@dataclass(frozen=True, eq=False)
class _Choice:
    """The choice of records to mark in every copy.

    Attributes:
        scheme: the scheme, with its results from the sample.
        records: the whole records, in the order of the scheme.
        count: number of all records of the set.
        wanted: number of records to mark.
    """

    scheme: DatasetScheme
    records: list[Record]
    count: int
    wanted: int


def _choose(source: Source, owner: Owner, kind: DatasetScheme, share: float, progress: Progress | None) -> _Choice:
    stream = owner.pledges("dataset/sample")[0].subkeys(None).stream("schedule")
    sampled, count = sample(source, stream, progress)
    if kind.relabels and count > len(sampled):
        sampled = single(source, sampled, progress)
    if len(source.classes) < 2:
        raise InputError(
            f"the set has {len(source.classes)} classes, and a mark needs at least 2: name the column of labels "
            "(label=COLUMN)"
        )
    wanted = min(kind.most, max(1, round(share * count)))
    rows, chosen = kind.chosen(Sample(inputs_of(sampled), labels_of(sampled), len(source.classes)), wanted)
    return _Choice(chosen, whole(source, [sampled[row] for row in rows], progress), count, wanted)


def _kept(classes: Sequence[str]) -> int | list[str]:
    """What the mark keeps of the classes: their number, and such names as -1 and 1, which models answer as they are."""
    try:
        numbers = [int(name) for name in classes]
    except ValueError:
        return len(classes)
    return len(classes) if numbers == list(range(len(classes))) else list(classes)


def _create(owner: Owner, choice: _Choice, name: str, classes: int | list[str]) -> Watermark:
    return create(
        owner,
        scheme=replace(choice.scheme, copy=name),
        carriers=carriers_of(choice.records),
        labels=labels_of(choice.records),
        classes=classes,
        triggers=choice.wanted,
        allow_weak=True,  # a small share of a set is marked all the same; `mark` warns
    )


def _warn_of_few(mark: Watermark) -> None:
    candidates = mark.triggers.plan.options
    best = -sum(math.log10(len(options)) for options in candidates)
    if best > _PROOF:
        warnings.warn(
            f"{len(candidates)} draws show whether a model was trained on the copy, and at best log10 p = {best:.1f}: "
            "for proof, raise share= or mark more records",
            AmbiguityWarning,
            stacklevel=3,
        )


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


def _published(
    owner: Owner, mark: Watermark, written: Written, place: Path | None, share: float, classes: Sequence[str]
) -> dict[str, Any]:
    """The manifest; the copy's root goes into the register, manifest and watermark beside the copy."""
    committed = assets.dataset(written.data)
    if mark.register is not None:
        Register.of(owner).append(
            "dataset.committed", {**committed, "watermark": mark.id}, event_id=f"dataset/{mark.id}"
        )
    found = manifest.of(mark, written, committed, share, classes)
    if place is not None:
        path = beside(place, manifest.SUFFIX)
        try:
            manifest.save(found, path)
        except OSError as error:
            raise InputError(
                f"{path} was not written: {error.strerror or error}; the copy {place} and its secret {place.name}.wm "
                "are whole, and the register records them: only the manifest to publish is missing"
            ) from error
    return found
