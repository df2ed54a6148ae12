"""What an answer can be: the base class of every task, and one answer that a suspect gave."""

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
        answer: as the task has it: a class, a string, ...
        scores: (k,) log probabilities of the task's answers, where the suspect gives them.
    """

    answer: Any
    scores: FloatArray | None = None


class Task(Protocol):
    """An answer space. A subclass is a frozen dataclass; it never sees a key.

    Attributes:
        name: under which a saved watermark finds its task again.
        call: how a suspect is asked.
    """

    name: ClassVar[str]
    call: ClassVar[Call]

    def __str__(self) -> str:
        """The answers in a few words."""
        return f"the task {self.name!r}"

    def facts(self) -> dict[str, Any]:
        """What a watermark's id is the digest of, as JSON; a dataclass's constructor takes the same."""
        ...

    @classmethod
    def restore(cls: type[T], facts: Mapping[str, Any]) -> T:
        """The task of a saved watermark."""
        return cls(**facts)

    def read(self, outputs: Any, n: int, who: str) -> list[Said | None]:
        """What a suspect returned for n inputs, answer by answer; None where there is none.

        Args:
            outputs: as the suspect returned them.
            n: inputs that were asked.
            who: description of the suspect, for the error.

        Raises:
            SuspectError: these are not n answers of any such task.
        """
        ...

    def belongs(self, answer: Any) -> bool:
        """Whether this is an answer of the task, which a plan may have as an option."""
        ...

    def picked(self, said: Said, options: Sequence[Any]) -> int | None:
        """Which of the options of a draw an answer is, None for none of them.

        It must depend on nothing but its arguments: the key's choice among the options is unknown here, and the
        p-value of a verdict rests on that.
        """
        return options.index(said.answer) if said.answer in options else None

    def misfit(self, said: Said, who: str) -> SuspectError | None:
        """Why an answer shows that the suspect is of another task; None where it does not."""
        if self.belongs(said.answer):
            return None
        return SuspectError(f"{who} answered {self.shown(said.answer)}, which is no answer of {self}")

    def arrays(self, said: Sequence[Said | None]) -> tuple[Any, ...]:
        """Answers as a scheme weighs them: what `Weighs.weigh` is given after the plan."""
        return (said,)

    def labels(self, given: Any, count: int) -> Array | None:
        """The natural answers of `count` carriers, as `column` has them; None where none are given.

        Raises:
            InputError: another length, or answers that the task does not have.
        """
        if given is None:
            return None
        answers = list(given)
        if len(answers) != count:
            raise InputError(f"{len(answers)} labels for {count} carriers: give one for each")
        if wrong := [answer for answer in answers if not self.belongs(answer)]:
            raise InputError(f"labels hold {wrong[0]!r}, which is no answer of {self}")
        return column(answers)

    def encode(self, answer: Any) -> Any:
        """An answer as JSON: in the Merkle leaf, the file of a watermark, and answers on record."""
        return answer

    def decode(self, value: Any) -> Any:
        """What `encode` made, as an answer again."""
        return value

    def shown(self, answer: Any) -> str:
        """An answer for people to read."""
        return str(answer)


def column(answers: Sequence[Any]) -> Array:
    """(n,) answers, None for none: int64 with -1 for none where all are whole numbers from 0, else objects."""
    if all(answer is None or (isinstance(answer, (int, np.integer)) and answer >= 0) for answer in answers):
        return np.array([-1 if answer is None else int(answer) for answer in answers], np.int64)
    made = np.empty(len(answers), object)
    made[:] = [None] * len(answers)
    for i, answer in enumerate(answers):  # NumPy would take answers that are sequences apart
        made[i] = answer
    return made


def listed(answers: Array) -> list[Any]:
    """A column answer by answer, None for none."""
    found: list[Any] = answers.tolist()
    return [None if answer < 0 else answer for answer in found] if answers.dtype.kind == "i" else found


def encoded(task: Task, answers: Array) -> list[Any]:
    """A column as JSON, None for none."""
    return [None if answer is None else task.encode(answer) for answer in listed(answers)]


def decoded(task: Task, values: Sequence[Any]) -> Array:
    """The column that `encoded` was given."""
    return column([None if value is None else task.decode(value) for value in values])
