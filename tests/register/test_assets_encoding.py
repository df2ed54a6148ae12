"""The encoding of records: a decoder written from its specification undoes it, so no two records share one."""

import dataclasses
import hashlib
import math
import struct
from datetime import date, datetime
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wmplug.errors import InputError
from wmplug.register.assets import encoding


class Decoder:
    """A second implementation: nothing but the table of the module's docstring."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        assert self.at + count <= len(self.data)
        self.at += count
        return self.data[self.at - count : self.at]

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def value(self):
        tag = self.take(1)
        if tag in b"NTF":
            return (tag,)
        if tag in b"id":
            return tag, self.take(8)
        if tag in b"ISY":
            return tag, self.take(self.u64())
        if tag == b"A":
            dtype = self.value()
            return tag, dtype, tuple(self.u64() for _ in range(self.u64())), self.take(self.u64())
        if tag == b"O":
            shape = tuple(self.u64() for _ in range(self.u64()))
            return tag, shape, tuple(self.value() for _ in range(math.prod(shape)))
        if tag in b"LU":
            return tag, tuple(self.value() for _ in range(self.u64()))
        if tag == b"M":
            return tag, tuple((self.value(), self.value()) for _ in range(self.u64()))
        assert tag in b"PX"
        return tag, tuple(self.value() for _ in range(5 if tag == b"P" else 2))


def decode(data):
    decoder = Decoder(data)
    value = decoder.value()
    assert decoder.at == len(data)
    return value


def plain(value):
    """What a record is, told without the encoder: its kind, and all that makes it differ from another."""
    if value is None or isinstance(value, bool):
        return ({None: b"N", True: b"T", False: b"F"}[value],)
    if isinstance(value, int):
        small = -(2**63) <= value < 2**63
        return (b"i", value.to_bytes(8, "little", signed=True)) if small else (b"I", str(value).encode())
    if isinstance(value, float):
        return b"d", struct.pack("<d", value)
    if isinstance(value, str):
        return b"S", value.encode("utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return b"Y", value
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        return b"A", (b"S", value.dtype.name.encode()), value.shape, little.tobytes()
    if isinstance(value, (list, tuple)):
        return b"L", tuple(map(plain, value))
    return b"M", tuple(sorted(((plain(k), plain(v)) for k, v in value.items()), key=lambda item: length_first(item[0])))


def length_first(key):
    """Order of encoded keys: tag, then for texts the little-endian length, then the bytes."""
    return key[0] + (len(key[1]).to_bytes(8, "little") if key[0] == b"S" else b"") + key[1]


def arrays():
    dtypes = st.sampled_from(["u1", "<i2", ">i4", "<f4", ">f8", "?", "<c8"])
    shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
    return st.builds(
        lambda dtype, shape, seed: np.asarray(np.random.default_rng(seed).integers(0, 2, shape) * seed).astype(dtype),
        dtypes, shapes, st.integers(0, 9),
    )  # fmt: skip


TEXTS = st.text(st.characters(), max_size=5)
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXTS | st.binary(max_size=5)
KEYS = TEXTS | st.integers(-5, 5)
RECORDS = st.recursive(
    SCALARS | arrays(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.lists(st.integers(), max_size=4)
        | st.lists(st.floats(), max_size=4)
    ),
    max_leaves=12,
)


@given(RECORDS)
@settings(max_examples=400, deadline=None)
def test_a_decoder_of_the_specification_finds_the_record_again(record):
    assert decode(encoding.encode(record)) == plain(record)


def arrays_in(value):
    if isinstance(value, np.ndarray):
        return [value]
    held = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [array for item in held for array in arrays_in(item)]


@given(RECORDS)
@settings(max_examples=200, deadline=None)
def test_an_own_copy_has_the_encoding_and_shares_no_array(record):
    copy = encoding.own(record)
    assert encoding.encode(copy) == encoding.encode(record)
    pairs = list(zip(arrays_in(record), arrays_in(copy), strict=True))
    assert not any(np.shares_memory(one, other) for one, other in pairs)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "P", "I;16"])
def test_an_own_copy_of_a_picture_has_its_encoding(mode):
    picture = Image.new(mode, (3, 2), 1)
    copy = encoding.own(picture)
    assert encoding.encode(copy) == encoding.encode(picture)
    copy.putpixel((0, 0), 0)
    assert encoding.encode(copy) != encoding.encode(picture)


@given(RECORDS, RECORDS)
@settings(max_examples=400, deadline=None)
def test_different_records_have_different_encodings(one, other):
    assert (encoding.encode(one) == encoding.encode(other)) == (plain(one) == plain(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([["a"], "b"], [["a", "b"]]),
        (["ab", "c"], ["a", "bc"]),
        ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        ("1", b"1"),
        ("1", 1),
        (None, ""),
        ([], {}),
        ([1, 2], np.array([1, 2])),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.zeros(2, "f4"), np.zeros(2, "i4")),
        (np.float64(1.0), 1.0),
        (np.array(["a", "bc"]), np.array(["ab", "c"])),
        (np.array([1], "datetime64[s]"), np.array([1], "datetime64[ms]")),
        ({1, 2}, [1, 2]),
        (date(2026, 3, 7), datetime(2026, 3, 7)),
        (Decimal("1.0"), Decimal("1.00")),
        (Image.new("L", (2, 3)), Image.new("L", (3, 2))),
        (Image.new("L", (8, 1)), Image.new("P", (8, 1))),
    ],
)
def test_what_is_easily_confused_is_told_apart(one, other):
    assert decode(encoding.encode(one)) != decode(encoding.encode(other))


@dataclasses.dataclass
class Pair:
    a: int
    b: str


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((1, "a"), [1, "a"]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (np.array([1, 2], ">i4"), np.array([1, 2], "<i4")),
        (np.arange(6).reshape(2, 3).T, np.ascontiguousarray(np.arange(6).reshape(2, 3).T)),
        (np.arange(6)[::2], np.array([0, 2, 4])),
        (np.float32(2.5), np.array(2.5, "f4")),
        (np.str_("é"), "é"),
        (Pair(1, "x"), {"a": 1, "b": "x"}),
        (np.array((1, 2.0), [("a", "i4"), ("b", "f8")]), {"a": np.array(1, "i4"), "b": np.array(2.0)}),
        ({3, 1, 2}, {2, 1, 3}),
        (range(3), [0, 1, 2]),
    ],
)
def test_what_is_one_record_has_one_encoding(one, other):
    assert encoding.encode(one) == encoding.encode(other)


def test_the_encoding_of_a_record_never_changes():
    record = {"pixels": np.array([[1, 2]], "<f4"), "label": 3, "text": "é", "more": [None, True, 2.5, b"\x00", 2**64]}
    digest = "15b1fd7d2ee78c3671adee97111fe3582743777b74c3bbe9ee60d254f2ce17f1"
    assert encoding.read_record(record).digest.hex() == digest
    assert hashlib.sha256(b"wmplug/record/1\0" + encoding.encode(record)).hexdigest() == digest
    assert encoding.read_record(record).length == len(encoding.encode(record))


def test_the_schema_names_fields_dtypes_and_shapes():
    record = {"x": np.zeros((2, 3), "f4"), "ids": [1, 2], "mixed": [1, "a"], "picture": Image.new("RGB", (4, 5))}
    assert encoding.read_record(record).schema == {
        "fields": {
            "x": {"array": "float32", "shape": [2, 3]},
            "ids": {"each": "int"},
            "mixed": {"items": ["int", "str"]},
            "picture": {"picture": "RGB", "size": [4, 5]},
        }
    }


def test_what_has_no_encoding_is_refused():
    with pytest.raises(InputError, match="no canonical encoding"):
        encoding.encode({"x": object()})
    with pytest.raises(InputError, match="float64"):
        encoding.encode(np.zeros(2, np.longdouble))
    endless = []
    endless.append(endless)
    with pytest.raises(InputError, match="contains itself"):
        encoding.encode(endless)
