"""Tasks, which are answer spaces, one file each; and everything that the author of another task imports."""

from wmplug.tasks.base import Call, Said, Task
from wmplug.tasks.classes import Classes

__all__ = ["Call", "Classes", "Said", "Task"]
