"""The brief of a scheme: natural inputs, their labels, and the owner's wishes."""

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
    """The things to mark, as a scheme receives them.

    Attributes:
        carriers: n natural inputs.
        form: kind of the carriers.
        task: the answer space.
        labels: (n,) natural answers, or None; int64 if the answers are classes.
        triggers: number of queries to make.
        preprocess: turns (input, answer) into an example as the dataset yields it, if the owner gave it.
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
            InputError: the brief has no labels.
        """
        if self.labels is None:
            raise InputError(f"scheme {scheme!r} needs labels=: the natural class of each carrier")
        return self.labels

    def need_form(self, scheme: str, *forms: Form) -> None:
        """Raise InputError unless the carriers are of one of these forms."""
        if self.form not in forms:
            raise InputError(
                f"scheme {scheme!r} works on {' or '.join(forms)} carriers, these are {self.form}: choose another "
                "scheme, or give such carriers"
            )

    def need_task(self, scheme: str, kind: type[T]) -> T:
        """The task, if it is of the kind that the scheme fits.

        Raises:
            InputError: it is of another kind.
        """
        if not isinstance(self.task, kind):
            raise InputError(
                f"scheme {scheme!r} draws answers of the task {kind.name!r}, this is {self.task.name!r}: choose "
                "another scheme"
            )
        return self.task

    def need_classes(self, scheme: str) -> int:
        """Number of classes.

        Raises:
            InputError: the answers are not classes.
        """
        return self.need_task(scheme, Classes).count

    def digests(self) -> dict[str, str | None]:
        """Digests of carriers and labels, as in the public line of a watermark."""
        if self.labels is None or self.labels.dtype.kind == "i":
            labels = None if self.labels is None else digest(self.labels)
        else:
            labels = digest(rfc8785.dumps(encoded(self.task, self.labels)).decode())
        return {"carriers": digest(self.carriers), "labels": labels}
