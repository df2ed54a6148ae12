"""The order of events in time: tokens that hold, entries between them, and events that came too late."""

import functools
import hashlib
import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from wmplug.errors import PluginError, TimestampError
from wmplug.keys.files import read_bytes
from wmplug.register import Entry, revocation
from wmplug.register.reading import Finding, Reading

if TYPE_CHECKING:
    from wmplug.register.timestamps import Token, Trust

_TOLERANCE = timedelta(minutes=5)  # between the owner's clock and an authority's


@dataclass(frozen=True)
class Stamp:
    """A time from outside that holds.

    Attributes:
        seq: number of the anchor entry, which came after.
        head: number of the last entry it covers, which came before.
        gen_time: time by the authority.
        authority: name of the authority.
        lab: whether the authority is a lab's own, which attests nothing.
        unlisted: certificates behind it that no current revocation list speaks for.
        unrevoked_at: issue time of the lists by which none of them was revoked, or None.
    """

    seq: int
    head: int
    gen_time: datetime
    authority: str
    lab: bool
    unlisted: tuple[revocation.Unlisted, ...] = ()
    unrevoked_at: datetime | None = None


def stamps(
    reading: Reading,
    folder: Path,
    now: datetime,
    authorities: "Sequence[Trust] | None" = None,
    given: Sequence[revocation.Given] = (),
) -> list[Stamp]:
    """The anchors of the log whose tokens hold, in order; `reading` gets a finding for each of the others.

    Args:
        reading: reading of the whole log.
        folder: the register's folder.
        now: time to judge the expiry of certificates by.
        authorities: the authorities to trust; by default those that the register's own policy names.
        given: revocation lists of whoever checks; they count for every token, beside the archived ones.

    Raises:
        InputError: the issuer that a given list names did not sign it.
    """
    if not reading.anchors and not any((folder / "anchors").glob("*.tsr")):
        return []
    try:
        from wmplug.register.anchors import policy
    except PluginError as error:
        text = f"{len(reading.anchors)} anchors are unchecked: {error}"
        reading.find("inconclusive", "anchors-unchecked", None, text)
        return []
    trusted = {trust.url: trust for trust in (policy(folder) if authorities is None else authorities)}
    good: list[Stamp] = []
    latest: dict[str, list[bytes]] = {}  # by authority: its last revocation lists, for older certificates
    for entry in reversed(reading.anchors):
        # A later token renews this one if it covers the entry that names it, and not only the same head.
        renewed = min([now, *(stamp.gen_time for stamp in good if stamp.head >= entry.seq)])
        try:
            token = _token(reading, folder / "anchors", entry, trusted, latest, given, renewed, now)
        except TimestampError as error:
            reading.find("refused", error.code, entry, f"its token is refused: {error}")
        except OSError as error:
            reading.find("refused", "token-missing", entry, f"its token cannot be read: {error}")
        else:
            if token.status == "valid":
                facts = token.gen_time, token.authority, token.lab, token.unlisted, token.unrevoked_at
                good.append(Stamp(entry.seq, entry.body["head"], *facts))
            else:
                reading.find("inconclusive", "token-inconclusive", entry, f"its token: {'; '.join(token.reasons)}")
    if reading.whole:
        _check_orphans(reading, folder)
    return _in_order(reading, good[::-1])


def _in_order(reading: Reading, good: list[Stamp]) -> list[Stamp]:
    """The stamps that are not older than an earlier recorded one."""
    kept: list[Stamp] = []
    for stamp in good:
        # The clocks of two authorities need not agree to the second.
        if kept and stamp.gen_time < kept[-1].gen_time - _TOLERANCE:
            text = f"entry {stamp.seq}: its token is older than that of entry {kept[-1].seq}, recorded before it"
            reading.findings.append(Finding("refused", "time-runs-back", stamp.seq, text))
        else:
            kept.append(stamp)
    return kept


def _token(
    reading: Reading,
    folder: Path,
    entry: Entry,
    trusted: "Mapping[str, Trust]",
    latest: dict[str, list[bytes]],
    given: Sequence[revocation.Given],
    renewed: datetime,
    now: datetime,
) -> "Token":
    """The token of an anchor; its status shows how far it holds.

    Raises:
        TimestampError: the token does not hold, or is not the one that the entry names.
        OSError: the file cannot be read.
        InputError: the issuer that a given list names did not sign it.
    """
    from wmplug.register import anchors, timestamps

    body = entry.body
    if reading.hash(body["head"]) != body["hash"] or body["head"] >= entry.seq:
        raise TimestampError("it names another entry than the one it stamps", code="wrong-head")
    file = folder / body["file"]
    response = read_bytes(file)
    if hashlib.sha256(response).hexdigest() != body["token"]:
        raise TimestampError("the token is not the one that was recorded", code="token-replaced")
    if body["tsa"] not in trusted:
        raise TimestampError(f"no trusted authority answers at {body['tsa']}", code="authority-not-trusted")
    crls = [read_bytes(folder / name) for name in body["crls"]]
    latest.setdefault(body["tsa"], crls)
    crls = [*crls, *itertools.chain(*latest.values())]
    request = file.with_suffix(".tsq")
    verify = functools.partial(
        timestamps.verify_token,
        response,
        imprint=bytes.fromhex(body["hash"]),
        request=read_bytes(request) if request.exists() else None,
        trust=trusted[body["tsa"]],
        checked=now,
    )
    token = _verified(functools.partial(verify, crls=crls), renewed, now)
    for one in given:
        one.check_signature(token.certificates)
    if given:
        token = _verified(functools.partial(verify, crls=[*crls, *(one.data for one in given)]), renewed, now)
    if differing := [name for name, value in anchors.facts_of(token).items() if body.get(name) != value]:
        code = "wrong-salt" if "salt" in differing else "wrong-anchor"
        raise TimestampError(f"the entry and its token differ in {', '.join(differing)}", code=code)
    return token


