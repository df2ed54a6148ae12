"""A folder of pictures, with a folder for each class."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from wmplug.dataset.records import Out, Taken, Written
from wmplug.dataset.sources.base import Base, Chunk
from wmplug.dataset.sources.companions import Companions, Moves
from wmplug.dataset.sources.edits import Edit, Edits
from wmplug.dataset.sources.listings import Unit
from wmplug.dataset.sources.pictures import SUFFIXES, read_picture, write_like
from wmplug.dataset.sources.tells import refuse_tells
from wmplug.dataset.sources.whole import whole_folder
from wmplug.errors import InputError
from wmplug.keys.files import files_of

_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


class Folder(Base):
    """A source over root/class/.../picture, or over root/picture in a set without labels.

    The copy keeps other files as they are. A record whose label changes moves to the folder of its new class, under
    its own name or, if that is taken, the next free one; its times stay. Names that tell the class
    (n01440764_10026.JPEG) are refused for it. Numbers without gaps still leave a gap in the old folder: give such
    pictures random names before you mark the set; a later change would differ from the committed copy. Memory holds
    the file names of one folder at a time.

    Args:
        root: the folder.
        classes: names of the class folders in the order of their numbers; by default in ascending order.
        keep_files: whether to copy files beside the pictures that nobody can judge.

    Raises:
        InputError: the folder holds no pictures, or folders that are parts of a set.
    """

    def __init__(self, root: Path, classes: Sequence[str] | None = None, *, keep_files: bool = False) -> None:
        super().__init__(str(root), classes)
        self.form = "pil"
        self._numbers = False  # readers of such folders number the names in ascending order, "10" before "2"
        self._root = root
        name, first = next(self._pictures(), (None, None))
        if name is None or first is None:
            raise InputError(
                f"neither {root} nor its folders hold pictures ({', '.join(sorted(SUFFIXES))}): check the path"
            )
        self._labelled, self._first = "/" in name, first
        if (
            classes is None
            and self._labelled
            and {one.name.lower() for one in root.iterdir() if one.is_dir()} <= _SPLITS
        ):
            raise InputError(
                f"the folders of {root} are parts of a set and no classes: give one of them, {root / 'train'}"
            )
        self._companions = Companions(root, self._others, self._units, keep_files, single=True)

    @property
    def taken(self) -> tuple[Taken, ...]:  # type: ignore[override]
        """What was taken for what."""
        label = (Taken("folders", "label", "pictures lie in them"),) if self._labelled else ()
        return (*label, Taken("pictures", "picture", f"such as {self._first.name}"), *self._companions.taken)

    def check(self, *, relabelled: bool, added: bool) -> None:
        """Refuse names that tell the label, and companions that no copy can keep true; see `Source.check`."""
        self._companions.check(relabelled, added)
        if relabelled and self._labelled:
            names = (name.partition("/") for name, _ in self._pictures())
            refuse_tells(
                ((label, name) for label, _, name in names),
                f"the names of the pictures in {self._root}",
                "give them random names",
            )

    def _others(self) -> Iterator[tuple[str, Path]]:
        return ((name, file) for name, file in files_of(self._root) if file.suffix.lower() not in SUFFIXES)

    def _units(self) -> Iterator[Unit]:
        return (Unit(name, self._label(name) or "") for name, _ in self._pictures())

    @property
    def _has_labels(self) -> bool:
        return self._labelled

    def _pictures(self) -> Iterator[tuple[str, Path]]:
        return ((name, file) for name, file in files_of(self._root) if file.suffix.lower() in SUFFIXES)

    def _parts(self, inputs: bool) -> Iterator[Chunk]:
        for name, file in self._pictures():
            picture = (read_picture(_bytes(file), name) for _ in range(1))
            yield Chunk([name].__getitem__, picture, [self._label(name)])

    def _label(self, name: str) -> str | None:
        label, inside, _ = name.partition("/")
        if bool(inside) != self._labelled:
            raise InputError(
                f"{name} lies {'in a folder' if inside else 'in no folder'} of {self._root}, unlike the first picture: "
                "put all pictures into a folder for each class, or all into one"
            )
        return label if inside else None

    def _copy(self, out: Out, edits: Edits) -> Written:
        with whole_folder(out, self._root) as growing:
            index, free, moves = -1, _Names(self._root, growing.path), Moves()
            for name, file in self._pictures():
                growing.at = name
                self._label(name)
                if index < 0:
                    self._add(free, name, file, edits.after(-1))
                index += 1
                edit = edits.at(index) or Edit(None, None)
                data = None if edit.input is None else write_like(_bytes(file), edit.input, name)
                place = name if edit.label in (None, self._label(name)) else free.name(_moved(name, edit.label))
                differs = data is not None and data != _bytes(file)
                edits.count_changed(place != name or differs)
                moves.names |= {name: place} if place != name else {}
                moves.written |= {name} if differs else set()
                _put(growing.path / place, file, data)
                self._add(free, name, file, edits.after(index))
            edits.check(index + 1)
            self._companions.write(growing.path, moves)
            return edits.written(growing.target)

    def _add(self, free: _Names, name: str, like: Path, edits: Sequence[Edit]) -> None:
        for edit in edits:
            place = free.name(_moved(name, edit.label) if self._labelled else name)
            _put(free.grown / place, like, write_like(_bytes(like), edit.input, name))


class _Names:
    """Free names in a folder that stay free: they count on from the last of its pictures.

    Attributes:
        grown: the growing copy.
    """

    def __init__(self, root: Path, grown: Path) -> None:
        self._root, self.grown = root, grown
        self._next: dict[tuple[str, int, str], int] = {}

    def name(self, wanted: str) -> str:
        """The wanted name, or the next free one."""
        if self._free(wanted):
            return wanted
        stem, suffix = os.path.splitext(wanted)
        digits = (re.search(r"[0-9]*$", stem) or [""])[0]
        prefix = stem.removesuffix(digits) if digits else f"{stem}_"
        key = prefix, len(digits), suffix
        self._next.setdefault(key, int(digits or 0))
        while True:
            self._next[key] += 1
            name = f"{prefix}{self._next[key]:0{len(digits)}d}{suffix}"
            if self._free(name):
                return name

    def _free(self, name: str) -> bool:
        return not os.path.lexists(self._root / name) and not os.path.lexists(self.grown / name)


def _moved(name: str, label: str) -> str:
    """The name in the folder of another class."""
    return f"{label}/{name.partition('/')[2]}"


def _put(place: Path, like: Path, data: bytes | None) -> None:
    """Copy a file with its times, so that a changed one does not stand out as the newest."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if data is None:
        shutil.copy2(like, place)
        return
    place.write_bytes(data)
    shutil.copystat(like, place)


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror}): repair it, or leave it out") from error
