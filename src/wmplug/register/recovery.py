"""What an owner does when a key is old, in wrong hands, or lost: rotate, revoke, split into shares, combine them again.

A rotation adds a new secret; the former ones stay, since older watermarks follow from them. `secret/owner.enc` is
written before the log says who signs, so a rotation that was cut off in between is finished by whoever opens the
register next.
"""

import base64
import contextlib
import itertools
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wmplug import plugins
from wmplug.errors import EvidenceWarning, InputError, KeyFileError, RegisterError
from wmplug.keys.files import write_new
from wmplug.keys.owner import Owner, commitment_of
from wmplug.keys.sealing import FORMAT, SCRYPT_N, Seal, of_kind, read_header
from wmplug.keys.streams import SECRET_BYTES, derive
from wmplug.register import Entry, Register, Signer
from wmplug.register.statements import keyid_of, pre_authentication

PROOF_TYPE = "application/vnd.wmplug.rotation+json"
FORMER = "former.enc"


def rotate(owner: Owner, *, passphrase: str | None = None) -> Owner:
    """Draw a new secret; what signs the register, and what new watermarks follow from, is its own from now on.

    Args:
        owner: who holds all former secrets; not to be used any more after this.
        passphrase: a new one, for all of them; the same as before by default.

    Raises:
        InputError: the passphrase is empty.
        RegisterError: the register cannot be written, or its owner has rotated since `owner` was opened.
    """
    seal = owner.seal() if passphrase is None else Seal.make(passphrase, n=owner.seal().n)
    Register.of(owner)
    with _alone(owner):
        _introduce(owner)
        roots = (os.urandom(SECRET_BYTES), *owner.roots())
        rotated = Owner(owner.name, owner.commitment, owner.path, roots, seal)
        _keep_former(rotated)
        rotated.store()
        _introduce(rotated)
    return rotated


def resume(owner: Owner) -> Register:
    """Open the register of an owner of several secrets for writing, and finish a rotation that was cut off.

    Raises:
        RegisterError: it cannot be written, or its owner has rotated since `owner` was opened.
    """
    with _alone(owner):
        return _introduce(owner)


