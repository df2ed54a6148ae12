"""The task in a watermark's public line: classes as they have always stood there, any other task by its name."""

from collections.abc import Mapping
from typing import Any

from wmplug import plugins
from wmplug.tasks.base import Task
from wmplug.tasks.classes import Classes

KEYS = ("classes", "task")  # one of them stands in a public line


def written(task: Task) -> dict[str, Any]:
    """What the public line holds of a task, and the id is the digest of."""
    return task.facts() if type(task) is Classes else {"task": {"name": task.name, **task.facts()}}


def read(public: Mapping[str, Any]) -> Task:
    """The task of a public line.

    Raises:
        PluginError: its plugin is not installed.
    """
    if "task" not in public:
        return Classes.restore(public)
    facts = dict(public["task"])
    return plugins.registry().task(facts.pop("name")).restore(facts)
