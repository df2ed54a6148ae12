"""A register's facts in the order of a reader's questions: who, what, when; each with the number of its entry."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from wmplug.claim.consistency import contradictions
from wmplug.claim.verdict import Verdict
from wmplug.errors import StatisticsError
from wmplug.register import Entry
from wmplug.register.checking import Report
from wmplug.register.ordering import Stamp
from wmplug.register.statements import keyid_of
from wmplug.report import words
from wmplug.watermark.choices import named

Fact = dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """The good entries of a register, and the report of a check.

    Attributes:
        entries: entries in order, up to the first that was refused.
        report: report of the check.
    """

    entries: Sequence[Entry]
    report: Report

    def of(self, *kinds: str) -> list[Entry]:
        """The entries of some types."""
        return [entry for entry in self.entries if entry.type in kinds]

    def within(self, seq: int) -> Fact:
        """The outside times before and after an entry; a real authority's, if there is one, before a lab's."""
        stamps = self.report.stamps
        before = [stamp for stamp in stamps if stamp.seq < seq]
        after = [stamp for stamp in stamps if stamp.head >= seq]
        return {"not_before": _bound(before, latest=True), "not_after": _bound(after, latest=False)}

    def dated(self, seq: int) -> bool:
        """Whether a real authority attests that the entry existed by some time."""
        return seq < self.report.attested


def _bound(stamps: Sequence[Stamp], *, latest: bool) -> Fact | None:
    real = [stamp for stamp in stamps if not stamp.lab] or list(stamps)
    if not real:
        return None
    chosen = (max if latest else min)(real, key=lambda stamp: stamp.gen_time)
    return {"time": instant(chosen.gen_time), "lab": chosen.lab}


def instant(moment: datetime) -> str:
    """A time (UTC) as entries write it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def who(facts: Facts) -> Fact:
    """The owner, the register and all keys that sign in it."""
    opened = facts.of("register.opened")
    withdrawn = {entry.body["keyid"]: entry for entry in facts.of("key.revoked")}
    withdrawn |= {entry.body["former"]: entry for entry in facts.of("key.rotated")}
    keys = []
    for entry in facts.of("register.opened", "key.rotated", "triggers.committed"):
        recorder = entry.type == "triggers.committed"
        public = str(entry.body["recorder" if recorder else "public"])
        keyid = keyid_of(bytes.fromhex(public))
        end = withdrawn.get(keyid)
        keys.append(
            {
                "keyid": keyid,
                "public": public,
                "role": f"training runs of watermark {entry.body['watermark']}" if recorder else "owner",
                "since_entry": entry.seq,
                "until_entry": None if end is None else end.seq,
                "ended": None if end is None else str(end.body.get("reason", "replaced by a new key")),
            }
        )
    return {
        "owner": str(opened[0].body.get("name")) if opened else "unknown",
        "register": facts.report.register,
        "entries": facts.report.entries,
        "head": facts.report.head,
        "opened": opened[0].claimed_time if opened else None,
        "identity": [{"entry": entry.seq, "stated": _flat(entry.body)} for entry in facts.of("owner.identity")],
        "keys": keys,
    }


def _flat(body: Mapping[str, Any]) -> dict[str, str]:
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}


def watermarks(facts: Facts) -> list[Fact]:
    """Every secret that the owner committed to: each is a try, whether triggers followed or not."""
    triggers = {entry.body["watermark"]: entry for entry in facts.of("triggers.committed")}
    started: dict[str, int] = {}
    for entry in facts.of("training.started"):
        started.setdefault(entry.body["watermark"], entry.seq)
    return [_watermark(facts, secret, triggers, started) for secret in facts.of("secret.committed")]


