"""The canonical encoding of one record, and the digest over it; version `wmplug/record/1`.

A second implementation needs this page only. `u64(n)` is n as 8 bytes, little-endian. A value is one tag byte and then:

| tag | value | bytes after the tag |
|---|---|---|
| `N` `T` `F` | nothing, true, false | none |
| `i` | integer from -2**63 to 2**63 - 1 | two's complement, 8 bytes, little-endian |
| `I` | any other integer | u64(length), ASCII decimal, `-` in front where negative |
| `d` | floating-point number | IEEE 754 binary64, 8 bytes, little-endian; the bits of a NaN are kept |
| `S` | text | u64(length), UTF-8; a lone surrogate as its own three bytes |
| `Y` | bytes | u64(length), the bytes |
| `A` | array of numbers | `S` name of its dtype, u64(dimensions), u64 of each, u64(length), elements |
| `O` | array of texts, bytes or objects | u64(dimensions), u64 of each, the encoding of each element in C order |
| `L` | sequence | u64(count), the encoding of each item |
| `M` | mapping | u64(count), then key and value of each item, ordered by the bytes of the encoded key |
| `U` | set | u64(count), the encodings of the items, ordered by their bytes |
| `P` | picture | `S` mode, `i` width, `i` height, `Y` palette (empty but for modes P and PA), `Y` pixels, row by row |
| `X` | date, time, decimal number, UUID | `S` class name, `S` ISO 8601 or decimal text |

Every value encodes its own length, so two different records never share an encoding. Elements lie in C order, their
bytes little-endian, and a dtype has its name in NumPy and torch (`float32`, `bfloat16`, `bool`). Lists and tuples are
one kind; a NumPy scalar and a tensor without dimensions are arrays without dimensions; a structured array and a
dataclass are the mappings of their fields. The digest of a record is SHA-256("wmplug/record/1" || 0x00 || encoding).
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import struct
import sys
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError

VERSION = "wmplug/record/1"
Schema: TypeAlias = Any  # what JSON can hold
Put: TypeAlias = Callable[[Any], object]
PREFIX = VERSION.encode() + b"\0"
_PLAIN = frozenset(np.dtype(code) for code in "bBhHiIqQefd?") if sys.byteorder == "little" else frozenset()
_PACKED: dict[type, tuple[bytes, str]] = {int: (b"i", "<i8"), float: (b"d", "<f8")}


class RawArray(NamedTuple):
    """An array as it is hashed: the name of its dtype, its shape, its bytes in C order and little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview


class Record(NamedTuple):
    """The digest of a record (32 bytes), the length of its encoding in bytes, and its schema."""

    digest: bytes
    length: int
    schema: Schema


def read_record(value: Any) -> Record:
    """Digest and schema of one record.

    Raises:
        InputError: the record holds something without an encoding, or contains itself.
    """
    pieces: list[Any] = []
    schema = _feed_whole(value, pieces.append)
    digest, length = hashlib.sha256(PREFIX), 0
    for piece in pieces:
        digest.update(piece)
        length += len(piece)
    return Record(digest.digest(), length, schema)


def encode(value: Any) -> bytes:
    """The canonical encoding of one record.

    Raises:
        InputError: the record holds something without an encoding, or contains itself.
    """
    pieces: list[Any] = []
    _feed_whole(value, pieces.append)
    return b"".join(pieces)


