"""The options that all adapters share: one name, one order, one meaning, checked in one place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from wmplug.claim.terms import TARGET_E
from wmplug.claim.verification import check_target
from wmplug.errors import InputError
from wmplug.statistics.arrays import read_whole
from wmplug.training.loop import Loop
from wmplug.training.placement import Mode, read_mode, read_rate

Failure = Literal["warn", "raise", "stop"]
Rate: TypeAlias = float | Literal["auto"] | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a run is watermarked and verified.

    Attributes:
        rate: share of triggers in what the model sees, above 0 and at most .5; None for the scheme's default, "auto" to
            start there and let verdicts adjust it.
        mode: `append` triggers to each batch, or `replace` samples (static shapes).
        verify_on: after which of the loop's events to verify.
        on_failure: the reaction at once when a watermark that was proven is lost (`Monitor.lost`), and at the end of
            training when it is not proven: `warn`, `raise` VerificationError, or `stop` (warns and ends training).
        target_e: e-value from which on the watermark counts as proven.
        batch_size: inputs in one forward pass of a verification.
        training_set: the training set to commit to in the register; by default the data that the loop reads.
        require_evidence: end a run that cannot be recorded in the mark's register, instead of warning.

    Raises:
        InputError: an option out of range.
    """

    rate: Rate = None
    mode: Mode = "append"
    verify_on: Sequence[str] = ()
    on_failure: Failure = "warn"
    target_e: float = TARGET_E
    batch_size: int = 64
    training_set: Any = None
    require_evidence: bool = False

    def __post_init__(self) -> None:
        read_rate(self.rate, 0.5)
        read_mode(self.mode)
        if self.on_failure not in get_args(Failure):
            raise InputError(f"on_failure={self.on_failure!r}: choose 'warn', 'raise' or 'stop'")
        check_target(self.target_e)
        read_whole(self.batch_size, "batch_size", 1, 2**31, "give at least 1")

    def need_events(self, loop: Loop) -> None:
        """Refuse events that the loop does not have.

        Raises:
            InputError: with those it has.
        """
        events = ", ".join(loop.events)
        if isinstance(self.verify_on, str):
            raise InputError(f"verify_on={self.verify_on!r}: give a tuple of some of {events}")
        if unknown := sorted(set(self.verify_on) - set(loop.events)):
            raise InputError(f"verify_on has {unknown}: choose from {events}")
