"""The built-in schemes, one file each; what a scheme's author imports."""

from wmplug.watermark.brief import Task as Task
from wmplug.watermark.scheme import Point as Point
from wmplug.watermark.scheme import Scheme as Scheme
