"""What an audit found: cells, rows over seeds, a table, JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from wmplug.claim.verdict import Part, State, Verdict

SCHEMA = "wmplug/audit/1"
OWN, CONTROL = "own", "control"
OWN_MODEL = "own model"
_WORST: tuple[State, ...] = ("inconclusive", "evidence", "proven")


@dataclass(frozen=True)
class Cell:
    """One attack under one seed.

    Attributes:
        name: of the attack, of a control, or "own model".
        family: of the attack, "control" or "own".
        seed: of the attack.
        accuracy: share of the test inputs that what the thief has gets right; None where he got nothing.
        verdict: exhaustive, under the owner's key.
        rival: exhaustive, under another key.
        found: share of the owner's triggers that a detector flagged; None where none looked.
        failed: why there is nothing.
    """

    name: str
    family: str
    seed: int
    accuracy: float | None = None
    verdict: Verdict | None = None
    rival: Verdict | None = None
    found: float | None = None
    failed: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        verdicts = {
            name: None if verdict is None else json.loads(verdict.to_json())
            for name, verdict in (("verdict", self.verdict), ("rival", self.rival))
        }
        return {**asdict(self), **verdicts}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> "Cell":
        """What `to_dict` gave."""
        verdicts = {
            name: None if written[name] is None else Verdict.from_json(json.dumps(written[name]))
            for name in ("verdict", "rival")
        }
        return cls(**{**written, **verdicts})


@dataclass(frozen=True)
class Row:
    """One attack over all seeds.

    Attributes:
        name: of the attack or control.
        family: of the attack, "control" or "own".
        seeds: how many gave a result.
        accuracy: mean, in [0, 1].
        cost: mean accuracy less that of the unattacked model, in points.
        log10_p: mean over seeds.
        worst: the log10 p that serves the owner least: the highest, of a control the lowest.
        parts: (name, mean log10 p) of each part of the mark, where it has several.
        rival: mean log10 p under another key.
        rival_worst: the lowest of these.
        found: mean share of triggers that were flagged, or None.
        state: the least that was found in any seed; of a control the most.
        failed: why there is nothing, where there is nothing.
    """

    name: str
    family: str
    seeds: int = 0
    accuracy: float | None = None
    cost: float | None = None
    log10_p: float | None = None
    worst: float | None = None
    parts: tuple[tuple[str, float], ...] = ()
    rival: float | None = None
    rival_worst: float | None = None
    found: float | None = None
    state: State | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Report:
    """What an audit found; prints as a table.

    Attributes:
        watermark: public id of the mark.
        scheme: its name.
        cells: one an attack and seed.
    """

    watermark: str
    scheme: str
    cells: tuple[Cell, ...]

    @property
    def rows(self) -> tuple[Row, ...]:
        """One an attack, in the order they were asked for."""
        own = [cell.accuracy for cell in self.cells if cell.family == OWN and cell.accuracy is not None]
        names = dict.fromkeys(cell.name for cell in self.cells)
        return tuple(_row([cell for cell in self.cells if cell.name == name], own[0]) for name in names)

    def __getitem__(self, name: str) -> Row:
        """The row of one attack or control, by name."""
        return {row.name: row for row in self.rows}[name]

    def table(self) -> Table:
        """For rich to print; log10 p is the mean over seeds, `worst` the one that serves the owner least."""
        rows = self.rows
        parts = [name for name, _ in rows[0].parts]
        found = any(row.found is not None for row in rows)
        table = Table(box=box.SIMPLE)
        names = ("attack", "accuracy", "cost", *parts, "log10 p", "worst", "other key", *["flagged"] * found, "verdict")
        for name in names:
            table.add_column(name, justify="left" if name in ("attack", "verdict") else "right", no_wrap=True)
        for row in rows:
            if row.accuracy is None or row.cost is None or row.log10_p is None:
                blanks = [""] * (len(names) - 2)
                table.add_row(row.name, *blanks, "not run", style="dim")
                continue
            table.add_row(
                row.name,
                f"{100 * row.accuracy:.1f} %",
                f"{row.cost:+.1f}",
                *(f"{value:.1f}" for _, value in row.parts),
                f"{row.log10_p:.1f}",
                f"{row.worst:.1f}",
                f"{row.rival:.1f}",
                *["" if row.found is None else f"{100 * row.found:.0f} %"] * found,
                str(row.state),
                style="green" if row.state == "proven" else "yellow",
                end_section=row.family == OWN,
            )
        return table

    def __str__(self) -> str:
        """The table, and why attacks were not run."""
        console = Console(width=140, color_system=None)
        with console.capture() as captured:
            console.print(self.table())
            for row in self.rows:
                if row.failed is not None:
                    console.print(f"{row.name}: {row.failed}", soft_wrap=True, markup=False)
        return captured.get().rstrip()

    def to_json(self) -> str:
        """Strict JSON; `from_json` reads it back unchanged. Holds verdicts and accuracies, nothing secret."""
        rows = [asdict(row) for row in self.rows]
        for row in rows:
            row["parts"] = dict(row["parts"])
        document = {
            "schema": SCHEMA,
            "watermark": self.watermark,
            "scheme": self.scheme,
            "rows": rows,
            "cells": [cell.to_dict() for cell in self.cells],
        }
        return json.dumps(document, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what `to_json` wrote."""
        read = json.loads(text)
        return cls(read["watermark"], read["scheme"], tuple(Cell.from_dict(cell) for cell in read["cells"]))

    def draw(self, path: str | Path) -> None:
        """Write a heat map as PNG: attacks by parts of the mark, log10 p as colour, accuracy beside it."""
        from wmplug.audit import picture

        picture.heat_map(Path(path), self)


def _row(cells: Sequence[Cell], own: float) -> Row:
    name, family = cells[0].name, cells[0].family
    done = [(c.accuracy, c.verdict, c.rival) for c in cells]
    given = [(a, v, r) for a, v, r in done if a is not None and v is not None and r is not None]
    failed = next((cell.failed for cell in cells if cell.failed is not None), None)
    if not given:
        return Row(name, family, failed=failed)
    accuracy = fmean([a for a, _, _ in given])
    verdicts, others = [v for _, v, _ in given], [r.log10_p for _, _, r in given]
    values, innocent = [v.log10_p for v in verdicts], family == CONTROL
    found = [cell.found for cell in cells if cell.found is not None]
    ranks = [_WORST.index(v.state) for v in verdicts]
    columns = zip(*(verdict.parts for verdict in verdicts), strict=True)
    return Row(
        name,
        family,
        seeds=len(given),
        accuracy=accuracy,
        cost=100 * (accuracy - own),
        log10_p=fmean(values),
        worst=min(values) if innocent else max(values),
        parts=tuple((_part_name(column[0]), fmean([part.log10_p for part in column])) for column in columns),
        rival=fmean(others),
        rival_worst=min(others),
        found=fmean(found) if found else None,
        state=_WORST[max(ranks) if innocent else min(ranks)],
        failed=failed,
    )


def _part_name(part: Part) -> str:
    return "signs" if part.test.endswith("weighted signs") else "triggers"
