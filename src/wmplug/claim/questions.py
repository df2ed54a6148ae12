"""A sheet of questions without any key, and a suspect's answers to it: ask here or anywhere, judge where the key is."""

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
STRIDE = 512  # inputs that are handed to a suspect at once


@dataclass(frozen=True, eq=False)
class Questions:
    """What a suspect is asked. It holds inputs and no answer, and can be pickled.

    Attributes:
        inputs: n of them.
        form: what they are handed out as.
        task: what an answer can be.
        rows: (n,) a number for each, under which its answer is found again: the row of the plan.
        preprocess: turns (input, answer) into what a model's data set yields, where the owner gave it.
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
            triggers: of the watermark; no answer of theirs gets onto the sheet.
            rows: which rows, in this order; by default all that its tests ask.
            preprocess: of the watermark.
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
        """Read what `to_json` wrote.

        Raises:
            InputError: it is something else.
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
            raise InputError(f"this is no sheet of questions ({type(error).__name__}: {error})") from None

    def only(self, places: IntArray) -> "Questions":
        """Some of the questions, by their places on the sheet, in this order."""
        return replace(self, inputs=take(self.inputs, places), rows=self.rows[places])

    def given(self, first: int, last: int) -> list[Any]:
        """Questions number `first` to before `last`, as a suspect is handed them; copies."""
        return [as_given(value, self.form) for value in self.inputs[first:last]]


@dataclass(frozen=True, eq=False)
class Answers:
    """What one suspect said.

    Attributes:
        suspect: its description.
        task: what an answer can be.
        rows: (n,) of the questions.
        said: n answers, None for a query that failed.
        cause: why a query failed, the most telling reason; not written to JSON.
    """

    suspect: str
    task: Task
    rows: IntArray = field(repr=False)
    said: tuple[Said | None, ...] = field(repr=False)
    cause: BaseException | None = field(repr=False, default=None)

    def to(self, rows: Iterable[int]) -> list[Said | None]:
        """The answers to some rows, in this order.

        Raises:
            KeyError: a row was not asked.
        """
        places = {row: place for place, row in enumerate(self.rows.tolist())}
        return [self.said[places[row]] for row in rows]

    def to_json(self) -> str:
        """Write as strict JSON; `from_json` reads it back unchanged but for the cause."""
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
        """Read what `to_json` wrote.

        Raises:
            SuspectError: it is something else.
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
            raise SuspectError(f"these are no answers to a sheet ({type(error).__name__}: {error})") from None

    def __getstate__(self) -> dict[str, Any]:
        # Whatever a suspect raised may not be fit for pickling.
        cause = self.cause
        if cause is not None and type(cause) is not SuspectError:
            cause = RuntimeError(f"{type(cause).__name__}: {cause}")
        return {**vars(self), "cause": cause}


def written(task: Task, said: Said | None) -> dict[str, Any]:
    """One answer as JSON, with scores where it has them."""
    if said is None:
        return {"answer": None}
    scores = {} if said.scores is None else {"scores": said.scores.tolist()}
    return {"answer": task.encode(said.answer), **scores}


def read(task: Task, value: Any) -> Said | None:
    """What `written` made."""
    if value["answer"] is None:
        return None
    scores = value.get("scores")
    return Said(task.decode(value["answer"]), None if scores is None else np.array(scores, np.float64))


def ask(questions: Questions, suspect: Suspect, *, retries: int = 1) -> Answers:
    """Put a sheet to a suspect.

    Args:
        questions: the sheet.
        suspect: who is asked.
        retries: how often each of the inputs that failed together is asked again, alone. A query that fails then too is
            dropped whatever its answer would have been: the rule does not see the key.
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
        return task.read(suspect.answer(inputs), len(inputs), suspect.description), None
    # A suspect that calls sys.exit() has given no answer, and does not end the verification.
    except (Exception, SystemExit) as error:
        return [None] * len(inputs), error


def _worse(cause: BaseException | None, other: BaseException | None) -> BaseException | None:
    """The more telling of two causes: what cannot be read says more than what was raised on the way to it."""
    return cause if other is None or isinstance(cause, SuspectError) else other
