"""The hearing: suspect, own model and controls get the same questions, and their answers decide the case.

The questions are the draws that the challenge chose and, if the watermark has a pattern, all of its ordinary inputs,
which reveal no secret. The queries of a served model's log take their place, if the case names one. Decoys, natural
inputs of the task, are mixed in, in an order that only the notary knows. The notary keeps all answers, and computes the
verdicts from the kept answers.
"""

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from wmplug.claim import questions, verification
from wmplug.claim.questions import Answers, Questions
from wmplug.claim.terms import Terms
from wmplug.errors import NotaryError, SuspectError, WmplugError
from wmplug.keys.files import write_new
from wmplug.keys.streams import KeyStream
from wmplug.register import Register
from wmplug.register.challenge import Challenge
from wmplug.register.history import History
from wmplug.register.notary import certificates, queries
from wmplug.register.notary.case import ANSWERS, CASE, CHALLENGE, RESULT, Case, Model, digests_of
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.inspection import Inspection, inspect
from wmplug.register.notary.opening import open_package
from wmplug.register.notary.outcome import ModelAnswers, result_of, sign
from wmplug.register.notary.package import Package
from wmplug.register.receipts import Receipt
from wmplug.suspects.protocols import Suspect
from wmplug.suspects.targets import as_suspect
from wmplug.tasks.base import Said, Task, encoded
from wmplug.watermark.carriers import join, take
from wmplug.watermark.choices import Choice
from wmplug.watermark.plan import Choices, Pattern, TriggerSet
from wmplug.watermark.watermark import Preprocess, Watermark

Kept: TypeAlias = dict[str, Any]
_KINDS: Mapping[type, str] = {Choices: "trigger", Pattern: "ordinary"}


def open_case(folder: str | Path, case: Case, classes: int, signs: int = 0) -> Challenge:
    """Fix a case in writing, and begin its challenge.

    Args:
        folder: folder of the case; created if it does not exist.
        case: the case to fix.
        classes: number of classes of the task.
        signs: number of signs of the watermark's pattern, if the case asks it.

    Raises:
        NotaryError: the folder holds a case already, or this one cannot reach its strength.
    """
    case.check_reach(classes, signs)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    challenge = Challenge(case.case, case.write(folder / CASE), case.root)
    save_challenge(folder, challenge)
    return challenge


