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
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wmplug.claim.monitor import Monitor
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import check_mark
from wmplug.errors import SuspectError, VerificationError, VerificationWarning
from wmplug.suspects.protocols import Suspect
from wmplug.training import sidecar
from wmplug.training.loop import At, Loop, need_points
from wmplug.training.options import Options
from wmplug.training.placement import PPM, Placement, read_rate
from wmplug.training.record import Run
from wmplug.watermark.watermark import Watermark

STATES = ("inconclusive", "evidence", "proven")
_LOUDEST = 30.0  # what TensorBoard's floats still hold
_ADVICE = "train longer, raise rate=, or read `history` for where it was lost"


def numbers_of(verdict: Verdict, rate: int) -> dict[str, float]:
    """What is logged of a look: numbers only, all finite wherever log10_e is.

    Args:
        verdict: of the look.
        rate: up to the look, in parts per million.
    """
    return {
        "watermark/log10_p": verdict.log10_p,
        "watermark/log10_e": verdict.log10_e,
        "watermark/e_value": 10 ** min(verdict.log10_e, _LOUDEST),
        "watermark/matches": verdict.matches,
        "watermark/rate": rate / PPM,
        "watermark/state": STATES.index(verdict.state),
    }


class Marking:
    """One run of a watermark, from its options to its end.

    Args:
        mark: the watermark.
        loop: what the adapter says of its framework.
        options: those that all adapters share.

    Attributes:
        rate: share of triggers in what the model sees, in parts per million.
        verdicts: of all looks so far.
        history: one dict for each look: `step`, `epoch`, and what was logged.

    Raises:
        InputError: no watermark was given, or an option is out of range.
        InjectionError: the scheme touches training where the loop does not let it.
    """

    def __init__(self, mark: Watermark, loop: Loop, options: Options) -> None:
        check_mark(mark, None)
        need_points(loop.name, mark.scheme, loop.points)
        options.need_events(loop)
        self.mark, self.loop, self.options = mark, loop, options
        self._start, self._auto = read_rate(options.rate, mark.scheme.rate)
        self._resumed = False
        self._renew(self._start, ())

    def _renew(self, rate: int, looks: Sequence[float]) -> None:
        self.rate = rate
        self.verdicts: list[Verdict] = []
        self.history: list[dict[str, Any]] = []
        self._monitor = Monitor(self.mark, target_e=self.options.target_e, looks=looks)
        self._at: At | None = None
        self._failure: str | None = None

    @functools.cached_property
    def placement(self) -> Placement:
        """Which triggers go where; drawn from the mark and the mode alone."""
        return Placement.of(self.mark, self.options.mode)

    @property
    def verdict(self) -> Verdict | None:
        """The last one."""
        return self.verdicts[-1] if self.verdicts else None

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as this one would have, as JSON; nothing secret."""
        return {"root": self.mark.public["root"], "rate": self.rate, "looks": list(self._monitor.looks)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, in this run or the next; a state of another watermark is left alone.

        A fixed rate stays as it was given.
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
        """Record what is about to be trained, how, and on what.

        Args:
            data: what the loop reads, where `training_set` names nothing else.
            arguments: of the run; the framework's own object, or a mapping.
            model: the one to train.

        Raises:
            RegisterError: it cannot be recorded, and evidence is required.
        """
        self._record = Run(self.mark, self.loop.name, require=self.options.require_evidence, main=self.loop.main)
        given = self.options.training_set
        self._record.start(data=data if given is None else given, arguments=arguments, model=model)

    def inserted(self, total: int | None, at: At) -> None:
        """Record how many triggers reached the model since the run began; None where only a graph knows."""
        self._record.inserted(total, step=at.step, epoch=at.epoch)

    def look(self, at: At, *, last: bool = False) -> Verdict:
        """Verify the live model with all triggers; log it, and adjust rate="auto".

        Args:
            at: the moment.
            last: nothing is taught after this look, so that the rate stays.

        Raises:
            SuspectError: the model cannot be asked, or answers NaN throughout; in all processes alike.
        """
        # Every process asks, since a sharded model answers only when all take part; all go by what the main one found,
        # since buffers such as running means differ between them.
        found = self._ask(self.loop.suspect(), at)
        verdict, self._monitor.looks = self.loop.agree((found, self._monitor.looks))
        if isinstance(verdict, SuspectError):
            raise verdict
        self._at = at
        numbers = numbers_of(verdict, self.rate)
        self.verdicts.append(verdict)
        self.history.append({"step": at.step, "epoch": at.epoch, **numbers})
        self.loop.log(numbers, at)
        if self._auto is not None and not last:
            self._change_rate(self._auto.next(self.rate, verdict.log10_e, math.log10(self.options.target_e)))
        lost = f"the watermark was proven earlier and is not at {at} ({verdict}): {_ADVICE}"
        self._failure = lost if self._monitor.lost else None
        return verdict

    def checkpoint(
        self,
        at: At,
        *,
        verify: bool = True,
        system: Any = None,
        beside: Path | None = None,
        files: Callable[[], Suspect] | None = None,
    ) -> Verdict | None:
        """Look, record, write the sidecar; then act on a loss.

        Args:
            at: the moment.
            verify: look; where a look was taken at this moment already, its verdict counts.
            system: what to commit to in the register: a path, the live model, or None.
            beside: the sidecar's file.
            files: loads the files just written, to verify those too.

        Returns:
            The verdict; None without a look, or where the model cannot be asked.

        Raises:
            VerificationError: the watermark was proven and is lost, cannot be verified, or is not in the files, and
                on_failure is `raise`.
            RegisterError: it cannot be recorded, and evidence is required.
        """
        live = self._attempt(at) if verify else None
        self._record.checkpoint(live, step=at.step, epoch=at.epoch, system=system)
        rate = self.rate / PPM if live is None else self.history[-1]["watermark/rate"]
        found = {"step": at.step, "rate": rate, "verdict": live}
        if files is not None:
            found["saved"] = self._look_at_files(files(), at, live)
        if beside is not None:
            sidecar.write(beside, self.mark, **found)
        self._act()
        return live

    def end(self, at: At, *, verify: bool, again: bool, system: Any, total: int | None) -> None:
        """The end of training.

        Args:
            at: the moment.
            verify: look.
            again: also where a look was taken at this moment already, as the weights may be others since.
            system: what to commit to in the register: the trained model.
            total: triggers that reached the model; None where only a graph knows.

        Raises:
            VerificationError: the watermark is not proven, and on_failure is `raise`.
            RegisterError: it cannot be recorded, and evidence is required.
        """
        self._resumed = False
        if again:
            self._at = None
        last = self._attempt(at, last=True) if verify else self.verdict
        self._record.finish(last, step=at.step, epoch=at.epoch, system=system, total=total)
        if last is not None and not last.proven:
            self._failure = f"the trained model does not prove the watermark ({last}): {_ADVICE}"
        self._act()

    def _attempt(self, at: At, last: bool = False) -> Verdict | None:
        if self._at is at or (self._at is not None and self._at.step == at.step is not None):
            return self.verdict
        try:
            return self.look(at, last=last)
        except SuspectError as error:
            # Whether a run that is lost for other reasons ends, is for on_failure to say.
            self._failure = f"{at} cannot be verified: {error}"
            return None

    def _ask(self, suspect: Any, at: At) -> Verdict | SuspectError:
        about = {"adapter": self.loop.name, "epoch": at.epoch}
        try:
            return self._monitor.look(suspect, step=at.step, run=about, tell=self.loop.main)
        except SuspectError as error:
            return error

    def _look_at_files(self, suspect: Suspect, at: At, live: Verdict | None) -> Verdict | None:
        saved = self._ask(suspect, at)
        if isinstance(saved, SuspectError):
            self._failure = f"the files of {at} cannot be verified: {saved}"
            return None
        numbers = numbers_of(saved, self.rate)
        self.loop.log({name.replace("/", "/saved/"): value for name, value in numbers.items()}, at)
        # The second look of a step weighs less: the same answers are no failure.
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
        if why is None:
            return
        if self.options.on_failure == "raise":
            raise VerificationError(why)
        if self.options.on_failure == "stop":
            self.loop.stop()
        warnings.warn(why, VerificationWarning, stacklevel=4)


class Results:
    """What every adapter offers of its run; it sets `mark` and `_marking`."""

    mark: Watermark
    _marking: Marking

    @property
    def verdict(self) -> Verdict | None:
        """The last one."""
        return self._marking.verdict

    @property
    def verdicts(self) -> list[Verdict]:
        """Of all looks in this run."""
        return self._marking.verdicts

    @property
    def history(self) -> list[dict[str, Any]]:
        """One dict for each look: `step`, `epoch`, and what was logged."""
        return self._marking.history

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on as this one would have: rate and looks; JSON, nothing secret."""
        return self._marking.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`, in this run or the next; a state of another watermark is left alone."""
        self._marking.load_state_dict(state)
