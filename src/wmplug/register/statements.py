"""One entry of a register: an in-toto Statement v1 in a DSSE envelope, one JSON line.

The payload is canonical JSON (RFC 8785); the signature (Ed25519, RFC 8032) is over DSSE's pre-authentication encoding
of it. A reader hashes and checks the stored bytes and never rewrites them first.
"""

import base64
import binascii
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from wmplug.errors import CorruptEntryError, RegisterError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:wmplug:register:v1"
FIRST = "0" * 64  # the first entry names this as the hash of the entry before
TYPES = frozenset(
    {
        *("register.opened", "owner.identity", "key.rotated", "key.revoked", "anchor", "retimestamp", "recovered"),
        *("dataset.committed", "architecture.committed", "parameters.committed", "system.committed"),
        *("artwork.committed", "secret.committed", "triggers.committed", "disclosure", "trigger.spent"),
        *("training.started", "training.checkpoint", "training.finished", "watermark.inserted"),
        *("model.released", "model.derived", "suspect.acquired", "suspect.verified"),
    }
)
_PREDICATE = {"register": str, "seq": int, "prev": str, "type": str, "event_id": str, "claimed_time": str, "body": dict}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")
_PLAIN = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
# Real numbers that Python writes otherwise than canonical JSON does (5.0, 1e-07, 1e+16), or that it has no form for.
_OTHER_REAL = re.compile(r"\.0$|e-0|e\+(1[6-9]|20)$|[NI]")


@dataclass(frozen=True)
class Entry:
    """One entry, as read.

    Attributes:
        seq: its number, from 0.
        prev: entry hash of the one before, in hex.
        type: one of `TYPES`.
        body: the event's facts, a JSON object.
        event_id: id of the event; a retry of the same event has the same one.
        claimed_time: time by the writer's clock (UTC); a claim, not a proof.
        register: the owner's commitment, in hex.
        subject: the things that the entry is about, as (name, SHA-256 in hex) pairs.
        keyid: SHA-256 of the public key that signed, in hex.
        payload: the stored bytes.
        signature: 64 bytes.
        offset: position of its line in the log.
    """

    seq: int
    prev: str
    type: str
    body: Mapping[str, Any]
    event_id: str
    claimed_time: str
    register: str
    subject: tuple[tuple[str, str], ...]
    keyid: str
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    offset: int

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 over a domain tag and the stored payload, in hex."""
        return hashlib.sha256(b"wmplug/entry/v1\x00" + self.payload).hexdigest()

    def verify(self, public: bytes) -> bool:
        """Whether the key (32 bytes) signed this payload."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(self.signature, pre_authentication(self.payload))
        except InvalidSignature:
            return False
        return True


class Signer:
    """An Ed25519 key that signs entries; never printed, never pickled.

    Args:
        seed: its 32 secret bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()
        self.keyid = keyid_of(self.public)

    def sign(self, payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
        """64 bytes over the pre-authentication encoding."""
        return self._key.sign(pre_authentication(payload, payload_type))

    def __reduce__(self) -> Any:
        raise TypeError("a signing key is not pickled: open the owner where it is needed (Owner.open)")


def keyid_of(public: bytes) -> str:
    """SHA-256 of the raw public key, in hex."""
    return hashlib.sha256(public).hexdigest()


def pre_authentication(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """DSSE v1: type and payload with their lengths, so that neither can pass for a part of the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def encode(predicate: Mapping[str, Any], subject: Sequence[tuple[str, str]], signer: Signer) -> bytes:
    """A signed line, newline included.

    Args:
        predicate: register, seq, prev, type, event_id, claimed_time and body.
        subject: (name, SHA-256 in hex) of the things that the entry is about; the register itself if nothing else is.
        signer: signs the entry.
    """
    about = list(subject) or [("register", predicate["register"])]
    payload = rfc8785.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in about],
            "predicateType": PREDICATE_TYPE,
            "predicate": dict(predicate),
        }
    )
    return _line(payload, signer.keyid, signer.sign(payload))


def _line(payload: bytes, keyid: Any, signature: bytes) -> bytes:
    return b'{"payload":"%b","payloadType":"%b","signatures":[{"keyid":%b,"sig":"%b"}]}\n' % (
        base64.b64encode(payload),
        PAYLOAD_TYPE.encode(),
        json.dumps(keyid).encode(),
        base64.b64encode(signature),
    )


