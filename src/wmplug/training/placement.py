"""Placement: which triggers go into which step on which rank. Integers only, and no state but the step.

Two tables are drawn once from the schedule key: an order in which the taught rows come (reshuffled cycles), and
thresholds that decide in which steps a fractional rate rounds up. Both are public-safe (an adversary who reads them
learns nothing about keys or answers), small, and can be indexed inside a compiled graph: `lap` and `place` are the same
on NumPy, keras.ops and jax.numpy.

A **slot** numbers a batch: `step * world + rank` where the step is known, `slot_of(fingerprint)` where only the batch's
content is (a collator in a worker process never learns the step, and its counters never come back).
"""

import math
import numbers
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.watermark import Watermark

Mode = Literal["append", "replace"]
PPM = 1_000_000
CYCLES, THRESHOLDS = 64, 1024


@dataclass(frozen=True)
class Placement:
    """Where triggers go.

    Attributes:
        mode: `append` adds rows to a batch, `replace` puts them in place of the user's.
        order: (CYCLES * pool,) positions in the pool of taught rows, each cycle a permutation.
        thresholds: (THRESHOLDS,) a permutation of evenly spaced integers below PPM.
        seed: mixes fingerprints into slots.
    """

    mode: Mode
    order: IntArray = field(repr=False)
    thresholds: IntArray = field(repr=False)
    seed: int = field(repr=False)
    _laps: dict[int, list[int]] = field(repr=False, compare=False, init=False, default_factory=dict)

    @classmethod
    def draw(cls, schedule: KeyStream, pool: int, mode: Mode) -> "Placement":
        """The tables for a pool of so many taught rows.

        Raises:
            InputError: an unknown mode, or an empty pool.
        """
        if pool < 1:
            raise InputError(
                "the watermark teaches no rows, so there is nothing to place: its scheme touches other points"
            )
        read_mode(mode)
        order = np.concatenate([schedule.permutation(pool) for _ in range(CYCLES)])
        thresholds = (schedule.permutation(THRESHOLDS) * 2 + 1) * PPM // (2 * THRESHOLDS)
        return cls(mode, order, thresholds, int.from_bytes(schedule.bytes(8), "little"))

    @classmethod
    def of(cls, mark: Watermark, mode: Mode) -> "Placement":
        """The tables of a watermark; a scheme that teaches no rows has a pool of one that nobody reads."""
        return cls.draw(mark.subkeys.stream("schedule", mode), len(mark.triggers.plan.lessons.rows) or 1, mode)

    def share(self, batch: Any, rate: int) -> tuple[Any, Any]:
        """Triggers a batch gets: the whole part, and the rest in parts per million.

        Args:
            batch: the user's samples in it; an integer, or an int64 tensor in a compiled graph.
            rate: share of triggers in what the model sees, in parts per million.
        """
        divisor = PPM - rate if self.mode == "append" else PPM
        product = batch * rate
        return product // divisor, product % divisor * PPM // divisor

    def count(self, slot: int, batch: int, rate: int) -> int:
        """The number of triggers for the batch in this slot; over THRESHOLDS slots the mean is the rate."""
        return self.start(slot, batch, rate)[1]

    def place(self, slot: int, batch: int, rate: int) -> IntArray:
        """Positions in the pool of taught rows for the batch in this slot; consecutive slots leave no row out."""
        return self._from(*self.start(slot, batch, rate))

    def start(self, slot: int, batch: int, rate: int) -> tuple[int, int]:
        """Where in the order the triggers of this slot begin, and how many it gets."""
        whole, rest = self.share(batch, rate)
        return place(slot % 2**40, whole, self.lap(rest), len(self.order))

    def rows(self, slot: int, count: int, width: int) -> IntArray:
        """(count,) positions in the pool for this slot; `width` is the most any slot gets at this rate."""
        return self._from(slot * width, count)

    def _from(self, first: int, count: int) -> IntArray:
        return self.order[(first + np.arange(count)) % len(self.order)]

    def before(self, slot: int, batch: int, rate: int) -> int:
        """The number of triggers in all slots before this one, if all batches are like this one."""
        whole, rest = self.share(batch, rate)
        passed, (laps, within) = self.lap(rest), divmod(slot, THRESHOLDS)
        return slot * int(whole) + laps * passed[-1] + passed[within]

    def lap(self, rest: int) -> list[int]:
        """`lap` for this rest, computed once: a run has one for each batch size and rate."""
        if rest not in self._laps:
            self._laps[rest] = lap(np, self.thresholds, rest).tolist()
        return self._laps[rest]

    def slot_of(self, fingerprint: int) -> int:
        """A slot from what a batch contains (splitmix64, Steele et al. 2014)."""
        z = (self.seed ^ fingerprint) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        return z ^ z >> 31


