"""A sheet of questions without any key, and a suspect's answers: ask anywhere, and judge where the key is."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, get_args

import numpy as np

from wmplug.errors import InputError, SuspectError
from wmplug.statistics.arrays import IntArray
from wmplug.suspects.protocols import Suspect
from wmplug.tasks import public as tasks
from wmplug.tasks.base import Said, Task
from wmplug.watermark.carriers import Form, Inputs, as_given, input_from_json, input_to_json, take
from wmplug.watermark.plan import TriggerSet

SHEET, SCHEMA = "wmplug/sheet/1", "wmplug/answers-to-a-sheet/1"
STRIDE = 512  # inputs that a suspect gets at once


@dataclass(frozen=True, eq=False)
class Questions:
    """A sheet of questions. It holds inputs and no answer, and can be pickled.

    Attributes:
        inputs: n inputs.
        form: the form in which a suspect gets them.
        task: the answer space.
        rows: (n,) the row of the plan for each input, which identifies its answer.
        preprocess: turns (input, answer) into an example as the model's dataset yields it, if the owner gave it.
    """

    inputs: Inputs = field(repr=False)
    form: Form
    task: Task
    rows: IntArray = field(repr=False)
    preprocess: Callable[[Any, Any], Any] | None = field(repr=False, default=None)

    @classmethod
    def of(
        cls, triggers: TriggerSet, rows: IntArray | None = None, preprocess: Callable[[Any, Any], Any] | None = None
    ) -> "Questions":
        """The sheet of a watermark.

        Args:
            triggers: the watermark's triggers; the sheet never holds their answers.
            rows: rows to ask, in this order; by default all that its tests ask.
            preprocess: the watermark's preprocess function.
        """
        rows = np.concatenate([test.rows for test in triggers.plan.tests]) if rows is None else rows
        return cls(take(triggers.plan.inputs, rows), triggers.form, triggers.task, rows, preprocess)

    def __len__(self) -> int:
        return len(self.rows)

    def to_json(self) -> str:
        """Write as JSON, for other machines and languages; without preprocess."""
        asked = zip(self.rows.tolist(), self.inputs, strict=True)
        document = {
            "schema": SHEET,
            "form": self.form,
            **tasks.written(self.task),
            "questions": [{"row": row, **input_to_json(value)} for row, value in asked],
        }
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str, preprocess: Callable[[Any, Any], Any] | None = None) -> "Questions":
        """Read a sheet that `to_json` wrote.

        Raises:
            InputError: the text is not a sheet.
            PluginError: the task's plugin is not installed.
        """
        try:
            document = json.loads(text)
            if document["schema"] != SHEET or document["form"] not in get_args(Form):
                raise ValueError(f"schema {document['schema']!r}")
            asked = document["questions"]
            inputs = [input_from_json(one) for one in asked]
            rows = np.array([int(one["row"]) for one in asked], np.int64)
            held = inputs if document["form"] == "text" else np.stack(inputs)
            return cls(held, document["form"], tasks.read(document), rows, preprocess)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"this is not a sheet of questions ({type(error).__name__}: {error}): give what to_json() returned"
            ) from None

    def only(self, places: IntArray) -> "Questions":
        """Some of the questions, by their places on the sheet, in this order."""
        return replace(self, inputs=take(self.inputs, places), rows=self.rows[places])

    def given(self, first: int, last: int) -> list[Any]:
        """Copies of questions `first` to `last` (exclusive), in the form in which a suspect gets them."""
        return [as_given(value, self.form) for value in self.inputs[first:last]]


@dataclass(frozen=True, eq=False)
class Answers:
    """One suspect's answers.

    Attributes:
        suspect: its description.
        task: the answer space.
        rows: (n,) the rows of the questions.
        said: n answers, None for a query that failed.
        cause: the most informative reason why a query failed; not written to JSON.
    """

    suspect: str
    task: Task
    rows: IntArray = field(repr=False)
    said: tuple[Said | None, ...] = field(repr=False)
    cause: BaseException | None = field(repr=False, default=None)

    def to(self, rows: Iterable[int]) -> list[Said | None]:
        """The answers to some rows, in this order.

        Raises:
            KeyError: the sheet does not ask one of these rows.
        """
        places = {row: place for place, row in enumerate(self.rows.tolist())}
        return [self.said[places[row]] for row in rows]

    def to_json(self) -> str:
        """Write as strict JSON; `from_json` reads it back unchanged, without the cause."""
        said = zip(self.rows.tolist(), self.said, strict=True)
        document = {
            "schema": SCHEMA,
            "suspect": self.suspect,
            **tasks.written(self.task),
            "answers": [{"row": row, **written(self.task, one)} for row, one in said],
        }
        return json.dumps(document, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Answers":
        """Read answers that `to_json` wrote.

        Raises:
            SuspectError: the text does not hold answers.
            PluginError: the task's plugin is not installed.
        """
        try:
            document = json.loads(text)
            if document["schema"] != SCHEMA:
                raise ValueError(f"schema {document['schema']!r}")
            task, answers = tasks.read(document), document["answers"]
            rows = np.array([int(one["row"]) for one in answers], np.int64)
            return cls(str(document["suspect"]), task, rows, tuple(read(task, one) for one in answers))
        except (KeyError, TypeError, ValueError) as error:
            raise SuspectError(
                f"these are not answers to a sheet ({type(error).__name__}: {error}): give what to_json() returned"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        # The exception of a suspect may be impossible to pickle.
        cause = self.cause
        if cause is not None and type(cause) is not SuspectError:
            cause = RuntimeError(f"{type(cause).__name__}: {cause}")
        return {**vars(self), "cause": cause}


def written(task: Task, said: Said | None) -> dict[str, Any]:
    """One answer as JSON, with its scores if it has any."""
    if said is None:
        return {"answer": None}
    scores = {} if said.scores is None else {"scores": said.scores.tolist()}
    return {"answer": task.encode(said.answer), **scores}


def read(task: Task, value: Any) -> Said | None:
    """The answer that `written` was given."""
    if value["answer"] is None:
        return None
    scores = value.get("scores")
    return Said(task.decode(value["answer"]), None if scores is None else np.array(scores, np.float64))


def ask(questions: Questions, suspect: Suspect, *, retries: int = 1) -> Answers:
    """Put a sheet to a suspect.

    Args:
        questions: the sheet.
        suspect: the suspect to ask.
        retries: how often to ask each input again, alone, after a call with several inputs failed. A query that fails
            again counts as failed, whatever its answer would have been: the rule does not see the key.
    """
    said: list[Said | None] = []
    cause: BaseException | None = None
    for first in range(0, len(questions), STRIDE):
        found, why = _put(questions.given(first, first + STRIDE), questions.task, suspect, retries)
        said += found
        cause = _worse(cause, why)
    return Answers(suspect.description, questions.task, questions.rows, tuple(said), cause)


Outcome: TypeAlias = tuple[list[Said | None], BaseException | None]


def _put(inputs: Sequence[Any], task: Task, suspect: Suspect, retries: int) -> Outcome:
    found, cause = _once(inputs, task, suspect)
    if cause is None:
        return found, None
    for place, one in enumerate(inputs):
        for _ in range(retries):
            said, why = _once([one], task, suspect)
            cause = _worse(cause, why)
            if why is None:
                found[place] = said[0]
                break
    return found, cause


def _once(inputs: Sequence[Any], task: Task, suspect: Suspect) -> Outcome:
    try:
        outputs = task.ordered(suspect.answer(inputs), getattr(suspect, "names", ()))
        return task.read(outputs, len(inputs), suspect.description), None
    # A suspect that calls sys.exit() gives no answer, and must not end the verification.
    except (Exception, SystemExit) as error:
        return [None] * len(inputs), error


def _worse(cause: BaseException | None, other: BaseException | None) -> BaseException | None:
    """The more informative of two causes: unreadable answers are more informative than an exception."""
    return cause if other is None or isinstance(cause, SuspectError) else other
