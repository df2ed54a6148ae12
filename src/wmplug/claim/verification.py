"""Ask a suspect, score the answers, state the verdict.

The null of every number here: the suspect is independent of the owner's label key. One-sided, matches beyond chance.
"""

import dataclasses
import math
import numbers
import os
from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from wmplug import plugins
from wmplug.claim.questions import Answers, Questions, ask
from wmplug.claim.session import Session
from wmplug.claim.terms import TARGET_E, Terms
from wmplug.claim.verdict import Verdict
from wmplug.errors import InputError, SuspectError
from wmplug.statistics.arrays import read_whole
from wmplug.suspects.protocols import Suspect
from wmplug.suspects.targets import as_suspect
from wmplug.tasks.classes import Classes
from wmplug.watermark.carriers import digest
from wmplug.watermark.choices import Choice
from wmplug.watermark.watermark import Watermark


def verify(
    mark: Watermark,
    suspect: Any,
    *,
    target_e: float = TARGET_E,
    max_queries: int | None = None,
    batch_size: int = 64,
    exhaustive: bool = False,
    keys: int = 1,
    rows: Collection[int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Test one suspect, black box.

    By default `verify` asks one draw after the other, one query each, until the e-value reaches its target or no
    longer can. The p-value is then one over the largest E on the way, valid at any stopping time (Ville 1939). If the
    scheme weighs ordinary inputs too, they come after, in stages that grow. `exhaustive` asks every trigger and every
    ordinary input and gives the exact p-value. Two channels combine: the e-value is the average, p twice the smaller.

    Args:
        mark: the watermark.
        suspect: a torch module, a transformers model, pipeline or checkpoint folder, a Keras model or .keras file, a
            `Suspect`, or a function from inputs to labels (n,) or scores (n, classes); of two classes one score will
            do, the probability of class 1, or its logit if some answer of a call lies outside 0 to 1.
        target_e: e-value at which the verdict is `proven`; a false claim has probability at most 1/target_e.
        max_queries: ask no more than this.
        batch_size: inputs in a forward pass; a `Suspect` has its own.
        exhaustive: ask all triggers.
        keys: keys or watermarks tried for this claim, this one included; the number that the register committed to
            counts if it is larger. It divides the e-value and multiplies the p-value, at most to 1 (Bonferroni); the
            state is that of the discounted e-value.
        rows: ask only draws that lie among these rows of the trigger set (`fresh` leaves out spent ones). The last
            ones in the order of asking count as one try for each place to begin at; others are not bound.
        progress: called with (queries answered, queries at most).

    Raises:
        SuspectError: the suspect cannot be asked, every query failed, or the answers belong to another task.
        InputError: mark is not a watermark, or target_e, max_queries, batch_size or keys is out of range.
    """
    check_mark(mark, suspect)
    check_target(target_e)
    batch_size = read_whole(batch_size, "batch_size", 1, 2**31, "give at least 1")
    keys = read_whole(keys, "keys", 1, 2**31, "count the keys or watermarks that were tried, this one included")
    mark = mark if rows is None else only(mark, rows)
    limited = _limit(mark, max_queries, exhaustive)
    terms = Terms(mark, keys=keys, target_e=target_e, chosen=limited)
    asked = as_suspect(suspect, terms.mark, batch_size=batch_size)
    session = Session.planned(terms, max_queries, exhaustive)
    interrogate(session, asked, target_e, progress)
    verdict = session.verdict(target_e, asked.description)
    plugins.registry().tell("wmplug_verdict", verdict=verdict, run={})
    return verdict


def _limit(mark: Watermark, max_queries: int | None, exhaustive: bool) -> list[Choice]:
    """The choice of a number of queries, where it matters: an e-process of single draws may stop anywhere."""
    if max_queries is None or not (exhaustive or mark.triggers.plan.pattern) or max_queries >= len(mark.triggers):
        return []
    return [Choice(what="limit", bound=None, note=f"({max_queries} of {len(mark.triggers)})")]


def fresh(mark: Watermark, spent: Collection[int]) -> list[int]:
    """The rows to ask that are not spent, in order.

    A draw with one spent row is left out whole: anybody who saw that row's answer knows the answer of the others.
    """
    gone = set(spent)
    return [row for group in mark.triggers.groups if gone.isdisjoint(group.tolist()) for row in group.tolist()]


def only(mark: Watermark, rows: Collection[int], *, drawn: bool = False) -> Watermark:
    """The same watermark, asking only draws that lie among `rows`.

    Args:
        mark: the watermark.
        rows: rows of the trigger set.
        drawn: whether nonces of a notary and an opponent chose them.

    Raises:
        InputError: no draw lies among them.
    """
    narrowed = mark.triggers.only(rows)
    before, kept = ([group.tolist() for group in one.groups] for one in (mark.triggers, narrowed))
    if kept == before:
        return mark
    # Rows are asked in order, so leaving out the first ones is a choice of where to begin.
    last = kept == before[-len(kept) :]
    choice = Choice(
        what="rows",
        bound="drawn" if drawn else "paid" if last else None,
        sha256=digest(np.array([row for group in kept for row in group], np.int64)),
        tries=len(before) if last and not drawn else 1,
    )
    return dataclasses.replace(mark, triggers=narrowed, choices=(*mark.choices, choice))


def asked(mark: Watermark, verdict: Verdict, rows: Collection[int] | None = None) -> list[int]:
    """The rows that a verification spent.

    Args:
        mark: the watermark.
        verdict: the verdict that `verify` returned.
        rows: the rows= given to `verify`.
    """
    groups = (mark if rows is None else only(mark, rows)).triggers.groups
    spent = groups if verdict.p_is == "exact" else [group[:1] for group in groups]
    # Ordinary inputs come last, and reveal no secret.
    queries = verdict.parts[0].queries if verdict.parts else verdict.queries
    return [row for group in spent for row in group.tolist()][:queries]


def judge(mark: Watermark, answers: Answers, *, target_e: float = TARGET_E, keys: int = 1) -> Verdict:
    """The exact verdict on recorded answers, over all tests of the plan that they answer.

    Nobody watches who answered, so the verdict says that the answers are as given.

    Args:
        mark: the watermark.
        answers: answers to its own questions: whole draws, and the first rows of its pattern.
        target_e: as in `verify`.
        keys: as in `verify`.

    Raises:
        InputError: mark is not a watermark, the answers are to other rows, or target_e or keys is out of range.
    """
    check_mark(mark, None)
    check_target(target_e)
    keys = read_whole(keys, "keys", 1, 2**63, "count the keys or watermarks that were tried, this one included")
    asks = {int(row) for test in mark.triggers.plan.tests for row in test.rows}
    chosen = [Choice(what="answers", bound=None)]
    if not asks.issubset(rows := answers.rows.tolist()):
        chosen.append(Choice(what="rows", bound=None, sha256=digest(np.array(sorted(rows), np.int64))))
    return judged(Terms(mark, keys=keys, target_e=target_e, chosen=chosen), answers, target_e)


def judged(terms: Terms, answers: Answers, target_e: float = TARGET_E) -> Verdict:
    """As `judge`, on terms that the caller made before it asked.

    Raises:
        InputError: the answers are to other rows.
    """
    session = Session.heard(terms, answers.rows.tolist())
    while len(rows := session.due(target_e)):
        session.take(answers.to(rows.tolist()), answers.suspect)
    return session.verdict(target_e, answers.suspect)


def interrogate(
    session: Session, suspect: Suspect, target_e: float, progress: Callable[[int, int], None] | None = None
) -> None:
    """Ask a suspect the rows that are due, until none is.

    Raises:
        SuspectError: the suspect answered no query of a test.
    """
    mark, channels = session.mark, session.channels
    while len(rows := session.due(target_e)):
        answers = ask(Questions.of(mark.triggers, rows, mark.preprocess), suspect)
        misfit = session.take(answers.said, answers.suspect)
        if session.current.failed == session.current.queries:
            cause = misfit or answers.cause
            raise silence(dataclasses.replace(answers, cause=cause), mark.preprocess) from cause
        if progress is not None:
            progress(sum(channel.queries for channel in channels), sum(channel.limit for channel in channels))


def silence(answers: Answers, preprocess: Any) -> SuspectError:
    """The error for a suspect that answered none of its queries."""
    cause, none = answers.cause, f"{answers.suspect} answered none of {len(answers.said)} queries"
    if isinstance(cause, SuspectError):
        return SuspectError(str(cause))
    if cause is None and not isinstance(answers.task, Classes):
        return SuspectError(f"{none}: nothing it returned is an answer of {answers.task}")
    why = (
        "all were NaN, so the weights are broken or the inputs are not what the model was trained on"
        if cause is None
        else f"last {type(cause).__name__}: {cause}"
    )
    hint = (
        "; if training used preprocess=, give the same function: load(path, preprocess=...) or create(..., "
        "preprocess=...), on the command line --preprocess module:function"
        if preprocess is None
        else "; check that preprocess= gives what the model takes"
    )
    return SuspectError(f"{none}: {why}{hint}")


def check_mark(mark: Any, suspect: Any) -> None:
    """Raise InputError unless it is a watermark."""
    if isinstance(mark, Watermark):
        return
    if isinstance(suspect, Watermark):
        raise InputError("suspect and watermark are swapped: verify(mark, suspect)")
    if isinstance(mark, (str, os.PathLike)):
        raise InputError(f"mark={os.fspath(mark)!r} is a path: open the watermark first, wmplug.load(path)")
    raise InputError(f"mark is a {type(mark).__name__}: give a watermark, from wmplug.create or wmplug.load")


def check_target(target_e: float) -> None:
    """Raise InputError unless it is a number above 1."""
    if not (isinstance(target_e, numbers.Real) and math.isfinite(target_e) and target_e > 1):
        raise InputError(f"target_e={target_e!r}: give a number above 1; 1e6 is usual")
