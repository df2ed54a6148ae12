"""The grid: every attack under every seed, each cell judged, written, and never made twice.

attack(model, setting, seed)     <- in a worker process, which has model and setting and never meets the mark
accuracy, verdict, other key     <- here
cells/ATTACK-SEED-DIGEST.json    <- at once, so that an audit that was interrupted goes on
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
from wmplug.audit.report import CONTROL, OWN, OWN_MODEL, Cell, Report
from wmplug.audit.setting import Setting
from wmplug.audit.training import accuracy, answers
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import verify
from wmplug.errors import InputError, SuspectError, WmplugError
from wmplug.keys.files import write_new
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import to_numpy
from wmplug.watermark.carriers import digest, read_whole
from wmplug.watermark.plan import draw_symbols
from wmplug.watermark.watermark import Watermark

Progress = Callable[[int, int], None]
_COMPARED = 8  # inputs, which tell whether preprocess= is the same


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
    """Attack one's own model, and see what of the watermark is left.

    Every p-value is exact, one-sided, under the null that the suspect is independent of the label key.

    Args:
        mark: the owner's; stays in this process.
        model: that was trained with it, a torch module from inputs to logits (n, classes).
        setting: what the attacker has.
        attacks: QUICK, FULL, names from ATTACKS, or `Attack`s of your own.
        seeds: each attack is made once for each.
        controls: models that never met the mark, by name, such as {"unmarked twin": twin}.
        rival: another mark, under which every suspect is judged too; by default the same questions with answers of
            another key.
        folder: where finished cells are kept; an audit of the same mark, model and setting goes on from there.
        workers: processes that attack, each on one thread; results do not depend on it.
        progress: called with (cells done, all cells).

    Raises:
        InputError: no such attack, a mark or model that does not fit, or, with several workers, a setting that cannot
            be sent to them.
        SuspectError: the model cannot be asked.
    """
    jobs = _jobs(chosen(attacks), seeds)
    controls = controls or {}
    if taken := sorted({*controls} & {OWN_MODEL, *(attack.name for attack, _ in jobs)}):
        raise InputError(f"controls= are called {', '.join(taken)}, as a row of the report already is: rename them")
    read_whole(workers, "workers", 1, 1024, "give how many processes may attack at a time, 1 or more")
    court = _Court.of(mark, rival, setting, model)
    known = type(mark.scheme).restore(mark.scheme.parameters())
    setting = dataclasses.replace(setting, scheme=known, make=None)
    own = court.judge(OWN_MODEL, OWN, 0, model)
    if own.failed is not None:
        raise SuspectError(own.failed)
    shelf = _Shelf(None if folder is None else Path(folder) / "cells", _identity(court, model, setting))
    others = [court.judge(name, CONTROL, 0, control) for name, control in controls.items()]
    made = {job: cell for job in jobs if (cell := shelf.take(job)) is not None}
    fresh = [job for job in jobs if job not in made]
    if progress is not None:
        progress(len(made), len(jobs))
    for job, suspect in _suspects(fresh, model, setting, min(workers, max(1, len(fresh)))):
        attack, seed = job
        made[job] = court.judge(attack.name, attack.family, seed, suspect)
        shelf.put(job, made[job])
        if progress is not None:
            progress(len(made), len(jobs))
    return Report(mark.id, mark.scheme.name, (own, *(made[job] for job in jobs), *others))


Job = tuple[Attack, int]


def _jobs(attacks: Sequence[Attack], seeds: Sequence[int]) -> list[Job]:
    wanted = [read_whole(seed, "seeds", 0, 2**31, "whole numbers from 0 on") for seed in seeds]
    if not wanted or len(set(wanted)) < len(wanted):
        raise InputError(f"seeds={list(seeds)}: give one or more, each once")
    return [(attack, seed) for attack in attacks for seed in wanted]


class _Asked:
    """A thief's module as a suspect: it is given what the owner's preprocess makes of a carrier."""

    def __init__(self, model: nn.Module, mark: Watermark) -> None:
        self.description = type(model).__name__
        self.model, self.preprocess = model, mark.preprocess

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Scores (n, classes) or labels (n,)."""
        return to_numpy(answers(self.model, prepared(inputs, self.preprocess)))


def prepared(inputs: Sequence[Any], preprocess: Callable[[Any, int], Any] | None) -> torch.Tensor:
    """(n, ...) what the model is given for n carriers."""
    examples = [torch.as_tensor(x if preprocess is None else preprocess(x, 0)[0]) for x in inputs]
    return torch.stack(examples)


