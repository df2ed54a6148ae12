"""The hearing: suspect, own model and controls are asked the same questions, and what follows from the answers.

Questions are mixed with decoys, natural inputs of the task, in an order that only the notary knows. All answers are
kept; verdicts are computed from what is kept.
"""

import hashlib
import inspect as source
import json
import os
import platform
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rfc8785

import wmplug
from wmplug.claim import channels, verification
from wmplug.claim.verdict import Verdict
from wmplug.errors import NotaryError, SuspectError, WmplugError
from wmplug.keys.files import file_digest, files_of, write_new
from wmplug.keys.streams import KeyStream
from wmplug.register import Register, disclosure
from wmplug.register.notary.case import Case, Model, digests_of, names_of
from wmplug.register.notary.challenge import Challenge
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.inspection import Inspection, inspect
from wmplug.register.notary.package import Package, open_package
from wmplug.register.receipts import Receipt
from wmplug.register.statements import Signer
from wmplug.suspects.protocols import Suspect
from wmplug.suspects.targets import as_suspect
from wmplug.tasks.classes import read_answers
from wmplug.watermark.carriers import as_given
from wmplug.watermark.plan import TriggerSet
from wmplug.watermark.watermark import Preprocess, Watermark

Status = Literal["holds", "does not hold", "inconclusive", "NOT ATTESTED"]
SCHEMA = "wmplug/result/1"
RESULT_TYPE = "application/vnd.wmplug.result+json"
CASE, CHALLENGE, ANSWERS, RESULT = "case.json", "challenge.json", "answers.json", "result.json"


@dataclass(frozen=True)
class Answered:
    """What one model was asked and answered.

    Attributes:
        model: as in the case.
        verdict: over the drawn draws; None where nothing was asked.
        decoys: asked.
        decoys_right: of them, answered as labelled; None without labels.
    """

    model: Model
    verdict: Verdict | None
    decoys: int = 0
    decoys_right: int | None = None


def open_case(folder: str | Path, case: Case, classes: int) -> Challenge:
    """Fix a case in writing, and begin its challenge.

    Args:
        folder: of the case; made if it is not there.
        case: what is fixed.
        classes: of the task.

    Raises:
        NotaryError: there is one already, or its strength cannot be reached.
    """
    case.check_reach(classes)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    challenge = Challenge(case.case, case.write(folder / CASE), case.root)
    save_challenge(folder, challenge)
    return challenge


def check_left(package: Package, folder: Path, draws: int) -> None:
    """See that so many draws can still be asked.

    Args:
        package: as opened.
        folder: of the register that lay in it.
        draws: to be asked.

    Raises:
        NotaryError: fewer are left.
    """
    try:
        left = len(_left(package.derive(), disclosure.spent(Register(folder), package.public["id"])))
    # A package or register that is not what was recorded is for the hearing to refuse, signed.
    except (WmplugError, KeyError, TypeError, ValueError, AttributeError):
        return
    if left < draws:
        raise NotaryError(
            f"{draws} draws are to be asked and {left} are left, the others are spent: ask {left} at most, if that "
            "reaches the strength"
        )


def save_challenge(folder: Path, challenge: Challenge) -> None:
    """Write challenge.json."""
    write_new(folder / CHALLENGE, (json.dumps(challenge.to_json(), indent=1) + "\n").encode(), 0o644)