def check_left(package: Package, folder: Path, draws: int, notaries: Collection[str] = ()) -> TriggerSet | None:
    """Check that enough draws are left to ask.

    Args:
        package: the opened package.
        folder: the register's folder, unpacked from the package.
        draws: number of draws to ask.
        notaries: keys (hex) of the notaries whose certificates spend rows.

    Returns:
        The triggers; None where they do not follow from the package.

    Raises:
        NotaryError: fewer draws are left.
    """
    try:
        triggers = package.derive()
        spent = certificates.spent_rows(Register(folder).entries(), package.public["id"], notaries)
    # If package or register differ from the record, the hearing refuses them, in a signed result.
    except (WmplugError, KeyError, TypeError, ValueError, AttributeError):
        return None
    if triggers.plan.choices is None and draws:
        raise NotaryError(
            f"you want to ask {draws} draws, and this watermark has ordinary inputs only, which are all asked: ask 0"
        )
    left = len(_left(triggers, spent))
    if left < draws:
        raise NotaryError(
            f"you want to ask {draws} draws and {left} are left, certificates spent the others: ask {left} at most, if "
            "that reaches the strength"
        )
    return triggers


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
    crls: Sequence[bytes | Path] = (),
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Hear a case, once.

    Writes answers.json (all answers; confidential, because a copy gives the secret ones) and result.json (signed).

    Args:
        notary: the notary who opened the case.
        folder: folder of the case.
        package: the sealed package.
        targets: name of each model in the case -> anything `wmplug.verify` takes.
        preprocess: as in `verify`; the owner's, or the one that the case names.
        batch_size: as in `verify`.
        receipts: receipts that the owner gave to anyone; the log must still hold the entries that they name.
        crls: revocation lists that the notary fetched, see `checking.check`; beside those in the package.
        progress: called with the next step, in words.

    Returns:
        The result, without any secret.

    Raises:
        NotaryError: the case is missing, was edited or was heard; nonces are missing; the package or a model is not the
            recorded one.
        SuspectError: no adapter or plugin knows how to ask a model.
        InputError: one of `crls` cannot be read, or the issuer that it names did not sign it.
    """
    folder, report = Path(folder), progress or (lambda step: None)
    case, challenge = _read(folder)
    _check_models(case, targets)
    _check_adapter(case, preprocess)
    report("opening the package")
    opened = open_package(notary, package, folder, sha256=case.package)
    report("checking the register and deriving the triggers")
    options: dict[str, Any] = {"receipts": receipts, "crls": crls}
    options["notaries"] = {notary.signer().public.hex(), *case.notaries}
    inspection = inspect(opened, case, folder / "register", **options)
    rows, results = [], [ModelAnswers(model, None) for model in case.models]
    log = inspection.log
    if inspection.triggers is not None:
        if log is not None:
            report("training references for the log's queries")
            inspection = dataclasses.replace(inspection, triggers=queries.asking(opened, inspection.triggers))
        mark = _mark(notary, opened, inspection, preprocess, folder / "register")
        rows = draw_rows(mark, inspection.spent, challenge, case.draws) if case.draws else []
        mark = verification.only(mark, rows, drawn=True) if rows else mark
        terms = Terms(mark, keys=inspection.keys + case.attempts, chosen=_fixed(case))
        answers: dict[str, Any] = {}
        results = []
        for model in case.models:
            report(f"asking {model.name}")
            suspect = as_suspect(targets[model.name], terms.mark, batch_size=batch_size)
            answers[model.name] = _ask(notary, case, model, suspect, terms.mark, opened, terms.known)
            results.append(_judge(model, suspect, terms, answers[model.name], opened))
        _write_answers(folder, case, answers)
        if log is not None:
            log = queries.weighed(case, log, results)
            results = queries.bound(log, results)
    result = result_of(notary, case, opened, inspection, rows, results, folder, log)
    sign(notary.signer(), folder / RESULT, result)
    return result


def _read(folder: Path) -> tuple[Case, Challenge]:
    """A case that was not heard yet, and its complete challenge."""
    if (folder / RESULT).exists():
        raise NotaryError(
            f"{folder / RESULT} exists: this case was heard, and a second hearing would be a second chance; open "
            "another case, which gets other questions"
        )
    challenge = Challenge.read(folder / CHALLENGE)
    case = Case.read(folder / CASE, challenge.case_sha256)
    if (challenge.case, challenge.root) != (case.case, case.root):
        raise NotaryError("the challenge is of another case: restore it, or open a new case")
    least = max(1, case.draws)
    challenge.draw(range(least), least)  # raises unless both nonces are known
    return case, challenge


def _check_models(case: Case, targets: Mapping[str, Any]) -> None:
    names = [model.name for model in case.models]
    if set(names) != set(targets):
        raise NotaryError(f"the case names {', '.join(names)}; you gave {', '.join(targets) or 'none'}: give each one")
    for model in case.models:
        if digests_of(targets[model.name]) != dict(model.digests):
            raise NotaryError(
                f"{model.name} is not what was recorded when the case was opened: its digests differ; give the "
                "recorded model, or open a new case"
            )


def _check_adapter(case: Case, preprocess: Preprocess | None) -> None:
    if case.preprocess is not None and digests_of(preprocess) != {"source": case.preprocess.sha256}:
        raise NotaryError(
            f"the case was fixed for the function {case.preprocess.reference}, and you gave another: give that one "
            "(--preprocess), with its source as it was"
        )


def _fixed(case: Case) -> list[Choice]:
    """The notary's own function: it was fixed before anybody knew the questions."""
    if case.preprocess is None:
        return []
    return [Choice(what="preprocess", bound="fixed", sha256=case.preprocess.sha256)]


