"""Which of the owner's records another record is: exactly, whatever the file format, or nearly.

Exact is the same numbers or the same text. Nearly is, for pictures, a close perceptual hash (ImageHash) and the same
thumbnail but for brightness and contrast; for texts, MinHash of their words (datasketch; Broder 1997); for rows of a
table, the same row in three significant digits. None of this sees the key.
"""

from __future__ import annotations

import hashlib
import importlib
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from wmplug.errors import InputError
from wmplug.statistics.arrays import FloatArray

Array: TypeAlias = npt.NDArray[Any]
Small: TypeAlias = npt.NDArray[np.float32]
K = TypeVar("K", bound=Hashable)
BLOCK = 256  # records that are looked up at once
_BITS, _FAR = 64, 10  # of a perceptual hash, and how many may differ
_THUMB, _ALIKE = 16, 0.97  # side of a thumbnail, and the least correlation of two that are one picture
_CROPPED = 1 / 16  # of each side: what crops of augmentation and cleaning usually take
_WORDS, _JACCARD, _PERMUTATIONS = 3, 0.5, 128
_DIGITS, _EDGE = 3, (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Match(Generic[K]):
    """One record as one of the owner's.

    Attributes:
        own: the name under which the owner's was added.
        how: exact or near.
    """

    own: K
    how: Literal["exact", "near"]


class Likeness(Generic[K]):
    """The owner's records, to be looked up in; some 100 bytes each, 1 kB each for pictures and texts with `near`.

    Args:
        near: also find near-duplicates.

    Raises:
        InputError: `near` needs a package that is not installed.
    """

    def __init__(self, *, near: bool = True) -> None:
        self._near = near
        self._exact: dict[bytes, K] = {}
        self._kinds: dict[str, _Pictures[K] | _Texts[K] | _Rows[K]] = {}

    def __len__(self) -> int:
        """Number of different records."""
        return len(self._exact)

    def add(self, own: K, value: Any) -> None:
        """One of the owner's records; of two that are the same, the first counts.

        Args:
            own: what `find` calls it.
            value: a PIL picture, an array or a text.
        """
        known = len(self)
        self._exact.setdefault(digest(value), own)
        if len(self) > known and self._near:
            kind = _kind(value)
            if kind not in self._kinds:
                self._kinds[kind] = _Pictures() if kind == "picture" else _Texts() if kind == "text" else _Rows()
            self._kinds[kind].add(own, value)

    def find(self, values: Sequence[Any]) -> list[Match[K] | None]:
        """Which of the owner's records each value is, None for none; best some hundred values a call."""
        found: list[Match[K] | None] = [None] * len(values)
        unknown: dict[str, list[int]] = defaultdict(list)
        for i, value in enumerate(values):
            if (key := digest(value)) in self._exact:
                found[i] = Match(self._exact[key], "exact")
            elif (kind := _kind(value)) in self._kinds:
                unknown[kind].append(i)
        for kind, rows in unknown.items():
            for i, own in zip(rows, self._kinds[kind].find([values[i] for i in rows]), strict=True):
                found[i] = None if own is None else Match(own, "near")
        return found


def digest(value: Any) -> bytes:
    """16 bytes that are the same for the same text, or the same numbers in the same order, whatever their dtype.

    A picture of 28 x 28, its array and its row of 784 columns are one; so are a grey picture and the same in RGB.
    """
    if isinstance(value, str):
        return hashlib.blake2b(b"t" + value.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    numbers = np.ascontiguousarray(pixels(value), "<f8") + 0.0  # minus zero is zero
    return hashlib.blake2b(b"n" + numbers.tobytes(), digest_size=16).digest()


def pixels(value: Any) -> Array:
    """The numbers of a picture or an array; grey ones without channels.

    Raises:
        InputError: it holds no numbers.
    """
    if isinstance(value, Image.Image):
        value = value.convert("RGB" if value.mode not in ("L", "I", "F", "I;16") else value.mode)
    array = np.asarray(value)
    if array.dtype.kind not in "uifb":
        raise InputError(f"a record is an array of {array.dtype}: numbers, texts and pictures can be looked up")
    if array.ndim == 3 and array.shape[-1] == 3 and (array == array[..., :1]).all():
        array = array[..., 0]
    return array.squeeze()


def similarity(value: Any, other: Any) -> float:
    """How alike two records of one kind are: of several that came from one record, the nearest to a copy is largest."""
    if isinstance(value, str) or isinstance(other, str):
        runs, others = _shingles(str(value)), _shingles(str(other))
        return len(runs & others) / len(runs | others) + float(value == other)
    if _kind(value) == _kind(other) == "picture":
        small, large = _grey(value), _grey(other)
        small = small.resize(large.size, Image.Resampling.LANCZOS)
        return float(np.vdot(_unit(np.asarray(small)), _unit(np.asarray(large))))
    mine, theirs = (np.asarray(pixels(one), np.float64).ravel() for one in (value, other))
    if len(mine) != len(theirs):
        return -np.inf
    return -float(np.square((mine - theirs) / np.maximum(np.abs(theirs), 1e-9)).sum())


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    return "picture" if isinstance(value, Image.Image) or pixels(value).ndim > 1 else "row"


class _Pictures(Generic[K]):
    """Perceptual hashes and thumbnails, also of the usual crop and of the mirror image."""

    def __init__(self) -> None:
        self._hash = _package("imagehash", "ImageHash").phash
        self._own: list[K] = []
        self._seen: list[tuple[Small, Small]] = []
        self._stacked: tuple[Array, Array] | None = None

    def add(self, own: K, value: Any) -> None:
        for picture in _views(_grey(value)):
            self._own.append(own)
            self._seen.append(self._facts(picture))
        self._stacked = None

    def find(self, values: Sequence[Any]) -> list[K | None]:
        if self._stacked is None:
            self._stacked = np.stack([bits for bits, _ in self._seen]), np.stack([small for _, small in self._seen])
        asked = [self._facts(_grey(value)) for value in values]
        differ = (_BITS - np.stack([bits for bits, _ in asked]) @ self._stacked[0].T) / 2
        alike = np.stack([small for _, small in asked]) @ self._stacked[1].T
        alike[differ > _FAR] = 0.0
        best = alike.argmax(axis=1)
        return [self._own[b] if alike[i, b] >= _ALIKE else None for i, b in enumerate(best)]

    def _facts(self, picture: Image.Image) -> tuple[Small, Small]:
        small = picture.resize((_THUMB, _THUMB), Image.Resampling.LANCZOS)
        bits = 2 * np.asarray(self._hash(picture).hash, np.float32).ravel() - 1
        return np.asarray(bits, np.float32), _unit(np.asarray(small))


def _views(picture: Image.Image) -> tuple[Image.Image, ...]:
    width, height = picture.size
    left, top = round(width * _CROPPED), round(height * _CROPPED)
    return (
        picture,
        picture.crop((left, top, width - left, height - top)),
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    )


def _grey(value: Any) -> Image.Image:
    """A picture of 8 bits and full contrast, so that scaling and normalising change nothing."""
    array = np.asarray(pixels(value), np.float64)
    if array.ndim == 3:
        array = array.mean(axis=0 if array.shape[0] in (3, 4) else -1)
    low, high = float(array.min()), float(array.max())
    return Image.fromarray(np.rint(255 * (array - low) / max(high - low, 1e-12)).astype(np.uint8))


def _unit(picture: Array) -> Small:
    flat = picture.astype(np.float32).ravel()
    flat -= flat.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-6), np.float32)


