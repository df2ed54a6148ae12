"""Receipts, which reveal a log that was shortened or rewritten; and the difference between two copies of a log."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wmplug.errors import RegisterError
from wmplug.keys.files import read_json
from wmplug.register import Register, Signer
from wmplug.register.statements import pre_authentication

PAYLOAD_TYPE = "application/vnd.wmplug.receipt+json"


@dataclass(frozen=True)
class Receipt:
    """The owner's signed statement of the head of the log at some moment.

    Attributes:
        register: id of the register.
        seq: number of the last entry.
        hash: its entry hash, in hex.
        keyid: id of the key that signed.
        signature: signature over register, seq and hash.
    """

    register: str
    seq: int
    hash: str
    keyid: str
    signature: bytes = field(repr=False)

    def verify(self, public: bytes) -> bool:
        """Whether this key (32 bytes) signed it."""
        try:
            signed = pre_authentication(_payload(self.register, self.seq, self.hash), PAYLOAD_TYPE)
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, signed)
        except (InvalidSignature, rfc8785.CanonicalizationError):
            return False
        return True

    def to_json(self) -> dict[str, Any]:
        """The document to give out."""
        sig = base64.b64encode(self.signature).decode()
        return {"register": self.register, "seq": self.seq, "hash": self.hash, "keyid": self.keyid, "sig": sig}

    @classmethod
    def from_json(cls, document: Any) -> "Receipt":
        """Read a receipt.

        Raises:
            RegisterError: the document is not a receipt.
        """
        try:
            return cls(
                str(document["register"]),
                int(document["seq"]),
                str(document["hash"]),
                str(document["keyid"]),
                base64.b64decode(document["sig"], validate=True),
            )
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise RegisterError(
                f"this is not a receipt ({type(error).__name__}: {error}): give the file that `wmplug "
                "register receipt` wrote"
            ) from error


def _payload(register: str, seq: int, digest: str) -> bytes:
    return rfc8785.dumps({"register": register, "seq": seq, "hash": digest})


def receipt(register: Register, signer: Signer) -> Receipt:
    """A receipt for the log's present head.

    Raises:
        RegisterError: the log has no entry.
    """
    head = register.head
    if head is None:
        raise RegisterError(f"{register.log} has no entry yet to give a receipt for: record something first")
    signature = signer.sign(_payload(register.id, head.seq, head.hash), PAYLOAD_TYPE)
    return Receipt(register.id, head.seq, head.hash, signer.keyid, signature)


def read(path: Path) -> Receipt:
    """A receipt from a file.

    Raises:
        RegisterError: it is not a receipt.
    """
    try:
        return Receipt.from_json(read_json(path))
    except (OSError, ValueError) as error:
        raise RegisterError(
            f"{path} is not a receipt ({error}): give the file that `wmplug register receipt` wrote"
        ) from error


@dataclass(frozen=True)
class Difference:
    """The relation of two copies of a log.

    Attributes:
        common: number of entries that both begin with.
        first: number of entries that follow in the first alone.
        second: number of entries that follow in the second alone.
    """

    common: int
    first: int
    second: int

    @property
    def relation(self) -> str:
        """`same`, `first-older` or `second-older` (one continues the other), or `fork`."""
        if not (self.first or self.second):
            return "same"
        if self.first and self.second:
            return "fork"
        return "second-older" if self.first else "first-older"


def diff(first: Register, second: Register) -> Difference:
    """Compare two copies of one register, entry by entry.

    Raises:
        RegisterError: the copies belong to two registers.
        CorruptEntryError: one of the copies is damaged.
    """
    if first.id != second.id:
        raise RegisterError(
            f"{first.path} and {second.path} are two registers ({first.id[:16]}, {second.id[:16]})"
            ": give two copies of one"
        )
    ours, theirs = ([entry.hash for entry in register.entries()] for register in (first, second))
    common = 0
    while common < min(len(ours), len(theirs)) and ours[common] == theirs[common]:
        common += 1
    return Difference(common, len(ours) - common, len(theirs) - common)
