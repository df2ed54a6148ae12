"""What is to be marked: natural inputs, their labels, and what the owner wants."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wmplug.errors import InputError
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import Form, Inputs


@dataclass(frozen=True)
class Task:
    """What is to be marked.

    Attributes:
        carriers: n natural inputs.
        form: what the carriers are.
        labels: (n,) int64 in range(classes), or None.
        classes: number of classes.
        triggers: number of queries wanted.
        preprocess: turns (input, answer) into what the dataset yields, where the owner gave it.
    """

    carriers: Inputs
    form: Form
    labels: IntArray | None
    classes: int
    triggers: int
    preprocess: Callable[[Any, int], Any] | None = None

    def need_labels(self, scheme: str) -> IntArray:
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