def _watermark(facts: Facts, secret: Entry, triggers: Mapping[str, Entry], started: Mapping[str, int]) -> Fact:
    name = secret.body["watermark"]
    entry, first = triggers.get(name), started.get(name)
    gone = {
        int(row)
        for other in facts.of("trigger.spent", "disclosure")
        if other.body.get("watermark") == name and (other.type == "trigger.spent" or other.body.get("revealed"))
        for row in other.body["rows"]
    }
    fact: Fact = {
        "watermark": name,
        "secret_entry": secret.seq,
        "secret": facts.within(secret.seq),
        "commitment": secret.body["commitment"],
        "triggers_entry": None if entry is None else entry.seq,
        "training_entry": first,
        "spent": len(gone),
    }
    if entry is None:
        return {**fact, "key": "none", "key_text": "No questions followed. It still counts as a try."}
    kept = ("root", "rows", "draws", "triggers", "classes", "scheme", "scheme_version", "generator")
    fact |= {part: entry.body.get(part) for part in kept}
    return {**fact, "committed": facts.within(entry.seq), **_key(facts, secret.seq, entry, first)}


def _key(facts: Facts, secret: int, triggers: Entry, started: int | None) -> Fact:
    """How a watermark's key came about: `attested`, `lab` or `not attested`, and why, in words."""
    anchor = next((e for e in facts.of("anchor") if e.body["head"] >= secret and e.seq < triggers.seq), None)
    stamp = next((s for s in facts.report.stamps if anchor is not None and s.seq == anchor.seq), None)
    if stamp is None or triggers.body["evidence"]["salt"] != (anchor and anchor.body["salt"]):
        return {
            "key": "not attested",
            "key_text": "NOT ATTESTED: no timestamp went into the key. It may have been made to fit a model.",
        }
    if stamp.lab:
        return {
            "key": "lab",
            "key_text": "NOT ATTESTED: the key rests on a laboratory's timestamp, which can be dated at will.",
        }
    before = any(not s.lab and s.head >= triggers.seq and s.seq < (started or s.seq + 1) for s in facts.report.stamps)
    if not before:
        return {
            "key": "not attested",
            "key_text": "NOT ATTESTED: no authority dated the questions before training started.",
        }
    return {
        "key": "attested",
        "key_text": "The secret was fixed first, then dated by an authority. Key and questions follow from both, with "
        "no freedom left, and were dated before training started.",
    }


def ends_of(facts: Facts) -> list[tuple[Entry, Entry]]:
    """The result of each run: the system that its end names, and the newest entry of the same tensors in files."""
    systems = {entry.seq: entry for entry in facts.of("system.committed")}
    lives = [systems[end.body["system"]] for end in facts.of("training.finished") if end.body.get("system") in systems]
    return [(live, next((one for one in reversed(systems.values()) if _saves(one, live)), live)) for live in lives]


def _saves(one: Entry, live: Entry) -> bool:
    """Whether an entry of the same run, by the same key, names files with the very tensors of the live model."""
    if not one.body.get("files") or live.body.get("files"):
        return False
    # A loader drops one of two tied names when it saves: compare the tensors' contents, and not their names.
    ours, theirs = _contents(one), _contents(live)
    by = (one.keyid, one.body.get("run")) == (live.keyid, live.body.get("run"))
    return by and ours is not None and ours == theirs


def _contents(entry: Entry) -> Any:
    tensors = entry.body.get("tensors")
    return tensors.get("contents") if isinstance(tensors, Mapping) else None


def runs(facts: Facts) -> list[Fact]:
    """Training runs: the assets they used, the triggers that reached the model, and each look at it."""
    found: dict[str, Fact] = {}
    saved = {live.seq: one.seq for live, one in ends_of(facts)}
    for entry in facts.of("training.started", "watermark.inserted", "training.checkpoint", "training.finished"):
        run = found.setdefault(str(entry.body.get("run")), _run(entry))
        if entry.type == "training.started":
            run |= {"started_entry": entry.seq, "adapter": entry.body.get("adapter")}
            run["versions"] = {name: str(version) for name, version in entry.body.get("versions", {}).items()}
            run["assets"] = {part: entry.body.get(part) for part in ("dataset", "parameters", "architecture")}
        elif entry.type == "watermark.inserted":
            run["inserted"] += entry.body.get("triggers") or 0
        else:
            run["looks"].append(_look(entry))
        if entry.type == "training.finished":
            run |= {"finished_entry": entry.seq, "system": entry.body.get("system")}
    return [
        {**run, "system": saved.get(run["system"], run["system"]), "looks": _together(run["looks"])}
        for run in found.values()
    ]