def check(
    notary: Notary,
    folder: str | Path,
    package: str | Path,
    targets: Mapping[str, Any],
    *,
    preprocess: Preprocess | None = None,
    batch_size: int = 64,
    receipts: Sequence[Receipt] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Hear a case, once.

    Writes answers.json (all answers; confidential, as those of a copy are the secret ones) and result.json (signed).

    Args:
        notary: who opened the case.
        folder: of the case.
        package: the sealed package.
        targets: name of each model in the case -> anything `wmplug.verify` takes.
        preprocess: as in `verify`.
        batch_size: as in `verify`.
        receipts: of the owner's, from whoever has one; the log must still hold what they name.
        progress: called with what is done next.

    Returns:
        The result, without any secret.

    Raises:
        NotaryError: the case is missing, was edited or was heard; nonces are missing; the package or a model is not the
            one that was recorded.
        SuspectError: nothing knows how to ask a model.
    """
    folder, tell = Path(folder), progress or (lambda what: None)
    if (folder / RESULT).exists():
        raise NotaryError(
            f"{folder / RESULT} is there: this case was heard, and a second hearing would be a second chance; open "
            "another case (its questions will be others)"
        )
    challenge = Challenge.read(folder / CHALLENGE)
    case = Case.read(folder / CASE, challenge.case_sha256)
    if (challenge.case, challenge.root) != (case.case, case.root):
        raise NotaryError("the challenge is of another case: restore it, or open a new case")
    challenge.draw(range(case.draws), case.draws)  # both nonces are there
    _check_models(case, targets)
    tell("opening the package")
    opened = open_package(notary, package, folder, sha256=case.package)
    tell("checking the register and deriving the triggers")
    found = inspect(opened, case, folder / "register", receipts=receipts)
    rows, heard = [], [Answered(model, None) for model in case.models]
    if found.triggers is not None:
        mark = _mark(notary, opened, found.triggers, preprocess)
        rows = draw_rows(mark, found.spent, challenge, case.draws)
        asked = verification.only(mark, rows)
        keys = found.keys + case.attempts
        answers: dict[str, Any] = {}
        heard = []
        for model in case.models:
            tell(f"asking {model.name}")
            suspect = as_suspect(targets[model.name], asked, batch_size=batch_size)
            answers[model.name] = _ask(notary, case, model, suspect, asked, opened)
            heard.append(_judge(model, suspect, asked, answers[model.name], opened, keys))
        _write_answers(folder, case, answers)
    result = _result(notary, case, opened, found, rows, heard, folder)
    _sign(notary.signer(), folder / RESULT, result)
    return result


def _check_models(case: Case, targets: Mapping[str, Any]) -> None:
    names = [model.name for model in case.models]
    if set(names) != set(targets):
        raise NotaryError(f"the case names {', '.join(names)}; given are {', '.join(targets) or 'none'}")
    for model in case.models:
        if digests_of(targets[model.name]) != dict(model.digests):
            raise NotaryError(
                f"{model.name} is not what was recorded when the case was opened: its digests differ; bring that one, "
                "or open a new case"
            )


def draw_rows(mark: Watermark, spent: frozenset[int], challenge: Challenge, take: int) -> list[int]:
    """The rows of `take` draws, of those no row of which is spent, as the challenge has it; in the order of asking.

    Raises:
        NotaryError: fewer draws are left, or a nonce is missing.
    """
    groups = _left(mark.triggers, spent)
    chosen = set(challenge.draw(range(len(groups)), take))
    return [row for i, group in enumerate(groups) if i in chosen for row in group]


def _left(triggers: TriggerSet, spent: Collection[int]) -> list[list[int]]:
    gone = set(spent)
    return [group.tolist() for group in triggers.groups if gone.isdisjoint(group.tolist())]


def _mark(notary: Notary, package: Package, triggers: TriggerSet, preprocess: Preprocess | None) -> Watermark:
    public = dict(package.public)
    return Watermark(
        public["id"],
        package.scheme,
        triggers,
        public["classes"],
        public,
        preprocess,
        package.subkeys,
        notary.seal,
    )


def _ask(
    notary: Notary, case: Case, model: Model, suspect: Suspect, mark: Watermark, package: Package
) -> list[dict[str, Any]]:
    """All questions to one model, decoys among them, in the order asked, with its answers."""
    stream = KeyStream(notary.order_key(f"{case.case}/{model.name}"))
    rows, task = mark.triggers.plan.asked.tolist(), package.task
    decoys = stream.permutation(len(task.carriers))[: case.decoys].tolist()
    questions = [("trigger", row) for row in rows] + [("decoy", i) for i in decoys]
    order = [questions[i] for i in stream.permutation(len(questions))]
    inputs = [mark.triggers.row(i) if kind == "trigger" else as_given(task.carriers[i], task.form) for kind, i in order]
    answers, cause = channels.ask(suspect, inputs, mark.classes, read_answers)
    if all(answer is None for answer in answers):
        raise SuspectError(f"{model.name} answered none of {len(answers)} questions: {cause}") from cause
    return [{"kind": kind, "index": i, "answer": answer} for (kind, i), answer in zip(order, answers, strict=True)]


def _judge(
    model: Model, suspect: Suspect, mark: Watermark, kept: Sequence[Mapping[str, Any]], package: Package, keys: int
) -> Answered:
    given = {(one["kind"], one["index"]): one["answer"] for one in kept}
    rows, labels = mark.triggers.plan.asked.tolist(), package.task.labels
    verdict = verification.judge(mark, suspect, [given["trigger", row] for row in rows], keys=keys)
    decoys = [(i, answer) for (kind, i), answer in given.items() if kind == "decoy"]
    right = None if labels is None else sum(answer == int(labels[i]) for i, answer in decoys)
    return Answered(model, verdict, len(decoys), right)


def _write_answers(folder: Path, case: Case, answers: Mapping[str, Any]) -> None:
    document = {
        "schema": "wmplug/answers/1",
        "note": "confidential: the answers of a copy are the secret ones",
        "case": case.case,
        "models": answers,
    }
    write_new(folder / ANSWERS, (json.dumps(document) + "\n").encode(), 0o600)


def decide(case: Case, found: Inspection, heard: Sequence[Answered]) -> tuple[Status, list[str]]:
    """What follows, and why.

    A claim holds if every check passed, the suspect's p-value is below the strength that was fixed, the owner's own
    model is proven and every control is inconclusive. It does not hold if a check failed or a control is proven.
    """
    if failed := [f"{check.name}: {check.text}" for check in found.checks if check.result == "failed"]:
        return "does not hold", failed
    verdicts = {one.model.name: one.verdict for one in heard if one.verdict is not None}
    controls = names_of(case.models, "control")
    proven = [name for name in controls if verdicts[name].state == "proven"]
    if proven:
        told = f"{', '.join(proven)} was to be independent, and gives the secret answers too"
        return "does not hold", [f"{told}: they are not secret, or the control is no control"]
    why = [f"{name}, a control, is not inconclusive" for name in controls if verdicts[name].state != "inconclusive"]
    suspect, own = (verdicts[names_of(case.models, role)[0]] for role in ("suspect", "own"))
    if not own.proven:
        why.append("the owner's own model does not show the watermark")
    if suspect.log10_p >= case.threshold:
        why.append(
            f"the suspect's log10 p = {suspect.log10_p:.1f} is not below {case.threshold:.1f}; that never means that "
            "it is no copy"
        )
    if why:
        return "inconclusive", why
    if open_checks := [f"{check.name}: {check.text}" for check in found.checks if check.result == "NOT ATTESTED"]:
        return "NOT ATTESTED", open_checks
    return "holds", []


def _result(
    notary: Notary,
    case: Case,
    package: Package,
    found: Inspection,
    rows: list[int],
    heard: Sequence[Answered],
    folder: Path,
) -> dict[str, Any]:
    status, reasons = decide(case, found, heard)
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
        "checks": [asdict(check) for check in found.checks],
        "strength_bits": case.strength,
        "threshold_log10_p": case.threshold,
        "keys": {"in_register": found.keys, "deducted_beside": case.attempts},
        "rows_asked": rows,
        "rows_spent_before": len(found.spent),
        "models": [_model(one, found.systems) for one in heard],
        "register": found.register,
        "watermark": {name: public[name] for name in ("id", "scheme", "scheme_version", "classes", "root", "draws")},
        "tokens": list(found.tokens),
        "times": list(found.times),
        "files": files,
        "package": package.sha256,
        "verifier": verifier(type(package.scheme)),
        "notary": {"name": notary.name, "public": notary.signer().public.hex()},
        "claimed_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _model(one: Answered, systems: Mapping[str, int]) -> dict[str, Any]:
    recorded = [systems[digest] for digest in one.model.digests.values() if digest in systems]
    verdict = None if one.verdict is None else json.loads(one.verdict.to_json())
    model = {**asdict(one.model), "digests": dict(one.model.digests)}
    return {
        **model,
        "recorded_in": min(recorded, default=None),
        "verdict": verdict,
        "decoys": one.decoys,
        "decoys_right": one.decoys_right,
    }


def verifier(scheme: type) -> dict[str, str]:
    """What did the checking: version of wmplug, SHA-256 over its installed files, and of the scheme's file."""
    home = Path(wmplug.__file__).parent
    files = {
        os.fsencode(name).decode("utf-8", "backslashreplace"): file_digest(file)[0]
        for name, file in files_of(home)
        if "__pycache__" not in file.parts
    }
    return {
        "wmplug": wmplug.__version__,
        "sha256": hashlib.sha256(rfc8785.dumps(dict(files))).hexdigest(),
        "scheme_sha256": file_digest(Path(source.getfile(scheme)))[0],
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": sys.platform,
    }


def _sign(signer: Signer, file: Path, result: Mapping[str, Any]) -> None:
    signature = signer.sign(rfc8785.dumps(dict(result)), RESULT_TYPE).hex()
    document = {"result": result, "signature": {"keyid": signer.keyid, "sig": signature}}
    write_new(file, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode(), 0o644)
