"""What an answer can be, one file a task; and all that the author of another one imports."""

from wmplug.tasks.base import Call, Said, Task
from wmplug.tasks.classes import Classes

__all__ = ["Call", "Classes", "Said", "Task"]
