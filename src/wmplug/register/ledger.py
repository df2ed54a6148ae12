"""The log on disk: appends under a lock, syncs before it acknowledges, and repairs torn writes.

One writer at a time (flock), in any number of processes. An acknowledged entry survives a kill at any moment. Bytes of
an unfinished entry go to `quarantine/`, and an entry of type `recovered` records that.
"""

import base64
import contextlib
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import rfc8785

from wmplug.errors import CorruptEntryError, RegisterError
from wmplug.keys.files import check_regular, opened, read_bytes, sync_folder, write_new
from wmplug.register.checkpoint import Prefix
from wmplug.register.statements import FIRST, TYPES, Entry, Signer, decode, decode_known, encode

try:
    import fcntl
except ImportError:  # pragma: no cover
    fcntl = None  # type: ignore[assignment]

LOG, QUARANTINE = "log.jsonl", "quarantine"
_LINE = 1 << 24  # bytes of an entry
_PATIENCE, _PAUSE = 60.0, 0.002  # seconds to wait for the lock, and between two tries
_ENDS = {"key.rotated": "former", "key.revoked": "keyid"}  # the field that names a key that no longer signs


def read(path: Path, prefix: Prefix | None = None) -> Iterator[Entry]:
    """The entries of a log, whole lines only, each linked to the one before; does not check signatures.

    Args:
        path: the log.
        prefix: is told of every line; the lines that it knows are not decoded strictly again.

    Raises:
        CorruptEntryError: an entry is damaged, out of order or not linked; raised at the first.
    """
    last: Entry | None = None
    offset = 0
    with opened(path) as file:
        while line := file.readline(_LINE + 1):
            if not line.endswith(b"\n") and len(line) <= _LINE:
                return  # torn: it was never acknowledged
            if len(line) > _LINE:
                seq = 0 if last is None else last.seq + 1
                why = f"entry {seq} at byte {offset}: it has more than {_LINE:,} bytes, and no entry is that long"
                raise CorruptEntryError(why, seq=seq, offset=offset, code="not-an-envelope")
            known = prefix is not None and prefix.add(line)
            entry = (decode_known if known else decode)(line, 0 if last is None else last.seq + 1, offset)
            _check_link(entry, last)
            yield entry
            last = entry
            offset += len(line)


def torn(path: Path) -> int:
    """Number of bytes after the last whole line, from a write that was cut off or is under way."""
    with opened(path) as file:
        return len(_tail(file))


def _tail(file: Any) -> bytes:
    position = end = file.seek(0, os.SEEK_END)
    tail = b""
    while position and b"\n" not in tail:
        position = max(0, position - 65536)
        file.seek(position)
        tail = file.read(end - position)
    return tail[tail.rfind(b"\n") + 1 :]


def _check_link(entry: Entry, last: Entry | None) -> None:
    seq, prev = (0, FIRST) if last is None else (last.seq + 1, last.hash)
    if entry.seq != seq:
        code, why = "out-of-order", f"it says it is number {entry.seq}: an entry was removed, repeated or moved"
    elif entry.prev != prev:
        code, why = "broken-chain", "it does not follow from the entry before: one of the two was replaced"
    elif last is not None and entry.register != last.register:
        code, why = "other-register", "it belongs to another register"
    else:
        return
    raise CorruptEntryError(f"entry {seq} at byte {entry.offset}: {why}", seq=seq, offset=entry.offset, code=code)


