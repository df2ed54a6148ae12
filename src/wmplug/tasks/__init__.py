"""Tasks, which are answer spaces, one file each; and everything that the author of another task imports."""

from wmplug.tasks.base import Call, Said, Task
from wmplug.tasks.classes import Classes
from wmplug.tasks.numbers import Numbers

__all__ = ["Call", "Classes", "Numbers", "Said", "Task"]