def draw_rows(mark: Watermark, spent: frozenset[int], challenge: Challenge, take: int) -> list[int]:
    """The rows of `take` draws that the challenge chooses among draws without a spent row; in the order of asking.

    Raises:
        NotaryError: fewer draws are left, or a nonce is missing.
    """
    groups = _left(mark.triggers, spent)
    chosen = set(challenge.draw(range(len(groups)), take))
    return [row for i, group in enumerate(groups) if i in chosen for row in group]


def _left(triggers: TriggerSet, spent: Collection[int]) -> list[list[int]]:
    excluded = set(spent)
    return [group.tolist() for group in triggers.groups if excluded.isdisjoint(group.tolist())]


def _mark(
    notary: Notary, package: Package, inspection: Inspection, preprocess: Preprocess | None, folder: Path
) -> Watermark:
    public, log = dict(package.public), inspection.log
    assert inspection.triggers is not None
    return Watermark(
        public["id"],
        package.scheme,
        inspection.triggers,
        public,
        preprocess,
        package.subkeys,
        notary.seal,
        record=History(folder),
        choices=() if log is None else (queries.chosen(log),),
    )


def _ask(
    notary: Notary,
    case: Case,
    model: Model,
    suspect: Suspect,
    mark: Watermark,
    package: Package,
    known: Collection[int],
) -> list[Kept]:
    """One model's answers to all questions that are not known, decoys among them, in the order of asking."""
    stream, brief, plan = KeyStream(notary.order_key(f"{case.case}/{model.name}")), package.brief, mark.triggers.plan
    decoys = stream.permutation(len(brief.carriers))[: case.decoys]
    tests = [test for test in plan.tests if (case.draws if isinstance(test, Choices) else case.pattern)]
    numbered = [(_KINDS[type(test)], row) for test in tests for row in test.rows.tolist() if row not in known]
    rows = np.array([row for _, row in numbered], np.int64)
    numbered += [("decoy", i) for i in decoys.tolist()]
    order = stream.permutation(len(numbered))
    inputs = join(take(plan.inputs, rows), take(brief.carriers, decoys))
    sheet = Questions(inputs, brief.form, mark.task, np.arange(len(numbered))).only(order)
    answers = questions.ask(sheet, suspect)
    if all(answer is None for answer in answers.said):
        raise SuspectError(
            f"{model.name} answered none of {len(sheet)} questions ({answers.cause}): check that it runs and that "
            "preprocess= fits it"
        ) from answers.cause
    kept = zip((numbered[i] for i in order.tolist()), answers.said, strict=True)
    return [{"kind": kind, "index": i, **_written(mark.task, kind, said)} for (kind, i), said in kept]


def _written(task: Task, kind: str, said: Said | None) -> Kept:
    """An answer as answers.json keeps it; with scores only where a test weighs them."""
    return questions.written(task, said if said is None or kind == "ordinary" else Said(said.answer))


def _judge(
    model: Model,
    suspect: Suspect,
    terms: Terms,
    kept: Sequence[Kept],
    package: Package,
) -> ModelAnswers:
    task, labels = terms.mark.task, package.brief.labels
    own = {item["index"]: questions.read(task, item) for item in kept if item["kind"] != "decoy"} | dict(terms.known)
    rows = np.array(list(own), np.int64)
    answers = Answers(suspect.description, task, rows, tuple(own.values()))
    verdict = verification.judged(terms, answers)
    log10_p = None if package.decided is None else queries.own_log10_p(terms.mark, answers)
    decoys = [(item["index"], item["answer"]) for item in kept if item["kind"] == "decoy"]
    natural = None if labels is None else encoded(task, labels)
    right = None if natural is None else sum(answer == natural[i] for i, answer in decoys)
    return ModelAnswers(model, verdict, len(decoys), right, log10_p)


def _write_answers(folder: Path, case: Case, answers: Mapping[str, Any]) -> None:
    document = {
        "schema": "wmplug/answers/2" if case.pattern else "wmplug/answers/1",  # 2: ordinary inputs, with scores
        "note": "confidential: the answers of a copy are the secret ones",
        "case": case.case,
        "models": answers,
    }
    write_new(folder / ANSWERS, (json.dumps(document) + "\n").encode(), 0o600)
