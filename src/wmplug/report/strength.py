"""Layout of the drawn plot: the strength of a watermark at every look, and the loss."""

import math
from typing import Any

from wmplug.report import words
from wmplug.report.facts import Fact

WIDTH, LEFT, RIGHT, TOP, HEIGHT = 760, 92, 20, 24, 210  # pixels
_MARKED = 60  # points that get a mark of their own


def plot(looks: list[Fact]) -> Fact | None:
    """The plot of one run: how unlikely so many matches are by luck (up is stronger), over steps.

    Args:
        looks: the looks of the run.

    Returns:
        Pixels: `line`, `marks`, `ticks`, `target`, and `loss` (a second plot) or None; None if nothing was measured.
    """
    points = [(_at(look, i), -look["log10_p"], look) for i, look in enumerate(looks) if look["log10_p"] is not None]
    if not points:
        return None
    target = math.log10(max(look["target"] for _, _, look in points))
    across = _Scale(min(x for x, _, _ in points), max(x for x, _, _ in points), LEFT, WIDTH - RIGHT)
    up = _Scale(0.0, 1.08 * max(target, 1.0, *(y for _, y, _ in points)), TOP + HEIGHT, TOP)
    every = math.ceil(len(points) / _MARKED)
    return {
        "line": " ".join(f"{across(x)},{up(y)}" for x, y, _ in points),
        "marks": [
            {"x": across(x), "y": up(y), "state": look["state"], "text": f"step {look['step']}: {look['odds']}"}
            for i, (x, y, look) in enumerate(points)
            if i % every == 0 or i == len(points) - 1
        ],
        "ticks": [{"y": up(y), "text": "no evidence" if y == 0 else f"1 in {words.power(int(y))}"} for y in up.ticks()],
        "steps": [{"x": across(x), "text": f"{x:,.0f}"} for x in across.ticks()],
        "over": "training step" if all(look["step"] is not None for look in looks) else "looks, in order",
        "target": {"y": up(target), "text": f"target: 1 in {words.power(round(target))}"},
        "loss": _loss(looks, across),
    }


def _loss(looks: list[Fact], across: "_Scale") -> dict[str, Any] | None:
    points = [(_at(look, i), float(look["loss"])) for i, look in enumerate(looks) if look["loss"] is not None]
    if not points:
        return None
    # Below and above, an axis would have no room for its ticks.
    up = _Scale(0.0, min(max(1.08 * max(y for _, y in points), 1e-9), 1e300), 100.0, 10.0)
    return {
        "line": " ".join(f"{across(x)},{up(y)}" for x, y in points),
        "ticks": [{"y": up(y), "text": f"{y:g}"} for y in up.ticks(3)],
    }


def _at(look: Fact, index: int) -> float:
    return float(index if look["step"] is None else look["step"])


class _Scale:
    """A linear axis from numbers to pixels."""

    def __init__(self, low: float, high: float, first: float, last: float) -> None:
        self.low, self.high, self.first, self.last = low, high, first, last

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.first + share * (self.last - self.first), 1)

    def ticks(self, most: int = 6) -> list[float]:
        """Round numbers within the axis, at most `most` + 1; steps are whole where the axis is longer than a few."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        size = 10.0 ** math.floor(math.log10(span / most))
        step = next(size * k for k in (1, 2, 5, 10) if span / (size * k) <= most)
        step = max(step, 1.0) if span > 2 else step
        return [step * k for k in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