def _verified(verify: "Callable[..., Token]", renewed: datetime, now: datetime) -> "Token":
    try:
        return verify(now=renewed)
    except TimestampError as error:
        if error.code != "future":
            raise
        return verify(now=now)  # a later token of an earlier time renews nothing


def _check_orphans(reading: Reading, folder: Path) -> None:
    """Check tokens that no entry names: the log must hold their heads, or its end was cut off."""
    from wmplug.register import timestamps

    named = {anchor.body["file"] for anchor in reading.anchors}
    hashes = {bytes(reading.hashes[i : i + 32]) for i in range(0, len(reading.hashes), 32)}
    for file in sorted((folder / "anchors").glob("*.tsr")):
        if file.name in named:
            continue
        try:
            known = timestamps.imprint_of(read_bytes(file)) in hashes
        except (TimestampError, OSError) as error:
            reading.find(
                "flagged", "token-unreadable", None, f"{file.name} is named by no entry and unreadable: {error}"
            )
            continue
        if not known:
            text = f"{file.name} stamps an entry that is not in the log: its end was cut off, or it was rewritten"
            reading.find("refused", "tail-deleted", None, text)


def check_order(reading: Reading, stamps: list[Stamp]) -> None:
    """Check the order: secrets before salts, salts before triggers, triggers before training."""
    for watermark, triggers in reading.triggers.items():
        salt = triggers.body["evidence"]["salt"]
        committed = reading.secrets.get(watermark, triggers.seq)
        first = next((anchor for anchor in reading.anchors if anchor.body["head"] >= committed), None)
        if salt is None:
            text = "NOT ATTESTED: its key rests on no token, so that it may have been made to fit a model"
            reading.find("inconclusive", "no-salt", triggers, text)
        elif first is None or first.seq > triggers.seq:
            reading.find("refused", "salt-without-token", triggers, "its salt comes from no token before it")
        else:
            _check_salt(reading, triggers, first, salt, stamps)
        started = reading.started.get(watermark)
        if started is None:
            continue
        covering = [stamp for stamp in stamps if stamp.head >= triggers.seq]
        if started < triggers.seq:
            text = f"training had started (entry {started}) before these triggers were committed to"
            reading.find("refused", "triggers-after-training", triggers, text)
        elif covering and covering[0].seq > started:
            text = f"these triggers were stamped after training had started (entry {started})"
            reading.find("refused", "anchored-after-training", triggers, text)
        elif not covering:
            reading.find("inconclusive", "not-anchored", triggers, "NOT ATTESTED: no time from outside covers it")


def _check_salt(reading: Reading, triggers: Entry, first: Entry, salt: str, stamps: list[Stamp]) -> None:
    if first.body["salt"] != salt:
        reading.find("refused", "wrong-salt", triggers, f"its salt is not that of the token of entry {first.seq}")
    elif not any(stamp.seq == first.seq for stamp in stamps):
        reading.find(
            "inconclusive", "salt-unproven", triggers, f"its salt rests on entry {first.seq}, which does not hold"
        )


def check_clock(reading: Reading, stamps: list[Stamp]) -> None:
    """Flag claimed times that contradict the authorities' times: a clock was wrong, or somebody set it."""
    seqs, heads = ([getattr(stamp, name) for stamp in stamps] for name in ("seq", "head"))
    for seq, claimed in reading.times:
        # Tokens that hold are in order of time, so the nearest on each side binds.
        before, after = bisect_right(seqs, seq) - 1, bisect_left(heads, seq)
        lower = stamps[before].gen_time if before >= 0 else None
        upper = stamps[after].gen_time if after < len(stamps) else None
        if lower is not None and claimed < lower - _TOLERANCE:
            text = f"entry {seq} claims {claimed:%Y-%m-%d %H:%M}, but came after a token of {lower:%Y-%m-%d %H:%M}"
        elif upper is not None and claimed > upper + _TOLERANCE:
            text = f"entry {seq} claims {claimed:%Y-%m-%d %H:%M}, but a token of {upper:%Y-%m-%d %H:%M} covers it"
        else:
            continue
        reading.findings.append(Finding("flagged", "clock", seq, text))


def check_keys(reading: Reading, stamps: list[Stamp]) -> None:
    """Flag entries signed by a key that others may have held, unless a token dates them before that."""
    for keyid, since in reading.compromised.items():
        covered = max((stamp.head for stamp in stamps if stamp.gen_time < since), default=-1)
        loose = [seq for seq in reading.signed.get(keyid, ()) if seq > covered]
        if loose:
            text = (
                f"entry {loose[0]} and in all {len(loose)} entries up to {loose[-1]} are signed by key {keyid[:16]}, "
                f"which others may have held since {since:%Y-%m-%d %H:%M}, and no token from before then covers them"
            )
            reading.findings.append(Finding("flagged", "signed-by-compromised-key", loose[0], text))
