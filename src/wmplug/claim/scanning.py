"""Many suspects against many watermarks: each suspect gets each question once, here or on other machines.

Only a sheet, which holds neither key nor answers, leaves this process; the suspects' answers are judged here.
"""

import builtins
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from wmplug import plugins
from wmplug.claim.questions import Answers, Questions, ask
from wmplug.claim.terms import Terms
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import check_mark, judged, silence
from wmplug.errors import InputError, WmplugError
from wmplug.statistics import combination
from wmplug.statistics.arrays import IntArray
from wmplug.suspects.targets import as_suspect
from wmplug.watermark.carriers import Inputs, digest
from wmplug.watermark.choices import Choice
from wmplug.watermark.watermark import Watermark

Job = tuple[Questions, Any, int]


@dataclass(frozen=True)
class Scan:
    """The verdicts on several suspects for several watermarks.

    Attributes:
        verdicts: suspect -> watermark -> exact verdict, by the names that you gave.
        queries: suspect -> number of queries it answered, each once.
        failed: suspect -> reason why it could not be asked.
    """

    verdicts: Mapping[str, Mapping[str, Verdict]]
    queries: Mapping[str, int]
    failed: Mapping[str, WmplugError]

    def accused(self, alpha: float = 1e-3) -> tuple[tuple[str, str], ...]:
        """Accused pairs of suspect and watermark; the chance of a wrong one is at most alpha (Holm 1979).

        Raises:
            StatisticsError: alpha is not in (0, 1).
        """
        pairs = self._pairs()
        named = combination.holm([verdict.log10_p + self._owed(verdict) for *_, verdict in pairs], alpha)
        return tuple((who, mark) for (who, mark, _), one in zip(pairs, named, strict=True) if one)

    def worth_a_look(self, alpha: float = 0.05) -> tuple[tuple[str, str], ...]:
        """Pairs to look at more closely; the expected share of wrong ones is at most alpha (Wang & Ramdas 2022).

        For triage: accusations go through `accused`.

        Raises:
            StatisticsError: alpha is not in (0, 1).
        """
        pairs = self._pairs()
        named = combination.e_bh([verdict.log10_e - self._owed(verdict) for *_, verdict in pairs], alpha)
        return tuple((who, mark) for (who, mark, _), one in zip(pairs, named, strict=True) if one)

    def _owed(self, verdict: Verdict) -> float:
        """log10 of the factor from a verdict's own discount to that for the watermarks which are not in this scan."""
        # A watermark may stand here for several customers, with coins of their own for each.
        here = max(len({one.watermark for one in found.values()}) for found in self.verdicts.values())
        return math.log10(max(1.0, verdict.keys / here)) - math.log10(verdict.keys)

    def _pairs(self) -> list[tuple[str, str, Verdict]]:
        return [(who, mark, verdict) for who, found in self.verdicts.items() for mark, verdict in found.items()]


def scan(
    marks: Mapping[str, Watermark],
    targets: Mapping[str, Any],
    *,
    batch_size: int = 64,
    map: Callable[..., Iterable[Any]] = map,
    progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """Test many suspects against many watermarks, black box, with all queries.

    Every p-value is exact and one-sided, under the null that the suspect is independent of that watermark's label key.
    Each is discounted by the keys in its register, and not by the number of suspects; `Scan.accused` does that.

    Args:
        marks: watermarks by name, of one task and one kind of input. Their keys stay in this process.
        targets: suspects by name, as `verify` takes them. With a map of your own, the targets and the marks'
            preprocess= must be picklable.
        batch_size: inputs in a forward pass; a `Suspect` has its own.
        map: calls a function for each of several jobs, in order, such as the map of a `ProcessPoolExecutor`.
        progress: called with (verdicts so far, verdicts in all).

    Raises:
        InputError: no watermarks are given, or they have several tasks or kinds of input.
    """
    sheet, rows = _together(marks)
    # Nobody watches what another machine, or a function that prepares the inputs, gave to a suspect.
    chosen = [] if map is builtins.map and sheet.preprocess is None else [Choice(what="answers", bound=None)]
    terms = {name: Terms(mark, chosen=chosen) for name, mark in marks.items()}
    jobs = [(sheet, target, batch_size) for target in targets.values()]
    verdicts: dict[str, dict[str, Verdict]] = {}
    queries: dict[str, int] = {}
    failed: dict[str, WmplugError] = {}
    for number, (name, heard) in enumerate(zip(targets, map(_asked, jobs), strict=True)):
        if isinstance(heard, WmplugError):
            failed[name] = heard
            continue
        queries[name], verdicts[name] = sum(one is not None for one in heard.said), {}
        for place, mark in enumerate(marks, 1):
            verdicts[name][mark] = _judged(terms[mark], heard, *rows[mark])
            if progress is not None:
                progress(number * len(marks) + place, len(targets) * len(marks))
    return Scan(verdicts, queries, failed)


def _asked(job: Job) -> Answers | WmplugError:
    """One suspect's answers, or the reason why there is nothing to judge; this is the job that runs elsewhere."""
    sheet, target, batch_size = job
    try:
        answers = ask(sheet, as_suspect(target, sheet, batch_size=batch_size))
    except WmplugError as error:
        return error
    if any(one is not None for one in answers.said):
        return answers
    return silence(answers, sheet.preprocess)


def _judged(terms: Terms, heard: Answers, rows: IntArray, places: IntArray) -> Verdict:
    answers = replace(heard, rows=rows, said=tuple(heard.said[place] for place in places.tolist()))
    verdict = judged(terms, answers)
    plugins.registry().tell("wmplug_verdict", verdict=verdict, run={})
    return verdict


def _together(marks: Mapping[str, Watermark]) -> tuple[Questions, dict[str, tuple[IntArray, IntArray]]]:
    """One sheet for all, and for each watermark its rows and their places on the sheet."""
    if not marks:
        raise InputError("no watermarks are given to test suspects against: give them by name, {name: mark}")
    for mark in marks.values():
        check_mark(mark, None)
    kinds = {(mark.task, mark.triggers.form, mark.preprocess) for mark in marks.values()}
    if len(kinds) > 1:
        raise InputError("the watermarks differ in task, form or preprocess=: test suspects against one kind at a time")
    places: dict[str, int] = {}
    rows: dict[str, tuple[IntArray, IntArray]] = {}
    parts: list[Questions] = []
    for name, mark in marks.items():
        sheet = Questions.of(mark.triggers, preprocess=mark.preprocess)
        keys, new = [digest(value) for value in sheet.inputs], []
        for i, key in enumerate(keys):
            if key not in places:
                places[key] = len(places)
                new.append(i)
        parts.append(sheet.only(np.array(new, np.int64)))
        rows[name] = sheet.rows, np.array([places[key] for key in keys], np.int64)
    return replace(parts[0], inputs=_joined(parts), rows=np.arange(len(places))), rows


def _joined(parts: Sequence[Questions]) -> Inputs:
    inputs = [part.inputs for part in parts]
    if isinstance(inputs[0], list):
        return [text for texts in inputs for text in texts]
    arrays = [np.asarray(one) for one in inputs]
    if len({(one.shape[1:], one.dtype) for one in arrays}) > 1:
        raise InputError("the watermarks' inputs differ in shape or dtype: test suspects against one kind at a time")
    return np.concatenate(arrays)
