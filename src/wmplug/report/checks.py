"""What was checked of the register, each check with its result; and whether anything of it is attested."""

from typing import Any

from wmplug.report import words
from wmplug.report.facts import Fact, Facts

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
        "that was valid and not withdrawn.",
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
LEVELS = {
    "refused": "does not hold",
    "inconclusive": "proves less than it says",
    "flagged": "worth a look",
    "passed": "passed",
    "incomplete": "could not be finished: an entry before was refused",
    "nothing to check": "there is nothing to check",
}


def checks(facts: Facts, receipts: int) -> list[Fact]:
    """Each check with its result and what it found.

    Args:
        facts: of the register.
        receipts: how many were given.
    """
    found: dict[str, list[Fact]] = {name: [] for name in _CHECKS}
    anchors = {entry.seq for entry in facts.of("anchor")}
    for finding in facts.report.findings:
        fact = {"level": finding.level, "code": finding.code, "entry": finding.seq, "text": finding.text}
        found[_group(finding.code, finding.seq, finding.text, anchors)].append(fact)
    whole = not any(fact["level"] == "refused" for fact in found[ENTRIES])
    idle = {TIMES: not anchors, CLOCK: not facts.report.stamps, RECEIPTS: not receipts}
    idle[ORDER] = not facts.of("triggers.committed")
    return [
        {"check": name, "title": title, "means": means, "findings": found[name]}
        | _result(found[name], whole or name == ENTRIES, idle.get(name, False))
        for name, (title, means) in _CHECKS.items()
    ]


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


def _result(found: list[Fact], whole: bool, idle: bool) -> Fact:
    levels = {fact["level"] for fact in found}
    for level in _WORST:
        if level in levels:
            return {"result": level, "result_text": LEVELS[level]}
    result = "incomplete" if not whole else "nothing to check" if idle else "passed"
    return {"result": result, "result_text": LEVELS[result]}


def attestation(facts: Facts, marks: list[Fact]) -> Fact:
    """Whether the dossier rests on anything but the owner's word, in one word and in reasons.

    Returns:
        status: `refused`, `not attested`, `partly attested` or `attested`; headline, text and reasons, in words.
    """
    report = facts.report
    reasons = [finding.text for finding in report.findings if finding.level == "refused"]
    if reasons:
        return _say("refused", reasons)
    if not report.attested:
        return _say("not attested", [_no_stamp(report)])
    loose_marks = [mark for mark in marks if mark["key"] not in ("attested", "none")]
    reasons = [f"Watermark {mark['watermark']}: {mark['key_text']}" for mark in loose_marks]
    loose = [entry.seq for entry in facts.entries if entry.seq >= report.attested and entry.type != "anchor"]
    if loose:
        reasons.append(
            f"{words.count(len(loose), 'entry', 'entries')}, from entry {loose[0]} on, came after the last timestamp "
            "of an authority and are dated by the owner's clock alone."
        )
    return _say("partly attested" if reasons else "attested", reasons)


def _no_stamp(report: Any) -> str:
    if report.stamps:
        return "The only timestamps are a laboratory's own (LAB ONLY). Whoever runs it can date anything as he likes."
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
