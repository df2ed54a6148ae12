"""The checks before the hearing: the register holds, and the triggers follow from the secret."""

import functools
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from wmplug.errors import NotaryError
from wmplug.register import Entry, Register, anchors, checking, disclosure, revocation
from wmplug.register.checking import Report
from wmplug.register.history import logs_of, tries_of
from wmplug.register.notary import certificates
from wmplug.register.notary.case import Case, Since
from wmplug.register.notary.package import Package
from wmplug.register.ordering import Stamp
from wmplug.register.receipts import Receipt
from wmplug.tasks import public as tasks
from wmplug.watermark.plan import TriggerSet

Result = Literal["passed", "failed", "inconclusive", "NOT ATTESTED"]
_DATED = ("secret.committed", "triggers.committed", "training.started", "training.finished", "model.released")


@dataclass(frozen=True)
class Check:
    """One check and its result.

    Attributes:
        name: the check in a few words.
        result: `passed`, `failed`, `inconclusive`: something that whoever checks must give is missing, or
            `NOT ATTESTED`: nothing contradicts the claim, and no neutral party confirms it.
        text: the finding, for people.
    """

    name: str
    result: Result
    text: str


@dataclass(frozen=True, eq=False)
class Inspection:
    """The results of all checks, and the facts that the hearing needs.

    Attributes:
        checks: the checks in order.
        triggers: derived again; None where they must not be asked, since a check failed or is inconclusive.
        spent: rows that certificates of accepted notaries spent; they must not be asked.
        shown: rows whose answers everybody knows; they count as misses.
        keys: number of keys that the register committed to, for any watermark.
        systems: finished systems on record: digest of their files or tensors -> entry.
        register: name, id, entries, head.
        tokens: timestamps that hold.
        times: when events happened, between two tokens.
        lists: SHA-256 (hex) of the revocation lists that the notary gave.
        log: the commitment to the log that the case asks: its root, count and entry; not_after, the time by which
            it was there, as text (UTC) or None; commitments, the number of logs that the register commits to. None
            without such a commitment.
    """

    checks: tuple[Check, ...]
    triggers: TriggerSet | None = field(repr=False)
    spent: frozenset[int]
    shown: frozenset[int]
    keys: int
    systems: Mapping[str, int]
    register: dict[str, Any]
    tokens: tuple[dict[str, Any], ...]
    times: tuple[dict[str, Any], ...]
    lists: tuple[str, ...]
    log: Mapping[str, Any] | None = None


class _NotAttestedError(NotaryError):
    """No neutral party confirms the claim."""


class _InconclusiveError(NotaryError):
    """Something that whoever checks must give is missing."""


@dataclass(frozen=True)
class _Record:
    """The log's entries and timestamps, and the report on them."""

    report: Report
    entries: tuple[Entry, ...]
    stamps: tuple[tuple[Stamp, Mapping[str, Any], bool], ...]  # with the anchor's body, and whether it is accepted

    def of(self, kind: str, watermark: str) -> list[Entry]:
        return [e for e in self.entries if e.type == kind and e.body.get("watermark") == watermark]


