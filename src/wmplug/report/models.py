"""The models that were asked: suspects, controls, the owner's own; and the number of tries."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wmplug.claim.consistency import contradictions
from wmplug.claim.verdict import Verdict, state_of
from wmplug.errors import InputError, NotaryError, StatisticsError
from wmplug.keys.files import JSON, read_bytes, read_json
from wmplug.register.notary import certificates
from wmplug.report import words
from wmplug.report.facts import Fact, Facts, read_verdict
from wmplug.watermark.choices import named, unbound

ROLES = ("suspect", "own", "control")
_TRIAL = "trial"  # a function of a module, without a name for people: whoever tries the command asks one


def read(file: Path) -> Verdict:
    """A verdict from a file with the output of `wmplug verify --json`.

    Raises:
        InputError: the file does not hold a verdict.
    """
    try:
        return Verdict.from_json(read_bytes(file, JSON).decode())
    except (StatisticsError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file} holds no verdict ({error}): give what `wmplug verify --json` printed") from error


def check(given: Sequence[tuple[str, str, Verdict]]) -> None:
    """Refuse verdicts whose numbers do not follow from their counts.

    Args:
        given: as in `asked`.

    Raises:
        InputError: one contradicts itself.
    """
    for _, source, verdict in given:
        if wrong := contradictions(verdict):
            raise InputError(
                f"{source} contradicts itself ({'; '.join(wrong)}), so it was edited or was never a verdict: give what "
                "`wmplug verify --json` printed"
            )


def asked(facts: Facts, given: Sequence[tuple[str, str, Verdict]], marks: Sequence[Fact]) -> list[Fact]:
    """Every model that was asked, from the register and from the files given in addition.

    What the register holds is the owner's word (`recorded`). What it does not hold is the word of whoever gave the file
    (`unverified`).

    Args:
        facts: the register's facts.
        given: role, source (name of the file) and verdict of the additional ones. A verdict that the register holds too
            appears once, in the role given here; so does a model that was asked twice with the same result.
        marks: watermarks that the owner committed to; each verdict is discounted by those it did not count.
    """
    kept: dict[str, Fact] = {}
    plain = [(role, source, verdict, json.loads(verdict.to_json())) for role, source, verdict in given]
    for entry in facts.of("suspect.verified"):
        own = entry.body.get("verdict")
        role = next((role for role, _, _, value in plain if value == own), entry.body.get("role"))
        about = {"role": role if role in ROLES else _role(entry.body), "model": str(entry.body.get("suspect"))}
        about |= {"reference": str(entry.body["reference"])} if "reference" in entry.body else {}
        row = {**about, "standing": "recorded", **_result(read_verdict(own), marks, words.OWNERS)}
        same = json.dumps([{**row, "verdict": None}, entry.body.get("system"), entry.body.get("watermark")])
        first = kept.setdefault(same, {**row, "entry": entry.seq, "entries": [], **facts.within(entry.seq)})
        first["entries"].append(entry.seq)
    result = [{**row, "source": words.named(row["entries"])} for row in kept.values()]
    recorded = [entry.body.get("verdict") for entry in facts.of("suspect.verified")]
    for role, source, verdict, value in plain:
        if value not in recorded:
            about = {"entry": None, "entries": [], "source": source, "role": role, "model": verdict.suspect}
            about |= {"standing": "unverified", "not_before": None, "not_after": None}
            result.append({**about, **_result(verdict, marks, words.UNVERIFIED)})
    result.sort(key=lambda row: row["counted"]["log10_p"] if row["verdict"] else 1.0)  # the strongest first
    return [{**row, "matched": row["role"] == "control" and row["state"] == "proven"} for row in result]


def _role(body: Mapping[str, Any]) -> str:
    named = body.get("system") is not None or "reference" in body
    is_function = re.fullmatch(r"[\w.]+:[\w.]+", str(body.get("suspect"))) is not None
    return _TRIAL if is_function and not named else "suspect"


def _matched(verdict: Verdict) -> str:
    if verdict.parts or verdict.test.endswith("weighted signs"):
        counts = "; ".join(str(part) for part in verdict.parts) or f"{verdict.matches:,} of {verdict.in_set:,} signs"
        return (
            f"{counts} matched the secret (a sign is one of the secret bits on which the answers to all ordinary "
            "questions bear together; strong ones count more)"
        )
    outside = verdict.queries - verdict.failed - verdict.in_set
    none = "was none of the possible answers, and does not"
    none = none if outside == 1 else "were none of the possible answers, and do not"
    return (
        f"{verdict.matches:,} of {words.count(verdict.in_set, 'answer')} matched the secret"
        f"{f' ({outside:,} more {none} count)' if outside else ''}"
    )


def _result(verdict: Verdict | None, marks: Sequence[Fact], standing: str) -> Fact:
    if verdict is None:
        text = "The entry holds no verdict that can be read, or one whose numbers contradict each other."
        return {"verdict": None, "state": "unreadable", "named": "", "unbound": [], "text": text}
    keys = max(len(marks), verdict.keys)
    more = math.log10(keys / verdict.keys)
    mark = next((one for one in marks if one["watermark"] == verdict.watermark), None)
    log10_p = min(0.0, verdict.log10_p + more)
    state = state_of(verdict.log10_e - more, verdict.target_e)
    odds, like = words.odds(log10_p), words.comparison(log10_p)
    loose = unbound(verdict.choices)
    free = [words.UNBOUND.format(choices=", ".join(loose))] if loose else []
    certain = odds == words.CERTAIN
    chance = f"so many would be {odds}" if certain else f"the chance of so many would be {odds}"
    text = f"{_matched(verdict)}. If this model had nothing to do with the key, {chance}.{f' {like}' if like else ''}"
    return {
        "verdict": json.loads(verdict.to_json()),
        "watermark": verdict.watermark,
        "key": "of another register" if mark is None else mark["key"],
        "key_text": "Its watermark is not in this register." if mark is None else mark["key_text"],
        "matches": verdict.matches,
        "asked": verdict.in_set,
        "log10_p": verdict.log10_p,
        "counted": {"attempts": keys * verdict.tries // verdict.keys, "log10_p": log10_p, "odds": odds},
        "p_is": verdict.p_is,
        "test": verdict.test,
        "state": state,
        "named": named(verdict.choices),
        "unbound": loose,
        "choices": [str(choice) for choice in verdict.choices],
        "text": text,
        "meaning": " ".join([words.STATES[state].format(target=words.large(verdict.target_e)), *free, standing]),
    }


def acquired(facts: Facts) -> list[Fact]:
    """How the owner acquired suspects, by the owner's own statement."""
    return [
        {
            "entry": entry.seq,
            "model": str(entry.body.get("description")),
            "how": str(entry.body.get("how")),
            "acquired": str(entry.body.get("acquired")),
            "digests": _digests(entry.body.get("digests")),
            **facts.within(entry.seq),
        }
        for entry in facts.of("suspect.acquired")
    ]


