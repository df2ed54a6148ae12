"""WebDataset: tar files in which the members of one record follow each other under one name with several endings."""

from __future__ import annotations

import copy
import io
import itertools
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from wmplug.dataset.records import Out, Taken, Written
from wmplug.dataset.sources.base import Base, Chunk
from wmplug.dataset.sources.beside import refuse_repeats
from wmplug.dataset.sources.borders import border
from wmplug.dataset.sources.columns import Columns
from wmplug.dataset.sources.companions import Companions, Moves
from wmplug.dataset.sources.edits import Edit, Edits
from wmplug.dataset.sources.jsonlines import replaced, style_of, written
from wmplug.dataset.sources.listings import Unit
from wmplug.dataset.sources.packed import decoded, endings, unpacked, writing
from wmplug.dataset.sources.pairs import fitting
from wmplug.dataset.sources.pictures import SUFFIXES, read_picture, write_like
from wmplug.dataset.sources.tells import LONG, refuse_tells, spread
from wmplug.dataset.sources.whole import whole_file, whole_folder
from wmplug.errors import InputError
from wmplug.keys.files import PIECE, files_of
from wmplug.watermark.carriers import Form

_FORMS: dict[str, Form] = {"txt": "text", "text": "text", "npy": "array"}


class Member(NamedTuple):
    """One file of a record.

    Attributes:
        info: its header.
        end: offset of the end of its padded data in the shard.
    """

    info: tarfile.TarInfo
    end: int


class Group(NamedTuple):
    """Consecutive members under one name.

    Attributes:
        key: that name, or "" for members that are not files.
        members: the members by their endings.
    """

    key: str
    members: dict[str, Member]


