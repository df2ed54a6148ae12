"""Files: written whole or not at all; which lie in a folder, under which names, and their bytes without a copy."""

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
        InputError: there is nothing at the path, a folder cannot be read, or it holds what is neither file nor folder.
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
                raise InputError(f"{file} is no regular file, or a link that leads nowhere: remove it or repair it")
            yield file.relative_to(path).as_posix(), file


def pieces_of(file: Path, buffer: bytearray) -> Iterator[memoryview]:
    """The bytes of a file, one filled buffer after the other; each is valid until the next is asked for.

    Only the last may be shorter than the buffer, and only that of an empty file is empty.
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
    """A file name as JSON can hold it: bytes that are no UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all: a temporary neighbour that nobody else can read, fsync, rename."""
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


def _refuse(error: OSError) -> Any:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}): a folder is committed whole or not at all")