def own(value: Any) -> Any:
    """A copy, in plain types and of the same encoding, that nothing else can reach.

    Tensors stay tensors on their device; arrays of other frameworks become NumPy's, mappings dicts.

    Raises:
        InputError: it holds something else than mappings, sequences, arrays, tensors, PIL pictures and scalars.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, Mapping):
        return {own(key): own(value[key]) for key in value}
    if isinstance(value, (list, tuple)):
        return [own(item) for item in value] if isinstance(value, list) else tuple(own(item) for item in value)
    if hasattr(value, "as_subclass") and hasattr(value, "layout"):
        torch = sys.modules["torch"]
        plain = value.as_subclass(torch.Tensor)
        if type(plain) is torch.Tensor:
            return plain.detach().clone()
    elif is_array(value):
        array = np.array(value)
        if not array.dtype.hasobject:
            return array
    elif hasattr(value, "getpalette"):
        from PIL import Image

        copy = Image.frombytes(value.mode, value.size, value.tobytes())
        if value.mode in ("P", "PA"):
            copy.putpalette(value.getpalette(), "RGB")
        return copy
    raise InputError(
        f"a {type(value).__name__} cannot be copied in plain types: give arrays, tensors, pictures or texts"
    )


def u64(number: int) -> bytes:
    """The number as 8 bytes, little-endian."""
    return number.to_bytes(8, "little")


def read_array(value: Any) -> RawArray | None:
    """An array or a dense tensor of any framework, as it is hashed; None for other values and arrays of objects.

    Raises:
        InputError: its bytes depend on the machine, or are not all here (sparse, quantised, sharded, meta).
    """
    if not is_array(value):
        return None
    if hasattr(value, "detach") and hasattr(value, "layout"):
        return _torch_array(value)
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.kind in "USOT" or array.dtype.names:
        return None
    if array.dtype.char in "gG":
        raise InputError(f"an array has dtype {array.dtype}, whose bytes differ between machines: give float64")
    shape = array.shape
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    return RawArray(array.dtype.name, shape, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def is_array(value: Any) -> bool:
    """Whether it is an array or a tensor of any framework."""
    return hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape")


def _torch_array(tensor: Any) -> RawArray:
    torch = sys.modules["torch"]
    name = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or hasattr(tensor, "full_tensor"):
        raise InputError(
            f"a {type(tensor).__name__} of dtype {name} on {tensor.device} is sparse, quantised, sharded or without "
            "data: give dense tensors, or the files that were saved"
        )
    flat = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
    return RawArray(name, tuple(tensor.shape), flat.view(torch.uint8).numpy().data)


def _feed_whole(value: Any, put: Put) -> Schema:
    try:
        return _feed(value, put)
    except RecursionError:
        raise InputError("a record is nested without end, or contains itself: give plain values") from None


def _feed(value: Any, put: Put) -> Schema:
    if type(value) is np.ndarray and value.dtype in _PLAIN and value.size and value.flags.c_contiguous:
        head, schema = _plain_head(value.dtype, value.shape)
        put(head)
        put(value.data.cast("B"))
        return schema
    if isinstance(value, np.generic) and not isinstance(value, (str, bytes)):
        value = np.asarray(value)  # before float, of which numpy.float64 is a subclass
    if value is None or isinstance(value, (bool, int, float, str, bytes, bytearray)):
        return _feed_scalar(value, put)
    if isinstance(value, Mapping):
        return _feed_mapping(value, put)
    if isinstance(value, Sequence):
        return _feed_sequence(value, put)
    if (array := read_array(value)) is not None:
        put(b"A" + _text(array.dtype) + _shape(array.shape) + u64(len(array.data)))
        put(array.data)
        return {"array": array.dtype, "shape": list(array.shape)}
    if isinstance(value, np.ndarray):
        return _feed_objects(value, put)
    return _feed_other(value, put)


@lru_cache(maxsize=1024)
def _plain_head(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[bytes, Schema]:
    """The bytes before the elements of a plain array; cached, as a training set holds thousands of such arrays."""
    length = dtype.itemsize * math.prod(shape)
    return b"A" + _text(dtype.name) + _shape(shape) + u64(length), {"array": dtype.name, "shape": list(shape)}


def _feed_scalar(value: Any, put: Put) -> Schema:
    if value is None:
        put(b"N")
        return "null"
    if isinstance(value, bool):
        put(b"T" if value else b"F")
        return "bool"
    if isinstance(value, int):
        put(b"i" + struct.pack("<q", value) if -(2**63) <= value < 2**63 else b"I" + _sized(str(int(value)).encode()))
        return "int"
    if isinstance(value, float):
        put(b"d" + struct.pack("<d", value))
        return "float"
    if isinstance(value, str):
        put(_text(value))
        return "str"
    put(b"Y" + _sized(value))
    return "bytes"


def _feed_mapping(value: Mapping[Any, Any], put: Put) -> Schema:
    put(b"M" + u64(len(value)))
    fields: dict[str, Schema] = {}
    for encoded, key in sorted(((encode(key), key) for key in value), key=lambda pair: pair[0]):
        put(encoded)
        fields[_encodable(str(key))] = _feed(value[key], put)
    return {"fields": fields}


def _feed_sequence(value: Sequence[Any], put: Put) -> Schema:
    put(b"L" + u64(len(value)))
    types = set(map(type, value))
    if len(types) == 1 and (packed := _packed(value, types.pop())) is not None:
        put(packed)
        return {"each": "int" if type(value[0]) is int else "float"}
    schemas = [_feed(item, put) for item in value]
    if all(schema == schemas[0] for schema in schemas):
        return {"each": schemas[0] if schemas else None}
    return {"items": schemas}


def _packed(value: Sequence[Any], kind: type) -> bytes | None:
    """Many plain numbers at once: token ids come by the thousand, and one at a time they are slow."""
    if kind not in _PACKED:
        return None
    tag, dtype = _PACKED[kind]
    packed = np.empty(len(value), [("tag", "S1"), ("value", dtype)])
    packed["tag"] = tag
    try:
        packed["value"] = value
    except OverflowError:
        return None
    return packed.tobytes()


def _feed_objects(array: npt.NDArray[Any], put: Put) -> Schema:
    if array.dtype.names:
        return _feed_mapping({name: array[name] for name in array.dtype.names}, put)
    put(b"O" + _shape(array.shape))
    for item in array.reshape(-1).tolist():
        _feed(item, put)
    return {"array": "object", "shape": list(array.shape)}


def _feed_other(value: Any, put: Put) -> Schema:
    name = type(value).__name__
    if isinstance(value, Set):
        put(b"U" + u64(len(value)))
        for item in sorted(encode(item) for item in value):
            put(item)
        return "set"
    if isinstance(value, (date, time)):
        put(b"X" + _text(name) + _text(value.isoformat()))
        return name
    if isinstance(value, (Decimal, UUID, timedelta)):
        put(b"X" + _text(name) + _text(str(value)))
        return name
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _feed_mapping({field.name: getattr(value, field.name) for field in dataclasses.fields(value)}, put)
    if all(hasattr(value, part) for part in ("mode", "size", "tobytes", "getpalette")):
        return _feed_picture(value, put)
    raise InputError(
        f"a record holds a {type(value).__module__}.{type(value).__qualname__}, which has no canonical encoding: give "
        "numbers, texts, bytes, arrays, tensors, PIL pictures, and lists or dicts of them"
    )


def _feed_picture(picture: Any, put: Put) -> Schema:
    pixels = picture.tobytes()  # loads a picture that was only opened, and its palette with it
    palette = bytes(picture.getpalette() or ()) if picture.mode in ("P", "PA") else b""
    put(b"P" + _text(picture.mode))
    for number in picture.size:
        _feed_scalar(number, put)
    put(b"Y" + _sized(palette) + b"Y" + _sized(pixels))
    return {"picture": picture.mode, "size": list(picture.size)}


def _sized(data: bytes | bytearray) -> bytes:
    return u64(len(data)) + data


def _text(text: str) -> bytes:
    return b"S" + _sized(text.encode("utf-8", "surrogatepass"))


def _shape(shape: tuple[int, ...]) -> bytes:
    return u64(len(shape)) + b"".join(u64(size) for size in shape)


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
