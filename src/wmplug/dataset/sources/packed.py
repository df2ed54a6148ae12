"""Compressed files and those in UTF-16, read and written as what they hold."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from wmplug.dataset.sources.borders import border
from wmplug.errors import InputError
from wmplug.extras import need

_BUFFER = 1 << 20
_WHOLE = {".tgz": (".tar", ".gz"), ".tbz2": (".tar", ".bz2"), ".txz": (".tar", ".xz"), ".tzst": (".tar", ".zst")}
_NAMED, _EXTRA, _SUMMED = 8, 4, 2  # flags of gzip (RFC 1952)
AS_TEXTS = "save the column as texts in UTF-8"
_ALIKE = {".tab": ".tsv", ".ndjson": ".jsonl"}
_NAMES = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON Lines", ".parquet": "Parquet", ".npz": "NumPy", ".tar": "tar"}
_PACKED = (".csv", ".tsv", ".jsonl", ".tar")  # that compression is usual for
_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}


def _zstd(path: Path) -> Any:
    with need("dataset"):
        import pyarrow as pa
    return pa.input_stream(str(path), compression="zstd")


_READERS: Mapping[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _zstd}


def endings(path: Path) -> tuple[str, str]:
    """The ending that says what a file holds, and that of its compression or "", both in lower case."""
    last = path.suffix.lower()
    if last in _WHOLE:
        return _WHOLE[last]
    return (Path(path.stem).suffix.lower(), last) if last in _READERS else (last, "")


def whole_ending(path: Path) -> str:
    """The ending of a file as it is written, that of its compression included."""
    return Path(path.stem).suffix + path.suffix if path.suffix.lower() in _READERS else path.suffix


def refuse_other_format(out: Path, source: Path | None) -> None:
    """Refuse a name for a copy that says another format than the set has, which the copy keeps.

    Args:
        out: path of the copy.
        source: the file or folder of the set; None for one that is kept in memory and written as a folder.

    Raises:
        InputError: the name ends otherwise.
    """
    kind, packing = endings(out)
    kind, own = _ALIKE.get(kind, kind), ""
    if source is not None and source.is_file():
        own = _ALIKE.get(endings(source)[0], endings(source)[0])
    elif kind == ".parquet" and source is not None and any(source.rglob("*.parquet")):
        return  # as Spark names folders
    if (kind in _NAMES and kind != own) or (packing and kind == own and own not in _PACKED):
        says = f"{_NAMES[kind]}{f' in {packing}' * bool(packing)}"
        raise InputError(
            f"{out} says {says}, and the copy has the format of the set, {_NAMES.get(own, 'a folder')}: call it "
            f"{out.name.partition('.')[0]}{whole_ending(source) if source and own else ''}, or convert the set first"
        )


class _Unpacked(io.RawIOBase):
    """Bytes of a stream, as UTF-8 where they are another encoding of text."""

    def __init__(self, stream: Any, name: str, encoding: str | None) -> None:
        self._stream, self._name, self._left = stream, name, b""
        self._decoder = codecs.getincrementaldecoder(encoding)() if encoding else None
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left and not self._ended:
            with border(f"{self._name} is damaged", "restore it"):
                data = self._stream.read(len(buffer))
                self._ended = not data
                self._left = self._decoder.decode(data, not data).encode() if self._decoder else data
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def opened(path: Path, *, text: bool = False) -> io.BufferedReader:
    """A file for reading, unpacked, and with `text` in UTF-8.

    Raises:
        InputError: it cannot be opened, is damaged (when it is read), or is text in UTF-32, or UTF-16 without a mark.
    """
    encoding = encoding_of(path) if text else None
    stream = _raw(path)
    if endings(path)[1] == "" and encoding is None:
        return cast(io.BufferedReader, stream)
    return io.BufferedReader(_Unpacked(stream, path.name, encoding), _BUFFER)


def _raw(path: Path) -> Any:
    with border(f"{path} cannot be read", "check that it is whole and that you may read it"):
        reader = _READERS.get(endings(path)[1])
        return open(path, "rb") if reader is None else reader(path)


def decoded(raw: bytes, name: str, advice: str = "convert the file, for example with iconv -f latin1 -t utf-8") -> str:
    """Bytes as text.

    Raises:
        InputError: they are not UTF-8.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name} is not UTF-8 (byte {error.object[error.start]:#04x} at its position {error.start}): {advice}"
        ) from error


def encoding_of(path: Path) -> str | None:
    """The encoding of a file of text that is not in UTF-8, by its byte order mark.

    Raises:
        InputError: the file is in an encoding that cannot be read.
    """
    with _raw(path) as stream, border(f"{path.name} is damaged", "restore it"):
        first = bytes(stream.read(4))
    if first in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE) or (b"\0" in first and first[:2] not in _UTF16):
        raise InputError(
            f"{path.name} begins with {first!r}, so it is UTF-32, or UTF-16 without a byte order mark, or no text: "
            "convert it, for example with iconv -f utf-16le -t utf-8"
        )
    return _UTF16.get(first[:2])


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """A file whose places can be sought; what is compressed is unpacked into the folder for temporary files."""
    if not endings(path)[1]:
        with open(path, "rb") as file:
            yield file
        return
    with opened(path) as packed, tempfile.NamedTemporaryFile() as whole:
        shutil.copyfileobj(packed, whole, _BUFFER)
        whole.seek(0)
        yield cast(BinaryIO, whole)


class _Encoder:
    """Takes UTF-8 and writes another encoding."""

    def __init__(self, file: Any, encoding: str) -> None:
        self._file, self._encoding = file, encoding
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def write(self, data: Any) -> None:
        self._file.write(self._decoder.decode(bytes(data)).encode(self._encoding))


class _Gzip(NamedTuple):
    """What the head of a file of gzip says."""

    name: str
    time: int
    level: int


@contextmanager
def writing(place: Path, target: Path, like: Path, *, text: bool = False) -> Iterator[BinaryIO]:
    """A file to write, packed as its final name says, and encoded and noted as the file that it is a copy of.

    Args:
        place: path of the growing file.
        target: its final path.
        like: the copied file.
        text: whether it holds text, whose encoding stays.
    """
    with ExitStack() as stack:
        file: Any = stack.enter_context(open(place, "wb"))
        packing = endings(target)[1]
        if packing == ".gz":
            head = _head(like) if endings(like)[1] == ".gz" else _Gzip("", 0, 6)
            made = gzip.GzipFile(head.name, "wb", head.level, file, head.time)
            file = stack.enter_context(io.BufferedWriter(cast(Any, made), _BUFFER))
        elif packing == ".zst":
            with need("dataset"):
                import pyarrow as pa
            file = stack.enter_context(pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd"))
        elif packing:
            file = stack.enter_context(_READERS[packing](file, "wb"))
        encoding = encoding_of(like) if text else None
        yield cast(BinaryIO, _Encoder(file, encoding) if encoding else file)


def _head(path: Path) -> _Gzip:
    with open(path, "rb") as file:
        head = file.read(4096)
    flags, (time,), extra, at = head[3], struct.unpack_from("<I", head, 4), head[8], 10
    if flags & _EXTRA:
        at += 2 + struct.unpack_from("<H", head, at)[0]
    name = head[at : head.find(b"\0", at)].decode("latin1") if flags & _NAMED else ""
    return _Gzip(name, time, {2: 9, 4: 1}.get(extra, 6))
