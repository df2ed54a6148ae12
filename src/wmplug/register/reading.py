"""The state of a check after some entries of a log, and the rules for a single entry."""

import re
from array import array
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Literal

from wmplug.errors import CorruptEntryError
from wmplug.keys.owner import binding
from wmplug.register.rotation import is_proven
from wmplug.register.statements import TIME, Entry, keyid_of

Level = Literal["refused", "inconclusive", "flagged"]
# Types of entries that a key for one watermark's training may sign; all others take the owner's key.
RECORDED = frozenset(
    {
        *("dataset.committed", "architecture.committed", "parameters.committed", "system.committed"),
        *("training.started", "training.checkpoint", "training.finished", "watermark.inserted"),
        *("suspect.acquired", "suspect.verified", "trigger.spent", "recovered"),
    }
)
_ANCHOR = {"head": int, "hash": str, "file": str, "token": str, "tsa": str, "crls": list, "salt": str}
_FILE = re.compile(r"\w[\w.-]*", re.ASCII)  # beside the log, and nowhere else


@dataclass(frozen=True)
class Finding:
    """One finding of a check.

    Attributes:
        level: `refused` (edited, or not in order), `inconclusive` (proves less than it claims), or `flagged` (look at
            it).
        code: the finding in kebab-case.
        seq: number of the entry; None for the register as a whole.
        text: the finding for people.
    """

    level: Level
    code: str
    seq: int | None
    text: str


@dataclass
class Reading:
    """The state after some entries."""

    known: int = 0  # signatures before this byte were verified earlier
    whole: bool = True  # False: an entry was refused, and the entries behind it are not read
    findings: list[Finding] = field(default_factory=list)
    hashes: bytearray = field(default_factory=bytearray)
    events: set[str] = field(default_factory=set)
    counts: dict[str, int] = field(default_factory=dict)
    owners: dict[str, bytes] = field(default_factory=dict)  # keyid -> public key
    recorders: dict[str, bytes] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)  # keyid of a recorder -> the watermark it signs for
    revoked: set[str] = field(default_factory=set)
    compromised: dict[str, datetime] = field(default_factory=dict)  # keyid -> since when others may have had it
    signed: "dict[str, array[int]]" = field(default_factory=dict)  # keyid -> entries
    anchors: list[Entry] = field(default_factory=list)
    secrets: dict[str, int] = field(default_factory=dict)  # watermark -> seq
    triggers: dict[str, Entry] = field(default_factory=dict)
    started: dict[str, int] = field(default_factory=dict)
    times: list[tuple[int, datetime]] = field(default_factory=list)

    def find(self, level: Level, code: str, entry: Entry | None, text: str) -> None:
        """Note a finding."""
        where = None if entry is None else entry.seq
        self.findings.append(Finding(level, code, where, text if where is None else f"entry {where}: {text}"))

    def hash(self, seq: int) -> str | None:
        """Entry hash of entry `seq`, or None if the log is shorter."""
        return self.hashes[32 * seq : 32 * seq + 32].hex() or None


def take(reading: Reading, entry: Entry, register: str) -> None:
    """Add one entry to the state.

    Raises:
        CorruptEntryError: the register's keys did not write the entry, or it is in the wrong place.
    """
    if entry.register != register:
        raise _corrupt(entry, "other-register", "it belongs to another register than owner.pub")
    if entry.event_id in reading.events:
        raise _corrupt(entry, "duplicate-event", f"its event {entry.event_id!r} is there already")
    if (entry.seq == 0) != (entry.type == "register.opened"):
        raise _corrupt(entry, "not-opened", "a log begins with register.opened, and only there")
    try:
        if entry.seq == 0:
            _introduce(reading.owners, entry.body["public"])
            if binding(entry.body["opening"], entry.body["public"]) != register:
                raise _corrupt(
                    entry, "other-owner", "the register's id commits to another key: its owner wrote no such"
                )
        _check_signature(reading, entry)
        _learn(reading, entry)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise _corrupt(entry, "bad-body", f"its body is not that of {entry.type}") from None
    reading.hashes += bytes.fromhex(entry.hash)
    reading.events.add(entry.event_id)
    reading.signed.setdefault(entry.keyid, array("I")).append(entry.seq)
    reading.counts[entry.type] = reading.counts.get(entry.type, 0) + 1


