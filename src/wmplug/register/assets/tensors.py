"""The canonical tensor digest: what a model's numbers are, in whichever file or framework they lie."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import json
import math
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.files import shown
from wmplug.register.assets.encoding import RawArray, is_array, read_array, u64

VERSION = "wmplug/tensors/1"
# A tensor is read when it is asked for, one at a time.
Named: TypeAlias = Mapping[str, Callable[[], RawArray]]

_NUMBERED = re.compile(r"_\d+$")
_HEADER_LIMIT = 100_000_000  # bytes; the format's own limit
_ITEM_BYTES = {
    "F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2),
    "I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1),
    "U64": ("uint64", 8), "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1), "BOOL": ("bool", 1),
    "F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1), "F8_E8M0": ("float8_e8m0fnu", 1),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 1), "F8_E5M2FNUZ": ("float8_e5m2fnuz", 1), "C64": ("complex64", 8),
}  # fmt: skip


def tensor_digest(named: Named) -> dict[str, Any]:
    """Digest a set of named tensors, one after the other.

    SHA-256("wmplug/tensors/1" || 0x00 || u64(number of tensors) || each tensor, in ascending order of its name's UTF-8
    bytes). A tensor is u64(length) and UTF-8 of its name, u64(length) and ASCII of its dtype ("float32", "bfloat16"),
    u64(dimensions), u64 of each dimension, u64(length) and its elements in C order, little-endian. u64 is 8 bytes,
    little-endian. Every name counts, also where two names share one tensor. The name of a Keras model's tensor is its
    place in `model.weights`, a slash, and the variable's name without a number at its end.

    `contents` leaves names out: SHA-256 over the same domain and, in ascending order, the distinct SHA-256 of what each
    tensor has after its name; it tells a renamed model, or one whose tied names were dropped, from an altered one, and
    proves no identity.

    Returns:
        sha256, contents (hex), count, elements, bytes, encoding.

    Raises:
        InputError: a tensor's bytes are not all here.
    """
    digest = hashlib.sha256(VERSION.encode() + b"\0" + u64(len(named)))
    contents: set[bytes] = set()
    elements = length = 0
    for name in sorted(named, key=_bytes):
        array = named[name]()
        head = _sized(array.dtype.encode()) + u64(len(array.shape)) + b"".join(map(u64, array.shape))
        head += u64(len(array.data))
        digest.update(_sized(_bytes(name)) + head)
        digest.update(array.data)
        content = hashlib.sha256(head)
        content.update(array.data)
        contents.add(content.digest())
        elements += math.prod(array.shape)
        length += len(array.data)
    return {
        "sha256": digest.hexdigest(),
        "contents": hashlib.sha256(VERSION.encode() + b"\0" + b"".join(sorted(contents))).hexdigest(),
        "count": len(named),
        "elements": elements,
        "bytes": length,
        "encoding": VERSION,
    }


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")


def _sized(data: bytes) -> bytes:
    return u64(len(data)) + data


def tensors_of(model: Any) -> Named | None:
    """The tensors of a torch module, a Keras model or a state dict; None where it is none of them.

    Raises:
        InputError: it holds no tensors.
    """
    if hasattr(model, "weights") and hasattr(model, "count_params"):
        return _keras_tensors(model)
    if hasattr(model, "named_parameters") and callable(getattr(model, "state_dict", None)):
        return _state_dict(model.state_dict())
    return _state_dict(model) if isinstance(model, Mapping) else None


@contextlib.contextmanager
def tensors_in(path: Path) -> Iterator[Named]:
    """The tensors in a file, or in the files of a saved model's folder.

    Pickles are read by torch's `weights_only` and Keras archives in safe mode, so a file brings no code of its own, as
    far as these two hold what they promise.

    Raises:
        InputError: there are none, they cannot be read here, or two files hold one name.
    """
    with contextlib.ExitStack() as stack:
        named: dict[str, Callable[[], RawArray]] = {}
        for file in _weight_files(path):
            found = stack.enter_context(_READERS[file.suffix](file))
            if doubled := sorted(set(named) & set(found))[:3]:
                raise InputError(f"{shown(file.name)} holds tensors of another file again ({doubled}): name one file")
            named.update(found)
        yield named


def _weight_files(path: Path) -> list[Path]:
    """Those of the first pattern that fits: a checkpoint's folder holds pickles that are no weights, too."""
    if path.is_file():
        if path.suffix not in _READERS:
            raise InputError(f"no tensors are read from files that end in {path.suffix!r}")
        return [path]
    for pattern in ("*.safetensors", "pytorch_model*.bin", "*.keras", "*.npz", "model*.pt", "*.pth", "*.pt", "*.bin"):
        if files := sorted(path.glob(pattern)):
            return files
    raise InputError("no file in the folder holds tensors")


