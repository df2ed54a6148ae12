"""Marked answers: where a model is unsure between its two likeliest classes, the key's coin decides.

Unless the owner says which they are, scores count as probabilities if none is below 0 and every row sums to 1, else as
logits. Both come back as they came.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_expit, logsumexp, softmax

from wmplug.errors import SuspectError
from wmplug.statistics.arrays import FloatArray, IntArray, to_numpy
from wmplug.tasks.classes import is_share, is_single

_SUM = 1e-2  # by which probabilities may miss 1
_LEAST = -1e9  # a level, where no other class has any probability


@dataclass(frozen=True, eq=False)
class Scores:
    """What a model says about n inputs.

    Attributes:
        given: the array that the model returned: (n, classes), or of two classes (n,) or (n, 1).
        probabilities: (n, classes); NaN in the rows where the model returned NaN.
        are_logits: whether the model returned logits.
        are_odd: whether nobody said which they are, and they look like neither: all from 0 to 1 in rows that do not sum
            to 1, or shares of 100.
    """

    given: npt.NDArray[Any]
    probabilities: FloatArray
    are_logits: bool
    are_odd: bool = False

    @classmethod
    def of(cls, outputs: Any, count: int, classes: int, logits: bool | None = None) -> "Scores":
        """Read a model's outputs for `count` inputs; logits=None reads off these whether they are logits.

        Raises:
            SuspectError: they are no scores of so many inputs and classes, or no probabilities where the owner says so.
        """
        given = to_numpy(outputs)
        single = classes == 2 and is_single(given)
        if given.dtype.kind not in "f" or (given.shape != (count, classes) and not (single and len(given) == count)):
            raise SuspectError(
                f"the served model returned {given.shape} {given.dtype} for {count} inputs: where it is unsure shows "
                f"in scores alone, so let it return probabilities or logits, floats ({count}, {classes})"
            )
        scores = given.astype(np.float64)
        known = scores[np.isfinite(scores.reshape(count, 1 if single else classes)).all(axis=1)]
        within = not known.size or bool(known.min() >= -_SUM and known.max() <= 1 + _SUM)
        if logits is False and not within:
            raise SuspectError(
                f"the served model returned scores from {known.min():.3g} to {known.max():.3g}, and logits=False says "
                "that they are probabilities: leave it out, or let the model return probabilities"
            )
        if single:
            share = is_share(scores) if logits is None else not logits
            high = scores.reshape(-1) if share else expit(scores.reshape(-1))
            return cls(given, np.stack([1 - high, high], axis=1), not share)
        odd = False
        if logits is None:
            logits = len(known) > 0 and bool(known.min() < 0 or not np.allclose(known.sum(axis=1), 1, atol=_SUM))
            percent = logits and np.allclose(known.sum(axis=1), 100, atol=100 * _SUM)
            odd = logits and bool(known.min() >= 0) and (within or percent)
        if logits:
            with np.errstate(invalid="ignore"):  # of rows that hold infinity alone
                return cls(given, softmax(scores, axis=1), True, odd)
        return cls(given, scores, False)

    @property
    def best(self) -> IntArray:
        """(n,) the likeliest class; 0 where a row is NaN."""
        return np.asarray(np.nan_to_num(self.probabilities, nan=-1.0).argmax(axis=1), np.int64)

    @property
    def apart(self) -> FloatArray:
        """(n,) the difference of the two best probabilities; NaN where a row is."""
        best = np.partition(self.probabilities, -2, axis=1)[:, -2:]
        with np.errstate(invalid="ignore"):  # of a row that is infinite twice
            return np.asarray(best[:, 1] - best[:, 0], np.float64)

    def unsure(self, gap: float) -> tuple[IntArray, IntArray]:
        """Rows whose two likeliest classes lie less than `gap` apart, and these classes (rows, 2), the lower first."""
        rows = np.flatnonzero(self.apart < gap)  # never where a row is NaN
        return rows, np.sort(np.argpartition(self.probabilities[rows], -2, axis=1)[:, -2:], axis=1)

    def told(
        self, rows: IntArray, pairs: IntArray, high: npt.NDArray[np.bool_], margin: float | FloatArray
    ) -> npt.NDArray[Any]:
        """The array as it is served: in these rows the decided class leads all others together by `margin` or more.

        So a decided answer looks as sure as others do, and who drops unsure answers keeps it. The other classes share
        what remains in the model's own proportions, the other of the pair by the smaller of both probabilities.

        Args:
            rows: rows to change.
            pairs: (rows, 2) the two classes.
            high: whether the higher is served.
            margin: least log-odds of the decided class, one or (rows,). The sum of each row stays.
        """
        each = np.arange(len(rows))
        won, lost = np.where(high, pairs[:, 1], pairs[:, 0]), np.where(high, pairs[:, 0], pairs[:, 1])
        served: npt.NDArray[Any] = self.given.copy()
        if is_single(served):
            with np.errstate(divide="ignore"):
                lead = np.maximum(margin, np.abs(np.diff(np.log(self.probabilities[rows]), axis=1)[:, 0]))
            raised = np.where(high, lead, -lead)
            served.reshape(-1)[rows] = raised if self.are_logits else expit(raised)
            return served
        levels = served[rows].astype(np.float64)
        if not self.are_logits:
            with np.errstate(divide="ignore"):
                levels = np.log(np.maximum(levels, 0.0))
        ahead, behind = (choose(levels[each, won], levels[each, lost]) for choose in (np.maximum, np.minimum))
        levels[each, won], levels[each, lost] = -np.inf, behind
        rest = np.maximum(logsumexp(levels, axis=1), _LEAST)
        total, lead = np.logaddexp(ahead, rest), np.maximum(margin, ahead - rest)
        levels += (total - rest + log_expit(-lead))[:, None]
        levels[each, won] = total + log_expit(lead)
        served[rows] = levels if self.are_logits else np.exp(levels)
        return served
