"""Files: listing a folder, reading what others wrote, hashing without a copy, and writing whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wmplug.errors import InputError

PIECE = 1 << 20
MOST = 64 << 20  # bytes of a file that is read whole
JSON = 8 << 20  # bytes of a JSON document: its objects take up to 25 times as much memory


def opened(file: str | Path) -> io.BufferedReader:
    """Open a regular file for reading. Others may have put anything in its place, and nothing of that blocks.

    Raises:
        OSError: the file cannot be opened, or it is a pipe, a device or a folder, or a link to one.
    """
    descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        check_regular(descriptor, file)
    except OSError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def check_regular(descriptor: int, file: str | Path) -> None:
    """Raise OSError if a pipe, a device or a folder was opened."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file, but a pipe, a device or a folder", str(file))


def refuse_pipe(path: Path) -> None:
    """Refuse a pipe or a device, which a reader that opens it waits for or reads without end.

    Raises:
        InputError: the path is one, or a link to one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is a pipe or a device: give a file that can be read again, or a folder of files")


def read_bytes(file: str | Path, most: int = MOST) -> bytes:
    """The bytes of a regular file of at most `most` bytes.

    Raises:
        OSError: as `opened`, or the file is larger.
    """
    with opened(file) as stream:
        data = stream.read(min(os.fstat(stream.fileno()).st_size, most) + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes, the most that such a file needs", str(file))
    return data


def read_json(file: str | Path, most: int = JSON) -> Any:
    """The JSON document in a regular file of at most `most` bytes.

    Raises:
        OSError: as `read_bytes`.
        ValueError: the file does not hold JSON.
    """
    try:
        return json.loads(read_bytes(file, most))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


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
    with opened(file) as stream:
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
