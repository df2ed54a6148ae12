"""The demo's finding for each suspect."""

import json
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import verify
from wmplug.watermark.watermark import Watermark


@dataclass(frozen=True)
class Finding:
    """One suspect, with the expected and the actual result."""

    suspect: str
    accuracy: float
    guilty: bool
    asked_all: Verdict
    sequential: Verdict

    @property
    def as_expected(self) -> bool:
        """Proven by both ways of asking, or by neither; in a few of a thousand runs, chance alone is `evidence`."""
        return self.asked_all.proven == self.sequential.proven == self.guilty

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON can hold it."""
        verdicts = {"exhaustive": self.asked_all, "sequential": self.sequential}
        return {
            "suspect": self.suspect,
            "accuracy": self.accuracy,
            "expected": "proven" if self.guilty else "not proven",
            "as_expected": self.as_expected,
            **{name: json.loads(verdict.to_json()) for name, verdict in verdicts.items()},
        }


def judge(name: str, guilty: bool, mark: Watermark, model: Any, accuracy: float) -> Finding:
    """Ask a suspect in both ways."""
    return Finding(name, accuracy, guilty, verify(mark, model, exhaustive=True), verify(mark, model))


def table(findings: list[Finding]) -> Table:
    """The findings as a table that rich prints."""
    rows = Table(box=box.SIMPLE)
    for name in ("suspect", "accuracy", "answers", "log10 p", "queries", "verdict"):
        rows.add_column(name, justify="left" if name in ("suspect", "verdict") else "right", no_wrap=True)
    for finding in findings:
        asked = finding.asked_all
        rows.add_row(
            finding.suspect,
            f"{100 * finding.accuracy:.1f} %",
            f"{asked.matches} of {asked.queries}",
            f"{asked.log10_p:.1f}",
            str(finding.sequential.queries),
            asked.state,
            style="green" if asked.proven else "yellow",
        )
    return rows
