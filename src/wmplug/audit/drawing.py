"""The audit's pictures: a heat map of the surviving evidence, and accuracy against evidence."""

from pathlib import Path
from typing import Any

import numpy as np

from wmplug.audit.results import Report, Row
from wmplug.audit.sweep import Sweep
from wmplug.extras import need

with need("audit"):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_FLOOR = -30.0  # log10 p below which colours stay the same
_COLOURS = "Blues_r"
_BLUE = "#1f5fa8"


def draw(path: str | Path, report: Report | Sweep) -> None:
    """Write the picture of an audit or of a sweep as PNG."""
    if isinstance(report, Report):
        heat_map(path, report)
    else:
        trade_off(path, report)


def heat_map(path: str | Path, report: Report) -> None:
    """Write the heat map as PNG.

    Rows are the model, the attacks and the controls; columns are the parts of the mark, the whole mark, and another
    key. All share one scale of colours.

    Args:
        path: of the file.
        report: the audit's; rows without a result are left out.
    """
    rows = [row for row in report.rows if row.log10_p is not None]
    columns = [*(name for name, _ in rows[0].parts), "all" if rows[0].parts else report.scheme, "other key"]
    values = np.array([[*(p for _, p in row.parts), row.log10_p, row.rival] for row in rows], np.float64)
    figure = Figure(figsize=(4.2 + 1.1 * len(columns), 1.6 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    scale = Normalize(_FLOOR, 0)
    shown = axes.imshow(values, cmap=_COLOURS, norm=scale, aspect="auto")
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            dark = scale(value) < 0.5
            axes.text(x, y, f"{value:.1f}", ha="center", va="center", color="white" if dark else "black", fontsize=9)
        axes.text(len(columns) - 0.4, y, f"{100 * float(rows[y].accuracy or 0):.1f} %", va="center", fontsize=9)
    axes.text(len(columns) - 0.4, -0.75, "accuracy", fontsize=9)
    axes.set_xticks(range(len(columns)), columns)
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for border in _borders(rows):
        axes.axhline(border, color="white", linewidth=4)
    figure.colorbar(shown, ax=axes, extend="min", label="log10 p", pad=0.16, shrink=min(1.0, 5 / len(rows)))
    figure.suptitle(f"{report.scheme}: what is left of the watermark", fontsize=11)
    figure.savefig(path, dpi=120)


def _borders(rows: list[Row]) -> list[float]:
    """The positions between two families."""
    return [y - 0.5 for y in range(1, len(rows)) if rows[y].family != rows[y - 1].family]


def trade_off(path: str | Path, sweep: Sweep) -> None:
    """Write the cost of each value against the evidence left in a clone, as PNG.

    Args:
        path: of the file.
        sweep: its points are shown.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    axes.scatter([p.clone for p in sweep.points], [p.cost for p in sweep.points], color=_BLUE)
    for point in sweep.points:
        place = (point.clone, point.cost)
        axes.annotate(f"{point.value:g}", place, textcoords="offset points", xytext=(5, 4), fontsize=9)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.axvline(-6, color="black", linestyle="--", linewidth=1)
    axes.invert_xaxis()
    axes.set(
        xlabel=f"log10 p after {sweep.attack} (further right is stronger; dashed: one in a million)",
        ylabel="accuracy less the unmarked model's, in points",
        title=f"What {sweep.parameter} costs, and what is left in a copy",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