def _state_dict(state: Mapping[Any, Any]) -> Named:
    """The tensors of a state dict, also where it lies under a usual name in a checkpoint."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(inner := state.get(key), Mapping):
            return _state_dict(inner)
    named = {str(name): functools.partial(_array, state, name) for name in state if is_array(state[name])}
    if not named:
        raise InputError("it holds no tensors under names: give a state dict, a model, or the path of its file")
    return named


def _array(tensors: Mapping[Any, Any], name: Any) -> RawArray:
    array = read_array(tensors[name])
    if array is None:
        raise InputError(f"{name} is an array of objects: give arrays of numbers")
    return array


def _keras_tensors(model: Any) -> Named:
    # Keras numbers layers and variables anew in each process, and a loaded model's paths begin elsewhere.
    named = enumerate(model.weights)
    values = {f"{place}/{_NUMBERED.sub('', weight.name)}": weight.value for place, weight in named}
    return {name: functools.partial(_array, values, name) for name in values}


@contextlib.contextmanager
def _safetensors(file: Path) -> Iterator[Named]:
    """The tensors of a safetensors file: 8 bytes of length, a JSON header, then the bytes it points into."""
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        size = int.from_bytes(mapped[:8], "little")
        if len(mapped) < 8 or size > min(_HEADER_LIMIT, len(mapped) - 8):
            raise ValueError(f"a header of {size} bytes in a file of {len(mapped)}")
        header = json.loads(mapped[8 : 8 + size], object_pairs_hook=_without_doubles)
        # A tensor is copied when it is asked for: a view would keep the map open past its end.
        yield {
            name: _located(mapped, name, entry, 8 + size) for name, entry in header.items() if name != "__metadata__"
        }


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("one name occurs twice in the header")
    return dict(pairs)


def _located(mapped: mmap.mmap, name: str, entry: Mapping[str, Any], start: int) -> Callable[[], RawArray]:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    dtype, item = _ITEM_BYTES.get(entry["dtype"], (str(entry["dtype"]).lower(), None))
    if not 0 <= begin <= end <= len(mapped) - start or (item and end - begin != item * math.prod(shape)):
        raise ValueError(f"the bytes of {name} lie outside the file, or are not as many as its shape says")
    return lambda: RawArray(dtype, shape, memoryview(mapped[start + begin : start + end]))


@contextlib.contextmanager
def _npz(file: Path) -> Iterator[Named]:
    with np.load(file, allow_pickle=False) as archive:
        yield {name: functools.partial(_array, archive, name) for name in archive.files}


@contextlib.contextmanager
def _pickled(file: Path) -> Iterator[Named]:
    yield _state_dict(importlib.import_module("torch").load(file, map_location="cpu", weights_only=True))


@contextlib.contextmanager
def _keras_archive(file: Path) -> Iterator[Named]:
    yield _keras_tensors(importlib.import_module("keras").saving.load_model(file, compile=False, safe_mode=True))


_READERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Named]]] = {
    ".safetensors": _safetensors,
    ".npz": _npz,
    ".pt": _pickled,
    ".pth": _pickled,
    ".bin": _pickled,
    ".keras": _keras_archive,
}