class Shards(Base):
    """A source over one tar file or a folder of them; members that do not change keep their bytes, headers included.

    The input is a picture, a .txt or a .npy; the label is the number or name in .cls, or a key of the .json.

    Args:
        path: a .tar, or the folder of a set of them.
        columns: endings of members: one of the input, and one of the label (default: cls), which can also be a key in
            the .json (default: label).

    Raises:
        InputError: a file is not a tar, or its first record has no input.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        super().__init__(str(path), columns.classes)
        self._path = path
        self._files = [path] if path.is_file() else [file for _, file in files_of(path) if endings(file)[0] == ".tar"]
        with unpacked(self._files[0]) as shard:
            first = next((sample for sample in _samples(shard, self._files[0].name) if sample.key), None)
            if first is None:
                raise InputError(f"{path} has no records: give the shards that training reads")
            asked = columns.of_input
            found = (
                asked
                or [end for end in first.members if f".{end}" in SUFFIXES]
                or [end for end in first.members if end in _FORMS]
            )
            if len(found) != 1 or found[0] not in first.members:
                raise InputError(
                    f"{first.key} in {path} has the members {', '.join(first.members)}: name the one that is the input "
                    'with columns=["jpg"]'
                )
            self._input = found[0]
            self.form = (
                "pil" if f".{found[0]}" in SUFFIXES else _FORMS.get(found[0], "text" if columns.text else "array")
            )
            noted = _noted(_data(shard, first.members["json"]), first.key) if "json" in first.members else {}
            label = columns.label
            if label is None:
                label = "cls" if "cls" in first.members else ("label" if "label" in noted else None)
            elif label not in first.members and label not in noted:
                raise InputError(f"{first.key} in {path} has no label {label}, neither as member nor in the .json")
            self._label, self._in_json = label, label is not None and label not in first.members

        self._companions = Companions(path, self._others, self._units, columns.keep_files, single=False)

    @property
    def taken(self) -> tuple[Taken, ...]:  # type: ignore[override]
        """What each ending and each companion was taken for."""
        kinds = {"text": "text", "pil": "picture", "array": "numbers"}
        label = f"{self._label} in .json" if self._in_json else f".{self._label}"
        found = [Taken(f".{self._input}", kinds[self.form], "the first record has it")]
        if self._label is not None:
            found.append(Taken(label, "label", "the first record has it"))
        return (*found, *self._companions.taken)

    @property
    def _has_labels(self) -> bool:
        return self._label is not None

    def check(self, *, relabelled: bool, added: bool) -> None:
        """Refuse what tells the label, and companions of the shards that no copy can keep true; see `Source.check`."""
        self._companions.check(relabelled, added)
        if not relabelled or self._label is None:
            return
        drawn = [found for _, found in sorted(spread(enumerate(self._beside())), key=itemgetter(0))]
        refuse_repeats(({"label": label} for label, _ in drawn), "label", (), str(self._path))
        for what in sorted({what for _, texts in drawn for what in texts}):
            refuse_tells(
                [(label, texts.get(what, "")) for label, texts in drawn],
                f"the members {what} in {self._path}" if what else f"the names of the records in {self._path}",
                "leave them out" if what else "shuffle the records and number them anew",
            )

    def _beside(self) -> Iterator[tuple[Any, dict[str, str]]]:
        """The label of each record with its name, under "", and the beginnings of its other members."""
        for name, shard, sample in self._all():
            texts = {"": sample.key}
            for ending, member in sample.members.items():
                if ending == "json" and self._in_json:
                    noted = _noted(_data(shard, member), name)
                    texts[".json"] = json.dumps({key: value for key, value in noted.items() if key != self._label})
                elif ending not in (self._input, self._label):
                    shard.seek(member.info.offset_data)
                    data = shard.read(min(member.info.size, LONG))
                    texts[f".{ending}"] = data.decode(errors="replace")
            yield self._label_of(shard, sample, name), texts

    def _others(self) -> Iterator[tuple[str, Path]]:
        if self._path.is_dir():
            yield from ((name, file) for name, file in files_of(self._path) if file not in self._files)

    def _units(self) -> Iterator[Unit]:
        return (Unit(file.relative_to(self._path).as_posix()) for file in self._files)

    def _all(self) -> Iterator[tuple[str, BinaryIO, Group]]:
        """Each record with its name and its shard."""
        for file in self._files:
            with unpacked(file) as shard:
                for sample in _samples(shard, file.name):
                    if sample.key:
                        yield self._name(file, sample), shard, self._complete(file, sample)

    def _name(self, file: Path, sample: Group) -> str:
        return f"{file.name}, {sample.key}"

    def _complete(self, file: Path, sample: Group) -> Group:
        if self._label is None and "cls" in sample.members:
            raise InputError(f"{self._name(file, sample)} has a label, and the first record has none: give each one")
        ending = "json" if self._in_json else self._label
        if missing := {self._input, ending or self._input} - set(sample.members):
            raise InputError(
                f"{self._name(file, sample)} has no member .{', .'.join(sorted(missing))}, and the first record has: "
                "add it, or leave the record out"
            )
        return sample

    def _parts(self, inputs: bool) -> Iterator[Chunk]:
        for name, shard, sample in self._all():
            read = [self._input_of(_data(shard, sample.members[self._input]), name)] if inputs else []
            yield Chunk([name].__getitem__, read, [self._label_of(shard, sample, name)])

    def _input_of(self, data: bytes, name: str) -> Any:
        if self.form == "pil":
            return read_picture(data, name)
        if self.form == "text":
            return decoded(data, name)
        with border(f"{name} is not a .npy of numbers", "save it with numpy.save"):
            return np.load(io.BytesIO(data), allow_pickle=False)

    def _label_of(self, shard: BinaryIO, sample: Group, name: str) -> Any:
        if self._label is None:
            return None
        if not self._in_json:
            return decoded(_data(shard, sample.members[self._label]), name).strip()
        noted = _noted(_data(shard, sample.members["json"]), name)
        if self._label not in noted:
            raise InputError(f"{name} has no {self._label} in its .json, and the first record has: add it")
        return noted[self._label]

    def _copy(self, out: Out, edits: Edits) -> Written:
        whole = whole_folder(out, self._path) if self._path.is_dir() else whole_file(out, self._path, self._path.name)
        with whole as growing:
            index = -1
            for file in self._files:
                name = file.relative_to(self._path).as_posix()
                place = growing.path if name == "." else growing.path / name
                place.parent.mkdir(parents=True, exist_ok=True)
                final = file if self._path.is_dir() else growing.target
                with unpacked(file) as shard, writing(place, final, file) as copied:
                    end = 0
                    for sample in _samples(shard, file.name):
                        start, end = end, max(member.end for member in sample.members.values())
                        if not sample.key:
                            _copy_bytes(shard, copied, start, end)
                            continue
                        growing.at = self._name(file, self._complete(file, sample))
                        if index < 0:
                            self._add(shard, copied, sample, edits.after(-1))
                        index += 1
                        if edit := edits.at(index):
                            edits.count_changed(self._write_changed(shard, copied, sample, edit, growing.at))
                        else:
                            _copy_bytes(shard, copied, start, end)
                        self._add(shard, copied, sample, edits.after(index))
                    _copy_bytes(shard, copied, end, None)
            edits.check(index + 1)
            if self._path.is_dir():
                self._companions.write(growing.path, Moves(written={unit.name for unit in self._units()}))
            return edits.written(growing.target)

    def _write_changed(self, shard: BinaryIO, copied: BinaryIO, sample: Group, edit: Edit, name: str) -> bool:
        """Write a record with its edit; returns whether any of its members differs."""
        new, differs = self._made(shard, sample, edit, name), False
        for ending, member in sample.members.items():
            if ending in new and new[ending] != _data(shard, member):
                differs = True
                copied.write(_member(shard, member, new[ending]))
            else:
                _copy_bytes(shard, copied, member.info.offset, member.end)
        return differs

    def _add(self, shard: BinaryIO, copied: BinaryIO, like: Group, edits: Sequence[Edit]) -> None:
        for number, edit in enumerate(edits, 1):
            new = self._made(shard, like, edit, "the added record")
            if left := [ending for ending in like.members if ending not in new]:
                raise InputError(
                    f"the scheme adds records to {self._path}, and their content is unknown for .{', .'.join(left)}: "
                    "choose a scheme that adds none, or shards without these members"
                )
            for ending, member in like.members.items():
                copied.write(_member(shard, member, new[ending], f"{like.key}_{number}.{ending}"))

    def _made(self, shard: BinaryIO, sample: Group, edit: Edit, name: str) -> dict[str, bytes]:
        """The members of an edit."""
        new = {}
        if edit.input is not None:
            new[self._input] = self._encoded(_data(shard, sample.members[self._input]), edit.input, name)
        if edit.label is not None and self._label is not None:
            ending = "json" if self._in_json else self._label
            before = decoded(_data(shard, sample.members[ending]), name)
            said = before.strip()
            made = before.replace(said, str(edit.label), 1)
            if self._in_json:
                noted = _noted(before.encode(), name)
                made = replaced(before, noted, {self._label: edit.label}, style_of(written(before, noted)))
            new[ending] = made.encode()
        return new

    def _encoded(self, before: bytes, value: Any, name: str) -> bytes:
        if self.form == "pil":
            return write_like(before, value, name)
        if self.form == "text":
            if not isinstance(value, str):
                raise InputError(f"a changed or added record is a {type(value).__name__}: the set has texts")
            return value.encode()
        old, written = self._input_of(before, name), io.BytesIO()
        np.save(written, fitting(value, old.dtype, old.shape), allow_pickle=False)
        return written.getvalue()


def _samples(shard: BinaryIO, name: str) -> Iterator[Group]:
    """The records of a shard, in order; members outside a record come with the key "".

    Raises:
        InputError: the shard is damaged.
    """
    with border(f"{name} is not a whole tar file", "restore it"), tarfile.open(fileobj=shard, mode="r:") as tar:
        for key, infos in itertools.groupby(_infos(tar), _key):
            members: dict[str, Member] = {}
            for info, end in infos:
                ending = info.name[len(key) + 1 :].lower()
                if ending in members and key:
                    raise InputError(f"{key} in {name} has two members .{ending}: give each record a name of its own")
                members[ending] = Member(info, end)
            yield Group(key, members)


def _infos(tar: tarfile.TarFile) -> Iterator[Member]:
    while (info := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # the list would otherwise keep all members
        yield Member(info, tar.offset)


def _key(member: Member) -> str:
    folder, name = os.path.split(member.info.name)
    stem, dot, _ = name.partition(".")
    return os.path.join(folder, stem) if stem and dot and member.info.isfile() else ""


def _data(shard: BinaryIO, member: Member) -> bytes:
    shard.seek(member.info.offset_data)
    data = shard.read(member.info.size)
    if len(data) < member.info.size:
        raise InputError(f"{member.info.name} ends too early in its shard: copy the shard again")
    return data


def _noted(data: bytes, name: str) -> dict[str, Any]:
    with border(f"{name} has a .json that is not JSON", "correct it"):
        noted = json.loads(decoded(data, name))
    if not isinstance(noted, dict):
        raise InputError(f"{name} has a {type(noted).__name__} as .json: write an object")
    return noted


def _member(shard: BinaryIO, member: Member, data: bytes, name: str | None = None) -> bytes:
    """A member with other data and the same header, except for the size, and for the name if another is given."""
    shard.seek(member.info.offset)
    header = shard.read(member.info.offset_data - member.info.offset)
    if len(data) != member.info.size or name is not None:
        info = copy.copy(member.info)
        info.size, info.name = len(data), name or info.name
        info.pax_headers = {key: value for key, value in info.pax_headers.items() if key not in ("size", "path")}
        gnu = header[257:265] == b"ustar  \0"
        header = info.tobuf(tarfile.GNU_FORMAT if gnu else tarfile.PAX_FORMAT)
    return header + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def _copy_bytes(shard: BinaryIO, copied: BinaryIO, start: int, end: int | None) -> None:
    """Copy a part of a shard; `end` None is the end of the shard."""
    shard.seek(start)
    left = end - start if end is not None else None
    while left is None or left > 0:
        data = shard.read(PIECE if left is None else min(PIECE, left))
        if not data:
            break
        copied.write(data)
        left = left if left is None else left - len(data)
