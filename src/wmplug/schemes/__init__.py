"""The built-in schemes, one file each; what a scheme's author imports."""

from wmplug.watermark.brief import Brief as Brief
from wmplug.watermark.plan import Choices as Choices
from wmplug.watermark.plan import Lessons as Lessons
from wmplug.watermark.plan import Pattern as Pattern
from wmplug.watermark.plan import Plan as Plan
from wmplug.watermark.scheme import Adds as Adds
from wmplug.watermark.scheme import Asks as Asks
from wmplug.watermark.scheme import HasConstants as HasConstants
from wmplug.watermark.scheme import Point as Point
from wmplug.watermark.scheme import Prepares as Prepares
from wmplug.watermark.scheme import Scheme as Scheme
from wmplug.watermark.scheme import Shifts as Shifts
from wmplug.watermark.scheme import Weighs as Weighs
