"""Plans, which hold the lessons of training and the tests of a suspect, and trigger sets, plans with secret answers.

A scheme makes a `Plan` from the input key alone. The label key draws the answers here, from options that the plan fixed
before. So a scheme cannot make the answers depend on anything, and the null rests on that.

A plan has up to two tests. `Choices` asks rows of its own for an answer that the key drew among options. `Pattern`
draws signs, and the answers to many ordinary inputs bear on all of them together. Draws are numbered consecutively:
those of the choices, then the signs.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import rfc8785

from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import Array, IntArray
from wmplug.statistics.draws import DrawResult
from wmplug.tasks.base import Said, Task, column, encoded, listed
from wmplug.watermark.carriers import Form, Inputs, as_given, digest

GENERATOR = 1  # raised whenever the same key, scheme version and task would give other triggers
SIGN = (0, 1)  # options of a sign: minus and plus
UNIT = 100  # parts that one answer with scores is divided into among the options of its draw


@dataclass(frozen=True, eq=False)
class Choices:
    """A test of single answers: the key drew the secret answer of each draw among its options.

    Attributes:
        rows: (n,) rows to ask, in order; rows of one draw are neighbours.
        draw: (n,) the draw that each of these rows belongs to.
        options: the possible answers of every draw, fixed before the draw.
    """

    rows: IntArray = field(repr=False)
    draw: IntArray = field(repr=False)
    options: tuple[tuple[Any, ...], ...] = field(repr=False)

    def __post_init__(self) -> None:
        _as_numbers(self, "rows", "draw")
        if len(self.rows) != len(self.draw):
            raise InputError(f"{len(self.rows)} rows and {len(self.draw)} draws: choices need one draw for each row")
        if not len(self.draw) or not 0 <= self.draw.min() <= self.draw.max() < len(self.options):
            last = int(self.draw.max()) if len(self.draw) else None
            raise InputError(
                "a plan may only ask rows that belong to one of its draws, and at least one: choices have options for "
                f"{len(self.options)} draws and ask draw {last}"
            )
        # A draw in two places would count as two: its queries are asked, and judged, together.
        if len({int(self.draw[start]) for start in self._starts}) != len(self._starts):
            raise InputError("a plan must ask the rows of one draw one after the other")
        if any(len(set(c)) != len(c) or len(c) < 2 for c in self.options):
            raise InputError(
                "every draw needs at least two candidates, each once: an answer without a choice proves nothing"
            )

    @property
    def _starts(self) -> IntArray:
        return np.flatnonzero(np.diff(self.draw, prepend=-1))

    @cached_property
    def groups(self) -> list[IntArray]:
        """The rows, draw by draw, in the order of asking."""
        return np.split(self.rows, self._starts[1:])


@dataclass(frozen=True, eq=False)
class Pattern:
    """A test of signs: the scheme weighs the answers to ordinary inputs, all together, against signs that the key drew.

    Attributes:
        rows: (n,) rows to ask, none of a draw of choices; the most informative first.
        signs: number of signs to draw.
        natural: (n,) the natural answers of the rows, if the scheme weighs with them; empty by default.
        targets: n pairs (answer under minus, answer under plus), if each row has a sign of its own and is taught
            accordingly; empty by default.
    """

    rows: IntArray = field(repr=False)
    signs: int
    natural: Any = field(repr=False, default=None)
    targets: tuple[tuple[Any, Any], ...] = field(repr=False, default=())

    def __post_init__(self) -> None:
        _as_numbers(self, "rows")
        if self.signs < 1 or not len(self.rows):
            raise InputError(f"a pattern of {self.signs} signs and {len(self.rows)} rows to weigh: give both")
        if self.targets and not len(self.targets) == len(self.rows) == self.signs:
            raise InputError(
                f"a pattern of {len(self.rows)} rows, {self.signs} signs and {len(self.targets)} targets: give one "
                "sign and one pair of targets for each row"
            )
        if any(len(pair) != 2 or pair[0] == pair[1] for pair in self.targets):
            raise InputError("a target of a pattern needs two answers that differ: one under minus, one under plus")
        object.__setattr__(self, "natural", _natural(self.natural, len(self.rows)))


@dataclass(frozen=True, eq=False)
class Lessons:
    """The rows to teach in training.

    Attributes:
        rows: (n,) rows to teach; a row listed twice comes twice as often.
        draw: (n,) the draw of choices whose answer is taught; -1 for a row that keeps its natural answer, or that a
            pattern has targets for.
        natural: (n,) the natural answers of rows with draw -1; other places are not read.
    """

    rows: IntArray = field(repr=False, default_factory=lambda: np.zeros(0, np.int64))
    draw: IntArray = field(repr=False, default_factory=lambda: np.zeros(0, np.int64))
    natural: Any = field(repr=False, default=None)

    def __post_init__(self) -> None:
        _as_numbers(self, "rows", "draw")
        if len(self.rows) != len(self.draw):
            raise InputError(f"{len(self.rows)} rows and {len(self.draw)} draws: lessons need one draw for each row")
        object.__setattr__(self, "natural", _natural(self.natural, len(self.rows)))
        if any(d < 0 and natural is None for d, natural in zip(self.draw.tolist(), listed(self.natural), strict=True)):
            raise InputError("a lesson without a draw lacks a natural answer: give natural= for rows with draw -1")


Test: TypeAlias = Choices | Pattern


def _as_numbers(part: Choices | Pattern | Lessons, *names: str) -> None:
    """Lists of row and draw numbers become arrays."""
    for name in names:
        object.__setattr__(part, name, np.asarray(getattr(part, name), np.int64))


def _natural(answers: Any, count: int) -> Array:
    """A column of natural answers, -1 or None for none."""
    if answers is None:
        return np.full(count, -1)
    made: Array = answers if isinstance(answers, np.ndarray) else column(answers)
    if len(made) != count:
        raise InputError(f"{len(made)} natural answers for {count} rows: give one for each, or none")
    return made


def check_rows(count: int, *parts: IntArray) -> None:
    """Raise InputError unless all of these are rows of a plan with `count` inputs."""
    if any(len(rows) and not 0 <= rows.min() <= rows.max() < count for rows in parts):
        raise InputError(f"a plan may only ask and teach rows 0 to {count - 1}, its own")


@dataclass(frozen=True, eq=False)
class Plan:
    """The result of a scheme: inputs, lessons and tests, without the secret answers.

    Attributes:
        inputs: N rows, an array (N, ...) or N strings, in the space of the carriers.
        lessons: the rows to teach.
        tests: the tests of a suspect: choices, a pattern, or choices and a pattern.
        material: other arrays that the scheme made from the input key, for its own later use; secret.
    """

    inputs: Inputs = field(repr=False)
    lessons: Lessons
    tests: tuple[Test, ...]
    material: Mapping[str, npt.NDArray[Any]] = field(repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.tests, tuple):
            raise InputError(f"tests is a {type(self.tests).__name__}: give a tuple, such as (Choices(...),)")
        if [type(test) for test in self.tests] not in ([Choices], [Pattern], [Choices, Pattern]):
            raise InputError(
                f"a plan with tests {[type(test).__name__ for test in self.tests]}: give at least one, at most one "
                "Choices and one Pattern, in this order"
            )
        check_rows(len(self.inputs), self.lessons.rows, *(test.rows for test in self.tests))
        draws = 0 if self.choices is None else len(self.choices.options)
        if self.lessons.draw.max(initial=-1) >= draws:
            raise InputError(
                f"a lesson belongs to draw {self.lessons.draw.max()}, which has no candidates: number draws from 0"
            )
        if (self.draw[self.lessons.rows] != self.lessons.draw).any():
            raise InputError(
                "a row is taught under another draw than it is asked under, or under two: give each row one draw"
            )
        if self.pattern is not None and self.draw[self.pattern.rows].max() >= 0:
            raise InputError("a row of the pattern also belongs to a draw of choices: ask it in one of the two tests")

    @property
    def choices(self) -> Choices | None:
        """The test of single answers, or None."""
        return next((test for test in self.tests if isinstance(test, Choices)), None)

    @property
    def pattern(self) -> Pattern | None:
        """The test of signs, or None."""
        return next((test for test in self.tests if isinstance(test, Pattern)), None)

    @property
    def options(self) -> tuple[tuple[Any, ...], ...]:
        """The options of all draws: those of the choices, then those of the signs."""
        own = () if self.choices is None else self.choices.options
        return own + (SIGN,) * (0 if self.pattern is None else self.pattern.signs)

    @property
    def secret(self) -> IntArray:
        """The rows that are asked for an answer that the key decides: those of the choices, else those with targets."""
        if self.choices is not None:
            return self.choices.rows
        return self.pattern.rows if self.pattern is not None and self.pattern.targets else np.zeros(0, np.int64)

    @cached_property
    def draw(self) -> IntArray:
        """(N,) the draw of choices that each row belongs to, -1 for none."""
        draw = np.full(len(self.inputs), -1)
        draw[self.lessons.rows] = self.lessons.draw
        if self.choices is not None:
            draw[self.choices.rows] = self.choices.draw
        return draw

    @cached_property
    def natural(self) -> Array:
        """(N,) the natural answer of each row, if a test or lesson has one."""
        found: list[Any] = [None] * len(self.inputs)
        for part in (self.pattern, self.lessons):
            for row, answer in () if part is None else zip(part.rows.tolist(), listed(part.natural), strict=True):
                found[row] = answer
        return column(found)


@dataclass(frozen=True, eq=False)
class TriggerSet:
    """A plan and the answers that the label key drew for it; secret.

    Attributes:
        plan: inputs, lessons and tests.
        form: the form in which a suspect gets a row.
        task: the answer space.
        symbols: (draws,) position of each secret answer among its options.
    """

    plan: Plan
    form: Form
    task: Task
    symbols: IntArray = field(repr=False)

    def __len__(self) -> int:
        """Number of queries an exhaustive verification asks."""
        return sum(len(test.rows) for test in self.plan.tests)

    @cached_property
    def answers(self) -> Array:
        """(N,) answer of every row: the secret one of a trigger, the natural one of a negative; see `column`."""
        secret = [options[symbol] for options, symbol in zip(self.plan.options, self.symbols.tolist(), strict=True)]
        rows = zip(self.plan.draw.tolist(), listed(self.plan.natural), strict=True)
        found = [natural if draw < 0 else secret[draw] for draw, natural in rows]
        if self.plan.pattern is not None and (targets := self.plan.pattern.targets):
            for row, pair, sign in zip(self.plan.pattern.rows.tolist(), targets, self.signs.tolist(), strict=True):
                found[row] = pair[sign > 0]
        return column(found)

    @property
    def groups(self) -> list[IntArray]:
        """The rows of the choices, draw by draw, in the order of asking."""
        return [] if self.plan.choices is None else self.plan.choices.groups

    @property
    def signs(self) -> IntArray:
        """(signs,) -1 or +1, as the label key drew them."""
        count = 0 if self.plan.pattern is None else self.plan.pattern.signs
        return 2 * self.symbols[len(self.symbols) - count :] - 1

    @property
    def first(self) -> Any:
        """The first input to ask a suspect."""
        return self.row(int(self.plan.tests[0].rows[0]))

    def row(self, index: int) -> Any:
        """A copy of one input, in the form in which the owner gave carriers: an array, a PIL picture or a string."""
        return as_given(self.plan.inputs[index], self.form)

    def samples(self, most: int) -> list[Any]:
        """The first inputs to teach, or else to weigh or ask; they show how a model receives inputs."""
        parts = [self.plan.lessons, *reversed(self.plan.tests)]
        rows = next(part.rows for part in parts if len(part.rows))
        return [self.row(int(row)) for row in rows[:most]]

    def only(self, rows: Collection[int]) -> "TriggerSet":
        """The same triggers, asking only the draws that have all their rows among `rows`.

        A row is never left out alone, because its answer is that of its whole draw. The rows of a pattern stay, because
        asking them reveals no secret.

        Raises:
            InputError: the rows are no whole numbers, or no draw is left.
        """
        given = np.asarray(list(rows))
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise InputError(f"rows= are {given.dtype} {given.shape}: give row numbers such as [0, 2], not a mask")
        wanted = set(given.tolist())
        kept = [row for group in self.groups if wanted.issuperset(group.tolist()) for row in group.tolist()]
        if not kept:
            raise InputError(f"no draw is left to ask among {len(wanted)} rows: make a watermark with more triggers")
        asked = np.array(kept, np.int64)
        tests = tuple(
            replace(test, rows=asked, draw=self.plan.draw[asked]) if isinstance(test, Choices) else test
            for test in self.plan.tests
        )
        return replace(self, plan=replace(self.plan, tests=tests))

    def missed(self, rows: Collection[int]) -> dict[int, Said]:
        """The rows of all draws that have one of these rows, each with an answer that is not the secret one."""
        groups = [group.tolist() for group in self.groups if not set(group.tolist()).isdisjoint(rows)]
        wrong = {}
        for row in (row for group in groups for row in group):
            draw = self.plan.draw[row]
            options = self.plan.options[draw]
            wrong[row] = Said(options[(int(self.symbols[draw]) + 1) % len(options)])
        return wrong

    def count(self, group: IntArray, said: Sequence[Said | None]) -> DrawResult:
        """Count the answers to the rows of one draw by candidate; None is a failed query."""
        draw = int(self.plan.draw[group[0]])
        options = self.plan.options[draw]
        counts = [0] * len(options)
        for one in said:
            if one is not None and (picked := self.task.picked(one, options)) is not None:
                counts[picked] += 1
        return DrawResult(int(self.symbols[draw]), tuple(counts))

    def weigh(self, group: IntArray, said: Sequence[Said | None]) -> DrawResult:
        """Weigh the answers to the rows of one draw by how strongly their scores speak for each candidate.

        An answer without scores counts whole for its candidate, as in `count`. What all candidates share cancels out.
        """
        draw = int(self.plan.draw[group[0]])
        options = self.plan.options[draw]
        weights = np.zeros(len(options), np.int64)
        for one in said:
            if one is None:
                continue
            if (favour := self.task.favour(one, options)) is not None:
                weights += np.rint(UNIT * favour).astype(np.int64)
            elif (picked := self.task.picked(one, options)) is not None:
                weights[picked] += UNIT
        return DrawResult(int(self.symbols[draw]), tuple((weights - weights.min()).tolist()), UNIT)

    def leaves(self, watermark: str, disclosure: KeyStream) -> list[dict[str, Any]]:
        """The leaves of the Merkle tree, one for each row with its answer; a salt prevents guesses of a leaf."""
        return [
            {
                "version": 1,
                "watermark": watermark,
                "i": i,
                "n": len(self.answers),
                "x_sha256": digest(self.plan.inputs[i]),
                "y": -1 if answer is None else answer,
                "salt": disclosure.bytes(16).hex(),
            }
            for i, answer in enumerate(encoded(self.task, self.answers))
        ]

    def root(self, watermark: str, disclosure: KeyStream) -> str:
        """Merkle root over all leaves, in hex."""
        return merkle.root([hash_leaf(leaf) for leaf in self.leaves(watermark, disclosure)]).hex()


def hash_leaf(leaf: Mapping[str, Any]) -> bytes:
    """The leaf hash (32 bytes) of one of `TriggerSet.leaves`."""
    return merkle.leaf_hash(rfc8785.dumps(dict(leaf)))


def draw_symbols(label: KeyStream, options: Sequence[Sequence[Any]]) -> IntArray:
    """(draws,) one uniform position for every draw, by rejection sampling from the label key's stream."""
    return np.array([int(label.below(len(c), 1)[0]) for c in options], np.int64)
