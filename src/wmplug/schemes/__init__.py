"""The built-in schemes, one file each, and everything that the author of a scheme imports."""

from wmplug.keys.streams import KeyStream
from wmplug.watermark.brief import Brief
from wmplug.watermark.plan import Choices, Lessons, Pattern, Plan
from wmplug.watermark.scheme import Adds, Answers, Asks, HasConstants, Point, Prepares, Scheme, Shifts, Weighs

__all__ = [
    "Adds",
    "Answers",
    "Asks",
    "Brief",
    "Choices",
    "HasConstants",
    "KeyStream",
    "Lessons",
    "Pattern",
    "Plan",
    "Point",
    "Prepares",
    "Scheme",
    "Shifts",
    "Weighs",
]
