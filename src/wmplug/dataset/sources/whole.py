"""Copies that appear whole or not at all: they grow under a hidden name and get their own name at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wmplug.dataset.records import Out
from wmplug.dataset.sources.packed import refuse_other_format
from wmplug.errors import InputError


class Growing:
    """A copy that is not yet whole.

    Attributes:
        path: path of the growing file or folder.
        target: its final path.
        file: the file that records are counted in, for messages.
        at: the record being written: its name or number there.
    """

    def __init__(self, path: Path, target: Path) -> None:
        self.path, self.target = path, target
        self.file = ""
        self.at: str | int = "its beginning"


@contextmanager
def whole_file(out: Out, source: Path | None, name: str) -> Iterator[Growing]:
    """A file that appears when the block ends without an error.

    Args:
        out: the file, or an empty folder for it.
        source: the copied file or folder.
        name: name of the file, if `out` is a folder.

    Raises:
        InputError: the place is taken, inside the source, or cannot be written.
    """
    target = _free(out, source)
    if target.is_dir():
        target = target / name
    refuse_other_format(target, source)
    with _refused(target) as growing:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        os.close(descriptor)
        growing.path = Path(temporary)
        try:
            yield growing
            os.chmod(temporary, source.stat().st_mode & 0o777 if source else 0o666 & ~_umask())
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.rename(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


@contextmanager
def whole_folder(out: Out, source: Path | None) -> Iterator[Growing]:
    """A folder that appears when the block ends without an error; see `whole_file`."""
    target = _free(out, source)
    refuse_other_format(target, source)
    with _refused(target) as growing:
        growing.path = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
        try:
            yield growing
            os.chmod(growing.path, source.stat().st_mode & 0o777 if source and source.is_dir() else 0o777 & ~_umask())
            if target.is_dir():
                target.rmdir()  # it is empty, and not every system renames over it
            os.rename(growing.path, target)
        except BaseException:
            shutil.rmtree(growing.path)
            raise


@contextmanager
def _refused(target: Path) -> Iterator[Growing]:
    growing = Growing(target, target)
    try:
        yield growing
    except OSError as error:
        raise InputError(
            f"{target} was not written: {error.strerror or error} at {growing.file}{growing.at}. Nothing of it was "
            "kept: give a place that can be written and has room for a copy of the set"
        ) from error


def _free(out: Out, source: Path | None) -> Path:
    if out is None:
        raise InputError("the set lies in files: give out=, the path of the marked copy")
    target = Path(out).resolve() if not Path(out).is_symlink() else Path(out).absolute()
    if source is not None and source.resolve() in (target, *target.parents):
        raise InputError(f"the copy {out} would lie inside the set {source} itself: give another place")
    if os.path.lexists(target) and not (target.is_dir() and not target.is_symlink() and not any(target.iterdir())):
        raise InputError(f"{out} already exists: give a new name or an empty folder, nothing is overwritten")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is not a folder: make it, then write {target.name} into it")
    return target


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
