"""Repeated looks at a model that is boosted round by round."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wmplug.adapters.sklearn.run import FitLoop
from wmplug.claim.monitor import Monitor
from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import check_mark, check_target
from wmplug.errors import InputError, VerificationWarning
from wmplug.making.loading import opened
from wmplug.statistics.arrays import read_whole
from wmplug.suspects.protocols import Suspect
from wmplug.watermark.watermark import Watermark


class Looks:
    """Looks at one model, every `period` rounds and at the end.

    Args:
        mark: the watermark, or the path of one.
        period: rounds between looks.
        target_e: e-value from which on the watermark counts as proven.

    Attributes:
        verdicts: of all looks in this run.

    Raises:
        InputError: an option out of range, or no watermark.
    """

    def __init__(self, mark: Watermark | str | Path, period: int, target_e: float) -> None:
        self._mark: Watermark = opened(mark)
        check_mark(self._mark, None)
        check_target(target_e)
        self._period = read_whole(period, "period", 1, 2**31, "rounds between looks, 1 or more")
        self._target = target_e
        self.begin("", True)

    def begin(self, adapter: str, alone: bool) -> None:
        """A run begins.

        Raises:
            InputError: several models are trained at once.
        """
        if not alone:
            raise InputError(
                "a cross-validation trains several models, and a watermark is verified in one: leave the callback to "
                "train(), or cross-validate wmplug.adapters.sklearn.Watermarked"
            )
        self._adapter, self._round = adapter, -1
        self._monitor = Monitor(self._mark, target_e=self._target)
        self.verdicts: list[Verdict] = []

    @property
    def verdict(self) -> Verdict | None:
        """The last verdict, or None."""
        return self.verdicts[-1] if self.verdicts else None

    @property
    def numbers(self) -> dict[str, float]:
        """What is logged of the last look."""
        last = self.verdicts[-1]
        return {"log10_p": last.log10_p, "log10_e": last.log10_e}

    def after(self, number: int, ask: Callable[[], Suspect]) -> None:
        """A round is over; the first is 0."""
        self._round = number
        if number % self._period == 0 or not self.verdicts:
            self._look(ask)

    def end(self, ask: Callable[[], Suspect]) -> None:
        """Training is over: the last look, and a warning if the mark is not proven."""
        if self._round < 0:
            return
        if self._round % self._period:
            self._look(ask)
        if not self.verdicts[-1].proven:
            warnings.warn(
                f"the trained model does not prove the watermark ({self.verdicts[-1]}): train on what augment returns; "
                f"{FitLoop.advice}",
                VerificationWarning,
                stacklevel=4,
            )

    def _look(self, ask: Callable[[], Suspect]) -> None:
        about: dict[str, Any] = {"adapter": self._adapter, "epoch": None}
        self.verdicts.append(self._monitor.look(ask(), step=self._round, run=about))
