"""One run of a watermark, whatever the framework.

begin()                     <- looks and rate anew, or as a resumed run left them
start(data, ...)            <- the register: what is trained on, how, and what
for each event:
    inserted(total, at)     <- the register: how many triggers reached the model
    checkpoint(at, ...)     <- look: ask, agree, log, adjust the rate; record; sidecar; act on a loss
end(at, ...)                <- the last look, the register, act on a model that is not proven
"""

import functools
import math
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wmplug.claim.monitor import Monitor
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import check_mark
from wmplug.errors import (
    InjectionError,
    InjectionWarning,
    InputError,
    SuspectError,
    VerificationError,
    VerificationWarning,
    WmplugError,
)
from wmplug.making.loading import opened
from wmplug.suspects.protocols import Suspect
from wmplug.tasks.classes import count_of
from wmplug.training import sidecar
from wmplug.training.labels import about_other
from wmplug.training.loop import At, Loop, need_call, need_points
from wmplug.training.options import Options
from wmplug.training.placement import PPM, Placement, read_rate
from wmplug.training.record import Run
from wmplug.watermark.watermark import Watermark

STATES = ("inconclusive", "evidence", "proven")
REHEARSED = 8  # questions asked before the first step
_ADVICE = "train longer, give the callback (or Watermarking) a higher rate=, or see in `history` where it was lost"


def numbers_of(verdict: Verdict, rate: int) -> dict[str, float]:
    """The numbers that are logged for a look; all are finite if log10_e is.

    Args:
        verdict: of the look.
        rate: up to the look, in parts per million.
    """
    return {
        "watermark/log10_p": verdict.log10_p,
        "watermark/log10_e": verdict.log10_e,
        "watermark/matches": verdict.matches,
        "watermark/rate": rate / PPM,
        "watermark/state": STATES.index(verdict.state),
    }


