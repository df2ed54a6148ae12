"""The grid: every attack under every seed, each cell judged, written, and never made twice.

attack(model, setting, seed)     <- in a worker process, which has model and setting but never the mark
accuracy, verdict, other key     <- here
cells/ATTACK-SEED-DIGEST.json    <- at once, so that an interrupted audit can continue
"""

import copy
import dataclasses
import hashlib
import json
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wmplug import __version__
from wmplug.audit.attacks import QUICK, Attack, chosen
from wmplug.audit.detection import Detector
from wmplug.audit.results import CONTROL, OWN, OWN_MODEL, Cell, Report
from wmplug.audit.setting import Setting
from wmplug.audit.training import accuracy, answers
from wmplug.claim.questions import Answers, Questions, ask
from wmplug.claim.terms import Terms
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import judged, silence
from wmplug.errors import InputError, SuspectError, WmplugError
from wmplug.keys.files import write_new
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import read_whole, to_numpy
from wmplug.tasks.classes import count_of
from wmplug.watermark.carriers import digest
from wmplug.watermark.plan import draw_symbols
from wmplug.watermark.watermark import Watermark

Progress = Callable[[int, int], None]
Job = tuple[Attack, int]
_COMPARED = 8  # inputs that show whether preprocess= is the same


def run(
    mark: Watermark,
    model: nn.Module,
    setting: Setting,
    attacks: Sequence[str | Attack] = QUICK,
    seeds: Sequence[int] = (0,),
    *,
    controls: Mapping[str, nn.Module] | None = None,
    rival: Watermark | None = None,
    folder: str | Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Report:
    """Attack your own model, and see how much of the watermark is left.

    Every p-value is exact, one-sided, under the null that the suspect is independent of the label key.

    Args:
        mark: the owner's; it stays in this process.
        model: trained with the mark, a torch module from inputs to logits (n, classes).
        setting: the attacker's means.
        attacks: QUICK, FULL, names from ATTACKS, or `Attack`s of your own.
        seeds: each attack runs once for each.
        controls: models without the mark, by name, such as {"unmarked twin": twin}.
        rival: another mark, under which every suspect is judged too; by default the same questions with answers of
            another key.
        folder: keeps finished cells; an audit of the same mark, model and setting continues from there.
        workers: number of attacking processes, each on one thread; results do not depend on it.
        progress: called with (cells done, all cells).

    Raises:
        InputError: an unknown attack, a mark or model that does not fit, or, with several workers, a setting that
            cannot be sent to them.
        SuspectError: the model cannot be asked.
    """
    jobs = _jobs(chosen(attacks), seeds)
    controls = controls or {}
    if taken := sorted({*controls} & {OWN_MODEL, *(attack.name for attack, _ in jobs)}):
        raise InputError(
            f"controls= use the names {', '.join(taken)}, which are rows of the report already: rename them"
        )
    read_whole(workers, "workers", 1, 1024, "give the number of processes that attack at a time, 1 or more")
    court = _Court.of(mark, rival, setting, model)
    scheme = type(mark.scheme).restore(mark.scheme.parameters())
    setting = dataclasses.replace(setting, scheme=scheme, make=None)
    own = court.judge(OWN_MODEL, OWN, 0, model)
    if own.failed is not None:
        raise SuspectError(own.failed)
    shelf = _Shelf(None if folder is None else Path(folder) / "cells", _identity(court, model, setting))
    others = [court.judge(name, CONTROL, 0, control) for name, control in controls.items()]
    cells = _cells(jobs, court, shelf, model, setting, workers, progress)
    return Report(mark.id, mark.scheme.name, (own, *(cells[job] for job in jobs), *others))


def _cells(
    jobs: list[Job],
    court: "_Court",
    shelf: "_Shelf",
    model: nn.Module,
    setting: Setting,
    workers: int,
    progress: Progress | None,
) -> dict[Job, Cell]:
    """The cells of all attacks, from the shelf or made anew."""
    cells = {job: cell for job in jobs if (cell := shelf.take(job)) is not None}
    fresh = [job for job in jobs if job not in cells]
    if progress is not None:
        progress(len(cells), len(jobs))
    for job, suspect in _suspects(fresh, model, setting, min(workers, max(1, len(fresh)))):
        attack, seed = job
        cells[job] = court.judge(attack.name, attack.family, seed, suspect)
        shelf.put(job, cells[job])
        if progress is not None:
            progress(len(cells), len(jobs))
    return cells


def _jobs(attacks: Sequence[Attack], seeds: Sequence[int]) -> list[Job]:
    wanted = [read_whole(seed, "seeds", 0, 2**31, "whole numbers from 0 on") for seed in seeds]
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"seeds={list(seeds)}: give one or more, each once")
    return [(attack, seed) for attack in attacks for seed in wanted]


