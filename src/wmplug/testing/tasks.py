"""The contract of a task: a pytest class to subclass in a plugin author's tests.

class TestMoods(TaskContract):
@pytest.fixture
def task(self):
return Moods(("glad", "sad"))

@pytest.fixture
def spoken(self):
return [(["I am glad", "sad, rather"], ["glad", "sad"]), ([None], [None])]
"""

import hashlib
import json
import math
import pickle
from collections.abc import Sequence
from typing import Any, TypeAlias, get_args

import numpy as np

try:
    import pytest
except ImportError as error:
    raise ImportError(
        "wmplug.testing consists of pytest classes, and pytest is not installed: `pip install pytest`"
    ) from error

from wmplug.errors import InputError, SuspectError
from wmplug.keys.streams import KeyStream, Subkeys
from wmplug.statistics.draws import DrawResult, log10_p
from wmplug.tasks import public
from wmplug.tasks.base import Call, Said, Task, column, decoded, encoded, listed
from wmplug.watermark.file import pack, unpack
from wmplug.watermark.plan import Choices, Lessons, Plan, TriggerSet, draw_symbols

Spoken: TypeAlias = list[tuple[Any, list[Any]]]

_DRAWS = 24
_KEYS = 10_000
_MISTAKE = 1e-4  # probability that a check of a rate fails although the task is right
_NONSENSE = (None, object(), 3, 2.5, b"bytes", {"a": 1}, np.zeros((2, 3, 4)), [[None]], [object(), object()])


class TaskContract:
    """The contract of a task; a subclass overrides the fixtures `task` and `spoken`."""

    @pytest.fixture
    def task(self) -> Task:
        """The task, of at least two answers."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `task`")

    @pytest.fixture
    def spoken(self) -> Spoken:
        """Outputs of suspects, with the answers in them: (outputs, [answer or None for each input])."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture `spoken`")

    @pytest.fixture
    def options(self, task: Task, spoken: Spoken) -> tuple[Any, ...]:
        """The candidates of a draw; by default all spoken answers that belong to the task."""
        found = [one for _, answers in spoken for one in answers if one is not None and task.belongs(one)]
        return tuple(one for i, one in enumerate(found) if one not in found[:i])

    def test_it_says_what_it_is(self, task: Task) -> None:
        """Name and call are in range, facts are JSON, and the task comes back from them and from a public line."""
        assert isinstance(task.name, str), "name: a string is needed"
        assert task.name, "name: it is empty"
        assert task.call in get_args(Call), f"call: {task.call!r} is none of {', '.join(get_args(Call))}"
        facts = json.loads(json.dumps(task.facts(), allow_nan=False))
        again = type(task).restore(facts)
        assert again == task, "restore(facts()) returns another task: is it a frozen dataclass?"
        assert hash(again) == hash(task), "two equal tasks have two hashes"
        assert again.facts() == task.facts(), "restore(facts()) returns other facts"
        line = json.loads(json.dumps(public.written(task)))
        assert line.get("task", {"name": "classes"})["name"] == task.name, "the public line names another task"
        assert pickle.loads(pickle.dumps(task)) == task, "a pickle restores another task"

    def test_what_is_spoken_is_read(self, task: Task, spoken: Spoken) -> None:
        """Each output is read as the answers in it, and another number of inputs is refused."""
        assert spoken, "spoken is empty: give some outputs with the answers in them"
        for outputs, answers in spoken:
            said = task.read(outputs, len(answers), "a suspect")
            assert [None if one is None else one.answer for one in said] == answers, f"{outputs!r} is read otherwise"
            with pytest.raises(SuspectError):
                task.read(outputs, len(answers) + 1, "a suspect")

    def test_nonsense_is_refused_or_no_answer(self, task: Task) -> None:
        """Reading any output of a suspect raises SuspectError or returns n answers."""
        for outputs in _NONSENSE:
            try:
                answers = task.read(outputs, 2, "a suspect")
            except SuspectError:
                continue
            except Exception as error:
                name = type(error).__name__
                pytest.fail(f"read() raised {name} on {outputs!r}: return None for no answer, or raise SuspectError")
            assert len(answers) == 2, f"{outputs!r} is read as {len(answers)} answers to 2 inputs"

    def test_answers_survive_json(self, task: Task, options: tuple[Any, ...]) -> None:
        """An answer is the same after it was encoded, written, read and decoded; and so is a column of them."""
        for option in options:
            assert task.decode(json.loads(json.dumps(task.encode(option), allow_nan=False))) == option
            assert isinstance(task.shown(option), str), "shown() does not return a string"
        mixed = column([None, *options])
        assert listed(decoded(task, json.loads(json.dumps(encoded(task, mixed))))) == [None, *options]

    def test_options_are_picked(self, task: Task, options: tuple[Any, ...]) -> None:
        """Each option belongs to the task and is picked by itself, in whatever order; nothing else is."""
        assert len(options) > 1, "a draw needs two options or more: put them into `spoken`"
        for order in (options, options[::-1]):
            for place, option in enumerate(order):
                assert task.belongs(option), f"{option!r} does not belong to the task"
                assert task.picked(Said(option), order) == place, f"{option!r} is picked as another option"
                assert task.misfit(Said(option), "a suspect") is None, (
                    f"misfit() takes {option!r} for an answer of another task"
                )
                others = tuple(one for one in order if one != option)
                assert task.picked(Said(option), others) is None, f"{option!r} is picked though it is not an option"

    def test_labels_are_checked(self, task: Task, options: tuple[Any, ...]) -> None:
        """Natural answers come back as a column, and too few or others are refused."""
        assert listed(column(listed(task.labels(list(options), len(options))))) == list(options)  # type: ignore[arg-type]
        assert task.labels(None, 3) is None
        with pytest.raises(InputError):
            task.labels(list(options), len(options) + 1)
        with pytest.raises(InputError):
            task.labels([object()] * 3, 3)

    def test_a_file_holds_them(self, task: Task, options: tuple[Any, ...]) -> None:
        """Options and natural answers come back from the file of a watermark."""
        triggers = _trigger_set(task, options, 0)
        subkeys = Subkeys.derive(hashlib.sha256(b"wmplug.testing").digest(), "file")
        again = unpack(pack(triggers, subkeys, {}), "text", task)[0]
        assert again.plan.options == triggers.plan.options, "the options differ"
        assert listed(again.answers) == listed(triggers.answers), "the answers differ"
        leaves = [each.leaves("ab", subkeys.stream("disclosure")) for each in (triggers, again)]
        assert leaves[0] == leaves[1], "the leaves differ"

    def test_picking_is_blind_to_the_symbol(self, task: Task, options: tuple[Any, ...]) -> None:
        """The picked option does not depend on the key's draw, and over 10,000 keys p-values are super-uniform.

        Null: the suspect is independent of the label key; one-sided.
        """
        gap = math.sqrt(math.log(1 / _MISTAKE) / (2 * _KEYS))
        stream = KeyStream(hashlib.sha256(b"wmplug.testing/tasks").digest())
        symbols = stream.below(len(options), _KEYS * _DRAWS).reshape(_KEYS, _DRAWS)
        for name, said in _nasty(options).items():
            first = _counts(_trigger_set(task, options, 0), said)
            for key in range(1, 100):
                assert _counts(_trigger_set(task, options, key), said) == first, (
                    f"the option picked for the suspect {name!r} depends on the key, or on earlier picks"
                )
            p = np.sort(_p_values(np.array(first), symbols))
            # Ties: at a value that several keys share, the distribution function takes its whole step.
            reached = np.searchsorted(p, p, side="right") / len(p)
            assert (reached - p).max() <= gap, (
                f"p-values of the suspect {name!r} are too small: they are not super-uniform"
            )


