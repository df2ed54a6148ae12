"""Attack your own model, and see what its watermark survives.

report = wmplug.audit.run(mark, model, setting, QUICK, controls={"unmarked twin": twin})
print(report)
wmplug.audit.drawing.heat_map("audit.png", report)

An attack is a function of (model, setting, seed); `ATTACKS` is the table of wmplug's own. The package needs torch,
scikit-learn and, for pictures, matplotlib: pip install 'wmplug[audit]'.
"""

from wmplug.audit.attacks import ATTACKS, CLONING, FULL, QUICK, Attack, chosen
from wmplug.audit.grid import run
from wmplug.audit.results import Cell, Report, Row
from wmplug.audit.service import ServiceAnswers, ask_service
from wmplug.audit.setting import Setting
from wmplug.audit.sweep import Point, Sweep, sweep

__all__ = [
    "ATTACKS",
    "CLONING",
    "FULL",
    "QUICK",
    "Attack",
    "Cell",
    "Point",
    "Report",
    "Row",
    "ServiceAnswers",
    "Setting",
    "Sweep",
    "ask_service",
    "chosen",
    "run",
    "sweep",
]