class Ledger:
    """Appends to one log.

    Args:
        folder: the register's folder.
        register: its id, 64 hex digits.
        signer: signs new entries.
    """

    def __init__(self, folder: Path, register: str, signer: Signer) -> None:
        if fcntl is None:  # pragma: no cover
            raise RegisterError("a register is locked with flock, which this system lacks: use Linux or macOS")
        self.path, self.register, self.signer = folder / LOG, register, signer
        self._end = 0  # offset behind the entries read so far
        self._events: dict[str, tuple[int, int]] = {}  # event_id -> seq and offset of its line
        self._ended: set[str] = set()  # keys that no longer sign
        self._seq = -1
        self._last: Entry | None = None

    def append(
        self, kind: str, body: Mapping[str, Any], subject: Sequence[tuple[str, str]] = (), event_id: str | None = None
    ) -> tuple[Entry, bool]:
        """Write one entry; when this returns, it is on disk.

        Args:
            kind: one of `statements.TYPES`.
            body: a JSON object.
            subject: (name, SHA-256 in hex) of the thing that it is about.
            event_id: id of the event; if an entry has this id already, that entry is returned and none is written.

        Returns:
            The entry, and whether it is new.

        Raises:
            RegisterError: the entry could not be written; the log is as it was.
            CorruptEntryError: the log ends with something that is not an entry.
        """
        if kind not in TYPES:
            raise RegisterError(f"no event type has the name {kind!r}: use one of {', '.join(sorted(TYPES))}")
        with self._whole(), self._locked() as log:
            self._catch_up(log)
            if event_id is not None and event_id in self._events:
                return self._same(self._read_again(log, *self._events[event_id]), kind), False
            return self._write(log, kind, body, subject, event_id or uuid.uuid4().hex), True

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unwritten(error) from error

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        new = not self.path.exists()
        log = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            check_regular(log, self.path)
            self._wait(log)
            if new:
                sync_folder(self.path.parent)
            yield log
        finally:
            os.close(log)  # releases the lock

    def _wait(self, log: int) -> None:
        """Lock the log; a writer that was stopped while it held the lock must not stop a training for good."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > until:
                    raise RegisterError(
                        f"another process has held the lock of {self.path} for {_PATIENCE:g} seconds: the event is not "
                        f"recorded; end that process (`fuser {self.path}` names it), or let it finish"
                    ) from None
                time.sleep(_PAUSE)

    def _catch_up(self, log: int) -> None:
        """Read the entries that others have appended, and set aside the bytes of a torn write."""
        if os.fstat(log).st_size < self._end:
            raise RegisterError(
                f"{self.path} is shorter than it was a moment ago: an older copy was put in its place; compare the two "
                "with `wmplug register diff`"
            )
        last = b""
        with os.fdopen(os.dup(log), "rb") as file:
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    self._set_aside(log, line)
                    break
                last = line
                self._note(line)
        if last:
            # A reader checks the whole log; a writer checks the entry that it builds upon.
            self._last = decode(last, self._seq, self._end - len(last))
            if self._last.keyid == self.signer.keyid and not self._last.verify(self.signer.public):
                raise self._corrupt(self._seq, self._end - len(last), "bad-signature", "its signature does not fit")
        for pending in sorted((self.path.parent / QUARANTINE).glob("*.pending")):
            self._record_torn(log, pending)

    def _note(self, line: bytes) -> None:
        try:
            predicate = json.loads(base64.b64decode(json.loads(line)["payload"]))["predicate"]
            event_id = predicate["event_id"]
            if predicate["type"] in _ENDS:
                self._ended.add(predicate["body"][_ENDS[predicate["type"]]])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise self._corrupt(self._seq + 1, self._end, "not-an-envelope", "it is not an entry") from None
        self._seq += 1
        self._events[str(event_id)] = (self._seq, self._end)
        self._end += len(line)

    def _set_aside(self, log: int, tail: bytes) -> None:
        folder = self.path.parent / QUARANTINE
        folder.mkdir(exist_ok=True)
        # Rename before the entry is written, so that a second crash loses neither the bytes nor the entry about them.
        write_new(folder / f"{self._end:012d}-{hashlib.sha256(tail).hexdigest()[:16]}.pending", tail, 0o600)
        os.ftruncate(log, self._end)

    def _record_torn(self, log: int, pending: Path) -> None:
        tail, name = read_bytes(pending), pending.with_suffix(".torn").name
        offset = int(name.partition("-")[0])
        if name not in self._events:
            found = {"offset": offset, "bytes": len(tail), "sha256": hashlib.sha256(tail).hexdigest(), "file": name}
            self._write(log, "recovered", found, (), name)
        pending.rename(pending.with_suffix(".torn"))

    def _write(
        self, log: int, kind: str, body: Mapping[str, Any], subject: Sequence[tuple[str, str]], event_id: str
    ) -> Entry:
        if self.signer.keyid in self._ended:
            raise RegisterError(
                f"the key that this process signs {self.path} with was rotated or revoked since: nothing was written; "
                "open the owner again (Owner.open), or make another watermark if it was the watermark's"
            )
        predicate = {
            "register": self.register,
            "seq": self._seq + 1,
            "prev": FIRST if self._last is None else self._last.hash,
            "type": kind,
            "event_id": event_id,
            "claimed_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "body": dict(body),
        }
        try:
            line = encode(predicate, subject, self.signer)
        except rfc8785.CanonicalizationError as error:
            raise RegisterError(
                f"the body of a {kind} entry is not JSON ({error}): give finite numbers, texts, lists"
            ) from error
        if len(line) > _LINE:
            raise RegisterError(
                f"a {kind} entry of {len(line):,} bytes is longer than the {_LINE:,} that readers accept: record less "
                "in one entry"
            )
        entry = decode(line, self._seq + 1, self._end)
        try:
            _write_all(log, line)
            os.fsync(log)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(log, self._end)
                os.fsync(log)
            raise
        self._note(line)
        self._last = entry
        return entry

    def _same(self, entry: Entry, kind: str) -> Entry:
        if entry.type != kind:
            raise RegisterError(
                f"entry {entry.seq} of {self.path} has the event id {entry.event_id!r} already, and is {entry.type} "
                f"instead of {kind}: it was written to be in the way; `wmplug register log` shows it, and its key can "
                "be revoked (`wmplug owner revoke`)"
            )
        return entry

    def _read_again(self, log: int, seq: int, offset: int) -> Entry:
        with os.fdopen(os.dup(log), "rb") as file:
            file.seek(offset)
            return decode(file.readline(), seq, offset)

    def _corrupt(self, seq: int, offset: int, code: str, why: str) -> CorruptEntryError:
        return CorruptEntryError(
            f"entry {seq} at byte {offset} of {self.path}: {why}. Nothing is appended to a damaged log: `wmplug "
            "register check` reports more, and a copy of the register restores it",
            seq=seq,
            offset=offset,
            code=code,
        )

    def _unwritten(self, error: OSError) -> RegisterError:
        return RegisterError(
            f"{self.path} could not be written ({error.strerror or error}): the event is not recorded, and what was "
            "recorded before is untouched; make room or give write access, and repeat"
        )


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
