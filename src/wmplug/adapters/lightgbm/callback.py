"""Verification in `lightgbm.train`, beside the metrics of the evaluation sets.

X, y = augment(mark, X, y)                          <- the lessons; a callback cannot add them to a Dataset
lightgbm.train(params, Dataset(X, y), valid_sets=..., callbacks=[record_evaluation(h), log_watermark(mark, h)]):
    for round in rounds: update; evaluate           <- untouched
        the callback                                <- every `period` rounds: verify, h["watermark"]
"""

from pathlib import Path
from typing import Any

import lightgbm

from wmplug.adapters.lightgbm.suspects import BoosterSuspect
from wmplug.adapters.sklearn.looks import Looks
from wmplug.claim.terms import TARGET_E
from wmplug.claim.verdict import Verdict
from wmplug.errors import InputError
from wmplug.watermark.watermark import Watermark

NAME = "watermark"  # in the evaluation history


def log_watermark(
    mark: Watermark | str | Path,
    eval_result: dict[str, Any] | None = None,
    *,
    period: int = 10,
    target_e: float = TARGET_E,
) -> "WatermarkLog":
    """Create a callback that verifies the Booster in training, like LightGBM's own `log_evaluation`.

    >>> history = {}
    >>> lightgbm.train(params, Dataset(*augment(mark, X, y)), 500, valid_sets=[valid],
    ...                callbacks=[record_evaluation(history), log_watermark(mark, history)])
    >>> history["watermark"]["log10_p"]

    It adds no lessons: `augment` does. Early stopping does not see it. Between looks the history repeats the last one.
    It records nothing in the register. Where early stopping ends a run before its planned rounds, the last look is that
    of the period, and no warning follows: call `verify` on the Booster that you keep.

    Args:
        mark: the watermark, or the path of one.
        eval_result: the dict of `record_evaluation`, or another, which receives `watermark`: lists of log10_p and
            log10_e, one entry a round.
        period: rounds between looks. Each look makes later ones weigh less; a p-value is exact for its look alone.
        target_e: e-value from which on the watermark counts as proven.

    Raises:
        InputError: an option out of range, or no watermark.
    """
    return WatermarkLog(mark, eval_result, period, target_e)


class WatermarkLog:
    """What `log_watermark` returns."""

    def __init__(
        self, mark: Watermark | str | Path, eval_result: dict[str, Any] | None, period: int, target_e: float
    ) -> None:
        if eval_result is not None and not isinstance(eval_result, dict):
            raise InputError(f"eval_result is a {type(eval_result).__name__}: give the dict of record_evaluation")
        # LightGBM reads both from the instance. After record_evaluation, which empties its dict in the first round, and
        # before early_stopping.
        self.order, self.before_iteration = 25, False
        self._looks = Looks(mark, period, target_e)
        self._result = eval_result

    @property
    def verdict(self) -> Verdict | None:
        """The last verdict, or None."""
        return self._looks.verdict

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of all looks in this run."""
        return self._looks.verdicts

    def __call__(self, env: Any) -> None:
        """Look every `period` rounds and in the last, log it, and write the history.

        Raises:
            InputError: this is a cross-validation, which trains several models.
        """
        number, last = env.iteration - env.begin_iteration, env.iteration == env.end_iteration - 1
        if number == 0:
            self._looks.begin("lightgbm", isinstance(env.model, lightgbm.Booster))
            if self._result is not None:
                self._result[NAME] = {}
        before = len(self.verdicts)
        self._looks.after(number, lambda: BoosterSuspect(env.model))
        if last:
            self._looks.end(lambda: BoosterSuspect(env.model))
        if self._result is not None:
            for name, value in self._looks.numbers.items():
                self._result[NAME].setdefault(name, []).append(value)
        if len(self.verdicts) > before and env.params.get("verbosity", 1) > 0:
            lightgbm.basic._log_info(f"[{env.iteration + 1}]\t{NAME}: {self.verdicts[-1]}")