def inspect(
    package: Package,
    case: Case,
    folder: Path,
    *,
    notaries: Collection[str] = (),
    receipts: Sequence[Receipt] = (),
    crls: Sequence[bytes | Path] = (),
    now: datetime | None = None,
) -> Inspection:
    """Check a register and derive the triggers.

    Args:
        package: the opened package.
        case: the fixed case.
        folder: the register's folder, unpacked from the package.
        notaries: keys (hex) of the notaries whose certificates spend rows.
        receipts: receipts that the owner gave out earlier; the log must still hold the entries that they name.
        crls: revocation lists that the notary gives, see `checking.check`.
        now: time to judge the expiry of certificates by.

    Raises:
        RegisterError: the folder does not hold a register.
        InputError: one of `crls` cannot be read, or the issuer that it names did not sign it.
    """
    record = _read(folder, case, checking.check(folder, receipts=receipts, crls=crls, now=now))
    triggers: list[TriggerSet] = []
    logs: list[dict[str, Any]] = []
    spent: frozenset[int] = frozenset()
    shown: frozenset[int] = frozenset()
    if record.report.ok:
        spent = certificates.spent_rows(record.entries, package.public["id"], notaries)
        shown = disclosure.shown_rows(record.entries, package.public["id"]) - spent
    checks = [_check_register(record.report)]
    if record.report.ok:
        checks += [
            _run("package", lambda: _claim(package, case)),
            _run("commitment", lambda: _commitment(package, record)),
            _run("salt", lambda: _salt(package, record)),
            _run("triggers", lambda: _derive(package, record, triggers)),
            _run("spent", lambda: _spent(spent, shown)),
            _run("time", lambda: _time(package, record, case.log)),
        ]
        if case.log:
            checks.append(_run("log", lambda: _log(package, record, case.suspect_since, logs)))
        if case.suspect_since is not None:
            checks.append(_run("suspect", functools.partial(_suspect, package, record, case.suspect_since)))
    good = not any(check.result in ("failed", "inconclusive") for check in checks)
    return Inspection(
        tuple(checks),
        triggers[0] if triggers and good else None,
        spent,
        shown,
        sum(entry.type == "secret.committed" for entry in record.entries),
        dict(_systems(package.public["id"], record)),
        {
            "name": Register(folder).public.get("name"),
            "id": record.report.register,
            "entries": record.report.entries,
            "head": record.report.head,
        },
        tuple(_token(*stamp) for stamp in record.stamps),
        tuple(_times(package.public["id"], record, {log["entry"] for log in logs})),
        tuple(one.sha256 for one in revocation.given(crls)),
        logs[0] if logs else None,
    )


