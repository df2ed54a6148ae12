"""One training run, independent of the framework, and everything that the author of an adapter imports."""

from wmplug.training.loop import At, Loop, OneProcess
from wmplug.training.marking import Marking, Results
from wmplug.training.options import Options
from wmplug.training.placement import PPM, Placement, lap, place

__all__ = ["PPM", "At", "Loop", "Marking", "OneProcess", "Options", "Placement", "Results", "lap", "place"]
