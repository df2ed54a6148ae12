"""The demo's picture: the loss falls, the watermark rises, four verdicts."""

import math
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wmplug.cli.demo.findings import Finding

Curve = tuple[list[int], list[float]]
_BLUE, _GREEN, _GREY = "#1f5fa8", "#2a8a4a", "#8a8a8a"


def draw(path: Path, loss: Curve, log10_p: Curve, findings: list[Finding]) -> None:
    """Write the plot as PNG.

    Args:
        path: the file to write.
        loss: training steps and loss.
        log10_p: training steps and log10 of the p-value at checkpoints.
        findings: the findings in the order of the table.
    """
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 1.1])
    below = figure.add_subplot(grid[1, 0])
    above = figure.add_subplot(grid[0, 0], sharex=below)
    above.tick_params(labelbottom=False)
    above.plot(*loss, color=_GREY)
    above.set(ylabel="training loss", title="One training run")
    above.set_ylim(bottom=0)
    below.plot(*log10_p, color=_BLUE, marker="o", markersize=4)
    below.set(xlabel="training step", ylabel="watermark: log10 p")
    axes = figure.add_subplot(grid[:, 1])
    values = [finding.asked_all.log10_e for finding in findings]
    places = list(range(len(findings)))
    axes.barh(places, values, color=[_GREEN if f.asked_all.proven else _GREY for f in findings], height=0.55)
    target = math.log10(findings[0].asked_all.target_e)
    axes.axvline(target, color="black", linestyle="--", linewidth=1)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.text(target, -0.62, " proven from $10^6$ on", fontsize=9, va="center")
    for place, value, finding in zip(places, values, findings, strict=True):
        text = f"{finding.asked_all.state}, {finding.asked_all.matches} of {finding.asked_all.queries}"
        inside = value > 0.6 * max(values)
        axes.text(
            value - 1 if inside else max(value, target) + 1.5,
            place,
            text,
            va="center",
            ha="right" if inside else "left",
            color="white" if inside else "black",
        )
    axes.set_yticks(places, [finding.suspect for finding in findings])
    axes.set(
        xlabel="log10 of the e-value (all triggers asked)", title="Four suspects", ylim=(len(findings) - 0.5, -0.9)
    )
    for each in (above, below, axes):
        each.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
