"""A second anchor, optional: OpenTimestamps, whose proofs lead from an entry to the header of a Bitcoin block.

A check trusts no signature, only the block header, which the checker supplies. These entries are of type `retimestamp`
and kind "opentimestamps", and not anchors: a watermark's salt comes from tokens of RFC 3161 alone.
"""

import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain, count, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wmplug.errors import EvidenceWarning, InputError, RegisterError, TimestampError
from wmplug.extras import need
from wmplug.keys.files import MOST, read_bytes, read_json, write_new
from wmplug.register import Entry, Register
from wmplug.register.checking import Report
from wmplug.register.ordering import Stamp
from wmplug.register.reading import Finding

with need("ots"):
    from bitcoin.core import CBlockHeader
    from opentimestamps.core.notary import BitcoinBlockHeaderAttestation, PendingAttestation, VerificationError
    from opentimestamps.core.op import OpAppend, OpSHA256
    from opentimestamps.core.serialize import (
        BytesDeserializationContext,
        BytesSerializationContext,
        DeserializationError,
    )
    from opentimestamps.core.timestamp import DetachedTimestampFile, Timestamp

KIND = "opentimestamps"
_FOLDER = "anchors"
_FILE = re.compile(r"(\d{6,}-[0-9a-f]{8})(\.\d+)?\.ots", re.ASCII)
_MOST = 10_000  # bytes of an answer, as in the reference client
_HEIGHTS = 1 << 32


@dataclass(frozen=True)
class End:
    """The result at one end of a proof.

    Attributes:
        code: "verified", "pending", "header-needed", or "unknown-attestation".
        text: the result for people, with the block if verified.
        time: time of the block, aware, UTC; miners may be wrong by two hours. None unless verified.
    """

    code: str
    text: str
    time: datetime | None = None


def stamp(register: Register, calendars: Sequence[str], *, timeout: float = 10) -> Entry:
    """Submit the head to calendars; their proofs are pending until a block holds them (`upgrade`).

    Args:
        register: the register, opened for writing.
        calendars: URLs of the only calendars to ask. One that does not answer causes a warning.
        timeout: seconds, for each.

    Raises:
        RegisterError: the log has no entry, no calendar is given, or the proof could not be recorded.
        TimestampError: no calendar answered ("bad-url", "unreachable", "too-large", "bad-proof").
    """
    head = register.head
    if head is None or not calendars:
        raise RegisterError(
            f"{register.log} has no entry yet, or no calendar was given, so nothing can be stamped: record something "
            "first, and give the URL of a calendar"
        )
    start = Timestamp(bytes.fromhex(head.hash))
    # Without a nonce, a calendar that sees the log would know which entry this is.
    submitted = start.ops.add(OpAppend(os.urandom(16))).ops.add(OpSHA256())
    answered = []
    failed: dict[str, TimestampError] = {}
    for url in dict.fromkeys(one.rstrip("/") for one in calendars):
        try:
            submitted.merge(_read(_ask(f"{url}/digest", submitted.msg, timeout), submitted.msg))
            answered.append(url)
        except TimestampError as error:
            failed[url] = error
    if not answered:
        raise next(iter(failed.values()))
    for url, why in failed.items():
        warnings.warn(f"no proof from {url} ({why}); others answered", EvidenceWarning, stacklevel=2)
    name = f"{head.seq:06d}-{submitted.msg[:4].hex()}.ots"
    return _record(register, start, name, {"head": head.seq, "hash": head.hash, "calendars": answered})


def upgrade(register: Register, calendars: Sequence[str] = (), *, timeout: float = 10) -> list[Entry]:
    """Ask calendars for the blocks that pending proofs wait for; a completed proof is a new file and a new entry.

    Args:
        register: the register, opened for writing.
        calendars: URLs of further calendars that may be asked: pools pass proofs on to others.
        timeout: seconds, for each.

    Returns:
        The recorded entries. A proof that is still pending causes a warning.

    Raises:
        TimestampError: a proof is not the recorded one.
        OSError: the file of a proof does not exist.
    """
    latest = {_stem(entry): entry for entry in register.entries() if _is_ours(entry)}
    made = []
    for stem, entry in latest.items():
        proof = _read(_content(register.path, entry))
        if _blocks(proof):
            continue
        allowed = {url.rstrip("/") for url in (*entry.body["calendars"], *calendars)}
        _complete(proof, allowed, timeout)
        if _blocks(proof):
            names = (f"{stem}.{n}.ots" for n in count(1))
            name = next(name for name in names if not (register.path / _FOLDER / name).exists())
            made.append(_record(register, proof, name, entry.body))
    return made


