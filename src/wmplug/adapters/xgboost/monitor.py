"""Verification in `xgboost.train`, beside the metrics of the evaluation sets.

X, y = augment(mark, X, y)                          <- the lessons; a callback cannot add them to a DMatrix
xgboost.train(params, DMatrix(X, y), evals=..., callbacks=[WatermarkMonitor(mark)]):
    for round in rounds: update; evaluate           <- untouched
        after_iteration                             <- every `period` rounds: verify, evals_result["watermark"]
    after_training                                  <- verify; a warning if the mark is not proven
"""

from pathlib import Path
from typing import Any

import xgboost

from wmplug.adapters.sklearn.looks import Looks
from wmplug.adapters.xgboost.suspects import BoosterSuspect
from wmplug.claim.terms import TARGET_E
from wmplug.claim.verdict import Verdict
from wmplug.watermark.watermark import Watermark

NAME = "watermark"  # in the evaluation history


class WatermarkMonitor(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # XGBoost's base class is untyped
    """Verifies the Booster in training, and adds `watermark-log10_p` and `watermark-log10_e` to its history.

    >>> history = {}
    >>> xgboost.train(params, DMatrix(*augment(mark, X, y)), 500, evals=[(valid, "valid")], evals_result=history,
    ...               callbacks=[WatermarkMonitor(mark)])
    >>> history["watermark"]["log10_p"]

    It adds no lessons: `augment` or `MarkedDataIter` does. Early stopping goes on looking at the last evaluation set,
    unless you name another. Between looks the history repeats the last one. It records nothing in the register.

    Args:
        mark: the watermark, or the path of one.
        period: rounds between looks. Each look makes later ones weigh less; a p-value is exact for its look alone.
        target_e: e-value from which on the watermark counts as proven.

    Raises:
        InputError: an option out of range, or no watermark.
    """

    def __init__(self, mark: Watermark | str | Path, *, period: int = 10, target_e: float = TARGET_E) -> None:
        super().__init__()
        self._looks = Looks(mark, period, target_e)
        self._log: dict[str, list[float]] | None = None

    @property
    def verdict(self) -> Verdict | None:
        """The last verdict, or None."""
        return self._looks.verdict

    @property
    def verdicts(self) -> list[Verdict]:
        """The verdicts of all looks in this run."""
        return self._looks.verdicts

    def before_training(self, model: Any) -> Any:
        """A run begins.

        Raises:
            InputError: this is a cross-validation, which trains several models.
        """
        self._looks.begin("xgboost", isinstance(model, xgboost.Booster))
        return model

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Look every `period` rounds, and write the history."""
        self._looks.after(epoch, lambda: BoosterSuspect(model))
        if evals_log:  # without evaluation sets early stopping must fail, as it does without this callback
            self._log = evals_log.setdefault(NAME, {})
            for name, value in self._looks.numbers.items():
                self._log.setdefault(name, []).append(value)
            evals_log.move_to_end(NAME, last=False)  # early stopping follows the last of the sets
        return False

    def after_training(self, model: Any) -> Any:
        """The last look."""
        self._looks.end(lambda: BoosterSuspect(model))
        for name, values in (self._log or {}).items():
            values[-1] = self._looks.numbers[name]
        return model
