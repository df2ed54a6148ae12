"""What is to be marked: natural inputs, their labels, and what the owner wants."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import rfc8785

from wmplug.errors import InputError
from wmplug.statistics.arrays import Array
from wmplug.tasks.base import Task, encoded
from wmplug.tasks.classes import Classes
from wmplug.watermark.carriers import Form, Inputs, digest

T = TypeVar("T", bound=Task)


@dataclass(frozen=True)
class Brief:
    """What is to be marked.

    Attributes:
        carriers: n natural inputs.
        form: what the carriers are.
        task: what an answer can be.
        labels: (n,) natural answers, or None; int64 where the answers are classes.
        triggers: number of queries wanted.
        preprocess: turns (input, answer) into what the dataset yields, where the owner gave it.
    """

    carriers: Inputs
    form: Form
    task: Task
    labels: Array | None
    triggers: int
    preprocess: Callable[[Any, Any], Any] | None = None

    def need_labels(self, scheme: str) -> Array:
        """The labels.

        Raises:
            InputError: there are none.
        """
        if self.labels is None:
            raise InputError(f"scheme {scheme!r} needs labels=: the natural class of each carrier")
        return self.labels

    def need_form(self, scheme: str, *forms: Form) -> None:
        """Raise InputError unless the carriers are of one of these forms."""
        if self.form not in forms:
            raise InputError(f"scheme {scheme!r} works on {' or '.join(forms)} carriers, these are {self.form}")

    def need_task(self, scheme: str, kind: type[T]) -> T:
        """The task, which is of the kind that the scheme fits.

        Raises:
            InputError: it is another one.
        """
        if not isinstance(self.task, kind):
            raise InputError(f"scheme {scheme!r} draws answers of the task {kind.name!r}, this is {self.task.name!r}")
        return self.task

    def need_classes(self, scheme: str) -> int:
        """Number of classes.

        Raises:
            InputError: the answers are no classes.
        """
        return self.need_task(scheme, Classes).count

    def digests(self) -> dict[str, str | None]:
        """Of carriers and labels, as the public line of a watermark has them."""
        if self.labels is None or self.labels.dtype.kind == "i":
            labels = None if self.labels is None else digest(self.labels)
        else:
            labels = digest(rfc8785.dumps(encoded(self.task, self.labels)).decode())
        return {"carriers": digest(self.carriers), "labels": labels}