def _digests(found: Any) -> dict[str, str]:
    return {str(name): str(digest) for name, digest in found.items()} if isinstance(found, Mapping) else {}


def certificate(file: Path) -> Fact:
    """The contents of a notary's certificate, if the key that it names signed it.

    Raises:
        InputError: the file is not a certificate, or was edited.
    """
    try:
        signed = read_json(file)
        notary = signed["certificate"]["result"]["notary"]
        document = certificates.verify(signed, bytes.fromhex(notary["public"]))
        result = document["result"]
        return {
            "source": file.name,
            "case": result["case"],
            "status": result["status"],
            "notary": notary["name"],
            "notary_key": notary["public"],
            "register": result["register"]["id"],
            "reasons": [str(reason) for reason in result["reasons"]],
            "models": [_heard(model) for model in result["models"]],
            "log": words.log(result["log"]) if "log" in result else [],
            "claimed_time": document["claimed_time"],
        }
    except (NotaryError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{file} is not a notary's certificate ({error}): give the certificate.json that `wmplug notary "
            f"certify` wrote"
        ) from error


def _heard(model: Mapping[str, Any]) -> Fact:
    verdict = read_verdict(model["verdict"])
    if verdict is None and model["verdict"] is not None:
        raise ValueError(f"the verdict on {model['name']} cannot be read, or its numbers contradict each other")
    return {
        "model": str(model["name"]),
        "role": str(model["role"]),
        "result": None if verdict is None else verdict.state,
        "named": "" if verdict is None else named(verdict.choices),
        "matched": model["role"] == "control" and verdict is not None and verdict.proven,
        "matches": None if verdict is None else verdict.matches,
        "asked": None if verdict is None else verdict.in_set,
        "log10_p": None if verdict is None else verdict.log10_p,
        "odds": None if verdict is None else words.odds(verdict.log10_p),
    }
