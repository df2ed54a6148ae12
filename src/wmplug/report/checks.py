"""The checks of a register, each with its result; and how much of the register is attested."""

from collections.abc import Sequence
from typing import Any

from wmplug.register.checking import Report
from wmplug.report import words
from wmplug.report.facts import Fact, Facts, instant

ENTRIES, TIMES, ORDER, CLOCK, KEYS, RECEIPTS = "entries", "timestamps", "order", "clock", "keys", "receipts"
_CHECKS = {
    ENTRIES: (
        "Entries are whole, signed and linked",
        "Each entry is signed by a key that the register itself introduced, and names the one before it. Nothing was "
        "changed, taken out, or put in between.",
    ),
    TIMES: (
        "Timestamps hold",
        "Each timestamp fits its entry and is signed below a root certificate that is trusted here, by a certificate "
        "that was valid, and that no revocation list here withdraws.",
    ),
    ORDER: (
        "Things happened in the right order",
        "Secret first, then the timestamp that goes into the key, then the questions, then training.",
    ),
    CLOCK: ("The owner's clock agrees", "Claimed times lie where the timestamps leave room for them."),
    KEYS: ("Signing keys were in the right hands", "No entry rests on a key that others may have held."),
    RECEIPTS: (
        "Receipts given out earlier still fit",
        "What the register said when a receipt was given is still in it, unchanged.",
    ),
}
_BY_CODE = {
    CLOCK: {"clock"},
    KEYS: {"signed-by-compromised-key"},
    ORDER: {
        *("no-secret", "no-salt", "salt-without-token", "salt-unproven", "triggers-after-training"),
        *("anchored-after-training", "not-anchored"),
    },
    RECEIPTS: {"bad-receipt", "rewritten"},
    TIMES: {"anchors-unchecked", "token-unreadable", "time-runs-back"},
}
_WORST = ("refused", "inconclusive", "flagged")
_UNDATED = {  # without any timestamp; with a laboratory's alone
    TIMES: (
        "None: there is no timestamp, so nobody outside says when any of this was done.",
        "Lab only: the timestamps fit their entries, but the owner of a laboratory's clock can date anything with it.",
    ),
    ORDER: (
        "None: the entries stand in some order, but no timestamp parts them, so all can have been written afterwards.",
        "Lab only: the entries stand in some order, but only a laboratory's timestamps part them, so all can have been "
        "written afterwards.",
    ),
}
_SHOWN = 5
LEVELS = {
    "refused": "does not hold",
    "inconclusive": "proves less than it says",
    "flagged": "worth a look",
    "passed": "passed",
    "incomplete": "could not be finished: an entry before was refused",
    "nothing to check": "there is nothing to check",
}


def checks(facts: Facts, receipts: int, marks: Sequence[Fact]) -> list[Fact]:
    """Each check with its result and its findings.

    Args:
        facts: the register's facts.
        receipts: number of receipts given.
        marks: watermarks that the owner committed to.
    """
    found: dict[str, list[Fact]] = {name: [] for name in _CHECKS}
    anchors = {entry.seq for entry in facts.of("anchor")}
    for finding in facts.report.findings:
        fact = {"level": finding.level, "code": finding.code, "entry": finding.seq, "text": finding.text}
        found[_group(finding.code, finding.seq, finding.text, anchors)].append(fact)
    whole = not any(fact["level"] == "refused" for fact in found[ENTRIES])
    idle = {TIMES: not anchors, CLOCK: not facts.report.stamps, RECEIPTS: not receipts}
    idle[ORDER] = not facts.of("triggers.committed")
    subjects = _subjects(facts, receipts, marks)
    return [
        {"check": name, "title": title, "means": means, "findings": found[name]}
        | _result(facts.report, name, found[name], whole or name == ENTRIES, idle.get(name, False))
        | {"found": subjects[name] if whole or name == ENTRIES else None}
        for name, (title, means) in _CHECKS.items()
    ]


