"""What is checked before anybody is asked: the register, and that the triggers follow from the secret."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from wmplug.errors import NotaryError
from wmplug.register import Entry, Register, anchors, checking, disclosure
from wmplug.register.checking import Report
from wmplug.register.notary.case import Case
from wmplug.register.notary.package import Package
from wmplug.register.receipts import Receipt
from wmplug.register.timeline import Stamp
from wmplug.watermark.plan import TriggerSet

Result = Literal["passed", "failed", "NOT ATTESTED"]
_DATED = ("secret.committed", "triggers.committed", "training.started", "training.finished", "model.released")


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: in a few words.
        result: `passed`, `failed`, or `NOT ATTESTED`: nothing speaks against it but nobody neutral for it.
        text: what was found, for people.
    """

    name: str
    result: Result
    text: str


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found.

    Attributes:
        checks: in order.
        triggers: derived anew; None where they are not those that were committed to.
        spent: rows not to be asked.
        keys: that the register committed to, for any watermark.
        systems: finished systems on record: digest of their files or tensors -> entry.
        register: name, id, entries, head.
        tokens: timestamps that hold.
        times: when events happened, between two tokens.
    """

    checks: tuple[Check, ...]
    triggers: TriggerSet | None = field(repr=False)
    spent: frozenset[int]
    keys: int
    systems: Mapping[str, int]
    register: dict[str, Any]
    tokens: tuple[dict[str, Any], ...]
    times: tuple[dict[str, Any], ...]


class _NotAttestedError(NotaryError):
    """Nobody neutral speaks for it."""


@dataclass(frozen=True)
class _Found:
    """What the log says of one watermark."""

    folder: Path
    report: Report
    entries: tuple[Entry, ...]
    stamps: tuple[tuple[Stamp, Mapping[str, Any], bool], ...]  # with the anchor's body, and whether it is accepted

    def of(self, kind: str, watermark: str) -> list[Entry]:
        return [e for e in self.entries if e.type == kind and e.body.get("watermark") == watermark]


def inspect(
    package: Package, case: Case, folder: Path, *, receipts: Sequence[Receipt] = (), now: datetime | None = None
) -> Inspection:
    """Check a register and derive the triggers.

    Args:
        package: as opened.
        case: as fixed.
        folder: of the register that lay in the package.
        receipts: that the owner gave out earlier; the log must still hold what they name.
        now: by whose clock certificates have expired.

    Raises:
        RegisterError: there is no register to check.
    """
    found = _read(folder, case, checking.check(folder, receipts=receipts, now=now))
    triggers: list[TriggerSet] = []
    spent: set[int] = set()
    checks = [_check_register(found.report)]
    if found.report.ok:
        checks += [
            _run("package", lambda: _claim(package, case)),
            _run("commitment", lambda: _commitment(package, found)),
            _run("salt", lambda: _salt(package, found)),
            _run("triggers", lambda: _derive(package, found, triggers)),
            _run("spent", lambda: _spent(package, found, spent)),
            _run("time", lambda: _time(package, found)),
        ]
    good = not any(check.result == "failed" for check in checks)
    return Inspection(
        tuple(checks),
        triggers[0] if triggers and good else None,
        frozenset(spent),
        sum(entry.type == "secret.committed" for entry in found.entries),
        dict(_systems(package.public["id"], found)),
        {
            "name": Register(folder).public.get("name"),
            "id": found.report.register,
            "entries": found.report.entries,
            "head": found.report.head,
        },
        tuple(_token(*stamp) for stamp in found.stamps),
        tuple(_times(package.public["id"], found)),
    )


def _read(folder: Path, case: Case, report: Report) -> _Found:
    entries = list(Register(folder).entries()) if report.ok else []
    by_seq = {entry.seq: entry for entry in entries}
    roots = {trust.url: {hashlib.sha256(root).hexdigest() for root in trust.roots} for trust in anchors.policy(folder)}
    stamps = []
    for stamp in report.stamps if report.ok else ():
        body = by_seq[stamp.seq].body
        accepted = not stamp.lab and roots[body["tsa"]] <= set(case.authorities)
        stamps.append((stamp, {**body, "roots": sorted(roots[body["tsa"]])}, accepted))
    return _Found(folder, report, tuple(entries), tuple(stamps))


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, "passed", check())
    except _NotAttestedError as error:
        return Check(name, "NOT ATTESTED", str(error))
    except NotaryError as error:
        return Check(name, "failed", str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # The owner wrote the register and the package, and could write anything.
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
    for name, told, fixed in (
        ("case", package.case, case.case),
        ("package", package.sha256, case.package),
        ("watermark", public["id"], case.watermark),
        ("root", public["root"], case.root),
    ):
        if told != fixed:
            raise NotaryError(f"the package is for {name} {told}, the case was fixed for {fixed}: open the right one")
    return "the package is the one that the case was fixed for"


def _commitment(package: Package, found: _Found) -> str:
    watermark = package.public["id"]
    committed = found.of("secret.committed", watermark)
    if not committed:
        raise NotaryError(f"the register has no commitment to the secret of watermark {watermark}")
    if package.public["owner"]["commitment"] != found.report.register:
        raise NotaryError("the watermark names another owner than the register's")
    if package.pledge.commitment != committed[0].body["commitment"]:
        raise NotaryError(f"secret and blind do not open the commitment of entry {committed[0].seq}")
    return f"secret and blind open the commitment of entry {committed[0].seq}"


def _salt(package: Package, found: _Found) -> str:
    if package.salt is None:
        return "the key has no salt of a timestamp"
    first = _salted_by(package, found)
    if first is None or first.body["salt"] != package.salt.hex():
        raise NotaryError("the salt is not that of the first timestamp over the commitment: another key was chosen")
    return f"the salt is that of the first timestamp over the commitment, entry {first.seq}"


def _salted_by(package: Package, found: _Found) -> Entry | None:
    """The first anchor over the commitment, whether or not its token holds."""
    committed = found.of("secret.committed", package.public["id"])
    anchored = (entry for entry in found.entries if entry.type == "anchor")
    return next((entry for entry in anchored if committed and entry.body["head"] >= committed[0].seq), None)


def _derive(package: Package, found: _Found, triggers: list[TriggerSet]) -> str:
    public = package.public
    committed = found.of("triggers.committed", public["id"])
    if len(committed) != 1:
        raise NotaryError(
            f"the register commits to the triggers of this watermark {len(committed)} times: once is right"
        )
    body = committed[0].body
    told = {name: public[name] for name in ("root", "rows", "draws", "triggers", "classes", "scheme", "evidence")}
    if wrong := [name for name, value in told.items() if body[name] != value]:
        raise NotaryError(f"entry {committed[0].seq} has another {' and another '.join(wrong)} than the package")
    made = package.derive()
    triggers.append(made)
    return (
        f"{len(made.answers)} inputs and answers follow from secret and salt, and have the root of entry "
        f"{committed[0].seq}"
    )


def _spent(package: Package, found: _Found, spent: set[int]) -> str:
    spent |= disclosure.spent(Register(found.folder), package.public["id"])
    return f"{len(spent)} rows were shown or asked in other cases, and are not asked again"


def _time(package: Package, found: _Found) -> str:
    """Whether a clock that the notary accepts says: secret before salt, triggers before training."""
    watermark = package.public["id"]
    triggers, started = found.of("triggers.committed", watermark), found.of("training.started", watermark)
    accepted = [stamp for stamp, _, good in found.stamps if good]
    first = _salted_by(package, found)
    why = [finding.text for finding in found.report.findings if finding.code == "salt-unproven"]
    if package.salt is None:
        why.append("the key was made without a timestamp, so nobody can tell how many keys were tried")
    # Stamps are those whose token holds: one that does not any more must not give its place to a later one.
    elif first is None or first.seq not in {stamp.seq for stamp in accepted}:
        why.append("the timestamp that the key follows from is of no authority whose root the notary accepts")
    if not started:
        why.append("no training with this watermark is recorded")
    elif triggers and not any(triggers[0].seq <= stamp.head and stamp.seq < started[0].seq for stamp in accepted):
        why.append("no timestamp that the notary accepts lies between the triggers' root and the start of training")
    if why:
        raise _NotAttestedError("; ".join(why))
    return "secret before salt, triggers before training, by clocks that the notary accepts"


def _systems(watermark: str, found: _Found) -> Iterator[tuple[str, int]]:
    for entry in reversed(found.of("system.committed", watermark)):  # the first that has a digest counts
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
    }


def _times(watermark: str, found: _Found) -> Iterator[dict[str, Any]]:
    accepted = [stamp for stamp, _, good in found.stamps if good]
    for entry in found.entries:
        if entry.type not in _DATED or entry.body.get("watermark", watermark) != watermark:
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