def lap(xp: Any, thresholds: Any, rest: Any) -> Any:
    """(THRESHOLDS + 1,) the number of the first n slots of a lap that get one trigger more than the whole part.

    Args:
        xp: numpy, keras.ops or jax.numpy.
        thresholds: (THRESHOLDS,) of a `Placement`.
        rest: of its `share`.
    """
    passed = xp.cumsum(xp.where(xp.less(thresholds, rest), 1, 0))
    return xp.concatenate([xp.zeros_like(passed[:1]), passed])


def place(slot: Any, whole: Any, passed: Any, cycle: int) -> tuple[Any, Any]:
    """Where in the order a slot's triggers begin, and how many it gets; the same on Python's integers and on tensors.

    int32 is all that jax has by default: nothing on the way is larger while the pool is below 16,384 rows.

    Args:
        slot: number of the batch.
        whole: triggers that every slot gets, of `Placement.share`.
        passed: (THRESHOLDS + 1,) of `lap`.
        cycle: length of the order.
    """
    laps, within = slot // THRESHOLDS, slot % THRESHOLDS
    before = passed[within]
    first = _product(slot % cycle, whole % cycle, cycle) + laps % cycle * passed[-1] % cycle + before
    return first % cycle, whole + passed[within + 1] - before


def _product(one: Any, other: Any, modulus: int) -> Any:
    # In two parts, neither of which overflows.
    return (one // 1024 * other % modulus * 1024 + one % 1024 * other) % modulus


@dataclass(frozen=True)
class AutoRate:
    """Closes the loop: a verdict at a checkpoint raises or lowers the rate.

    Attributes:
        low: never below this, in parts per million; above zero, since a mark fades when its lessons stop.
        high: never above this.
        margin: decades by which the e-value should clear the target.
        slack: decades above that in which the rate is left alone.
    """

    low: int
    high: int
    margin: float = 3.0
    slack: float = 12.0

    def next(self, rate: int, log10_e: float, target: float) -> int:
        """The rate after a verdict, in parts per million; `target` is log10 of the target e-value."""
        if log10_e < target + self.margin:
            return min(self.high, max(rate + 1, rate * 3 // 2))
        if log10_e > target + self.margin + self.slack:
            return max(self.low, rate * 4 // 5)
        return rate


def read_mode(mode: str) -> None:
    """Refuse an unknown mode.

    Raises:
        InputError: it is neither `append` nor `replace`.
    """
    if mode not in ("append", "replace"):
        raise InputError(f"mode={mode!r}: choose 'append' or 'replace'")


def read_rate(rate: float | Literal["auto"] | None, default: float) -> tuple[int, AutoRate | None]:
    """A rate in parts per million, and the controller if it is to be adjusted.

    Args:
        rate: share of triggers in what the model sees; None for the scheme's default, "auto" to start there and follow
            verdicts.
        default: the scheme's.

    Raises:
        InputError: it lies outside the range above 0 and up to one half.
    """
    if isinstance(rate, str) and rate != "auto":
        raise InputError(f"rate={rate!r}: give a share such as 0.05, 'auto', or nothing for the scheme's default")
    share = default if rate is None or rate == "auto" else float(rate) if isinstance(rate, numbers.Real) else math.nan
    if not (math.isfinite(share) and 1e-6 <= share <= 0.5):
        raise InputError(f"rate={rate!r}: the share of trigger samples must lie above 0 and at most 0.5")
    start = round(share * PPM)
    return start, AutoRate(max(1, start // 8), min(PPM // 2, start * 4)) if rate == "auto" else None