class _Asked:
    """A thief's module as a suspect, which gets carriers through the owner's preprocess."""

    def __init__(self, model: nn.Module, mark: Watermark) -> None:
        self.description = type(model).__name__
        self.model, self.preprocess = model, mark.preprocess

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Scores (n, classes) or labels (n,)."""
        return to_numpy(answers(self.model, prepared(inputs, self.preprocess)))


def prepared(inputs: Sequence[Any], preprocess: Callable[[Any, int], Any] | None) -> torch.Tensor:
    """(n, ...) the model's inputs for n carriers."""
    examples = [torch.as_tensor(x if preprocess is None else preprocess(x, 0)[0]) for x in inputs]
    return torch.stack(examples)


@dataclass(frozen=True)
class _Court:
    """The measuring process, which alone holds the keys."""

    mark: Watermark
    rival: Watermark
    setting: Setting

    @classmethod
    def of(cls, mark: Watermark, rival: Watermark | None, setting: Setting, model: nn.Module) -> "_Court":
        """A court whose parts fit together.

        Raises:
            InputError: a part has the wrong type, or belongs to another task.
        """
        kinds = ((mark, Watermark, "mark"), (setting, Setting, "setting"), (model, nn.Module, "model"))
        for value, kind, name in kinds:
            if not isinstance(value, kind):
                raise InputError(f"{name} is a {type(value).__name__}: give a {kind.__name__}")
        if (classes := count_of(mark.task, "audit")) != setting.classes:
            raise InputError(f"mark has {classes} classes, setting {setting.classes}: give both for one task")
        if rival is not None and (not isinstance(rival, Watermark) or rival.id == mark.id):
            raise InputError("rival= is the mark itself, or not a mark: give a mark of another owner, or leave it out")
        if "answers" in mark.scheme.points and setting.service is None:
            raise InputError(
                f"a mark of scheme {mark.scheme.name!r} is in what a service answers, and no model shows that: give "
                "ask_service(setting, answer) for the setting, and mark.with_queries(log.decided(), ...) for the mark"
            )
        return cls(mark, other_key(mark) if rival is None else rival, setting)

    def judge(self, name: str, family: str, seed: int, suspect: nn.Module | WmplugError) -> Cell:
        """The result for a suspect; each set of questions goes to a copy of its own, so that none affects another."""
        if isinstance(suspect, WmplugError):
            return Cell(name, family, seed, failed=str(suspect))
        try:
            mine, others = self._verdicts(suspect)
        except WmplugError as error:
            return Cell(name, family, seed, failed=str(error))
        setting = self.setting
        right = accuracy(copy.deepcopy(suspect), setting.test_inputs, setting.test_labels)
        return Cell(name, family, seed, right, mine, others, self._found(suspect))

    def _verdicts(self, suspect: nn.Module) -> tuple[Verdict, Verdict]:
        """The verdicts under the mark and under the rival, which may ask the same questions."""
        mine = _ask(self.mark, suspect)
        same = self.rival.triggers.plan is self.mark.triggers.plan
        theirs = mine if same else _ask(self.rival, suspect)
        return judged(Terms(self.mark), mine), judged(Terms(self.rival), theirs)

    def _found(self, suspect: nn.Module) -> float | None:
        choices = self.mark.triggers.plan.choices
        if not isinstance(suspect, Detector) or choices is None:
            return None
        rows = [self.mark.triggers.row(row) for row in choices.rows.tolist()]
        with torch.no_grad():
            return float(copy.deepcopy(suspect).flags(prepared(rows, self.mark.preprocess)).float().mean())


def _ask(mark: Watermark, suspect: nn.Module) -> Answers:
    sheet = Questions.of(mark.triggers, preprocess=mark.preprocess)
    answers = ask(sheet, _Asked(copy.deepcopy(suspect), mark))
    if all(one is None for one in answers.said):
        raise silence(answers, mark.preprocess)
    return answers


