"""Time from outside: the head of the log, stamped by authorities (RFC 3161), and the tokens kept beside it.

All entries that a token covers existed at its time; the `anchor` entry that names the token came after. So every entry
lies between two times that do not depend on the owner's clock.
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
from wmplug.keys.files import read_json, write_new
from wmplug.register import Entry, Register, timestamps
from wmplug.register.timestamps import Token, Trust

FOLDER = "anchors"
POLICY = "policy.json"


@dataclass(frozen=True)
class Outcome:
    """The result of a request to one authority.

    Attributes:
        url: URL of the authority.
        entry: the recorded anchor, or None.
        error: the reason why no anchor was recorded, or None.
    """

    url: str
    entry: Entry | None
    error: TimestampError | None = None


def policy(folder: Path) -> list[Trust]:
    """The authorities that the register's `policy.json` names; empty without such a file.

    Raises:
        RegisterError: the file is damaged.
    """
    file = folder / POLICY
    if not file.exists():
        return []
    try:
        return [Trust.from_json(authority) for authority in read_json(file)["tsa"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RegisterError(f"{file} cannot be read ({error}): restore it, or name the authority again") from error


def trust(folder: Path, authority: Trust) -> None:
    """Name an authority in `policy.json`, replacing an earlier entry for its URL."""
    others = [known for known in policy(folder) if known.url != authority.url]
    document = {"tsa": [known.to_json() for known in [*others, authority]]}
    write_new(folder / POLICY, (json.dumps(document, indent=1) + "\n").encode(), 0o644)


def read_trust(file: Path) -> Trust:
    """An authority from a file such as `wmplug tsa make` writes.

    Raises:
        RegisterError: the file is not a trust file.
    """
    try:
        return Trust.from_json(read_json(file))
    except (OSError, ValueError) as error:
        raise RegisterError(
            f"{file} is not a trust file ({error}): give one with url, roots, pins and policies"
        ) from error


def pin(url: str, roots: Sequence[bytes], *, timeout: float = 10) -> Trust:
    """An authority by its URL and root certificates; pins the policy of a first token, which `log` shows.

    Raises:
        TimestampError: the authority does not answer, or its answer fails a check.
    """
    imprint = os.urandom(32)
    request = timestamps.make_request(imprint)
    response = timestamps.fetch(url, request, timeout=timeout)
    return Trust.pinned(url, response, imprint=imprint, request=request, roots=roots)


def anchor(register: Register, authorities: Sequence[Trust] | None = None, *, timeout: float = 10) -> list[Outcome]:
    """Have the head of the log stamped by every authority.

    A request without an answer stays in `anchors/` until a later one gets an answer.

    Args:
        register: the register, opened for writing.
        authorities: the authorities to ask; those of the policy by default.
        timeout: seconds, for each.

    Raises:
        RegisterError: no authority is named, the log is empty, or an anchor could not be recorded.
    """
    chosen = policy(register.path) if authorities is None else list(authorities)
    if not chosen:
        raise RegisterError(
            f"{register.path / POLICY} names no timestamp authority: add one, `wmplug register anchor --tsa URL "
            "--root PEM`; without any the register is NOT ATTESTED"
        )
    head = register.head
    if head is None:
        raise RegisterError(f"{register.log} has no entry yet, so nothing can be stamped: record something first")
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
        **facts_of(token),
    }


def facts_of(token: Token) -> dict[str, Any]:
    """The facts of a token that an anchor's body repeats."""
    return {
        "authority": token.authority,
        "gen_time": token.gen_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "serial": str(token.serial),
        "policy": token.policy,
        "salt": token.salt.hex(),
        "lab": token.lab,
    }


def pending(folder: Path) -> list[Path]:
    """Requests without an answer yet."""
    return sorted(file for file in (folder / FOLDER).glob("*.tsq") if not file.with_suffix(".tsr").exists())


def salt_after(register: Register, seq: int) -> tuple[bytes, bool]:
    """The salt (32 bytes) of the first token that covers entry `seq`, and whether a lab made it.

    If no token covers the entry yet, this requests one now.

    Raises:
        TimestampError: no authority returned a token.
    """
    for _ in range(2):
        covering = (e for e in register.entries() if e.type == "anchor" and e.body["head"] >= seq)
        if (first := next(covering, None)) is not None:
            return bytes.fromhex(first.body["salt"]), bool(first.body["lab"])
        failed = [outcome.error for outcome in anchor(register) if outcome.error is not None]
    raise failed[0]


def attempt(register: Register) -> None:
    """Have the head stamped, if the policy names authorities; one that does not answer causes a warning."""
    for outcome in anchor(register):
        if outcome.error is not None:
            warnings.warn(
                f"no timestamp from {outcome.url} ({outcome.error}): the request is kept; `wmplug register anchor` "
                "repeats it, and until then what was recorded since the last one is NOT ATTESTED",
                EvidenceWarning,
                stacklevel=3,
            )