class _Texts(Generic[K]):
    """MinHash of runs of three words, in lower case."""

    def __init__(self) -> None:
        sketch = _package("datasketch", "datasketch")
        self._minhash = sketch.MinHash
        self._index = sketch.MinHashLSH(threshold=_JACCARD, num_perm=_PERMUTATIONS)
        self._own: dict[K, Any] = {}

    def add(self, own: K, value: str) -> None:
        self._own[own] = self._sketch(value)
        self._index.insert(own, self._own[own])

    def find(self, values: Sequence[str]) -> list[K | None]:
        return [self._nearest(self._sketch(value)) for value in values]

    def _nearest(self, sketch: Any) -> K | None:
        shares: dict[K, float] = {own: sketch.jaccard(self._own[own]) for own in self._index.query(sketch)}
        nearest = max(shares, key=lambda own: shares[own], default=None)
        return nearest if nearest is not None and shares[nearest] >= _JACCARD else None

    def _sketch(self, text: str) -> Any:
        sketch = self._minhash(num_perm=_PERMUTATIONS)
        sketch.update_batch([shingle.encode("utf-8", "surrogatepass") for shingle in _shingles(text)])
        return sketch


def _shingles(text: str) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[i : i + _WORDS]) for i in range(max(1, len(words) - _WORDS + 1))}


class _Rows(Generic[K]):
    """Rows in three significant digits; a number that lies on the edge of rounding hides its row."""

    def __init__(self) -> None:
        self._own: dict[bytes, K] = {}

    def add(self, own: K, value: Any) -> None:
        self._own.setdefault(digest(_rounded(value)), own)

    def find(self, values: Sequence[Any]) -> list[K | None]:
        return [self._own.get(digest(_rounded(value))) for value in values]


def _rounded(value: Any) -> FloatArray:
    row = np.asarray(value, np.float64)
    size = np.floor(np.log10(np.maximum(np.abs(row), 1e-300)))
    with np.errstate(invalid="ignore"):  # of infinity
        # In whole numbers of the last digit kept: a product with a power of ten would differ in its last bits. What is
        # written in decimals never lies on an edge that is an irrational part of a digit away.
        return np.stack([np.floor(row / 10.0 ** (size - _DIGITS + 1) + _EDGE), size])


def _package(module: str, distribution: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise InputError(
            f"near-duplicates are found with {distribution}, which is not installed: pip install 'wmplug[dataset]', or "
            "look for exact copies alone (near=False)"
        ) from None
