"""The log of a served model in a case: how its queries are asked, and whether it was filled to fit.

Whoever keeps a log holds the key too. Filled with queries whose true class is what the key drew, it would prove any
good model. So controls that the notary chose are asked the same queries. If the log was made to fit, they match too.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from wmplug.claim.channels import PatternChannel
from wmplug.claim.questions import Answers
from wmplug.errors import NotaryError
from wmplug.register.notary.case import Case
from wmplug.register.notary.outcome import ModelAnswers
from wmplug.register.notary.package import Package
from wmplug.schemes.served import Served
from wmplug.watermark.choices import Choice
from wmplug.watermark.plan import TriggerSet
from wmplug.watermark.watermark import Watermark

LEVEL = 0.05
# A log that more independent models match than not passes so many controls with a chance of 1 in 32, below LEVEL.
CONTROLS = 5
# The chance that some control matches a log that nobody filled, at most (Bonferroni). Good controls all give the true
# class, so they match by chance together, and whoever kept the log honestly could never mend that.
MATCHING = 1e-3


def asking(package: Package, triggers: TriggerSet) -> TriggerSet:
    """The same triggers with the log's queries in place of the carriers; references for them are trained here.

    Raises:
        NotaryError: the watermark's scheme asks no log.
        InputError: only coins of customers' own decided the queries.
    """
    if not isinstance(package.scheme, Served):
        raise NotaryError(f"scheme {package.scheme.name!r} asks no log of a served model: open a case without one")
    return dataclasses.replace(
        triggers, plan=package.scheme.asking(triggers.plan, package.brief, package.decided, None)
    )


def chosen(log: Mapping[str, Any]) -> Choice:
    """What binds the questions: the commitment, dated by a clock that the notary accepts."""
    if log["not_after"] is None:
        return Choice(what="questions", bound=None, sha256=log["root"], note="(no timestamp that the notary accepts)")
    note, tries = f"by {log['not_after']}", log["commitments"]
    return Choice(what="questions", bound="committed", sha256=log["root"], tries=tries, note=note)


def own_log10_p(mark: Watermark, answers: Answers) -> float:
    """log10 of the exact p-value of the answers to the log's queries alone, before the discount for tries."""
    pattern = mark.triggers.plan.pattern
    assert pattern is not None
    channel = PatternChannel(mark, pattern, len(pattern.rows), True)
    while len(rows := channel.due(math.inf)):
        channel.take(answers.to(rows.tolist()), answers.suspect)
    return channel.finding().log10_p


def weighed(case: Case, log: Mapping[str, Any], results: Sequence[ModelAnswers]) -> dict[str, Any]:
    """What the controls say about the log.

    It counts as fixed only if it is older than the suspect by dates that the case accepts, enough controls are as good
    at the task as the suspect, and none matches.

    Returns:
        The log as inspected; `controls`, each with its name, log10_p and whether it is `able`; `fixed`; and why, in
        words.
    """
    suspect = next(one for one in results if one.model.role == "suspect")
    controls: list[dict[str, Any]] = [
        {"name": one.model.name, "log10_p": one.log10_p, "able": _able(one, suspect)}
        for one in results
        if one.model.role == "control"
    ]
    able = sum(one["able"] for one in controls)
    matching = [one["name"] for one in controls if one["log10_p"] <= math.log10(MATCHING / len(controls))]
    if matching:
        why = f"{', '.join(matching)} matches it more than chance explains"
    elif case.suspect_since is None or log["not_after"] is None:
        why = "no date shows it to be older than the suspect"
    elif able < CONTROLS:
        why = f"{able} controls are as good at the task as the suspect, {CONTROLS} are needed"
    else:
        why = f"{able} controls as good at the task as the suspect do not match it"
        return {**log, "controls": controls, "fixed": True, "why": why}
    return {**log, "controls": controls, "fixed": False, "why": why}


def _able(control: ModelAnswers, suspect: ModelAnswers) -> bool:
    """Whether the control is as good at the task: not fewer decoys right than chance explains (Fisher's exact test)."""
    if control.decoys_right is None or suspect.decoys_right is None or not control.decoys:
        return False
    count, right = control.decoys, control.decoys_right + suspect.decoys_right
    ways = [math.comb(count, k) * math.comb(suspect.decoys, right - k) for k in range(min(count, right) + 1)]
    return sum(ways[: control.decoys_right + 1]) > LEVEL * sum(ways)


def bound(told: Mapping[str, Any], results: Sequence[ModelAnswers]) -> list[ModelAnswers]:
    """The results, whose verdicts name the log, and what binds it."""
    note = f"({told['why']})"
    choice = Choice(what="log", bound="fixed" if told["fixed"] else None, sha256=told["root"], note=note)
    return [
        one
        if one.verdict is None
        else dataclasses.replace(one, verdict=dataclasses.replace(one.verdict, choices=(*one.verdict.choices, choice)))
        for one in results
    ]
