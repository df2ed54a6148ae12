"""Ask a suspect, score the answers, state the verdict.

The null of every number here: the suspect is independent of the owner's label key. One-sided, matches beyond chance.
"""

import dataclasses
import math
import numbers
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wmplug import plugins
from wmplug.claim.channels import Answers, Finding, Pattern
from wmplug.claim.verdict import Part, Verdict, state_of
from wmplug.errors import InputError, SuspectError
from wmplug.statistics import combination
from wmplug.suspects.functions import CallableSuspect, Suspect
from wmplug.watermark.plan import read_whole
from wmplug.watermark.watermark import Watermark

TARGET_E = 1e6
_WEIGHTS = {".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".h5", ".hdf5", ".npz", ".msgpack"}


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

    By default queries are spent one draw after the other, one query each, until the e-value reaches its target or no
    longer can (the p-value is then one over the largest E on the way, valid at any stopping time: Ville 1939); where
    ordinary inputs are weighed too, they come after, in stages that grow. `exhaustive` asks every trigger and every
    ordinary input and gives the exact p-value. Of two channels the e-value is the average, p twice the smaller.

    Args:
        mark: the watermark.
        suspect: a torch module, a transformers model, pipeline or checkpoint folder, a Keras model or .keras file, a
            `Suspect`, or a function from inputs to labels (n,) or scores (n, classes).
        target_e: e-value at which the verdict is `proven`; a false claim has probability at most 1/target_e.
        max_queries: ask no more than this.
        batch_size: inputs a forward pass; a `Suspect` has its own.
        exhaustive: ask all triggers.
        keys: keys or watermarks tried for this claim, this one included. The e-value is divided by it and the p-value
            multiplied, at most to 1 (Bonferroni); the state is that of the discounted e-value.
        rows: ask only draws that lie among these rows of the trigger set (leave out what was spent: `fresh`).
        progress: called with (queries answered, queries at most).

    Raises:
        SuspectError: nothing can be asked, every query failed, or the answers are of another task.
        InputError: mark is none, or target_e, max_queries, batch_size or keys is out of range.
    """
    _check_mark(mark, suspect)
    _check_target(target_e)
    batch_size = read_whole(batch_size, "batch_size", 1, 2**31, "give at least 1")
    keys = read_whole(keys, "keys", 1, 2**31, "count the keys or watermarks that were tried, this one included")
    mark = mark if rows is None else only(mark, rows)
    session = _Session(mark, as_suspect(suspect, mark, batch_size=batch_size), max_queries, exhaustive, keys)
    session.ask(target_e, progress)
    verdict = session.verdict(target_e)
    plugins.registry().tell("wmplug_verdict", verdict=verdict, run={})
    return verdict


def fresh(mark: Watermark, spent: Collection[int]) -> list[int]:
    """The rows to ask that are not spent, in order.

    A draw of which one row is spent is left out whole: who saw that row's answer knows the answer of the others.
    """
    gone = set(spent)
    return [row for group in mark.triggers.groups if gone.isdisjoint(group.tolist()) for row in group.tolist()]


def only(mark: Watermark, rows: Collection[int]) -> Watermark:
    """The same watermark, asking only draws that lie among `rows`.

    Raises:
        InputError: none does.
    """
    return dataclasses.replace(mark, triggers=mark.triggers.only(rows))


def asked(mark: Watermark, verdict: Verdict, rows: Collection[int] | None = None) -> list[int]:
    """The rows that a verification spent.

    Args:
        mark: the watermark.
        verdict: that `verify` gave.
        rows: as `verify` was given them.
    """
    groups = (mark if rows is None else only(mark, rows)).triggers.groups
    spent = groups if verdict.p_is == "exact" else [group[:1] for group in groups]
    # Ordinary inputs come last and give nothing away.
    queries = verdict.parts[0].queries if verdict.parts else verdict.queries
    return [row for group in spent for row in group.tolist()][:queries]


def judge(
    mark: Watermark, suspect: Suspect, answers: Sequence[int | None], *, target_e: float = TARGET_E, keys: int = 1
) -> Verdict:
    """The exact verdict on answers that were given before, one for each row the watermark asks, in order.

    Args:
        mark: the watermark.
        suspect: that gave them.
        answers: None for a query that failed.
        target_e: as in `verify`.
        keys: as in `verify`.
    """
    session = _Session(mark, suspect, None, exhaustive=True, keys=keys)
    session.pattern, channel = None, session.answers
    if channel is None:
        raise InputError(f"scheme {mark.scheme.name!r} asks for no single answers, so there are none to judge")
    channel.queries, channel.failed = len(answers), sum(answer is None for answer in answers)
    channel.take(len(channel.groups), answers)
    return session.verdict(target_e)


def _check_mark(mark: Any, suspect: Any) -> None:
    if isinstance(mark, Watermark):
        return
    if isinstance(suspect, Watermark):
        raise InputError("suspect and watermark are swapped: verify(mark, suspect)")
    if isinstance(mark, (str, os.PathLike)):
        raise InputError(f"mark={os.fspath(mark)!r} is a path: open the watermark first, wmplug.load(path)")
    raise InputError(f"mark is a {type(mark).__name__}: give a watermark, from wmplug.create or wmplug.load")


def _check_target(target_e: float) -> None:
    if not (isinstance(target_e, numbers.Real) and math.isfinite(target_e) and target_e > 1):
        raise InputError(f"target_e={target_e!r}: give a number above 1; 1e6 is usual")


def as_suspect(target: Any, mark: Watermark, *, batch_size: int = 64) -> Suspect:
    """Whatever answers, as a Suspect.

    Raises:
        SuspectError: nothing knows how to ask it.
        PluginError: its framework is not installed.
    """
    if isinstance(target, Suspect):
        return target
    made = plugins.registry().suspect(target, mark.preprocess, batch_size)
    if made is not None:
        return made
    if callable(target):
        return CallableSuspect(target, batch_size)
    if isinstance(target, (str, os.PathLike)):
        raise SuspectError(f"cannot ask {str(target)!r}: {_why_not(Path(target))}")
    raise SuspectError(
        f"cannot ask a {type(target).__name__}: give a model, a pipeline, an existing checkpoint folder or .keras "
        "file, or a function from inputs to labels or scores"
    )


def _why_not(path: Path) -> str:
    own = "load them into your own class and give that model (on the command line: module:name of it)"
    if path.is_dir():
        names = sorted(found.name for found in path.iterdir())
        some = ", ".join(names[:5]) + ", ..." * (len(names) > 5) if names else "nothing"
        return f"the folder holds {some} but no config.json, so is no transformers checkpoint: for bare weights, {own}"
    if path.suffix in _WEIGHTS:
        return f"a {path.suffix} file is bare weights without their model: {own}"
    if path.exists():
        return "it is neither a checkpoint folder nor a .keras file: load the model yourself and give that"
    return "there is no such file: give a model, a checkpoint folder or .keras file that exists, or a function"


def _is_attested(evidence: Mapping[str, Any]) -> bool:
    """A salt of a token, and of an authority that is not a laboratory's own."""
    return evidence["salt"] is not None and not evidence.get("lab", False)


class _Session:
    """The questions put to one suspect, through all channels that the watermark has."""

    def __init__(self, mark: Watermark, suspect: Suspect, max_queries: int | None, exhaustive: bool, keys: int) -> None:
        self.mark, self.suspect, self.exhaustive, self.keys = mark, suspect, exhaustive, keys
        plan = mark.triggers.plan
        most = len(mark.triggers)
        least = len(mark.triggers.groups[0]) if exhaustive and len(plan.asked) else 1
        wanted = most if max_queries is None else max_queries
        limit = read_whole(wanted, "max_queries", least, 2**63, f"the first answer alone takes {least}")
        self.answers = Answers(mark, suspect, limit, exhaustive) if len(plan.asked) else None
        left = limit - (0 if self.answers is None else self.answers.limit)
        self.pattern = Pattern(mark, suspect, left, exhaustive) if plan.signs else None

    @property
    def channels(self) -> list[Answers | Pattern]:
        """Those that have anything to ask, the cheaper first."""
        return [channel for channel in (self.answers, self.pattern) if channel is not None and channel.limit]

    def ask(self, target_e: float, progress: Callable[[int, int], None] | None = None) -> None:
        """Ask until the verdict is reached, or nothing is left."""
        channels = self.channels
        for channel in channels:
            while (units := channel.affordable(self._share(target_e))) > 0:
                channel.ask(units)
                if progress is not None:
                    progress(sum(c.queries for c in channels), sum(c.limit for c in channels))
            if not self.exhaustive and self.log10_e() - math.log10(self.keys) >= math.log10(target_e):
                return

    def _share(self, target_e: float) -> float:
        """log10 of what one channel must reach alone, for all of them together to reach the target."""
        return math.log10(target_e) + math.log10(self.keys) + math.log10(len(self.channels))

    def log10_e(self) -> float:
        """Of the average over channels; a channel that was not begun counts 1."""
        return combination.average_log10_e([channel.log10_e() for channel in self.channels])

    def verdict(self, target_e: float, step: int | None = None, look: int | None = None) -> Verdict:
        found = [channel.finding() for channel in self.channels]
        tried, first = math.log10(self.keys), found[0]
        log10_e = combination.average_log10_e([one.log10_e for one in found]) - tried
        if look is not None:
            log10_e = float(combination.weighted_log10(log10_e, look))
        log10_p = min(one.log10_p for one in found) + math.log10(len(found)) + tried
        tests = " and ".join(one.test for one in found if one.queries)
        return Verdict(
            state=state_of(log10_e, target_e),
            scheme=self.mark.scheme.name,
            watermark=self.mark.id,
            suspect=self.suspect.description,
            step=step,
            triggers=len(self.mark.triggers),
            queries=sum(one.queries for one in found),
            failed=sum(one.failed for one in found),
            in_set=first.of,
            matches=first.matches,
            draws=first.draws,
            candidates=tuple(sorted(frozenset().union(*(one.candidates for one in found)))),
            looks=look or 1,
            keys=self.keys,
            log10_e=log10_e,
            log10_p=min(0.0, log10_p),
            target_e=target_e,
            test=tests if len(found) == 1 else f"twice the smaller p of {tests}",
            p_is="exact" if self.exhaustive else "anytime",
            enough=None if self.answers is None else self.answers.enough(self._share(target_e)),
            attested=None if (evidence := self.mark.public.get("evidence")) is None else _is_attested(evidence),
            parts=tuple(_part(one) for one in found) if len(found) > 1 else (),
        )


def _part(finding: Finding) -> Part:
    named = {f.name: getattr(finding, f.name) for f in dataclasses.fields(Part)}
    return Part(**named)


class Monitor:
    """The same watermark verified at every checkpoint of one run.

    A p-value looked at again and again lies (over 50 checkpoints, p <= .05 fires 52 % of the time). The e-value of look
    u is therefore reported times 6/(pi^2 u^2): these weights sum to one, so all looks together make one e-value and any
    of them may be quoted. The p-value of a look is exact for that look alone.
    """

    def __init__(self, mark: Watermark, *, target_e: float = TARGET_E, looks: Sequence[float] = ()) -> None:
        _check_mark(mark, None)
        _check_target(target_e)
        self.mark, self.target_e = mark, target_e
        self.looks = list(looks)

    def look(
        self, suspect: Any, *, step: int | None = None, run: dict[str, Any] | None = None, tell: bool = True
    ) -> Verdict:
        """Verify with all triggers, and count the look.

        Args:
            suspect: as in `verify`.
            step: of the run.
            run: more about the run, for the hook `wmplug_verdict`.
            tell: call that hook; False on all processes of a run but the main one.

        Raises:
            SuspectError: as in `verify`.
        """
        session = _Session(self.mark, as_suspect(suspect, self.mark), None, exhaustive=True, keys=1)
        session.ask(self.target_e)
        self.looks.append(session.log10_e())
        verdict = session.verdict(self.target_e, step, len(self.looks))
        if tell:
            plugins.registry().tell("wmplug_verdict", verdict=verdict, run={"step": step, **(run or {})})
        return verdict

    @property
    def lost(self) -> bool:
        """Whether the mark was proven earlier and is not at the last look, with less than half the decades of the best.

        To fall short of the target by a few answers, or by the lower weight of a later look, is no loss.
        """
        if not self.looks:
            return False
        weighted = combination.weighted_log10(np.array(self.looks), np.arange(1.0, len(self.looks) + 1))
        proven = [state_of(log10_e, self.target_e) == "proven" for log10_e in weighted.tolist()]
        return any(proven) and not proven[-1] and self.looks[-1] < max(self.looks) / 2

    def log10_sum(self) -> float:
        """log10 of the run's own e-value: the weighted sum over all looks so far."""
        return combination.monitor_log10(self.looks)
