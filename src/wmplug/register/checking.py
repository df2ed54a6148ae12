"""The check of a register against edits: offline, without any key, entry by entry.

It reads the log once and keeps a hash and an id of each entry. It trusts nothing that an owner could have edited: it
checks signatures against keys that the log itself introduced, links, order, and tokens of pinned authorities.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wmplug import __version__
from wmplug.errors import CorruptEntryError, RegisterError
from wmplug.register import Register, ledger, ordering, revocation
from wmplug.register.checkpoint import Checkpoint, Prefix, load, own_signer, save
from wmplug.register.ordering import Stamp
from wmplug.register.reading import Finding, Reading, take
from wmplug.register.receipts import Receipt

if TYPE_CHECKING:
    from wmplug.register.timestamps import Trust


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        register: id of the register.
        entries: number of good entries.
        head: entry hash of the last of them.
        stamps: times from outside, in order.
        findings: findings in order.
        counts: entries by type.
        taken: the checkpoint that the signatures of the first entries were taken from; None: all were verified.
    """

    register: str
    entries: int
    head: str | None
    stamps: tuple[Stamp, ...]
    findings: tuple[Finding, ...]
    counts: dict[str, int]
    taken: Checkpoint | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing was refused."""
        return not any(finding.level == "refused" for finding in self.findings)

    @property
    def attested(self) -> int:
        """How many entries a real authority has dated; 0 is NOT ATTESTED."""
        return max((stamp.head + 1 for stamp in self.stamps if not stamp.lab), default=0)

    @property
    def unlisted(self) -> tuple[str, ...]:
        """What no revocation list speaks for, for people: one line for each certificate."""
        found = Counter(one for stamp in self.stamps for one in stamp.unlisted)
        return tuple(f"{one}; {number} of {len(self.stamps)} timestamps rest on it" for one, number in found.items())

    def to_json(self) -> dict[str, Any]:
        """The whole report for machines, with times in ISO 8601."""
        document = dataclasses.asdict(self)
        for stamp in document["stamps"]:
            stamp["gen_time"] = stamp["gen_time"].isoformat()
            stamp["unrevoked_at"] = stamp["unrevoked_at"] and stamp["unrevoked_at"].isoformat()
        return {**document, "ok": self.ok, "attested": self.attested}

    def between(self, seq: int) -> tuple[datetime | None, datetime | None]:
        """The times from outside that entry `seq` lies between: not before, not after."""
        before = [stamp.gen_time for stamp in self.stamps if stamp.seq <= seq]
        after = [stamp.gen_time for stamp in self.stamps if stamp.head >= seq]
        return max(before, default=None), min(after, default=None)


def check(
    path: str | Path,
    *,
    receipts: Sequence[Receipt] = (),
    authorities: "Sequence[Trust] | None" = None,
    crls: Sequence[bytes | Path] = (),
    now: datetime | None = None,
    progress: Callable[[int], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Report:
    """Check a register.

    Args:
        path: the register's folder.
        receipts: receipts that the owner gave out earlier; the log must still hold the entries that they name.
        authorities: the authorities to trust; by default those that the register's policy.json names. That is its
            owner's word: give your own to check the register of somebody else.
        crls: revocation lists, DER or PEM, or files that hold them. They count for every token, beside those that the
            owner kept: an owner can leave out the list that revokes.
        now: time to judge the expiry of certificates by.
        progress: called with the number of entries read.
        checkpoint: file of your checkpoint of this register. What it covers is the same bytes, so their signatures are
            not verified again; all other rules apply to every entry. A check that refuses nothing writes it anew. By
            default every signature is verified.

    Raises:
        RegisterError: the folder does not hold a register, or it cannot be read; or the checkpoint is not yours, was
            edited, or is of another register.
        InputError: one of `crls` cannot be read, or the issuer that it names did not sign it.
        KeyFileError: the key of your checkpoints cannot be used (`checkpoint.own_signer`).
    """
    given, register = revocation.given(crls), Register(path)
    signer = None if checkpoint is None else own_signer()
    former = None if checkpoint is None or signer is None else load(Path(checkpoint), signer, register.id)
    covered = former is not None and former.covers(register.log)
    taken = former if former and covered and former.version == __version__ else None
    prefix = Prefix(taken.length if taken else 0)
    reading = Reading(known=prefix.known)
    _read(reading, register, prefix, progress)
    if taken and reading.whole and prefix.sha256_known != taken.sha256:
        raise RegisterError(f"{register.log} changed while it was read: check it again")
    if former and reading.whole and not covered:
        _check_former(reading, former, prefix)
    _check_receipts(reading, receipts, register.id)
    stamps = ordering.stamps(reading, register.path, now or datetime.now(timezone.utc), authorities, given)
    ordering.check_order(reading, stamps)
    ordering.check_clock(reading, stamps)
    ordering.check_keys(reading, stamps)
    entries = len(reading.hashes) // 32
    findings, head = tuple(reading.findings), reading.hash(entries - 1)
    report = Report(register.id, entries, head, tuple(stamps), findings, reading.counts, taken)
    if checkpoint is not None and signer and head and report.ok and prefix.length > prefix.known:
        checked = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        save(Path(checkpoint), Checkpoint(register.id, prefix.length, prefix.sha256, entries, head, checked), signer)
    return report


def _read(reading: Reading, register: Register, prefix: Prefix, progress: Callable[[int], None] | None) -> None:
    try:
        for entry in register.entries(prefix):
            take(reading, entry, register.id)
            if progress is not None and entry.seq % 512 == 0:
                progress(entry.seq)
    except CorruptEntryError as error:
        reading.findings.append(Finding("refused", error.code, error.seq, str(error)))
        reading.whole = False
    except OSError as error:
        raise RegisterError(
            f"{register.log} cannot be read ({error.strerror}): restore it, or ask for access"
        ) from error
    else:
        _check_end(reading, register)


def _check_former(reading: Reading, former: Checkpoint, prefix: Prefix) -> None:
    """Note that a log which you have checked was shortened or rewritten since."""
    if prefix.length < former.length:
        text = f"it has {prefix.length} bytes, and you checked {former.length} by {former.checked}"
        reading.find("refused", "tail-deleted", None, text)
    else:
        text = f"its first {former.length} bytes are not those that you checked by {former.checked}"
        reading.find("refused", "rewritten", None, text)


def _check_end(reading: Reading, register: Register) -> None:
    if not reading.hashes:
        reading.find("refused", "empty", None, "the log has no entry")
    elif (first := next(register.entries())).body.get("name") != register.public.get("name", first.body.get("name")):
        reading.find("flagged", "other-name", None, "owner.pub names another owner than the log's first entry")
    elif cut := ledger.torn(register.log):
        reading.find("flagged", "torn-tail", None, f"{cut} bytes after the last entry: of a write that was cut")


def _check_receipts(reading: Reading, receipts: Sequence[Receipt], register: str) -> None:
    for receipt in receipts:
        known = reading.owners.get(receipt.keyid)
        if receipt.register != register:
            reading.find(
                "refused", "other-register", None, f"the receipt for {receipt.register} is of another register"
            )
        elif known is None or not receipt.verify(known):
            reading.find(
                "refused", "bad-receipt", None, f"the receipt of entry {receipt.seq} is not signed by the owner"
            )
        elif (digest := reading.hash(receipt.seq)) is None:
            reading.find("refused", "tail-deleted", None, f"entry {receipt.seq}, of which there is a receipt, is gone")
        elif digest != receipt.hash:
            reading.find("refused", "rewritten", None, f"entry {receipt.seq} is not the one that the receipt names")