@contextlib.contextmanager
def _alone(owner: Owner) -> Iterator[None]:
    """Two rotations at a time would overwrite each other's new secret."""
    import fcntl  # where there is none, no register is opened for writing

    folder = os.open(owner.path / "secret", os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _introduce(owner: Owner) -> Register:
    """The register, signed by the newest key, which the log is told of if it does not know."""
    signers = [Signer(seed) for seed in owner.signing_seeds()]
    register = Register(owner.path, signers[0])
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
        proof = signers[new].sign(_claim(register.id, body), PROOF_TYPE)
        Register(owner.path, signers[new + 1]).append(
            "key.rotated", {**body, "proof": base64.b64encode(proof).decode()}, event_id=f"rotated/{signers[new].keyid}"
        )
    return register


def _claim(register: str, body: Mapping[str, Any]) -> bytes:
    return rfc8785.dumps({"register": register, **{name: body[name] for name in ("former", "public", "commitment")}})


def is_proven(register: str, body: Mapping[str, Any]) -> bool:
    """Whether the new key of a `key.rotated` entry has signed that it follows the former one in this register.

    Raises:
        KeyError, ValueError, TypeError: it is no such body.
    """
    public, proof = bytes.fromhex(body["public"]), base64.b64decode(body["proof"], validate=True)
    try:
        signed = pre_authentication(_claim(register, body), PROOF_TYPE)
        Ed25519PublicKey.from_public_bytes(public).verify(proof, signed)
    except InvalidSignature:
        return False
    return True


def revoke(owner: Owner, key: str | None = None, *, reason: str, since: datetime | None = None) -> Entry:
    """Say in the register that a key signs no more.

    Args:
        owner: of the register.
        key: its keyid, or the id of a watermark, for the key that signs for its training; default: the owner's own.
        reason: for people.
        since: from when on others may have held the key: what it signed is flagged by a check, unless a timestamp
            from before then covers it. None: it was never in other hands.

    Raises:
        InputError: no such key, a time without a zone, or the owner's own, which needs a successor first.
        RegisterError: the register cannot be written.
    """
    register = Register.of(owner)
    current = Signer(owner.signing_seed()).keyid
    known = _keys(register)
    found = next((keyid for keyid, watermark in known.items() if key in (keyid, watermark)), None)
    if key is None or found == current:
        raise InputError(
            "this is the key that signs the register, and it has no successor: `wmplug owner rotate` first and revoke "
            "the former key then, or `wmplug owner revoke --compromised` for both at once"
        )
    if found is None:
        raise InputError(f"no entry introduces a key {key!r}: give a keyid or the id of a watermark of this register")
    return _revoke(register, found, reason, since)


def renounce(owner: Owner, *, reason: str, since: datetime | None = None, passphrase: str | None = None) -> Owner:
    """Rotate away from secrets that others may hold, and revoke all keys that follow from them.

    Watermarks made before can still be verified, but their keys record no more training runs.

    Args:
        owner: not to be used any more after this.
        reason: for people.
        since: from when on others may have held them, as in `revoke`; now by default.
        passphrase: a new one; the same as before by default.

    Raises:
        InputError: a time without a zone, or an empty passphrase.
        RegisterError: the register cannot be written, or its owner has rotated since `owner` was opened.
    """
    since = since or datetime.now(timezone.utc)
    _stamp(since)
    rotated = rotate(owner, passphrase=passphrase)
    register = Register.of(rotated)
    for keyid in _keys(register):
        if keyid != Signer(rotated.signing_seed()).keyid:
            _revoke(register, keyid, reason, since)
    return rotated


def _keys(register: Register) -> dict[str, str | None]:
    """Keys that the log has introduced, by keyid; with the watermark, where it signs for one."""
    keys: dict[str, str | None] = {}
    for entry in register.entries():
        if entry.type in ("register.opened", "key.rotated"):
            keys[keyid_of(bytes.fromhex(entry.body["public"]))] = None
        elif entry.type == "triggers.committed":
            keys[keyid_of(bytes.fromhex(entry.body["recorder"]))] = entry.body["watermark"]
    return keys


def _revoke(register: Register, keyid: str, reason: str, since: datetime | None) -> Entry:
    when = None if since is None else _stamp(since)
    body = {"keyid": keyid, "reason": reason, "since": when}
    return register.append("key.revoked", body, event_id=f"revoked/{keyid}/{when}")


def _stamp(time: datetime) -> str:
    if time.tzinfo is None:
        raise InputError(f"since={time.isoformat()} has no time zone: give one, such as timezone.utc")
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def split(owner: Owner, shares: int = 3, threshold: int = 2) -> list[str]:
    """The newest secret as sheets of 33 words (SLIP-39), of which `threshold` recover it, and with it the former ones.

    `secret/former.enc` keeps the former secrets for whoever has the newest: keep a copy of the folder with the sheets.

    Args:
        owner: whose secret it is.
        shares: number of sheets, up to 16.
        threshold: how many are enough, at least 2.

    Raises:
        InputError: the numbers do not fit.
        PluginError: the extra wmplug[evidence] is not installed.
        RegisterError: the register cannot be written, or its owner has rotated since `owner` was opened.
    """
    made: list[str] = plugins.load("wmplug.register.shares:split")(owner.roots()[0], shares, threshold)
    Register.of(owner)
    with _alone(owner):
        _introduce(owner)
        _keep_former(owner)
    return made


def combine(folder: str | Path, shares: Sequence[str], *, passphrase: str, scrypt_n: int = SCRYPT_N) -> Owner:
    """Recover an owner from shares (SLIP-39) and the folder, and seal `secret/owner.enc` under a new passphrase.

    Args:
        folder: of the register: owner.pub and log.jsonl are needed, and secret/former.enc after a rotation.
        shares: the words of each.
        passphrase: a new one.
        scrypt_n: cost of one guess, a power of two from 2**10 to 2**20.

    Raises:
        InputError: the shares are damaged, mixed, too few, of a former secret or of another owner; or the passphrase
            is empty.
        KeyFileError: secret/former.enc is damaged.
        PluginError: the extra wmplug[evidence] is not installed.
        RegisterError: the folder holds no register, or its log is damaged.
    """
    register = Register(folder)
    root = plugins.load("wmplug.register.shares:combine")(shares)
    rotations = [e for e in register.entries() if e.type == "key.rotated"]
    known = [register.id, *(str(e.body.get("commitment")) for e in rotations)]
    if commitment_of(root) != known[-1]:
        if commitment_of(root) in known:
            why = (
                f"of a former secret, replaced by a rotation since (entry {rotations[-1].seq}): give those split after"
            )
        else:
            why = (
                "of another owner, or the folder is a copy from before the last rotation: give those that belong to it"
            )
        raise InputError(f"the shares fit together, but not to {register.path}: they are {why}")
    roots = (root, *_former(register, root))
    owner = Owner(str(register.public["name"]), register.id, register.path, roots, Seal.make(passphrase, n=scrypt_n))
    owner.store()
    return owner


def _keep_former(owner: Owner) -> None:
    """Write every secret sealed under a key from the one that followed it, so that the newest opens all."""
    links = {}
    for newer, older in itertools.pairwise(owner.roots()):
        nonce, name = os.urandom(12), commitment_of(newer)
        links[name] = (nonce + _link_key(newer).encrypt(nonce, older, name.encode())).hex()
    if links:
        header = {"wmplug": FORMAT, "kind": "former", "commitment": owner.commitment, "links": links}
        write_new(owner.path / "secret" / FORMER, (json.dumps(header) + "\n").encode(), 0o600)


def _link_key(root: bytes) -> AESGCM:
    return AESGCM(derive(root, "wmplug/1/former"))


def _former(register: Register, root: bytes) -> list[bytes]:
    """The secrets before this one, the newest first, as far as they are kept."""
    file = register.path / "secret" / FORMER
    roots = [root]
    try:
        links: dict[str, str] = {}
        if file.exists():
            header = read_header(file.read_bytes(), str(file))
            of_kind(header, "former", file)
            links = dict(header["links"])
        while link := links.pop(commitment_of(roots[-1]), None):
            sealed = bytes.fromhex(link)
            roots.append(_link_key(roots[-1]).decrypt(sealed[:12], sealed[12:], commitment_of(roots[-1]).encode()))
    except (InvalidTag, ValueError, KeyError, TypeError, AttributeError):
        raise KeyFileError(
            f"{file} was edited or damaged: restore it from a copy, or move it away to recover the newest secret alone"
        ) from None
    if commitment_of(roots[-1]) != register.id:
        warnings.warn(
            f"{file} is not there, or older than the last rotation: the newest secret was recovered, but watermarks "
            "from before cannot be made again. Put the file of a newer copy there and combine once more",
            EvidenceWarning,
            stacklevel=3,
        )
    return roots[1:]