def _introduce(keys: dict[str, bytes], public: str) -> str:
    raw = bytes.fromhex(public)
    if len(raw) != 32:
        raise ValueError
    keys[keyid_of(raw)] = raw
    return keyid_of(raw)


def _check_signature(reading: Reading, entry: Entry) -> None:
    public = reading.owners.get(entry.keyid) or reading.recorders.get(entry.keyid)
    if public is None:
        raise _corrupt(entry, "unknown-key", "it is signed by a key that no entry before has introduced")
    if entry.offset >= reading.known and not entry.verify(public):
        raise _corrupt(entry, "bad-signature", "its signature does not fit: it was edited")
    if entry.keyid in reading.revoked:
        raise _corrupt(entry, "revoked-key", "it is signed by a key that was revoked before")
    if entry.keyid not in reading.owners and entry.type not in RECORDED:
        raise _corrupt(entry, "not-allowed", f"its key signs for a training run and may not say {entry.type}")
    about = entry.body.get("watermark")
    if entry.keyid not in reading.owners and about not in (None, reading.marks[entry.keyid]):
        raise _corrupt(entry, "not-allowed", "its key signs for another watermark")


def _learn(reading: Reading, entry: Entry) -> None:
    body = entry.body
    if entry.type == "key.rotated":
        _check_rotation(reading, entry)
        _introduce(reading.owners, body["public"])
        reading.revoked.add(body["former"])
    elif entry.type == "key.revoked":
        _revoke(reading, entry)
    elif entry.type == "secret.committed":
        reading.secrets.setdefault(body["watermark"], entry.seq)
    elif entry.type == "triggers.committed":
        _learn_triggers(reading, entry)
    elif entry.type == "training.started":
        reading.started.setdefault(body["watermark"], entry.seq)
    elif entry.type == "anchor":
        if {name: type(body[name]) for name in _ANCHOR} != _ANCHOR or body["head"] < 0:
            raise TypeError
        if not all(_FILE.fullmatch(name) for name in (body["file"], *body["crls"])):
            raise ValueError
        reading.anchors.append(entry)
    time = _time(entry.claimed_time)
    # One time a run is enough to notice a wrong clock; all of them would be a list as long as the log.
    if not reading.times or entry.type != "training.checkpoint":
        reading.times.append((entry.seq, time))


def _learn_triggers(reading: Reading, entry: Entry) -> None:
    body = entry.body
    watermark, recorder, evidence = body["watermark"], body["recorder"], body["evidence"]
    if not (isinstance(watermark, str) and isinstance(evidence["salt"], str | None)):
        raise TypeError
    reading.marks[_introduce(reading.recorders, recorder)] = watermark
    if reading.secrets.get(watermark, -1) != evidence["secret_committed"]:
        reading.find("refused", "no-secret", entry, "triggers whose secret was not committed to before")
    reading.triggers[watermark] = entry


def _check_rotation(reading: Reading, entry: Entry) -> None:
    body = entry.body
    if body["former"] != entry.keyid or entry.keyid not in reading.owners:
        raise _corrupt(entry, "bad-rotation", "it replaces another key than the one that signs it")
    if not is_proven(entry.register, body):
        raise _corrupt(entry, "bad-rotation", "its writer did not hold the new key that it names")
    if keyid_of(bytes.fromhex(body["public"])) in (reading.owners | reading.recorders):
        raise _corrupt(entry, "bad-rotation", "the new key that it names is one that was used before")


def _revoke(reading: Reading, entry: Entry) -> None:
    keyid, since = entry.body["keyid"], entry.body["since"]
    if keyid not in (reading.owners | reading.recorders):
        raise _corrupt(entry, "unknown-key", "it revokes a key that no entry before has introduced")
    reading.revoked.add(keyid)
    if since is not None:
        if not TIME.fullmatch(since):
            raise ValueError
        time = _time(since)
        reading.compromised[keyid] = min(time, reading.compromised.get(keyid, time))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text[:-1]).replace(tzinfo=timezone.utc)  # Python 3.10 reads no Z


def _corrupt(entry: Entry, code: str, why: str) -> CorruptEntryError:
    return CorruptEntryError(
        f"entry {entry.seq} at byte {entry.offset}: {why}", seq=entry.seq, offset=entry.offset, code=code
    )
