"""Placement: which triggers go into which step on which rank. Integers only, and no state but the step.

Two tables are drawn once from the schedule key: an order in which the taught rows come (reshuffled cycles), and
thresholds that decide in which steps a fractional rate rounds up. Both are public-safe (an adversary who reads them
learns nothing of keys or answers), small, and can be indexed inside a compiled graph.

A **slot** numbers a batch: `step * world + rank` where the step is known, `slot_of(fingerprint)` where only the batch's
content is (a collator in a worker process never learns the step, and its counters never come back).
"""

import math
import numbers
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import IntArray

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
        if mode not in ("append", "replace"):
            raise InputError(f"mode={mode!r}: choose 'append' or 'replace'")
        order = np.concatenate([schedule.permutation(pool) for _ in range(CYCLES)])
        thresholds = (schedule.permutation(THRESHOLDS) * 2 + 1) * PPM // (2 * THRESHOLDS)
        return cls(mode, order, thresholds, int.from_bytes(schedule.bytes(8), "little"))

    def share(self, batch: int, rate: int) -> tuple[int, int]:
        """Triggers a batch gets: the whole part, and the rest in parts per million.

        Args:
            batch: the user's samples in it.
            rate: share of triggers in what the model sees, in parts per million.
        """
        divisor = PPM - rate if self.mode == "append" else PPM
        whole, rest = divmod(batch * rate, divisor)
        return whole, rest * PPM // divisor

    def count(self, slot: int, batch: int, rate: int) -> int:
        """How many triggers the batch in this slot gets; over THRESHOLDS slots the mean is the rate."""
        whole, rest = self.share(batch, rate)
        return whole + int(self.thresholds[slot % THRESHOLDS] < rest)

    def rows(self, slot: int, count: int, width: int) -> IntArray:
        """(count,) positions in the pool for this slot; `width` is the most any slot gets at this rate."""
        return self.order[(slot * width + np.arange(count)) % len(self.order)]

    def place(self, slot: int, batch: int, rate: int) -> IntArray:
        """Positions in the pool of taught rows for the batch in this slot; consecutive slots leave no row out."""
        slot %= 2**40
        first, end = self.before(slot, batch, rate), self.before(slot + 1, batch, rate)
        return self.order[np.arange(first, end) % len(self.order)]

    def before(self, slot: int, batch: int, rate: int) -> int:
        """How many triggers all slots before this one get, if all batches are like this one."""
        whole, rest = self.share(batch, rate)
        up = self.thresholds < rest
        laps, within = divmod(slot, THRESHOLDS)
        return slot * whole + laps * int(up.sum()) + int(up[:within].sum())

    def slot_of(self, fingerprint: int) -> int:
        """A slot from what a batch contains (splitmix64, Steele et al. 2014)."""
        z = (self.seed ^ fingerprint) + 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
        z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
        return z ^ z >> 31


@dataclass(frozen=True)
class AutoRate:
    """Closes the loop: a verdict at a checkpoint raises or lowers the rate.

    Attributes:
        low: never below this, in parts per million; above zero, since a mark that is no longer taught fades.
        high: never above this.
        margin: decades by which the e-value shall clear the target.
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


def read_rate(rate: float | Literal["auto"] | None, default: float) -> tuple[int, AutoRate | None]:
    """A rate in parts per million, and the controller if it is to be adjusted.

    Args:
        rate: share of triggers in what the model sees; None for the scheme's default, "auto" to start there.
        default: the scheme's.

    Raises:
        InputError: not a share above 0 and up to one half.
    """
    if isinstance(rate, str) and rate != "auto":
        raise InputError(f"rate={rate!r}: give a share such as 0.05, 'auto', or nothing for the scheme's default")
    share = default if rate is None or rate == "auto" else float(rate) if isinstance(rate, numbers.Real) else math.nan
    if not (math.isfinite(share) and 1e-6 <= share <= 0.5):
        raise InputError(f"rate={rate!r}: the share of trigger samples must lie above 0 and at most 0.5")
    start = round(share * PPM)
    return start, AutoRate(max(1, start // 8), min(PPM // 2, start * 4)) if rate == "auto" else None