def _trigger_set(task: Task, options: tuple[Any, ...], key: int) -> TriggerSet:
    """Draws over all options, and a negative with each option as its natural answer."""
    rows, count = np.arange(_DRAWS), _DRAWS + len(options)
    draw = np.where(np.arange(count) < _DRAWS, np.arange(count), -1)
    lessons = Lessons(np.arange(count), draw, column([None] * _DRAWS + list(options)))
    plan = Plan([f"row {i}" for i in range(count)], lessons, (Choices(rows, rows, (options,) * _DRAWS),))
    stream = KeyStream(hashlib.sha256(f"wmplug.testing/{key}".encode()).digest())
    return TriggerSet(plan, "text", task, draw_symbols(stream, plan.options))


def _nasty(options: tuple[Any, ...]) -> dict[str, list[Any]]:
    """Answers of suspects that never saw the key and are as biased as a model can be."""
    bits = [hashlib.sha256(bytes([i])).digest()[0] for i in range(_DRAWS)]
    return {
        "always the same": [options[0]] * _DRAWS,
        "two answers only": [options[bit % 2] for bit in bits],
        "copies a bit of the input": [options[bit % len(options)] for bit in bits],
        "the same for neighbours": [options[i // 5 % len(options)] for i in range(_DRAWS)],
        "silent now and then": [options[-1] if bit % 3 else None for bit in bits],
    }


def _counts(triggers: TriggerSet, answers: Sequence[Any]) -> list[tuple[int, ...]]:
    said = [None if answer is None else Said(answer) for answer in answers]
    return [triggers.count(group, [one]).counts for group, one in zip(triggers.groups, said, strict=True)]


def _p_values(counts: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    """One exact p-value a key; given the answers it depends on the key through the matches alone."""
    matches = counts[np.arange(_DRAWS), symbols].sum(axis=1)
    _, where, which = np.unique(matches, return_index=True, return_inverse=True)
    drawn = [
        [DrawResult(int(s), tuple(row)) for s, row in zip(symbols[key], counts.tolist(), strict=True)] for key in where
    ]
    return np.array([10.0 ** log10_p(results) for results in drawn])[which]
