"""Verification of one watermark at every checkpoint of a run."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from wmplug import plugins
from wmplug.claim.session import Session
from wmplug.claim.terms import TARGET_E, Terms
from wmplug.claim.verdict import Verdict, state_of
from wmplug.claim.verification import check_mark, check_target, interrogate
from wmplug.statistics import combination
from wmplug.suspects.targets import as_suspect
from wmplug.watermark.watermark import Watermark


class Monitor:
    """Verify one watermark at every checkpoint of a run.

    Repeated looks at a p-value mislead (over 50 checkpoints, p <= .05 occurs in 52 % of null runs). The monitor
    therefore multiplies the e-value of look u by 6/(pi^2 u^2). These weights sum to one, so all looks together make
    one e-value, and you may quote any of them. The p-value of a look is exact for that look alone.
    """

    def __init__(self, mark: Watermark, *, target_e: float = TARGET_E, looks: Sequence[float] = ()) -> None:
        check_mark(mark, None)
        check_target(target_e)
        self.mark, self.target_e = mark, target_e
        self.looks = list(looks)

    @functools.cached_property
    def _terms(self) -> Terms:
        """The terms of all looks: a run makes more monitors than it looks with, and they read the whole register."""
        return Terms(self.mark, target_e=self.target_e)

    def look(
        self, suspect: Any, *, step: int | None = None, run: dict[str, Any] | None = None, tell: bool = True
    ) -> Verdict:
        """Verify with all triggers, and count the look.

        Args:
            suspect: as in `verify`.
            step: of the run.
            run: more about the run, for the hook `wmplug_verdict`.
            tell: whether to call that hook; False on all processes of a run but the main one.

        Raises:
            SuspectError: as in `verify`.
        """
        asked, session = as_suspect(suspect, self._terms.mark), Session.planned(self._terms, None, exhaustive=True)
        interrogate(session, asked, self.target_e)
        self.looks.append(session.log10_e())
        verdict = session.verdict(self.target_e, asked.description, step, len(self.looks))
        if tell:
            plugins.registry().tell("wmplug_verdict", verdict=verdict, run={"step": step, **(run or {})})
        return verdict

    @property
    def lost(self) -> bool:
        """Whether an earlier look proved the mark and the last does not, with less than half the decades of the best.

        A mark that misses the target by a few answers, or by the lower weight of a later look, does not count as lost.
        """
        if not self.looks:
            return False
        weighted = combination.weighted_log10(np.array(self.looks), np.arange(1.0, len(self.looks) + 1))
        proven = [state_of(log10_e, self.target_e) == "proven" for log10_e in weighted.tolist()]
        return any(proven) and not proven[-1] and self.looks[-1] < max(self.looks) / 2

    def log10_sum(self) -> float:
        """log10 of the run's own e-value: the weighted sum over all looks so far."""
        return combination.monitor_log10(self.looks)
