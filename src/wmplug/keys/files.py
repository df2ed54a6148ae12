"""Files: listing a folder, reading and hashing without a copy, and writing whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wmplug.errors import InputError

PIECE = 1 << 20


def files_of(path: Path) -> Iterator[tuple[str, Path]]:
    """Every regular file below a folder with its relative POSIX path, in order; a single file is called ".".

    Links to files are read; links to folders are not followed, because a link can lead anywhere.

    Raises:
        InputError: the path does not exist, or a folder cannot be read or holds something else than files and folders.
    """
    if path.is_file():
        yield ".", path
        return
    if not path.is_dir():
        raise InputError(f"{path} is neither a file nor a folder: check the path")
    for folder, folders, names in os.walk(path, onerror=_refuse):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if not file.is_file():
                raise InputError(f"{file} is not a regular file, or a link that leads nowhere: remove it or repair it")
            yield file.relative_to(path).as_posix(), file


def pieces_of(file: Path, buffer: bytearray) -> Iterator[memoryview]:
    """The bytes of a file, one filled buffer after the other; each is valid until you ask for the next.

    Only the last may be shorter than the buffer, and only an empty file gives an empty one.
    """
    view = memoryview(buffer)
    with open(file, "rb") as stream:
        length = stream.readinto(view)
        yield view[:length]
        while length == len(buffer) and (length := stream.readinto(view)):
            yield view[:length]


def file_digest(file: Path) -> tuple[str, int]:
    """SHA-256 of a file in hex, and its length in bytes."""
    digest, length = hashlib.sha256(), 0
    for piece in pieces_of(file, bytearray(PIECE)):
        digest.update(piece)
        length += len(piece)
    return digest.hexdigest(), length


def shown(name: str) -> str:
    """A file name as JSON can hold it, with escapes for bytes that are not UTF-8."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all; when this returns, its bytes and its name are on disk.

    It writes to a private temporary file beside it, and syncs that file, renames it, and syncs the folder.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk: a crash loses a file that has bytes and no name."""
    if os.name == "nt":  # pragma: no cover
        return  # a folder cannot be opened there
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse(error: OSError) -> Any:
    raise InputError(
        f"{error.filename} cannot be read ({error.strerror}), and a folder is committed whole or not at all: give read "
        "access, or take it out of the folder"
    )
