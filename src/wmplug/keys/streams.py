"""Key derivation: HKDF-SHA256 (RFC 5869), uniform numbers, and the subkeys of one watermark.

Input and label subkeys are independent, so you can test the null hypothesis of every verdict (the suspect is
independent of the label key) with other label keys, without another query.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wmplug.errors import InputError

Purpose = Literal["input", "label", "schedule", "disclosure"]


SECRET_BYTES = 32


def derive(secret: bytes, info: str, length: int = 32) -> bytes:
    """HKDF-SHA256 without salt: independent bytes for each `info`."""
    return HKDF(hashes.SHA256(), length, None, info.encode()).derive(secret)


class KeyStream:
    """Uniform numbers from a subkey: the AES-256-CTR key stream, read in order.

    NumPy's generators may change between releases, while a trigger set must be derived again years later.
    """

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes."""
        return self._encryptor.update(bytes(count))

    def below(self, bound: int, count: int) -> npt.NDArray[np.int64]:
        """Integers (count,) uniform over range(bound), by rejection and never by modulo of an uneven range."""
        if not 1 <= bound <= 2**31:
            raise InputError(f"cannot draw below {bound}: the bound must lie between 1 and 2**31")
        limit = 2**32 - 2**32 % bound
        drawn = np.empty(0, np.int64)
        while len(drawn) < count:
            words = np.frombuffer(self.bytes(4 * (count - len(drawn))), "<u4").astype(np.int64)
            drawn = np.concatenate([drawn, words[words < limit] % bound])
        return drawn

    def uniform(self, *shape: int) -> npt.NDArray[np.float64]:
        """Floats of `shape`, uniform over [0, 1) in steps of 2**-53."""
        words = np.frombuffer(self.bytes(8 * int(np.prod(shape))), "<u8")
        uniform: npt.NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return uniform.reshape(shape)

    def permutation(self, length: int) -> npt.NDArray[np.int64]:
        """A uniform permutation of range(length), by sorting 64-bit words (a tie: below length**2 / 2**65)."""
        return np.argsort(np.frombuffer(self.bytes(8 * length), "<u8"), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class Subkeys:
    """The four independent subkeys of one watermark; never printed."""

    _keys: dict[Purpose, bytes] = field(repr=False)

    @classmethod
    def derive(cls, key: bytes, watermark: str) -> "Subkeys":
        """Subkeys of the key of the watermark whose public id is `watermark`."""
        purposes: tuple[Purpose, ...] = ("input", "label", "schedule", "disclosure")
        return cls({p: derive(key, f"wmplug/1/{p}/{watermark}") for p in purposes})

    def with_inputs_of(self, other: "Subkeys") -> "Subkeys":
        """The same, with the input key of another."""
        return Subkeys({**self._keys, "input": other.key("input")})

    def key(self, purpose: Purpose) -> bytes:
        """The 32 bytes for one purpose."""
        return self._keys[purpose]

    def stream(self, purpose: Purpose, name: str = "") -> KeyStream:
        """A fresh stream for one purpose; another `name` gives an independent one."""
        return KeyStream(derive(self._keys[purpose], f"stream/{name}"))

    def __reduce__(self) -> Any:
        raise TypeError("subkeys are secret and not pickled: save the watermark instead (mark.save)")
