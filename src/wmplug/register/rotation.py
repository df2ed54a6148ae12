"""The entry that names the next signing key: the former key signs it, and the new one proves that it agrees."""

import base64
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wmplug.errors import RegisterError
from wmplug.keys.owner import Owner, commitment_of
from wmplug.register.statements import Entry, Signer, pre_authentication

PROOF_TYPE = "application/vnd.wmplug.rotation+json"


class Log(Protocol):
    """The part of a register that a rotation needs; the class itself builds on this module."""

    id: str
    log: Path

    def entries(self) -> Iterator[Entry]:
        """All entries, in order."""

    def append(self, kind: str, body: Mapping[str, Any], *, event_id: str | None = None) -> Entry:
        """Write one entry."""


AnyLog = TypeVar("AnyLog", bound=Log)


def resume(owner: Owner, open_log: Callable[[Path, Signer], AnyLog]) -> AnyLog:
    """Open the register of an owner of several secrets for writing, and finish a rotation that was cut off.

    Args:
        owner: the owner with the secrets.
        open_log: the class `Register`.

    Raises:
        RegisterError: it cannot be written, or its owner has rotated since `owner` was opened.
    """
    with alone(owner):
        return introduce(owner, open_log)


@contextlib.contextmanager
def alone(owner: Owner) -> Iterator[None]:
    """Exclude other rotations: two at a time would overwrite each other's new secret."""
    import fcntl  # without it, no register is opened for writing

    folder = os.open(owner.path / "secret", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def introduce(owner: Owner, open_log: Callable[[Path, Signer], AnyLog]) -> AnyLog:
    """The register, signed by the newest key; the log gets an entry for each key that it does not know.

    Raises:
        RegisterError: it cannot be written, or its owner has rotated since `owner` was opened.
    """
    signers = [Signer(seed) for seed in owner.signing_seeds()]
    register = open_log(owner.path, signers[0])
    known = [e.body["public"] for e in register.entries() if e.type in ("register.opened", "key.rotated")]
    held = [signer.public.hex() for signer in signers]
    if not known or known[-1] not in held:
        raise RegisterError(
            f"{register.log} is signed by a key that this owner does not hold: there was a rotation since it was "
            "opened, or secret/owner.enc is a copy from before it. Open the owner again, restore the newest copy of "
            "the folder, or `wmplug owner combine` its shares"
        )
    for new in reversed(range(held.index(known[-1]))):
        former = signers[new + 1].keyid
        body = {"former": former, "public": held[new], "commitment": commitment_of(owner.roots()[new])}
        proof = signers[new].sign(claim(register.id, body), PROOF_TYPE)
        open_log(owner.path, signers[new + 1]).append(
            "key.rotated", {**body, "proof": base64.b64encode(proof).decode()}, event_id=f"rotated/{signers[new].keyid}"
        )
    return register


def claim(register: str, body: Mapping[str, Any]) -> bytes:
    """The bytes that the new key signs."""
    return rfc8785.dumps({"register": register, **{name: body[name] for name in ("former", "public", "commitment")}})


def is_proven(register: str, body: Mapping[str, Any]) -> bool:
    """Whether the new key of a `key.rotated` entry has signed that it follows the former one in this register.

    Raises:
        KeyError: the body has another form; so do ValueError and TypeError.
    """
    public, proof = bytes.fromhex(body["public"]), base64.b64decode(body["proof"], validate=True)
    try:
        signed = pre_authentication(claim(register, body), PROOF_TYPE)
        Ed25519PublicKey.from_public_bytes(public).verify(proof, signed)
    except InvalidSignature:
        return False
    return True