class Marking:
    """One run of a watermark, from its options to its end.

    Args:
        mark: the watermark, or the path of one that was made without preprocess=.
        loop: the adapter's description of its framework.
        options: the options that all adapters share.

    Attributes:
        rate: share of triggers in what the model sees, in parts per million.
        verdicts: of all looks so far.
        history: one dict for each look: `step`, `epoch`, and what was logged.

    Raises:
        InputError: no watermark was given, or an option is out of range.
        InjectionError: the scheme touches training where the loop does not allow it, or the loop cannot ask its model
            for answers of the mark's task.
    """

    def __init__(self, mark: Watermark | str | Path, loop: Loop, options: Options) -> None:
        self.mark: Watermark = opened(mark)
        check_mark(self.mark, None)
        need_points(loop.name, self.mark.scheme, loop.points)
        need_call(self.mark.task.call, loop)
        options.need_events(loop)
        self.loop, self.options = loop, options
        self._start, self._auto = read_rate(options.rate, self.mark.scheme.rate)
        self._resumed = False
        self._run: Run | None = None
        self._renew(self._start, ())

    def _renew(self, rate: int, looks: Sequence[float]) -> None:
        self.rate = rate
        self.verdicts: list[Verdict] = []
        self.history: list[dict[str, Any]] = []
        self._monitor = Monitor(self.mark, target_e=self.options.target_e, looks=looks)
        self._at: At | None = None
        self._failure: str | None = None
        self._troubles: list[str] = []
        self._trouble: str | None = None
        self._heeded = False

    @functools.cached_property
    def placement(self) -> Placement:
        """The placement of the triggers, drawn from the mark and the mode alone."""
        return Placement.of(self.mark, self.options.mode)

    @property
    def verdict(self) -> Verdict | None:
        """The last verdict, or None."""
        return self.verdicts[-1] if self.verdicts else None

    @property
    def _advice(self) -> str:
        return getattr(self.loop, "advice", _ADVICE)

    def state_dict(self) -> dict[str, Any]:
        """The state from which a resumed run continues as this one would, as JSON without secrets."""
        return {"root": self.mark.public["root"], "rate": self.rate, "looks": list(self._monitor.looks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, in this run or the next; the state of another watermark is ignored.

        A fixed rate stays as you gave it.
        """
        if state.get("root") != self.mark.public["root"]:
            return
        self._resumed = True
        self._monitor.looks = [float(look) for look in state["looks"]]
        if self._auto is not None:
            self._change_rate(int(state["rate"]))

    def begin(self) -> None:
        """A run begins: looks and rate are new, unless a state was loaded."""
        rate, looks = (self.rate, self._monitor.looks) if self._resumed else (self._start, ())
        self._renew(rate, looks)
        self._resumed = False
        self.loop.set_rate(self.rate)

    def start(self, *, data: Any, arguments: Any, model: Any) -> None:
        """Record the data, the arguments and the model of the training that begins.

        Args:
            data: the loop's data, which `training_set` overrides.
            arguments: the run's, as the framework's own object or a mapping.
            model: the model to train.

        Raises:
            RegisterError: it cannot be recorded, and evidence is required.
        """
        self._run = Run(self.mark, self.loop.name, require=self.options.require_evidence, main=self.loop.main)
        named = self.options.training_set
        self._record.start(data=data if named is None else named, arguments=arguments, model=model)

    def rehearse(self, suspect: Suspect, remedy: str) -> None:
        """Do before the first step what a checkpoint does: ask one batch of questions, read the answers, write.

        Args:
            suspect: the model, asked as at a checkpoint.
            remedy: what to do if it cannot be asked, for the message.

        Raises:
            InputError: the model cannot be asked, gives answers of another task, or only NaN.
        """
        task, rows = self.mark.task, self.mark.triggers.plan.tests[0].rows[:REHEARSED].tolist()
        questions = [self.mark.triggers.row(row) for row in rows]
        try:
            said = task.read(suspect.answer(questions), len(questions), suspect.description)
        # The user's collator, model and functions may raise anything.
        except (Exception, SystemExit) as error:
            about = error if isinstance(error, WmplugError) else f"{type(error).__name__}: {error}"
            raise InputError(
                f"{suspect.description} cannot be asked as it would be at a checkpoint, tried before the first step "
                f"({about}): {remedy}"
            ) from error
        misfits = [task.misfit(one, suspect.description) for one in said if one is not None]
        if misfit := next((one for one in misfits if one is not None), None):
            raise InputError(f"{misfit} ({remedy})") from misfit
        if all(one is None for one in said):
            raise InputError(f"{suspect.description} answers NaN before it is trained: check its initial weights")
        with tempfile.TemporaryDirectory() as folder:
            sidecar.write(Path(folder) / sidecar.NAME, self.mark, step=None, rate=self.rate / PPM, verdict=None)

    @property
    def _record(self) -> Run:
        if self._run is None:
            raise InjectionError(
                f"adapter {self.loop.name!r} did not start the run: call begin() and start() when training begins"
            )
        return self._run

    def heed(self, label: int | None) -> None:
        """Warn once of a label of the training data that is no class of the mark; the next act records the kind.

        Args:
            label: as `other_label` finds it; None for none.
        """
        if label is None or self._heeded:
            return
        self._heeded = True
        self._trouble = self._trouble or InjectionWarning.__name__
        warnings.warn(about_other(label, count_of(self.mark.task, self.loop.name)), InjectionWarning, stacklevel=3)

    def inserted(self, total: int | None, at: At) -> None:
        """Record how many triggers reached the model since the run began; None if only a compiled graph knows."""
        self._record.inserted(total, step=at.step, epoch=at.epoch)

    def look(self, at: At, *, last: bool = False) -> Verdict:
        """Verify the live model with all triggers; log it, and adjust rate="auto".

        Args:
            at: the moment.
            last: whether training ends here, so that the rate stays.

        Raises:
            SuspectError: the model cannot be asked, or answers NaN throughout; in all processes alike.
        """
        # Every process asks, since a sharded model answers only when all take part; all use the main one's verdict,
        # since buffers such as running means differ between them.
        own = self._ask(self.loop.suspect(), at)
        verdict, self._monitor.looks = self.loop.agree((own, self._monitor.looks))
        if isinstance(verdict, SuspectError):
            raise verdict
        self._at = at
        numbers = numbers_of(verdict, self.rate)
        self.verdicts.append(verdict)
        self.history.append({"step": at.step, "epoch": at.epoch, **numbers})
        self._try(f"the numbers of {at} cannot be logged", lambda: self.loop.log(numbers, at))
        if self._auto is not None and not last:
            self._change_rate(self._auto.next(self.rate, verdict.log10_e, math.log10(self.options.target_e)))
        lost = f"the watermark was proven earlier and is not proven at {at} ({verdict}): {self._advice}"
        self._failure = lost if self._monitor.lost else None
        return verdict

    def checkpoint(
        self,
        at: At,
        *,
        verify: bool = True,
        again: bool = False,
        system: Any = None,
        beside: Path | None = None,
        files: Callable[[], Suspect] | None = None,
    ) -> Verdict | None:
        """Look, record, write the sidecar; then act on a loss.

        Args:
            at: the moment.
            verify: whether to look; a verdict that was reached at this moment already counts.
            again: look even if there was a look at this moment.
            system: the thing to commit to in the register: a path, the live model, or None.
            beside: the sidecar's file.
            files: loads the files just written, to verify those too.

        Returns:
            The verdict; None without a look, or if the model cannot be asked.

        Raises:
            VerificationError: the watermark was proven and is lost, cannot be verified, logged or written, or is not in
                the files, and on_failure is `raise`.
            RegisterError: it cannot be recorded, and evidence is required.
        """
        if again:
            self._at = None
        live = self._attempt(at) if verify else None
        rate = self.rate / PPM if live is None else self.history[-1]["watermark/rate"]
        results = {"step": at.step, "rate": rate, "verdict": live}
        if files is not None:
            results["saved"] = self._look_at_files(files, at, live)
        if beside is not None:
            self._try(f"{beside} cannot be written", lambda: sidecar.write(beside, self.mark, **results))
        self._record.checkpoint(live, step=at.step, epoch=at.epoch, system=system, trouble=self._trouble)
        self._act()
        return live

    def end(self, at: At, *, verify: bool, again: bool, system: Any, total: int | None) -> None:
        """The end of training.

        Args:
            at: the moment.
            verify: whether to look.
            again: look even if there was a look at this moment, since the weights may have changed.
            system: the trained model, to commit to in the register.
            total: triggers that reached the model; None if only a compiled graph knows.

        Raises:
            VerificationError: the watermark is not proven, and on_failure is `raise`.
            RegisterError: it cannot be recorded, and evidence is required.
        """
        self._resumed = False
        if again:
            self._at = None
        last = self._attempt(at, last=True) if verify else self.verdict
        self._record.finish(last, step=at.step, epoch=at.epoch, system=system, total=total, trouble=self._trouble)
        if last is not None and not last.proven:
            self._failure = f"the trained model does not prove the watermark ({last}): {self._advice}"
        self._act()

    def _attempt(self, at: At, last: bool = False) -> Verdict | None:
        if self._at is at or (self._at is not None and self._at.step == at.step is not None):
            return self.verdict
        try:
            return self.look(at, last=last)
        except SuspectError as error:
            self.cannot(f"{at} cannot be verified: {error}", error)
            return None

    def cannot(self, what: str, error: Exception) -> None:
        """Note something that wmplug could not do in the middle of a run: it is told and recorded with the next act.

        Args:
            what: could not be done, and why.
            error: its cause.
        """
        # The text of an error may show inputs, which are secret: the record gets its kind alone.
        self._trouble = type(error).__name__
        self._troubles.append(what)

    def _try(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        # The user's reporters and disks may raise anything, which must not end a training.
        except Exception as error:
            self.cannot(f"{what} ({type(error).__name__}: {error})", error)

    def _ask(self, suspect: Any, at: At) -> Verdict | SuspectError:
        about = {"adapter": self.loop.name, "epoch": at.epoch}
        try:
            return self._monitor.look(suspect, step=at.step, run=about, tell=self.loop.main)
        except SuspectError as error:
            return error

    def _look_at_files(self, files: Callable[[], Suspect], at: At, live: Verdict | None) -> Verdict | None:
        try:
            suspect = files()
            saved = self._ask(suspect, at)
        # What a framework raises for files is its own choice.
        except Exception as error:
            saved = SuspectError(f"{type(error).__name__}: {error}")
        if isinstance(saved, SuspectError):
            self.cannot(f"the files of {at} cannot be verified: {saved}", saved)
            return None
        numbers = {name.replace("/", "/saved/"): value for name, value in numbers_of(saved, self.rate).items()}
        self._try(f"the numbers of {at} cannot be logged", lambda: self.loop.log(numbers, at))
        # The second look of a step weighs less, so the same answers do not count as a failure.
        if live is not None and live.proven and not saved.proven and saved.matches < live.matches:
            self._failure = (
                f"the model in memory proves the watermark, the files in {suspect.description} do not ({saved}): check "
                "how they are saved"
            )
        return saved

    def _change_rate(self, rate: int) -> None:
        if rate != self.rate:
            self.rate = rate
            self.loop.set_rate(rate)

    def _act(self) -> None:
        why, self._failure = self._failure, None
        troubles, self._troubles, self._trouble = self._troubles, [], None
        if self.options.on_failure == "raise" and (why or troubles):
            raise VerificationError("; ".join([*troubles, *([why] if why else [])]))
        for trouble in troubles:
            warnings.warn(trouble, VerificationWarning, stacklevel=4)
        if why is None:
            return
        if self.options.on_failure == "stop":
            self.loop.stop()
        warnings.warn(why, VerificationWarning, stacklevel=4)


class Results:
    """What every adapter offers of its run; it sets `mark` and `_marking`."""

    mark: Watermark
    _marking: Marking

    @property
    def verdict(self) -> Verdict | None:
        """The last verdict, or None."""
        return self._marking.verdict

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of all looks in this run."""
        return self._marking.verdicts

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict for each look: `step`, `epoch`, and what was logged."""
        return self._marking.history

    def state_dict(self) -> dict[str, Any]:
        """The rate and looks from which a resumed run continues as this one would, as JSON without secrets."""
        return self._marking.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, in this run or the next; the state of another watermark is ignored."""
        self._marking.load_state_dict(state)