def decode(line: bytes, seq: int, offset: int) -> Entry:
    """Read an entry from its line, without a check of the signature.

    Args:
        line: the line with its newline.
        seq: expected number of the entry, for the error.
        offset: position of the line in the log.

    Raises:
        CorruptEntryError: `encode` did not write this line.
    """

    def refuse(code: str, why: str) -> CorruptEntryError:
        return CorruptEntryError(f"entry {seq} at byte {offset}: {why}", seq=seq, offset=offset, code=code)

    try:
        envelope = json.loads(line)
        (signature,) = envelope["signatures"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signed = base64.b64decode(signature["sig"], validate=True)
        keyid = signature["keyid"]
        written = _line(payload, keyid, signed)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise refuse("not-an-envelope", "this is not a signed envelope: the log was edited or damaged here") from None
    if written != line or len(signed) != 64:
        raise refuse("not-canonical", "the envelope has bytes that its writer never writes: it was edited")
    return _entry(payload, signed, keyid, offset, refuse)


def decode_known(line: bytes, seq: int, offset: int) -> Entry:
    """The entry that `decode` returned for this very line; what follows from the bytes alone is not checked again.

    Raises:
        RegisterError: it returned none.
    """
    try:
        envelope = json.loads(line)
        payload, (signature,) = binascii.a2b_base64(envelope["payload"]), envelope["signatures"]
        statement = _AGAIN.decode(payload.decode())
        subject = tuple((about["name"], about["digest"]["sha256"]) for about in statement["subject"])
        keyid, signed = signature["keyid"], binascii.a2b_base64(signature["sig"])
        return Entry(
            **statement["predicate"], subject=subject, keyid=keyid, payload=payload, signature=signed, offset=offset
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RegisterError(f"entry {seq} at byte {offset} changed while the log was read: check it again") from None


def _whole(text: str) -> int | float:
    # Canonical JSON writes the number 1e20 like an integer.
    return int(text) if abs(float(text)) < 2**53 else float(text)


_AGAIN = json.JSONDecoder(parse_int=_whole)


def _parsed(payload: bytes) -> tuple[Any, bool]:
    """JSON, and whether it is written canonically (RFC 8785)."""
    foreign = False

    def real(text: str) -> float:
        nonlocal foreign
        foreign = foreign or _OTHER_REAL.search(text) is not None
        return float(text)

    def whole(text: str) -> int | float:
        # Canonical JSON writes the number 1e20 like an integer.
        return int(text) if abs(float(text)) < 2**53 else real(text)

    statement = json.loads(payload, parse_float=real, parse_int=whole, parse_constant=real)
    # Python's own encoder is many times faster; it differs for some reals, and in the order of names beyond ASCII.
    if payload.isascii() and not foreign and _PLAIN.encode(statement).encode() == payload:
        return statement, True
    return statement, rfc8785.dumps(statement) == payload


def _entry(payload: bytes, signature: bytes, keyid: str, offset: int, refuse: Any) -> Entry:
    try:
        statement, canonical = _parsed(payload)
        predicate = statement["predicate"]
        subject = tuple((about["name"], about["digest"]["sha256"]) for about in statement["subject"])
        types = (statement["_type"], statement["predicateType"])
    except (ValueError, KeyError, TypeError, RecursionError, rfc8785.CanonicalizationError):
        raise refuse("not-a-statement", "its payload is not an in-toto statement: the log was edited here") from None
    if not canonical:
        raise refuse("not-canonical", "its payload is not canonical JSON (RFC 8785): it was not written by wmplug")
    if types != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise refuse("unknown-version", f"its statement is of type {types}: a newer wmplug may know it")
    if not isinstance(predicate, dict) or {k: type(v) for k, v in predicate.items()} != _PREDICATE:
        raise refuse("not-a-statement", "its predicate has other fields than those of an entry")
    if predicate["type"] not in TYPES:
        raise refuse("unknown-type", f"its type {predicate['type'][:80]!r} is unknown: a newer wmplug may know it")
    hashes = [predicate["prev"], predicate["register"], keyid, *(digest for _, digest in subject)]
    if not all(isinstance(value, str) and _HASH.fullmatch(value) for value in hashes):
        raise refuse("not-a-statement", "one of its hashes is not a SHA-256 in hex")
    if not TIME.fullmatch(predicate["claimed_time"]):
        raise refuse("not-a-statement", "its claimed time is not a UTC time such as 2026-01-31T12:00:00Z")
    return Entry(**predicate, subject=subject, keyid=keyid, payload=payload, signature=signature, offset=offset)