def _complete(proof: Any, allowed: set[str], timeout: float) -> None:
    """Merge into a proof the parts that it waits for, as far as the calendars have them."""
    # A list, because the walk must not include the parts merged below.
    for node, pending in [(n, a) for n in _nodes(proof) for a in n.attestations if isinstance(a, PendingAttestation)]:
        url = pending.uri.rstrip("/")
        try:
            if url not in allowed:
                text = f"{url} has it and was not given: allow it, `wmplug register upgrade --ots {url}`"
                raise TimestampError(text, code="not-given")
            node.merge(_read(_ask(f"{url}/timestamp/{node.msg.hex()}", None, timeout), node.msg))
        except TimestampError as error:
            text = f"the proof over {proof.msg.hex()[:16]} stays pending: {error}"
            warnings.warn(text, EvidenceWarning, stacklevel=3)


def check_calendar(proof: bytes, entry_hash: str, headers: Mapping[int, bytes]) -> list[End]:
    """Check a proof, offline.

    Args:
        proof: a detached timestamp file.
        entry_hash: the entry hash that it must be about, 64 hex digits.
        headers: block headers (80 bytes) by height, from a node or a source that the caller trusts.

    Raises:
        TimestampError: the proof is refused: "bad-proof", "wrong-start", "wrong-merkle-root".
    """
    timestamp = _read(proof)
    if timestamp.msg.hex() != entry_hash:
        raise TimestampError("the proof is about something else than this entry", code="wrong-start")
    return [_end(message, attestation, headers) for message, attestation in timestamp.all_attestations()]


def _end(message: bytes, attestation: Any, headers: Mapping[int, bytes]) -> End:
    if isinstance(attestation, PendingAttestation):
        return End(
            "pending", f"pending at {attestation.uri}: `wmplug register upgrade`, some hours later, completes it"
        )
    if not isinstance(attestation, BitcoinBlockHeaderAttestation):
        return End("unknown-attestation", "an attestation of a kind that is not checked here")
    height = attestation.height
    if height >= _HEIGHTS:
        raise TimestampError("the proof names a block that cannot be", code="bad-proof")
    if height not in headers:
        return End("header-needed", f"needs the header of block {height} (`--headers`)")
    header = CBlockHeader.deserialize(headers[height])
    try:
        seconds = attestation.verify_against_blockheader(message, header)
    except VerificationError:
        text = (
            f"the proof does not lead to the header given of block {height}: it was altered, or the header is another"
        )
        raise TimestampError(text, code="wrong-merkle-root") from None
    text = f"Bitcoin block {height} (hash {header.GetHash()[::-1].hex()}), give or take two hours"
    return End("verified", text, datetime.fromtimestamp(seconds, timezone.utc))


def read_headers(file: Path) -> dict[int, bytes]:
    """Block headers by height, from JSON: {"358391": 160 hex digits, ...}.

    Raises:
        InputError: the file does not hold block headers.
    """
    try:
        headers = {int(height): bytes.fromhex(header) for height, header in read_json(file, MOST).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f'{file} cannot be read ({error}): give JSON, {{"height": "header in hex"}}') from None
    if wrong := [height for height, header in headers.items() if len(header) != 80]:
        raise InputError(f"{file}: a header is 80 bytes, and that of block {wrong[0]} is not: give it whole, in hex")
    return headers


def check(report: Report, folder: Path, headers: Mapping[int, bytes]) -> Report:
    """A report on a register with the results of its OpenTimestamps proofs; without a header they add no time.

    Args:
        report: the report of `checking.check`; only its good entries count.
        folder: the register's folder.
        headers: see `check_calendar`.
    """
    hashes, ours = [], []
    for entry in islice(Register(folder).entries(), report.entries):
        hashes.append(entry.hash)
        if _is_ours(entry):
            ours.append(entry)
    stamps, findings = list(report.stamps), list(report.findings)
    open_ends: dict[str, list[tuple[int, End]]] = {}  # by proof: the ends that its last file leaves open
    for entry in ours:
        try:
            ends = _ends(folder, entry, hashes, headers)
        except OSError as error:
            code, text = "proof-missing", f"its proof cannot be read: {error}"
        except TimestampError as error:
            code, text = error.code, f"its proof is refused: {error}"
        else:
            dated = [(end.time, end.text) for end in ends if end.time is not None]
            stamps += [Stamp(entry.seq, entry.body["head"], *min(dated), lab=False)] if dated else []
            open_ends[_stem(entry)] = [] if dated else [(entry.seq, end) for end in ends]
            continue
        findings.append(Finding("refused", code, entry.seq, f"entry {entry.seq}: {text}"))
    for seq, end in chain.from_iterable(open_ends.values()):
        findings.append(Finding("inconclusive", end.code, seq, f"entry {seq}: {end.text}"))
    return replace(report, stamps=tuple(sorted(stamps, key=lambda one: one.seq)), findings=tuple(findings))