def _subjects(facts: Facts, receipts: int, marks: Sequence[Fact]) -> dict[str, str]:
    """The subject of each check, in words."""
    report, stamps, claimed = facts.report, facts.report.stamps, [entry.claimed_time for entry in facts.entries]
    number = words.count(len(claimed), "entry", "entries")
    span = f", claimed between {words.time(min(claimed))} and {words.time(max(claimed))}" if claimed else ""
    times = [words.time(instant(stamp.gen_time)) for stamp in stamps]
    dated = f", from {min(times)} to {max(times)}" if len(times) > 1 else f", of {times[0]}" if times else ""
    lab = sum(stamp.lab for stamp in stamps)
    keyed = [mark for mark in marks if mark["triggers_entry"] is not None]
    orders = [
        f"secret in entry {mark['secret_entry']}, questions in entry {mark['triggers_entry']}, "
        + ("no training" if mark["training_entry"] is None else f"training from entry {mark['training_entry']} on")
        for mark in keyed[:_SHOWN]
    ] + ([f"{len(keyed) - _SHOWN} more are under 2"] if len(keyed) > _SHOWN else [])
    withdrawn = len(facts.of("key.revoked"))
    return {
        ENTRIES: f"{number} held{span}.",
        TIMES: f"{len(stamps)} of {words.count(len(facts.of('anchor')), 'timestamp')} held{dated}"
        f"{f'; {lab} of a laboratory (LAB ONLY)' if lab else ''}. An authority dates "
        f"{words.entries(report.attested - 1) if report.attested else 'no entry'}.{_unlisted(report)}",
        ORDER: f"{words.count(len(keyed), 'watermark')} with questions{': ' if orders else ''}{'; '.join(orders)}.",
        CLOCK: f"{words.count(len(claimed), 'claimed time')} against {words.count(len(stamps), 'timestamp')}{dated}.",
        KEYS: f"{words.count(len({entry.keyid for entry in facts.entries}), 'key')} signed; "
        f"{words.count(withdrawn, 'withdrawal')} recorded.",
        RECEIPTS: f"{words.count(receipts, 'receipt')} given.",
    }


def _group(code: str, seq: int | None, text: str, anchors: set[int]) -> str:
    for name, codes in _BY_CODE.items():
        if code in codes:
            return name
    if seq in anchors:
        return TIMES
    if code == "wrong-salt":
        return ORDER
    if seq is None and code in ("tail-deleted", "other-register"):
        return RECEIPTS if "receipt" in text else TIMES
    return ENTRIES


def _result(report: Report, name: str, found: list[Fact], whole: bool, idle: bool) -> Fact:
    levels = {fact["level"] for fact in found}
    # A merely odd finding must not hide that nobody outside dates anything.
    loose = whole and not report.attested and name in _UNDATED and not levels & {"refused", "inconclusive"}
    if loose:
        return {"result": "not attested", "result_text": _UNDATED[name][bool(report.stamps)]}
    for level in _WORST:
        if level in levels:
            return {"result": level, "result_text": LEVELS[level]}
    result = "incomplete" if not whole else "nothing to check" if idle else "passed"
    return {"result": result, "result_text": LEVELS[result]}


def attestation(facts: Facts, marks: list[Fact], more: Sequence[str] = ()) -> Fact:
    """Whether the dossier rests on anything but the owner's word, in one word and in reasons.

    Args:
        facts: the register's facts.
        marks: watermarks that the owner committed to.
        more: what else is the owner's word, in sentences.

    Returns:
        status: `refused`, `not attested`, `partly attested` or `attested`; headline, text and reasons, in words.
    """
    report = facts.report
    reasons = [finding.text for finding in report.findings if finding.level == "refused"]
    if reasons:
        return _say("refused", reasons)
    if not report.attested:
        return _say("not attested", [_no_stamp(report), *more])
    loose_marks = [mark for mark in marks if mark["key"] not in ("attested", "none")]
    reasons = [f"Watermark {mark['watermark']}: {mark['key_text']}" for mark in loose_marks]
    loose = [entry.seq for entry in facts.entries if entry.seq >= report.attested and entry.type != "anchor"]
    if loose:
        reasons.append(
            f"{words.count(len(loose), 'entry', 'entries')}, from entry {loose[0]} on, came after the last timestamp "
            f"of an authority and {'is' if len(loose) == 1 else 'are'} dated by the owner's clock alone."
        )
    reasons += more
    return _say("partly attested" if reasons else "attested", [*reasons, *map(_sentence, report.unlisted)])


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _unlisted(report: Report) -> str:
    return "".join(f" {_sentence(text)}" for text in report.unlisted)


def _no_stamp(report: Any) -> str:
    if report.stamps:
        only = "timestamps are" if len(report.stamps) > 1 else "timestamp is"
        return f"The only {only} a laboratory's own (LAB ONLY). Its owner can date anything at will."
    return "There is no timestamp of an authority that holds. All times are those of the owner's own clock."


def _say(status: str, reasons: list[str]) -> Fact:
    headline, text = {
        "refused": (
            "THIS REGISTER DOES NOT HOLD",
            "A check found that it is not what was written, or that things happened in the wrong order. Do not rely on "
            "it.",
        ),
        "not attested": (
            "NOT ATTESTED",
            "No neutral authority says when any of this was done. The order of entries is signed by the owner; the "
            "times are only claims.",
        ),
        "partly attested": (
            "PARTLY ATTESTED",
            "Neutral authorities date a part of this register. What follows is not dated by them:",
        ),
        "attested": ("ATTESTED", "Neutral authorities date every entry of this register."),
    }[status]
    return {"status": status, "headline": headline, "text": text, "reasons": reasons}
