"""The outcome of a hearing: the verdict on each model, the decision on the case, and the signed result."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import rfc8785

from wmplug.claim.verdict import Verdict
from wmplug.keys.files import write_new
from wmplug.register.notary.case import ANSWERS, CASE, CHALLENGE, Case, Model, names_of
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.inspection import Inspection
from wmplug.register.notary.package import Package
from wmplug.register.notary.software import verifier
from wmplug.register.statements import Signer
from wmplug.tasks import public as tasks
from wmplug.watermark.choices import unbound

Status = Literal["holds", "does not hold", "inconclusive", "NOT ATTESTED"]
SCHEMA = "wmplug/result/1"
RESULT_TYPE = "application/vnd.wmplug.result+json"
_SHOWN = ("id", "scheme", "scheme_version", *tasks.KEYS, "root", "draws")  # of a public line


@dataclass(frozen=True)
class ModelAnswers:
    """The verdict on one model's answers.

    Attributes:
        model: the model as the case names it.
        verdict: the verdict over the chosen draws; None where nothing was asked.
        decoys: number of decoys asked.
        decoys_right: number of decoys answered as labelled; None without labels.
        log10_p: log10 of the p-value of the answers to a log's queries alone, before any discount; None without a log.
    """

    model: Model
    verdict: Verdict | None
    decoys: int = 0
    decoys_right: int | None = None
    log10_p: float | None = None


def decide(case: Case, inspection: Inspection, results: Sequence[ModelAnswers]) -> tuple[Status, list[str]]:
    """The outcome of a case, and the reasons for it.

    A claim holds if every check passed, the suspect's p-value is below the fixed strength, the owner's own model is
    proven and every control is inconclusive. It does not hold if a check failed or a control is proven.
    """
    if failed := [f"{check.name}: {check.text}" for check in inspection.checks if check.result == "failed"]:
        return "does not hold", failed
    if missing := [f"{check.name}: {check.text}" for check in inspection.checks if check.result == "inconclusive"]:
        return "inconclusive", missing
    verdicts = {result.model.name: result.verdict for result in results if result.verdict is not None}
    controls = names_of(case.models, "control")
    proven = [name for name in controls if verdicts[name].state == "proven"]
    if proven:
        reason = f"{', '.join(proven)} was to be independent, and gives the secret answers too"
        filled = ", or the log was filled to fit" if case.log else ""
        return "does not hold", [f"{reason}: they are not secret, or the control is not independent{filled}"]
    why = [f"{name}, a control, is not inconclusive" for name in controls if verdicts[name].state != "inconclusive"]
    suspect, own = (verdicts[names_of(case.models, role)[0]] for role in ("suspect", "own"))
    if not own.proven:
        why.append("the owner's own model does not show the watermark")
    if loose := unbound(suspect.choices):
        why.append(f"nothing binds what the owner could choose by the suspect's answers: {', '.join(loose)}")
    if suspect.log10_p >= case.threshold:
        why.append(
            f"the suspect's log10 p = {suspect.log10_p:.1f} is not below {case.threshold:.1f}; that never means that "
            "it is not a copy"
        )
    if why:
        return "inconclusive", why
    if unattested := [f"{check.name}: {check.text}" for check in inspection.checks if check.result == "NOT ATTESTED"]:
        return "NOT ATTESTED", unattested
    return "holds", []


def result_of(
    notary: Notary,
    case: Case,
    package: Package,
    inspection: Inspection,
    rows: list[int],
    results: Sequence[ModelAnswers],
    folder: Path,
    log: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The result of a hearing, without any secret, as `sign` signs it.

    Args:
        notary: the notary who heard the case.
        case: the case.
        package: the opened package.
        inspection: the checks before the hearing.
        rows: the rows of the triggers that the challenge chose.
        results: the verdict on each model.
        folder: folder of the case; its files are named with their digests.
        log: the log that the questions came from, and what the controls say about it.
    """
    status, reasons = decide(case, inspection, results)
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (CASE, CHALLENGE, ANSWERS)
        if (folder / name).exists()
    }
    public = package.public
    return {
        "schema": SCHEMA,
        "case": case.case,
        "status": status,
        "reasons": reasons,
        "checks": [asdict(check) for check in inspection.checks],
        "strength_bits": case.strength,
        "threshold_log10_p": case.threshold,
        "keys": {"in_register": inspection.keys, "deducted_beside": case.attempts},
        "rows_asked": rows,
        **({"ordinary_asked": _ordinary(inspection)} if case.pattern else {}),
        **({} if log is None else {"log": dict(log)}),
        "rows_spent_before": len(inspection.spent),
        "rows_known": sorted(inspection.shown),
        "suspect_since": None if case.suspect_since is None else asdict(case.suspect_since),
        "preprocess": None if case.preprocess is None else asdict(case.preprocess),
        "notaries": list(case.notaries),
        "models": [_model(result, inspection.systems) for result in results],
        "register": inspection.register,
        "watermark": {name: public[name] for name in _SHOWN if name in public},
        "tokens": list(inspection.tokens),
        "times": list(inspection.times),
        **({"revocation_lists": list(inspection.lists)} if inspection.lists else {}),
        "files": files,
        "package": package.sha256,
        "verifier": verifier(type(package.scheme)),
        "notary": {"name": notary.name, "public": notary.signer().public.hex()},
        "claimed_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _ordinary(inspection: Inspection) -> int:
    """How many ordinary inputs were asked."""
    pattern = None if inspection.triggers is None else inspection.triggers.plan.pattern
    return 0 if pattern is None else len(pattern.rows)


def _model(result: ModelAnswers, systems: Mapping[str, int]) -> dict[str, Any]:
    recorded = [systems[digest] for digest in result.model.digests.values() if digest in systems]
    verdict = None if result.verdict is None else json.loads(result.verdict.to_json())
    model = {**asdict(result.model), "digests": dict(result.model.digests)}
    return {
        **model,
        "recorded_in": min(recorded, default=None),
        "verdict": verdict,
        "decoys": result.decoys,
        "decoys_right": result.decoys_right,
    }


def sign(signer: Signer, file: Path, result: Mapping[str, Any]) -> None:
    """Write a result with its signature."""
    signature = signer.sign(rfc8785.dumps(dict(result)), RESULT_TYPE).hex()
    document = {"result": result, "signature": {"keyid": signer.keyid, "sig": signature}}
    write_new(file, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(), 0o644)