def other_key(mark: Watermark) -> Watermark:
    """The same questions with answers that another key drew: the verdict on a model without a mark."""
    stream = KeyStream(hashlib.sha256(f"wmplug/audit/{mark.id}".encode()).digest())
    triggers = mark.triggers
    drawn = draw_symbols(stream, triggers.plan.options)
    return dataclasses.replace(mark, id=f"other key {mark.id}", triggers=dataclasses.replace(triggers, symbols=drawn))


def _identity(court: _Court, model: nn.Module, setting: Setting) -> str:
    """A digest of everything that a cell depends on besides attack and seed."""
    facts: dict[str, Any] = {"version": __version__, "mark": court.mark.id, "rival": court.rival.id}
    asked = court.mark.triggers.samples(_COMPARED)
    facts["questions"] = [court.mark.public.get("queries"), digest(to_numpy(prepared(asked, court.mark.preprocess)))]
    facts["model"] = _weights(model)
    for field in dataclasses.fields(setting):
        value = getattr(setting, field.name)
        if isinstance(value, torch.Tensor):
            value = digest(to_numpy(value))
        elif isinstance(value, nn.Module):
            value = json.dumps(_weights(value))
        elif field.name == "architectures":
            with torch.random.fork_rng():
                value = [str(make()) for make in value]
        facts[field.name] = value if isinstance(value, (int, float, str, list)) else str(value)
    return digest(json.dumps(facts, sort_keys=True))


def _weights(model: nn.Module) -> dict[str, str]:
    return {name: digest(to_numpy(value)) for name, value in model.state_dict().items()}


@dataclass(frozen=True)
class _Shelf:
    """Finished cells, each in a file that is named after everything it depends on; empty without a folder."""

    folder: Path | None
    identity: str

    def take(self, job: Job) -> Cell | None:
        file = self._file(job)
        if file is None or not file.is_file():
            return None
        try:
            return Cell.from_dict(json.loads(file.read_bytes()))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            warnings.warn(f"{file} is not a cell of an audit ({error}): its attack runs again", stacklevel=5)
            return None

    def put(self, job: Job, cell: Cell) -> None:
        file = self._file(job)
        # A failed attack is tried again the next time.
        if file is not None and cell.failed is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_new(file, json.dumps(cell.to_dict(), indent=1).encode(), 0o644)

    def _file(self, job: Job) -> Path | None:
        name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', job[0].name)}-{job[1]}"
        return self.folder and self.folder / f"{name}-{digest(f'{self.identity} {job[0].name}-{job[1]}')[:16]}.json"


def _suspects(
    jobs: Sequence[Job], model: nn.Module, setting: Setting, workers: int
) -> Iterator[tuple[Job, nn.Module | WmplugError]]:
    """The results of the attacks, in the order of their completion."""
    if workers == 1:
        for attack, seed in jobs:
            yield (attack, seed), _made(attack, model, setting, seed)
        return
    try:
        sent = pickle.dumps((model, setting, list(jobs)))
    except Exception as error:
        raise InputError(
            f"model, setting or attacks cannot be sent to other processes ({error}): define classes and functions in a "
            "module rather than in a function, or give workers=1"
        ) from error
    # A forked copy of this process would hold the key, and might hang in torch's threads.
    with ProcessPoolExecutor(workers, get_context("spawn"), _receive, (sent,)) as pool:
        futures = {pool.submit(_work, number): job for number, job in enumerate(jobs)}
        try:
            for future in as_completed(futures):
                yield futures[future], pickle.loads(future.result())
        finally:
            pool.shutdown(cancel_futures=True)


def _made(attack: Attack, model: nn.Module, setting: Setting, seed: int) -> nn.Module | WmplugError:
    try:
        suspect = attack(model, setting, seed)
    except WmplugError as error:
        return error
    # An attack, or an architecture, of the user's own may raise anything; the others continue.
    except Exception as error:
        return SuspectError(f"attack {attack.name!r} failed ({type(error).__name__}: {error})")
    if not isinstance(suspect, nn.Module):
        return SuspectError(f"attack {attack.name!r} returned a {type(suspect).__name__}: return a torch module")
    return suspect


# The work of a worker process.
_given: list[Any] = []


def _receive(sent: bytes) -> None:
    _given[:] = pickle.loads(sent)


def _work(number: int) -> bytes:
    model, setting, jobs = _given
    attack, seed = jobs[number]
    # As bytes, since torch would pass a tensor in memory that ends with this process.
    return pickle.dumps(_made(attack, model, setting, seed))
