"""The dossier: a register's contents and how far they hold, as one HTML page for people and as JSON for machines."""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wmplug
from wmplug.claim.verdict import Verdict
from wmplug.errors import RegisterError
from wmplug.register import Register, revocation
from wmplug.register.checking import check
from wmplug.register.receipts import Receipt
from wmplug.report import alarms, assets, checks, facts, models, pages, strength, timeline, words
from wmplug.report.facts import Fact, Facts

if TYPE_CHECKING:
    from wmplug.register.timestamps import Trust

SCHEMA = "wmplug/dossier/1"


def gather(
    path: str | Path,
    *,
    verdicts: Sequence[tuple[str, str, Verdict]] = (),
    certificates: Sequence[Fact] = (),
    receipts: Sequence[Receipt] = (),
    authorities: "Sequence[Trust] | None" = None,
    crls: Sequence[bytes | Path] = (),
    now: datetime | None = None,
    progress: Callable[[int], None] | None = None,
) -> Fact:
    """Check a register and collect the contents of the dossier; offline, and without any key.

    Args:
        path: the register's folder.
        verdicts: role (`suspect`, `own` or `control`), source and verdict of models whose verdicts lie outside it.
        certificates: notaries' certificates, as `models.certificate` reads them.
        receipts: receipts that the owner gave out earlier.
        authorities: the authorities to trust; by default those of the register's own policy.json.
        crls: revocation lists, DER or PEM, or files that hold them; beside those that the owner kept.
        now: time of the dossier.
        progress: called with the number of entries checked.

    Returns:
        A JSON document of schema "wmplug/dossier/1", with everything that the page shows.

    Raises:
        RegisterError: the folder does not hold a register, the register changed meanwhile, or wmplug never writes such
            a body as that of one of its entries.
        InputError: one of `crls` cannot be read, or the issuer that it names did not sign it; or the numbers of one of
            `verdicts` do not follow from its counts.
    """
    models.check(verdicts)
    made = now or datetime.now(timezone.utc)
    report = check(path, receipts=receipts, authorities=authorities, crls=crls, now=made, progress=progress)
    register = Register(path)
    if not re.fullmatch("[0-9a-f]{64}", register.id):
        raise RegisterError(
            f"{register.path / 'owner.pub'} names no register: its commitment must be 64 hex digits; restore the file"
        )
    entries = tuple(itertools.islice(register.entries(), report.entries))
    if (entries[-1].hash if entries else None) != report.head:
        raise RegisterError(f"{register.log} changed while it was read: make the dossier again")
    trusted = _policy(register.path) if authorities is None else authorities
    try:
        document = _document(Facts(entries, report), verdicts, certificates, receipts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RegisterError(
            f"{register.log} is signed, but an entry holds something that wmplug never writes ({type(error).__name__}: "
            f"{error}): look at it with `wmplug register log`, and ask its author"
        ) from error
    return {
        "schema": SCHEMA,
        "made": facts.instant(made),
        "wmplug": wmplug.__version__,
        **document,
        "authorities": {
            "chosen_by": "the owner (policy.json)" if authorities is None else "whoever made this dossier",
            "trusted": facts.authorities(trusted),
        },
        "revocation_lists": [one.sha256 for one in revocation.given(crls)],
        "receipts": [receipt.to_json() for receipt in receipts],
    }


def _policy(folder: Path) -> "list[Trust]":
    from wmplug.register.anchors import policy

    return policy(folder)


def _document(
    found: Facts,
    verdicts: Sequence[tuple[str, str, Verdict]],
    certificates: Sequence[Fact],
    receipts: Sequence[Receipt],
) -> Fact:
    marks = facts.watermarks(found)
    suspects, tries = models.asked(found, verdicts, marks), alarms.tries(found, marks, receipts)
    return {
        "attestation": checks.attestation(found, marks, [tries["text"]] if tries["owners_word"] else []),
        "controls": alarms.controls(suspects, certificates),
        "who": facts.who(found),
        "watermarks": marks,
        "attempts": len(marks),
        "tries": tries,
        "assets": assets.assets(found),
        "events": facts.events(found),
        "anchors": facts.anchors(found),
        "checks": checks.checks(found, len(receipts), marks),
        "runs": facts.runs(found),
        "suspects": suspects,
        "acquired": models.acquired(found),
        "certificates": list(certificates),
        "words": {
            "null": list(words.NULL),
            "not_said": list(words.NOT_SAID),
            "void": list(words.VOID),
            "glossary": dict(words.GLOSSARY),
            "sandwich": words.SANDWICH,
        },
    }


def encode(document: Fact) -> bytes:
    """The JSON file."""
    return (json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def render(document: Fact) -> str:
    """The HTML file, made from the JSON document alone.

    Args:
        document: as `gather` returns it.
    """
    environment = pages.environment()
    environment.filters |= {
        "time": words.time,
        "to": words.entries,
        "count": words.count,
        "odds": words.odds,
        "thin": _thin,
    }
    return environment.get_template("dossier.html").render(
        d=document,
        digest_of=hashlib.sha256(encode(document)).hexdigest(),
        drawings=timeline.drawings(document["events"], document["anchors"]),
        plots=[strength.plot(run["looks"]) for run in document["runs"]],
        milestones=[event for event in document["events"] if event["type"] in _MILESTONES],
    )


_MILESTONES = (
    *("register.opened", "secret.committed", "triggers.committed", "training.started", "training.finished"),
    *("model.released", "suspect.acquired", "suspect.verified"),
)
_ROWS = 40


def _thin(rows: list[Any]) -> list[Any]:
    """At most about 40 rows of a long table, the first and the last among them."""
    every = -(-len(rows) // _ROWS)
    return [row for i, row in enumerate(rows) if i % every == 0 or i == len(rows) - 1]