def _ends(folder: Path, entry: Entry, hashes: Sequence[str], headers: Mapping[int, bytes]) -> list[End]:
    head = entry.body.get("head")
    if type(head) is not int or not 0 <= head < entry.seq or hashes[head] != entry.body.get("hash"):
        raise TimestampError("it names another entry than the one it stamps", code="wrong-head")
    return check_calendar(_content(folder, entry), hashes[head], headers)


def _is_ours(entry: Entry) -> bool:
    return entry.type == "retimestamp" and entry.body.get("kind") == KIND


def _stem(entry: Entry) -> str:
    """The common part of the names of one proof's files.

    Raises:
        TimestampError: the entry names no file of a proof; it could lie anywhere.
    """
    name = _FILE.fullmatch(str(entry.body.get("file")))
    if name is None:
        raise TimestampError(f"entry {entry.seq} names no file of a proof", code="bad-body")
    return name[1]


def _content(folder: Path, entry: Entry) -> bytes:
    _stem(entry)
    content = read_bytes(folder / _FOLDER / str(entry.body["file"]))
    if hashlib.sha256(content).hexdigest() != entry.body.get("sha256"):
        raise TimestampError(f"{entry.body['file']} is not the proof that was recorded", code="proof-replaced")
    return content


def _record(register: Register, proof: Any, name: str, about: Mapping[str, Any]) -> Entry:
    context = BytesSerializationContext()
    DetachedTimestampFile(OpSHA256(), proof).serialize(context)
    content: bytes = context.getbytes()
    (register.path / _FOLDER).mkdir(exist_ok=True)
    write_new(register.path / _FOLDER / name, content, 0o644)
    body = {**about, "kind": KIND, "file": name, "sha256": hashlib.sha256(content).hexdigest()}
    return register.append("retimestamp", body)


def _read(content: bytes, start: bytes | None = None) -> Any:
    """A proof from a file, or from a calendar's answer about `start`."""
    context = BytesDeserializationContext(content)
    try:
        if start is None:
            return DetachedTimestampFile.deserialize(context).timestamp
        made = Timestamp.deserialize(context, start)
        context.assert_eof()
    # ValueError: among others a digest that OpenSSL no longer has.
    except (DeserializationError, ValueError, RecursionError) as error:
        raise TimestampError(f"a proof cannot be read ({error}): it is damaged, or none", code="bad-proof") from error
    return made


def _nodes(proof: Any) -> Iterator[Any]:
    yield proof
    for after in proof.ops.values():
        yield from _nodes(after)


def _blocks(proof: Any) -> bool:
    attestations: Iterable[tuple[bytes, Any]] = proof.all_attestations()
    return any(isinstance(attestation, BitcoinBlockHeaderAttestation) for _, attestation in attestations)


class _Staying(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: ask only the given calendars."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def _ask(url: str, data: bytes | None, timeout: float) -> bytes:
    # The library's RemoteCalendar follows redirects anywhere, cuts long answers off, waits for as long as bytes drip.
    body, end = b"", time.monotonic() + timeout
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise TimestampError(f"{url!r} is not the address of a calendar: give http:// or https://", code="bad-url")
        local = parts.hostname in ("127.0.0.1", "localhost")  # a proxy is for the world outside
        opener = urllib.request.build_opener(_Staying, urllib.request.ProxyHandler({} if local else None))
        request = urllib.request.Request(url, data, {"Accept": "application/vnd.opentimestamps.v1"})
        with opener.open(request, timeout=timeout) as answer:
            while chunk := answer.read1(_MOST + 1):
                body += chunk
                if len(body) > _MOST:
                    raise TimestampError(f"{url} sent more than {_MOST} bytes, too many for a proof", code="too-large")
                if time.monotonic() > end:
                    raise TimeoutError(f"not done after {timeout} s")
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise TimestampError(f"{url} did not give it ({error}): try again later", code="unreachable") from error
    return body
