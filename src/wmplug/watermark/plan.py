"""Trigger sets: what is put into training, what is asked of a suspect, and the secret answers.

A scheme makes a `TriggerPlan` from the input key alone. The answers are drawn here, by the label key, from the
candidates the plan fixed before: a scheme cannot make them depend on anything, which is what the null rests on.

A draw is either an answer to inputs of its own (`asked`), or a sign: one bit of a pattern on which the answers to many
ordinary inputs (`weighed`) bear together.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import rfc8785

from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import IntArray
from wmplug.statistics.draws import DrawResult
from wmplug.watermark.carriers import Form, Inputs, as_given, digest

SIGN = (0, 1)  # candidates of a sign: minus and plus


@dataclass(frozen=True, eq=False)
class TriggerPlan:
    """Triggers without their answers: what a scheme returns.

    Attributes:
        inputs: N rows, an array (N, ...) or N strings, in the space of the carriers.
        draw: (N,) which draw a row belongs to; -1 for a negative, which keeps its natural label.
        labels: (N,) natural label of a negative; not read elsewhere.
        candidates: for every draw the classes its answer may be, fixed before the draw.
        asked: rows a suspect is asked, in order; rows of one draw are neighbours.
        taught: rows that are put into training; one that is listed twice comes twice as often.
        weighed: ordinary rows, of no draw, whose answers the scheme weighs together; the first ones say most.
        signs: the last so many draws are signs, of two candidates each, which no row is asked for.
        material: what the scheme made from the input key beside inputs, for its `shift`, `term` and `weigh`; secret.
    """

    inputs: Inputs = field(repr=False)
    draw: IntArray = field(repr=False)
    labels: IntArray = field(repr=False)
    candidates: tuple[tuple[int, ...], ...] = field(repr=False)
    asked: IntArray = field(repr=False)
    taught: IntArray = field(repr=False)
    weighed: IntArray = field(repr=False, default_factory=lambda: np.zeros(0, np.int64))
    signs: int = 0
    material: Mapping[str, npt.NDArray[Any]] = field(repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.inputs)
        if not count == len(self.draw) == len(self.labels):
            raise InputError("a trigger plan needs one draw and one label for each of its inputs")
        parts = (self.asked, self.taught, self.weighed)
        if any(len(rows) and not 0 <= rows.min() <= rows.max() < count for rows in parts):
            raise InputError(f"a trigger plan may only ask and teach rows 0 to {count - 1}, its own")
        if self.draw.max() >= len(self.candidates) - self.signs:
            raise InputError(f"a row of the trigger plan belongs to draw {self.draw.max()}, which has no candidates")
        self._check_signs()
        owners = self.draw[self.asked]
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        if not (len(owners) or self.signs) or (len(owners) and owners.min() < 0):
            raise InputError("a trigger plan may only ask rows that belong to one of its draws, and at least one")
        # A draw looked at in two places would be counted as two: its queries are asked, and judged, together.
        if len(set(owners[starts].tolist())) != len(starts):
            raise InputError("a trigger plan must ask the rows of one draw one after the other")
        if any(len(set(c)) != len(c) or len(c) < 2 for c in self.candidates):
            raise InputError(
                "every draw needs at least two candidates, each once: an answer without a choice proves nothing"
            )

    def _check_signs(self) -> None:
        if bool(self.signs) != bool(len(self.weighed)) or not 0 <= self.signs <= len(self.candidates):
            raise InputError(f"a trigger plan with {self.signs} signs and {len(self.weighed)} rows to weigh: give both")
        if any(tuple(c) != SIGN for c in self.candidates[len(self.candidates) - self.signs :]):
            raise InputError(f"the candidates of a sign are {SIGN}")
        if len(self.weighed) and self.draw[self.weighed].max() >= 0:
            raise InputError("a row that is weighed belongs to no draw: its answer bears on all signs")


@dataclass(frozen=True, eq=False)
class TriggerSet:
    """A plan and the answers that the label key drew for it; secret.

    Attributes:
        plan: inputs, draws and candidates.
        form: what a row is handed out as.
        symbols: (draws,) position of each secret answer among its candidates.
    """

    plan: TriggerPlan
    form: Form
    symbols: IntArray = field(repr=False)

    def __len__(self) -> int:
        """Number of queries an exhaustive verification asks."""
        return len(self.plan.asked) + len(self.plan.weighed)

    @cached_property
    def answers(self) -> IntArray:
        """(N,) label of every row: the secret answer of a trigger, the natural label of a negative."""
        secret = np.array([c[s] for c, s in zip(self.plan.candidates, self.symbols, strict=True)] + [-1])
        return np.where(self.plan.draw >= 0, secret[self.plan.draw], self.plan.labels)

    @cached_property
    def groups(self) -> list[IntArray]:
        """The asked rows, draw by draw, in the order of asking."""
        owners = self.plan.draw[self.plan.asked]
        return np.split(self.plan.asked, np.flatnonzero(np.diff(owners)) + 1) if len(owners) else []

    @property
    def signs(self) -> IntArray:
        """(signs,) -1 or +1, as the label key drew them."""
        return 2 * self.symbols[len(self.symbols) - self.plan.signs :] - 1

    @property
    def first(self) -> Any:
        """The input that a suspect is asked first."""
        return self.row(int(np.concatenate([self.plan.asked, self.plan.weighed])[0]))

    def row(self, index: int) -> Any:
        """One input as the owner gave carriers: an array, a PIL picture or a string; a copy, whatever is done to it."""
        return as_given(self.plan.inputs[index], self.form)

    def samples(self, most: int) -> list[Any]:
        """The first inputs that are taught, or else weighed or asked; to see how a model is given them."""
        plan = self.plan
        rows = next(part for part in (plan.taught, plan.weighed, plan.asked) if len(part))
        return [self.row(int(row)) for row in rows[:most]]

    def only(self, rows: Collection[int]) -> "TriggerSet":
        """The same triggers, of which the draws are asked that have all their asked rows among `rows`.

        A row is never left out alone: its answer is that of its whole draw. Rows that are weighed stay: asking them
        gives nothing away.
        """
        wanted = set(rows)
        kept = [row for group in self.groups if wanted.issuperset(group.tolist()) for row in group.tolist()]
        if not kept:
            raise InputError(f"no draw is left to ask among {len(wanted)} rows: make a watermark with more triggers")
        return replace(self, plan=replace(self.plan, asked=np.array(kept, np.int64)))

    def count(self, group: IntArray, answers: Sequence[int | None]) -> DrawResult:
        """What the answers to the rows of one draw say; None is a failed query."""
        draw = int(self.plan.draw[group[0]])
        candidates = self.plan.candidates[draw]
        counts = [0] * len(candidates)
        for answer in answers:
            if answer is not None and answer in candidates:
                counts[candidates.index(answer)] += 1
        return DrawResult(int(self.symbols[draw]), tuple(counts))

    def leaves(self, watermark: str, disclosure: KeyStream) -> list[dict[str, Any]]:
        """What the Merkle tree is over: all rows and answers; the salts keep a leaf from being guessed."""
        return [
            {
                "version": 1,
                "watermark": watermark,
                "i": i,
                "n": len(self.answers),
                "x_sha256": digest(self.plan.inputs[i]),
                "y": int(answer),
                "salt": disclosure.bytes(16).hex(),
            }
            for i, answer in enumerate(self.answers)
        ]

    def root(self, watermark: str, disclosure: KeyStream) -> str:
        """Merkle root over all leaves, in hex."""
        return merkle.root([hash_leaf(leaf) for leaf in self.leaves(watermark, disclosure)]).hex()


def hash_leaf(leaf: Mapping[str, Any]) -> bytes:
    """The leaf hash (32 bytes) of one of `TriggerSet.leaves`."""
    return merkle.leaf_hash(rfc8785.dumps(dict(leaf)))


def draw_symbols(label: KeyStream, candidates: Sequence[Sequence[int]]) -> IntArray:
    """(draws,) one uniform position for every draw, by rejection sampling from the label key's stream."""
    return np.array([int(label.below(len(c), 1)[0]) for c in candidates], np.int64)
