"""What an answer can be; one file a task."""

from wmplug.tasks.base import Call as Call
from wmplug.tasks.base import Said as Said
from wmplug.tasks.base import Task as Task
from wmplug.tasks.classes import Classes as Classes
