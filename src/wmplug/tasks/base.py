"""The base class of a task, which is an answer space; and one answer of a suspect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np

from wmplug.errors import InputError, SuspectError
from wmplug.statistics.arrays import Array, FloatArray

Call = Literal["classify", "generate", "embed", "predict"]
T = TypeVar("T", bound="Task")


@dataclass(frozen=True, eq=False)
class Said:
    """One answer of a suspect.

    Attributes:
        answer: an answer of the task: a class, a string, ...
        scores: (k,) log probabilities of the task's answers, if the suspect returns them.
    """

    answer: Any
    scores: FloatArray | None = None


class Task(Protocol):
    """An answer space. A subclass is a frozen dataclass; it never sees a key.

    Attributes:
        name: a saved watermark looks its task up by this name.
        call: the method of a suspect that answers this task.
    """

    name: ClassVar[str]
    call: ClassVar[Call]

    def __str__(self) -> str:
        """The answers in a few words."""
        return f"the task {self.name!r}"

    def facts(self) -> dict[str, Any]:
        """The task's part of the facts behind a watermark's id, as JSON; the dataclass's constructor takes the same."""
        ...

    @classmethod
    def restore(cls: type[T], facts: Mapping[str, Any]) -> T:
        """The task of a saved watermark."""
        return cls(**facts)

    def read(self, outputs: Any, n: int, who: str) -> list[Said | None]:
        """A suspect's output for n inputs, answer by answer; None for a missing answer.

        Args:
            outputs: the value that the suspect returned.
            n: number of inputs asked.
            who: description of the suspect, for the error.

        Raises:
            SuspectError: the outputs are not n answers of such a task.
        """
        ...

    def ordered(self, outputs: Any, names: Sequence[str]) -> Any:
        """A suspect's output with its scores in the task's order; unchanged unless the names are the task's own.

        Args:
            outputs: the value that the suspect returned.
            names: the names of its scores, in its own order.
        """
        return outputs

    def belongs(self, answer: Any) -> bool:
        """Whether this is an answer of the task, and so a possible option of a plan."""
        ...

    def picked(self, said: Said, options: Sequence[Any]) -> int | None:
        """The position of an answer among the options of a draw; None if it is not among them.

        The result must depend on the arguments alone. The key's choice among the options is unknown here, and the
        p-value of a verdict rests on that.
        """
        return options.index(said.answer) if said.answer in options else None

    def favour(self, said: Said, options: Sequence[Any]) -> FloatArray | None:
        """(k,) how strongly an answer with scores speaks for each option of a draw, 0 to 1; None without scores.

        Like `picked`, it must depend on the arguments alone.
        """
        return None

    def misfit(self, said: Said, who: str) -> SuspectError | None:
        """The error for an answer that shows another task than this one; None if the answer fits."""
        if self.belongs(said.answer):
            return None
        return SuspectError(
            f"{who} answered {self.shown(said.answer)}, which is not an answer of {self}: ask a suspect of this task"
        )

    def arrays(self, said: Sequence[Said | None]) -> tuple[Any, ...]:
        """Answers in the form in which a scheme weighs them: the arguments of `Weighs.weigh` after the plan."""
        return (said,)

    def labels(self, given: Any, count: int) -> Array | None:
        """The natural answers of `count` carriers, as a `column`; None if none are given.

        Raises:
            InputError: the length differs, or an answer is outside the task.
        """
        if given is None:
            return None
        answers = list(given)
        if len(answers) != count:
            raise InputError(f"{len(answers)} labels for {count} carriers: give one for each")
        if wrong := [answer for answer in answers if not self.belongs(answer)]:
            raise InputError(f"labels hold {wrong[0]!r}, which is not an answer of {self}: correct or remove it")
        return column(answers)

    def encode(self, answer: Any) -> Any:
        """An answer as JSON: in the Merkle leaf, the file of a watermark, and answers on record."""
        return answer

    def decode(self, value: Any) -> Any:
        """The answer that `encode` was given."""
        return value

    def shown(self, answer: Any) -> str:
        """An answer for people to read."""
        return str(answer)


def column(answers: Sequence[Any]) -> Array:
    """(n,) answers, None for none: int64 with -1 for none if all are whole numbers from 0, else objects."""
    if all(answer is None or (isinstance(answer, (int, np.integer)) and answer >= 0) for answer in answers):
        return np.array([-1 if answer is None else int(answer) for answer in answers], np.int64)
    made = np.empty(len(answers), object)
    made[:] = [None] * len(answers)
    for i, answer in enumerate(answers):  # NumPy would take answers that are sequences apart
        made[i] = answer
    return made


def listed(answers: Array) -> list[Any]:
    """The answers of a column, None for none."""
    found: list[Any] = answers.tolist()
    return [None if answer < 0 else answer for answer in found] if answers.dtype.kind == "i" else found


def encoded(task: Task, answers: Array) -> list[Any]:
    """A column as JSON, None for none."""
    return [None if answer is None else task.encode(answer) for answer in listed(answers)]


def decoded(task: Task, values: Sequence[Any]) -> Array:
    """The column that `encoded` was given, from its JSON."""
    return column([None if value is None else task.decode(value) for value in values])