@dataclass(frozen=True)
class _Court:
    """Who holds the keys, and measures."""

    mark: Watermark
    rival: Watermark
    setting: Setting

    @classmethod
    def of(cls, mark: Watermark, rival: Watermark | None, setting: Setting, model: nn.Module) -> "_Court":
        """Checked.

        Raises:
            InputError: something is not what it should be, or of another task.
        """
        kinds = ((mark, Watermark, "mark"), (setting, Setting, "setting"), (model, nn.Module, "model"))
        for given, kind, name in kinds:
            if not isinstance(given, kind):
                raise InputError(f"{name} is a {type(given).__name__}: give a {kind.__name__}")
        if mark.classes != setting.classes:
            raise InputError(f"mark has {mark.classes} classes, setting {setting.classes}: they must be of one task")
        if rival is not None and (not isinstance(rival, Watermark) or rival.id == mark.id):
            raise InputError("rival= is the mark itself, or none: give a mark of another owner, or leave it out")
        return cls(mark, other_key(mark) if rival is None else rival, setting)

    def judge(self, name: str, family: str, seed: int, suspect: nn.Module | WmplugError) -> Cell:
        """What is left in a suspect; each question is put to a copy of its own, so that none hears of the others."""
        if isinstance(suspect, WmplugError):
            return Cell(name, family, seed, failed=str(suspect))
        try:
            mine, others = (self._ask(mark, suspect) for mark in (self.mark, self.rival))
        except WmplugError as error:
            return Cell(name, family, seed, failed=str(error))
        setting = self.setting
        right = accuracy(copy.deepcopy(suspect), setting.test_inputs, setting.test_labels)
        return Cell(name, family, seed, right, mine, others, self._found(suspect))

    def _ask(self, mark: Watermark, suspect: nn.Module) -> Verdict:
        return verify(mark, _Asked(copy.deepcopy(suspect), mark), exhaustive=True)

    def _found(self, suspect: nn.Module) -> float | None:
        asked = self.mark.triggers.plan.asked
        if not isinstance(suspect, Detector) or not len(asked):
            return None
        rows = [self.mark.triggers.row(int(row)) for row in asked]
        with torch.no_grad():
            return float(copy.deepcopy(suspect).flags(prepared(rows, self.mark.preprocess)).float().mean())


def other_key(mark: Watermark) -> Watermark:
    """The same questions with answers that another key drew: what a verdict looks like where nothing is."""
    stream = KeyStream(hashlib.sha256(f"wmplug/audit/{mark.id}".encode()).digest())
    triggers = mark.triggers
    drawn = draw_symbols(stream, triggers.plan.candidates)
    return dataclasses.replace(mark, id=f"other key {mark.id}", triggers=dataclasses.replace(triggers, symbols=drawn))


def _identity(court: _Court, model: nn.Module, setting: Setting) -> str:
    """What a cell depends on beside attack and seed, as a digest."""
    facts: dict[str, Any] = {"version": __version__, "mark": court.mark.id, "rival": court.rival.id}
    asked = court.mark.triggers.samples(_COMPARED)
    facts["questions"] = [court.mark.public.get("queries"), digest(to_numpy(prepared(asked, court.mark.preprocess)))]
    facts["model"] = {name: digest(to_numpy(value)) for name, value in model.state_dict().items()}
    for field in dataclasses.fields(setting):
        value = getattr(setting, field.name)
        if isinstance(value, torch.Tensor):
            value = digest(to_numpy(value))
        elif field.name == "architectures":
            with torch.random.fork_rng():
                value = [str(make()) for make in value]
        facts[field.name] = value if isinstance(value, (int, float, str, list)) else str(value)
    return digest(json.dumps(facts, sort_keys=True))


@dataclass(frozen=True)
class _Shelf:
    """Finished cells, each in a file named after all it depends on; without a folder it holds nothing."""

    folder: Path | None
    identity: str

    def take(self, job: Job) -> Cell | None:
        file = self._file(job)
        if file is None or not file.is_file():
            return None
        try:
            return Cell.from_dict(json.loads(file.read_bytes()))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            warnings.warn(f"{file} is no cell of an audit ({error}): its attack is made anew", stacklevel=4)
            return None

    def put(self, job: Job, cell: Cell) -> None:
        file = self._file(job)
        # What failed is tried again the next time.
        if file is not None and cell.failed is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_new(file, json.dumps(cell.to_dict(), indent=1).encode(), 0o644)

    def _file(self, job: Job) -> Path | None:
        name = f"{re.sub(r'[^A-Za-z0-9_-]', '_', job[0].name)}-{job[1]}"
        return self.folder and self.folder / f"{name}-{digest(f'{self.identity} {job[0].name}-{job[1]}')[:16]}.json"


def _suspects(
    jobs: Sequence[Job], model: nn.Module, setting: Setting, workers: int
) -> Iterator[tuple[Job, nn.Module | WmplugError]]:
    """What each attack makes, in the order they get done."""
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
    # A forked copy of this process would hold the key, and may hang in torch's threads.
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
    # An attack, or an architecture, of the user's own may raise whatever it likes; the others go on.
    except Exception as error:
        return SuspectError(f"attack {attack.name!r} failed ({type(error).__name__}: {error})")
    if not isinstance(suspect, nn.Module):
        return SuspectError(f"attack {attack.name!r} gave a {type(suspect).__name__}: it returns a torch module")
    return suspect


# What a worker process was given.
_given: list[Any] = []


def _receive(sent: bytes) -> None:
    _given[:] = pickle.loads(sent)


def _work(number: int) -> bytes:
    model, setting, jobs = _given
    attack, seed = jobs[number]
    # As bytes: torch would hand a tensor over in memory that is gone with this process.
    return pickle.dumps(_made(attack, model, setting, seed))