def _read(folder: Path, case: Case, report: Report) -> _Record:
    entries = list(Register(folder).entries()) if report.ok else []
    by_seq = {entry.seq: entry for entry in entries}
    roots = {trust.url: {hashlib.sha256(root).hexdigest() for root in trust.roots} for trust in anchors.policy(folder)}
    stamps = []
    for stamp in report.stamps if report.ok else ():
        body = by_seq[stamp.seq].body
        accepted = not stamp.lab and roots[body["tsa"]] <= set(case.authorities)
        stamps.append((stamp, {**body, "roots": sorted(roots[body["tsa"]])}, accepted))
    return _Record(report, tuple(entries), tuple(stamps))


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "passed", check())
    except _NotAttestedError as error:
        return Check(name, "NOT ATTESTED", str(error))
    except _InconclusiveError as error:
        return Check(name, "inconclusive", str(error))
    except NotaryError as error:
        return Check(name, "failed", str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # The owner wrote the register and the package, and could have written anything into them.
        return Check(name, "failed", f"what the owner gave is not what wmplug writes ({type(error).__name__}: {error})")


def _check_register(report: Report) -> Check:
    refused = [finding.text for finding in report.findings if finding.level == "refused"]
    if refused:
        return Check("register", "failed", "; ".join(refused))
    others = "".join(f"; {finding.level}: {finding.text}" for finding in report.findings)
    return Check(
        "register", "passed", f"{report.entries} entries, each signed, linked to the one before, and in order{others}"
    )


def _claim(package: Package, case: Case) -> str:
    public = package.public
    for name, packed, fixed in (
        ("case", package.case, case.case),
        ("package", package.sha256, case.package),
        ("watermark", public["id"], case.watermark),
        ("root", public["root"], case.root),
        ("log", package.log or "none", case.log or "none"),
    ):
        if packed != fixed:
            raise NotaryError(f"the package is for {name} {packed}, the case was fixed for {fixed}: open the right one")
    return "the package is the one that the case was fixed for"


def _commitment(package: Package, record: _Record) -> str:
    watermark = package.public["id"]
    committed = record.of("secret.committed", watermark)
    if not committed:
        raise NotaryError(f"the register has no commitment to the secret of watermark {watermark}")
    if package.public["owner"]["commitment"] != record.report.register:
        raise NotaryError("the watermark names another owner than the register's")
    if package.pledge.commitment != committed[0].body["commitment"]:
        raise NotaryError(f"secret and blind do not open the commitment of entry {committed[0].seq}")
    if (package.public["evidence"] or {}).get("prepared") != committed[0].body.get("prepared"):
        raise NotaryError(f"the root over prepared inputs is not the one that entry {committed[0].seq} commits to")
    return f"secret and blind open the commitment of entry {committed[0].seq}"


def _salt(package: Package, record: _Record) -> str:
    if package.salt is None:
        return "the key has no salt of a timestamp"
    first = _salted_by(package, record)
    if first is None or first.body["salt"] != package.salt.hex():
        raise NotaryError("the salt is not that of the first timestamp over the commitment: another key was chosen")
    return f"the salt is that of the first timestamp over the commitment, entry {first.seq}"


def _salted_by(package: Package, record: _Record) -> Entry | None:
    """The first anchor over the commitment, whether or not its token holds."""
    committed = record.of("secret.committed", package.public["id"])
    anchored = (entry for entry in record.entries if entry.type == "anchor")
    return next((entry for entry in anchored if committed and entry.body["head"] >= committed[0].seq), None)


def _derive(package: Package, record: _Record, triggers: list[TriggerSet]) -> str:
    public = package.public
    committed = record.of("triggers.committed", public["id"])
    if len(committed) != 1:
        raise NotaryError(
            f"the register commits to the triggers of this watermark {len(committed)} times: once is right"
        )
    body = committed[0].body
    kept = ("root", "rows", "draws", "triggers", *tasks.KEYS, "scheme", "evidence")
    facts = {name: public[name] for name in kept if name in public}
    if wrong := [name for name, value in facts.items() if body.get(name) != value]:
        raise NotaryError(f"entry {committed[0].seq} has another {' and another '.join(wrong)} than the package")
    derived = package.derive()
    triggers.append(derived)
    return (
        f"{len(derived.answers)} inputs and answers follow from secret and salt, and have the root of entry "
        f"{committed[0].seq}"
    )


def _spent(spent: frozenset[int], shown: frozenset[int]) -> str:
    return (
        f"certificates of accepted notaries name {len(spent)} rows, which are not asked again; {len(shown)} more were "
        "shown to everybody and count as misses; rows that the owner alone spent stay in the draw"
    )


def _suspect(package: Package, record: _Record, since: Since) -> str:
    """Check that the secret was there before the suspect."""
    committed = record.of("secret.committed", package.public["id"])[0].seq
    dated = min((stamp.gen_time for stamp, _, good in record.stamps if good and stamp.head >= committed), default=None)
    if dated is None:
        raise _NotAttestedError("nobody whom the notary accepts dates the secret, so it may be later than the suspect")
    if dated >= since.instant:
        raise NotaryError(
            f"the secret is attested from {_iso(dated)} on, and the suspect was there on {since.date} already "
            f"({since.source}): so the key may have been made to fit it"
        )
    return f"the secret was there by {_iso(dated)}, the suspect is known since {since.date} ({since.source})"


def _log(package: Package, record: _Record, since: Since | None, logs: list[dict[str, Any]]) -> str:
    """Check that the register commits to the package's queries, and that this came before the suspect."""
    committed, decided = logs_of(record.entries, package.public["id"]), package.decided
    facts = (package.log, 0 if decided is None else len(decided))
    found = next((e for e in committed if (e.body.get("root"), e.body.get("count")) == facts), None)
    if decided is None or found is None:
        raise NotaryError(
            f"the package's {facts[1]} queries are none of the {len(committed)} logs of this watermark that the "
            "register commits to: other ones, or in another order"
        )
    covering = [stamp for stamp, _, good in record.stamps if good and stamp.head >= found.seq]
    dated = min((stamp.gen_time for stamp in covering), default=None)
    tries = tries_of(logs_of(record.entries))
    logs.append(
        dict(root=facts[0], count=facts[1], entry=found.seq, not_after=_iso(dated), commitments=tries),
    )
    if dated is None:
        raise _NotAttestedError(
            f"nobody whom the notary accepts dates entry {found.seq}, which commits to the log, so its queries may "
            "have been chosen by the suspect's answers"
        )
    if since is not None and dated >= since.instant:
        raise NotaryError(
            f"the log is attested from {_iso(dated)} on, and the suspect was there on {since.date} already "
            f"({since.source}): so its queries may have been chosen by the suspect's answers"
        )
    before = [stamp for stamp in covering if since is None or stamp.gen_time < since.instant]
    if silent := min(before, key=lambda stamp: len(stamp.unlisted)).unlisted:
        raise _InconclusiveError("; ".join(map(str, silent)))
    return (
        f"entry {found.seq} commits to the package's {facts[1]} queries, in their order; it was there by "
        f"{_iso(dated)}; the register commits to {tries} logs, and each counts as a try"
    )


def _time(package: Package, record: _Record, log: str = "") -> str:
    """Check the order by clocks that the notary accepts: secret before salt, triggers before training.

    No training teaches what served answers carry. What comes after the key is then the log, which `_log` dates.
    """
    watermark = package.public["id"]
    triggers, started = record.of("triggers.committed", watermark), record.of("training.started", watermark)
    accepted = [stamp for stamp, _, good in record.stamps if good]
    first = _salted_by(package, record)
    between = [s for s in accepted if triggers and started and triggers[0].seq <= s.head and s.seq < started[0].seq]
    why = [finding.text for finding in record.report.findings if finding.code == "salt-unproven"]
    if package.salt is None:
        why.append("the key was made without a timestamp, so nobody can tell how many keys were tried")
    # The report lists only stamps whose token holds. If the first one fails, a later one must not take its place.
    elif first is None or first.seq not in {stamp.seq for stamp in accepted}:
        why.append("the timestamp that the key follows from is of no authority whose root the notary accepts")
    taught = package.scheme.points != {"answers"}
    if not taught and not log:
        why.append("no training teaches this watermark, and the package holds no log that says what was served")
    elif taught and not started:
        why.append("no training with this watermark is recorded")
    elif taught and triggers and not between:
        why.append("no timestamp that the notary accepts lies between the triggers' root and the start of training")
    if why:
        raise _NotAttestedError("; ".join(why))
    rests = [s for s in accepted if first and s.seq == first.seq]
    rests += sorted(between, key=lambda s: len(s.unlisted))[:1] if taught else []
    if silent := dict.fromkeys(one for stamp in rests for one in stamp.unlisted):
        raise _InconclusiveError("; ".join(map(str, silent)))
    order = "triggers before training" if taught else "and no training teaches this watermark (the log is dated below)"
    return f"secret before salt, {order}, by clocks that the notary accepts and nobody revoked"


def _systems(watermark: str, record: _Record) -> Iterator[tuple[str, int]]:
    for entry in reversed(record.of("system.committed", watermark)):  # the first that has a digest counts
        for part, name in (("files", "root"), ("tensors", "sha256")):
            if digest := (entry.body.get(part) or {}).get(name):
                yield str(digest), entry.seq


def _token(stamp: Stamp, body: Mapping[str, Any], accepted: bool) -> dict[str, Any]:
    return {
        "entry": stamp.seq,
        "covers": stamp.head,
        "gen_time": _iso(stamp.gen_time),
        "authority": stamp.authority,
        "sha256": body["token"],
        "roots": body["roots"],
        "lab": stamp.lab,
        "accepted": accepted,
        "unlisted": [one.certificate for one in stamp.unlisted],
        "unrevoked_at": _iso(stamp.unrevoked_at),
    }


def _times(watermark: str, record: _Record, logs: Collection[int] = ()) -> Iterator[dict[str, Any]]:
    accepted = [stamp for stamp, _, good in record.stamps if good]
    for entry in record.entries:
        dated = entry.type in _DATED and entry.body.get("watermark", watermark) == watermark
        if not dated and entry.seq not in logs:
            continue
        before = max((stamp.gen_time for stamp in accepted if stamp.seq < entry.seq), default=None)
        after = min((stamp.gen_time for stamp in accepted if stamp.head >= entry.seq), default=None)
        yield {
            "entry": entry.seq,
            "event": entry.type,
            "claimed": entry.claimed_time,
            "not_before": _iso(before),
            "not_after": _iso(after),
        }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")
