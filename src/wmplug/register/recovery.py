"""Remedies for a key that is old, in wrong hands, or lost: rotate, revoke, split into shares, combine them again.

A rotation adds a new secret; the former ones stay, since older watermarks follow from them. It writes
`secret/owner.enc` before the log names the new key, so the next opening of the register finishes a rotation that was
cut off in between.
"""

import itertools
import json
import os
import warnings
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wmplug.errors import EvidenceWarning, InputError, KeyFileError
from wmplug.keys.files import read_bytes, write_new
from wmplug.keys.owner import Owner, commitment_of
from wmplug.keys.sealing import FORMAT, SCRYPT_N, Seal, of_kind, read_header
from wmplug.keys.streams import SECRET_BYTES, derive
from wmplug.register import Entry, Register, Signer
from wmplug.register.rotation import alone, introduce
from wmplug.register.statements import keyid_of

FORMER = "former.enc"


def rotate(owner: Owner, *, passphrase: str | None = None) -> Owner:
    """Draw a new secret, which from now on signs the register and is the root of new watermarks.

    Args:
        owner: the owner with all former secrets; do not use it after this.
        passphrase: a new passphrase for all of them; by default the same as before.

    Raises:
        InputError: the passphrase is empty.
        RegisterError: the register cannot be written, or its owner has rotated since `owner` was opened.
    """
    seal = owner.seal() if passphrase is None else Seal.make(passphrase, n=owner.seal().n)
    Register.of(owner)
    with alone(owner):
        introduce(owner, Register)
        roots = (os.urandom(SECRET_BYTES), *owner.roots())
        rotated = Owner(owner.name, owner.commitment, owner.path, roots, seal)
        _keep_former(rotated)
        rotated.store()
        introduce(rotated, Register)
    return rotated


def revoke(owner: Owner, key: str | None = None, *, reason: str, since: datetime | None = None) -> Entry:
    """Record in the register that a key no longer signs.

    Args:
        owner: owner of the register.
        key: its keyid, or the id of a watermark, for the key that signs for its training; default: the owner's own.
        reason: the reason, for people.
        since: time from which others may have held the key: a check flags the entries that it signed, unless a
            timestamp from before then covers them. None: it was never in other hands.

    Raises:
        InputError: the key is unknown, the time has no zone, or the key is the owner's own, which needs a successor
            first.
        RegisterError: the register cannot be written.
    """
    register = Register.of(owner)
    current = Signer(owner.signing_seed()).keyid
    known = _keys(register)
    keyid = next((keyid for keyid, watermark in known.items() if key in (keyid, watermark)), None)
    if key is None or keyid == current:
        raise InputError(
            "this is the key that signs the register, and it has no successor: `wmplug owner rotate` first and revoke "
            "the former key then, or `wmplug owner revoke --compromised` for both at once"
        )
    if keyid is None:
        raise InputError(f"no entry introduces a key {key!r}: give a keyid or the id of a watermark of this register")
    return _revoke(register, keyid, reason, since)


def renounce(owner: Owner, *, reason: str, since: datetime | None = None, passphrase: str | None = None) -> Owner:
    """Rotate away from secrets that others may hold, and revoke all keys that follow from them.

    You can still verify earlier watermarks, but their keys cannot record training runs any more.

    Args:
        owner: the owner; do not use it after this.
        reason: the reason, for people.
        since: time from which others may have held the secrets, as in `revoke`; now by default.
        passphrase: a new passphrase; by default the same as before.

    Raises:
        InputError: the time has no zone, or the passphrase is empty.
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
    """Keys that the log has introduced, by keyid; with the watermark that a key signs for, or None."""
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

    `secret/former.enc` keeps the former secrets, which the newest one opens: keep a copy of the folder with the sheets.

    Args:
        owner: the owner of the secret.
        shares: number of sheets, up to 16.
        threshold: number of sheets that are enough, at least 2.

    Raises:
        InputError: the numbers do not fit.
        PluginError: the extra wmplug[evidence] is not installed.
        RegisterError: the register cannot be written, or its owner has rotated since `owner` was opened.
    """
    from wmplug.register.shares import split as split_words

    made = split_words(owner.roots()[0], shares, threshold)
    Register.of(owner)
    with alone(owner):
        introduce(owner, Register)
        _keep_former(owner)
    return made


def combine(folder: str | Path, shares: Sequence[str], *, passphrase: str, scrypt_n: int = SCRYPT_N) -> Owner:
    """Recover an owner from shares (SLIP-39) and the folder, and seal `secret/owner.enc` under a new passphrase.

    Args:
        folder: the register's folder, with owner.pub and log.jsonl, and secret/former.enc after a rotation.
        shares: the words of each share.
        passphrase: a new passphrase.
        scrypt_n: cost of one guess, a power of two from 2**10 to 2**20.

    Raises:
        InputError: the shares are damaged, mixed, too few, of a former secret or of another owner; or the passphrase
            is empty.
        KeyFileError: secret/former.enc is damaged.
        PluginError: the extra wmplug[evidence] is not installed.
        RegisterError: the folder does not hold a register, or its log is damaged.
    """
    from wmplug.register.shares import combine as combine_words

    register = Register(folder)
    root = combine_words(shares)
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
            header = read_header(read_bytes(file), str(file))
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
            f"{file} is missing, or older than the last rotation: the newest secret was recovered, but watermarks from "
            "before cannot be made again. Put the file of a newer copy there and combine once more",
            EvidenceWarning,
            stacklevel=3,
        )
    return roots[1:]
