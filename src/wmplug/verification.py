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

from wmplug import combination, plugins, statistics
from wmplug.errors import InputError, SuspectError
from wmplug.statistics import DrawResult
from wmplug.suspects import CallableSuspect, Suspect, read_answers
from wmplug.triggers import read_whole
from wmplug.verdict import Verdict, state_of
from wmplug.watermark import Watermark

TARGET_E = 1e6
_WEIGHTS = {".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".h5", ".hdf5", ".npz", ".msgpack"}
_STRIDE = 512  # draws of an exhaustive verification between two calls of progress


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
    longer can (the p-value is then one over the largest E on the way, valid at any stopping time: Ville 1939);
    `exhaustive` asks every trigger and gives the exact p-value of the matches.

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
    while (draws := session.affordable(math.log10(target_e) + math.log10(keys))) > 0:
        session.ask(draws)
        if progress is not None:
            progress(session.queries, session.limit)
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
    return [row for group in spent for row in group.tolist()][: verdict.queries]


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
    session.queries, session.failed = len(answers), sum(answer is None for answer in answers)
    session.take(len(session.groups), answers)
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


def ask(
    suspect: Suspect, inputs: Sequence[Any], classes: int
) -> tuple[list[int | None], Exception | SystemExit | None]:
    """What a suspect answers: a class for each input, None where it gave none; and why it gave none."""
    cause: Exception | SystemExit | None = None
    answers: list[int | None] = []
    try:
        answers = _read(suspect, inputs, classes)
    # A suspect that calls sys.exit() has given no answer, and does not end the verification.
    except (Exception, SystemExit) as error:
        cause = error
        for one in inputs:
            # A failed query is dropped whatever its answer would have been, so the null is untouched.
            try:
                answers += _read(suspect, [one], classes)
            except (Exception, SystemExit) as error:
                answers.append(None)
                # What cannot be read says more than what was raised on the way to it.
                cause = cause if isinstance(cause, SuspectError) else error
    return answers, cause


def _read(suspect: Suspect, inputs: Sequence[Any], classes: int) -> list[int | None]:
    answers = read_answers(suspect.answer(inputs), classes, suspect.description)
    if len(answers) != len(inputs):
        raise SuspectError(
            f"{suspect.description} gave {len(answers)} answers for {len(inputs)} inputs: return one label or one row "
            "of scores for each"
        )
    return answers


def _is_attested(evidence: Mapping[str, Any]) -> bool:
    """A salt of a token, and of an authority that is not a laboratory's own."""
    return evidence["salt"] is not None and not evidence.get("lab", False)


class _Session:
    """The questions put to one suspect, draw after draw."""

    def __init__(
        self, mark: Watermark, suspect: Suspect, max_queries: int | None, exhaustive: bool, keys: int = 1
    ) -> None:
        self.mark, self.suspect, self.exhaustive, self.keys = mark, suspect, exhaustive, keys
        # A second query to a draw says less than a first to another, and a draw once looked at is not asked again.
        self.groups = mark.triggers.groups if exhaustive else [group[:1] for group in mark.triggers.groups]
        most = sum(len(group) for group in self.groups)
        least = len(self.groups[0])
        wanted = most if max_queries is None else max_queries
        self.limit = min(most, read_whole(wanted, "max_queries", least, 2**63, f"the first answer alone takes {least}"))
        self.results: list[DrawResult] = []
        self.queries = self.failed = 0

    def affordable(self, target: float) -> int:
        """How many draws to ask next; never more than a perfect suspect needs, unless all are wanted."""
        groups = self.groups[len(self.results) :]
        within = int(np.searchsorted(np.cumsum([len(g) for g in groups]), self.limit - self.queries, side="right"))
        if self.exhaustive or not within:
            return min(within, _STRIDE)
        if len(self.results) and self.log10_e() >= target:
            return 0
        draws, candidates = self.mark.triggers.plan.draw, self.mark.triggers.plan.candidates
        ahead = [(len(candidates[draws[group[0]]]), len(group)) for group in groups[:within]]
        fewest = statistics.fewest_to(self.results, target, ahead)
        if fewest is None and not self.results:
            return within  # so small a set, or so few queries, can still be evidence
        # None: out of reach even if all that is left matched, so the queries are better saved.
        return fewest or 0

    def ask(self, draws: int) -> None:
        start = len(self.results)
        rows = np.concatenate(self.groups[start : start + draws])
        self.take(draws, self._answers([self.mark.triggers.row(i) for i in rows]))

    def take(self, draws: int, answers: Sequence[int | None]) -> None:
        start = len(self.results)
        bounds = np.cumsum([len(group) for group in self.groups[start : start + draws]])[:-1]
        parts = [list(part) for part in np.split(np.array(answers, dtype=object), bounds)]
        self.results += self.mark.score(start, parts)

    def _answers(self, inputs: Sequence[Any]) -> list[int | None]:
        answers, cause = ask(self.suspect, inputs, self.mark.classes)
        self.queries += len(inputs)
        self.failed += sum(answer is None for answer in answers)
        if self.failed == self.queries:
            raise self._all_failed(cause) from cause
        return answers

    def _all_failed(self, cause: BaseException | None) -> SuspectError:
        if isinstance(cause, SuspectError):
            return SuspectError(str(cause))
        why = (
            "all were NaN, so the weights are broken or the inputs are not what the model was trained on"
            if cause is None
            else f"last {type(cause).__name__}: {cause}"
        )
        hint = (
            "; if training used preprocess=, give the same function: load(path, preprocess=...) or create(..., "
            "preprocess=...), on the command line --preprocess module:function"
            if self.mark.preprocess is None
            else "; check that preprocess= gives what the model takes"
        )
        return SuspectError(f"{self.suspect.description} answered none of {self.queries} queries: {why}{hint}")

    def log10_e(self) -> float:
        return float(statistics.log10_e_path(self.results)[-1])

    def verdict(self, target_e: float, step: int | None = None, look: int | None = None) -> Verdict:
        path = statistics.log10_e_path(self.results)
        spent = np.cumsum([len(group) for group in self.groups[: len(self.results)]])
        tried = math.log10(self.keys)
        reached = np.flatnonzero(path - tried >= math.log10(target_e))
        # Ville bounds how high the path ever climbs: a p-value. The e-value is where it was left.
        best = float(path.max(initial=0.0))
        grouped = any(sum(r.counts) > 1 for r in self.results)
        sizes = {len(r.counts) for r in self.results}
        log10_e = float(path[-1]) - tried
        if look is not None:
            log10_e += math.log10(6 / (math.pi * look) ** 2)
        return Verdict(
            state=state_of(log10_e, target_e),
            scheme=self.mark.scheme.name,
            watermark=self.mark.id,
            suspect=self.suspect.description,
            step=step,
            triggers=len(self.mark.triggers),
            queries=self.queries,
            failed=self.failed,
            in_set=sum(sum(r.counts) for r in self.results),
            matches=sum(r.counts[r.symbol] for r in self.results),
            draws=len(self.results),
            candidates=tuple(sorted(sizes)),
            looks=look or 1,
            keys=self.keys,
            log10_e=log10_e,
            log10_p=min(0.0, (statistics.log10_p(self.results) if self.exhaustive else -best) + tried),
            target_e=target_e,
            test=("exact group" if grouped else "exact in-set") if self.exhaustive else "anytime e-process",
            p_is="exact" if self.exhaustive else "anytime",
            enough=int(spent[reached[0]]) if len(reached) else None,
            attested=None if (evidence := self.mark.public.get("evidence")) is None else _is_attested(evidence),
        )


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
        session = _Session(self.mark, as_suspect(suspect, self.mark), None, exhaustive=True)
        session.ask(len(session.groups))
        self.looks.append(session.log10_e())
        verdict = session.verdict(self.target_e, step, len(self.looks))
        if tell:
            plugins.registry().tell("wmplug_verdict", verdict=verdict, run={"step": step, **(run or {})})
        return verdict

    def log10_sum(self) -> float:
        """log10 of the run's own e-value: the weighted sum over all looks so far."""
        return combination.monitor_log10(self.looks)
