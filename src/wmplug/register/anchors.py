"""Time from outside: the head of the log, stamped by authorities (RFC 3161), and the tokens kept beside it.

What a token covers existed at its time; the `anchor` entry that names the token came after. So every entry lies between
two times that the owner's own clock has no say in.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wmplug.errors import EvidenceWarning, RegisterError, TimestampError
from wmplug.keys.files import write_new
from wmplug.register import Entry, Register, timestamps
from wmplug.register.timestamps import Token, Trust

FOLDER = "anchors"
POLICY = "policy.json"


@dataclass(frozen=True)
class Outcome:
    """What one authority did with a request.

    Attributes:
        url: of the authority.
        entry: the anchor that was recorded, or None.
        error: why there is none.
    """

    url: str
    entry: Entry | None
    error: TimestampError | None = None


def policy(folder: Path) -> list[Trust]:
    """The authorities that the register's `policy.json` names; none where there is no such file.

    Raises:
        RegisterError: the file is damaged.
    """
    file = folder / POLICY
    if not file.exists():
        return []
    try:
        return [Trust.from_json(one) for one in json.loads(file.read_bytes())["tsa"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise RegisterError(f"{file} cannot be read ({error}): restore it, or name the authority anew") from error


def trust(folder: Path, authority: Trust) -> None:
    """Name an authority in `policy.json`, in place of what was there for its URL."""
    others = [one for one in policy(folder) if one.url != authority.url]
    document = {"tsa": [one.to_json() for one in [*others, authority]]}
    write_new(folder / POLICY, (json.dumps(document, indent=1) + "\n").encode(), 0o644)


def read_trust(file: Path) -> Trust:
    """An authority from a file such as `wmplug tsa make` writes.

    Raises:
        RegisterError: it is none.
    """
    try:
        return Trust.from_json(json.loads(file.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        raise RegisterError(
            f"{file} is no trust file ({error}): give one with url, roots, pins and policies"
        ) from error


def pin(url: str, roots: Sequence[bytes], *, timeout: float = 10) -> Trust:
    """An authority by its URL and root certificates; the policy of a first token is pinned, and shown by `log`.

    Raises:
        TimestampError: it does not answer, or its answer fails a check.
    """
    imprint = os.urandom(32)
    request = timestamps.make_request(imprint)
    response = timestamps.fetch(url, request, timeout=timeout)
    return Trust.pinned(url, response, imprint=imprint, request=request, roots=roots)


def anchor(register: Register, authorities: Sequence[Trust] | None = None, *, timeout: float = 10) -> list[Outcome]:
    """Have the head of the log stamped by every authority.

    A request that gets no answer is kept in `anchors/`, and superseded by the next that does.

    Args:
        register: opened for writing.
        authorities: those of the policy by default.
        timeout: seconds, for each.

    Raises:
        RegisterError: there is no authority, or nothing to stamp, or an anchor could not be recorded.
    """
    chosen = policy(register.path) if authorities is None else list(authorities)
    if not chosen:
        raise RegisterError(
            f"{register.path / POLICY} names no timestamp authority: give one, `wmplug register anchor --tsa URL "
            "--root PEM`; without any the register is NOT ATTESTED"
        )
    head = register.head
    if head is None:
        raise RegisterError(f"{register.log} has no entry yet: there is nothing to stamp")
    return [_stamp(register, head, authority, timeout) for authority in chosen]


def _stamp(register: Register, head: Entry, authority: Trust, timeout: float) -> Outcome:
    folder = register.path / FOLDER
    folder.mkdir(exist_ok=True)
    mine = hashlib.sha256(authority.url.encode()).hexdigest()[:8]
    imprint = bytes.fromhex(head.hash)
    request = timestamps.make_request(imprint)
    # Two processes may stamp one head at the same time: their nonces keep the files apart.
    file = folder / f"{head.seq:06d}-{mine}-{hashlib.sha256(request).hexdigest()[:8]}.tsr"
    write_new(file.with_suffix(".tsq"), request, 0o644)
    try:
        response = timestamps.fetch(authority.url, request, timeout=timeout)
        token = timestamps.verify_token(response, imprint=imprint, request=request, trust=authority)
    except TimestampError as error:
        return Outcome(authority.url, None, error)
    crls = timestamps.fetch_crls(token.certificates, timeout=timeout)
    write_new(file, response, 0o644)
    names = [file.with_suffix(f".{i}.crl").name for i in range(len(crls))]
    for name, crl in zip(names, crls, strict=True):
        write_new(folder / name, crl, 0o644)
    entry = register.append("anchor", _body(head, authority.url, file.name, response, token, names))
    for stale in folder.glob(f"*-{mine}-*.tsq"):
        if not stale.with_suffix(".tsr").exists():
            stale.unlink(missing_ok=True)
    return Outcome(authority.url, entry)


def _body(head: Entry, url: str, file: str, response: bytes, token: Token, crls: list[str]) -> dict[str, Any]:
    return {
        "head": head.seq,
        "hash": head.hash,
        "file": file,
        "token": hashlib.sha256(response).hexdigest(),
        "crls": crls,
        "tsa": url,
        **told_by(token),
    }


def told_by(token: Token) -> dict[str, Any]:
    """What an anchor's body repeats of its token."""
    return {
        "authority": token.authority,
        "gen_time": token.gen_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "serial": str(token.serial),
        "policy": token.policy,
        "salt": token.salt.hex(),
        "lab": token.lab,
    }


def pending(folder: Path) -> list[Path]:
    """Requests that got no answer yet."""
    return sorted(file for file in (folder / FOLDER).glob("*.tsq") if not file.with_suffix(".tsr").exists())


def salt_after(register: Register, seq: int) -> tuple[bytes, bool]:
    """The salt (32 bytes) of the first token that covers entry `seq`, and whether a lab made it.

    A token is had now where there is none yet.

    Raises:
        TimestampError: no authority gave one.
    """
    for _ in range(2):
        covering = (e for e in register.entries() if e.type == "anchor" and e.body["head"] >= seq)
        if (first := next(covering, None)) is not None:
            return bytes.fromhex(first.body["salt"]), bool(first.body["lab"])
        failed = [outcome.error for outcome in anchor(register) if outcome.error is not None]
    raise failed[0]


def attempt(register: Register) -> None:
    """Have the head stamped where the policy names authorities; one that does not answer is warned about."""
    for outcome in anchor(register):
        if outcome.error is not None:
            warnings.warn(
                f"no timestamp from {outcome.url} ({outcome.error}): the request is kept; `wmplug register anchor` "
                "repeats it, and until then what was recorded since the last one is NOT ATTESTED",
                EvidenceWarning,
                stacklevel=3,
            )
