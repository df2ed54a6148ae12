"""The task in a watermark's public line: classes in the original notation, any other task by its name."""

from collections.abc import Mapping
from typing import Any

from wmplug import plugins
from wmplug.tasks.base import Task
from wmplug.tasks.classes import Classes

KEYS = ("classes", "class_names", "task")  # of a public line


def written(task: Task) -> dict[str, Any]:
    """A task as the public line has it; the watermark's id is a digest over this too."""
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