def _together(looks: list[Fact]) -> list[Fact]:
    """One look for each step and result: evaluation, save and end of training look at the same model."""
    kept: dict[Any, Fact] = {}
    for look in looks:
        result = tuple(look[name] for name in ("step", "state", "matches", "asked", "log10_p", "target"))
        first = kept.setdefault(look["entry"] if look["step"] is None else result, look)
        if first is not look:
            first["entries"] += look["entries"]
            first |= {name: look[name] for name in ("epoch", "loss") if first[name] is None}
    return [{**look, "number": number} for number, look in enumerate(kept.values(), 1)]


def _run(entry: Entry) -> Fact:
    empty: Fact = {"started_entry": None, "finished_entry": None, "adapter": None, "versions": {}, "assets": {}}
    about = {"run": entry.body.get("run"), "watermark": entry.body.get("watermark")}
    return {**about, **empty, "system": None, "inserted": 0, "looks": []}


def _look(entry: Entry) -> Fact:
    verdict = read_verdict(entry.body.get("verdict"))
    body = entry.body
    look = {
        "entry": entry.seq,
        "entries": [entry.seq],
        **{name: _number(body.get(name)) for name in ("step", "epoch", "loss")},
    }
    if verdict is None:
        return {
            **look,
            "state": None,
            "named": "",
            "matches": None,
            "asked": None,
            "log10_p": None,
            "odds": None,
            "target": None,
        }
    return {
        **look,
        "state": verdict.state,
        "named": named(verdict.choices),
        "matches": verdict.matches,
        "asked": verdict.in_set,
        "log10_p": verdict.log10_p,
        "odds": words.odds(verdict.log10_p),
        "target": verdict.target_e,
    }


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def read_verdict(found: Any) -> Verdict | None:
    """The verdict that an entry holds; None if it holds no possible verdict, or one that contradicts itself."""
    if not isinstance(found, Mapping):
        return None
    try:
        verdict = Verdict.from_json(json.dumps(found))
    except StatisticsError:
        return None
    return None if contradictions(verdict) else verdict


def events(facts: Facts) -> list[Fact]:
    """All entries, in words, each between its two times."""
    return [
        {
            "entry": entry.seq,
            "type": entry.type,
            "text": words.event(entry.type, entry.body),
            "claimed_time": entry.claimed_time,
            "hash": entry.hash,
            "run": entry.body.get("run"),
            **facts.within(entry.seq),
        }
        for entry in facts.entries
    ]


def anchors(facts: Facts) -> list[Fact]:
    """The recorded timestamps, including those that do not hold."""
    good = {stamp.seq: stamp for stamp in facts.report.stamps}
    return [
        {
            "entry": entry.seq,
            "covers": entry.body["head"],
            "time": instant(good[entry.seq].gen_time) if entry.seq in good else None,
            "authority": good[entry.seq].authority if entry.seq in good else str(entry.body.get("authority")),
            "url": entry.body["tsa"],
            "token": entry.body["token"],
            "lab": good[entry.seq].lab if entry.seq in good else None,
            "holds": entry.seq in good,
            "unlisted": [one.certificate for one in good[entry.seq].unlisted] if entry.seq in good else [],
            "unrevoked_at": _unrevoked(good.get(entry.seq)),
        }
        for entry in facts.of("anchor")
    ]


def _unrevoked(stamp: Stamp | None) -> str | None:
    return None if stamp is None or stamp.unrevoked_at is None else instant(stamp.unrevoked_at)


def authorities(trusted: Iterable[Any]) -> list[Fact]:
    """The trusted timestamp authorities, by the digests of their root certificates."""
    return [
        {
            "url": trust.url,
            "roots": [
                {
                    "subject": x509.load_der_x509_certificate(root).subject.rfc4514_string(),
                    "sha256": hashlib.sha256(root).hexdigest(),
                }
                for root in trust.roots
            ],
        }
        for trust in trusted
    ]
