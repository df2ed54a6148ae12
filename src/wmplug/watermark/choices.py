"""The choices that an owner has around the key, and what binds each one.

The key draws the answers, so luck has an exact probability. It stays exact only if nothing else about the test depends
on the suspect's answers. So each input of a claim that an owner could choose is committed before the suspect is asked,
drawn by randomness that the owner does not control, or paid for: a factor divides the e-value and multiplies the
p-value. A verdict names every other one after its state, and a notary's case does not hold on it. docs/claim.md is the
table for readers.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from wmplug.errors import StatisticsError
from wmplug.watermark.plan import TriggerSet

Bound = Literal["committed", "drawn", "fixed", "paid"]

UNBOUND: Mapping[str, str] = {
    "preprocess": "preprocess NOT COMMITTED",
    "questions": "questions NOT COMMITTED",
    "log": "log AS KEPT",
    "customer": "customer NOT COUNTED",
    "references": "references NOT COMMITTED",
    "features": "features NOT COMMITTED",
    "rows": "rows NOT COMMITTED",
    "limit": "number of questions NOT COMMITTED",
    "answers": "answers AS GIVEN",
    "target": "target LOWERED",
    "tries": "tries NOT COUNTED",
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One input of a claim that its owner could choose.

    Attributes:
        what: one of the names in `UNBOUND`.
        bound: `committed` by the owner before, `drawn` by nonces, `fixed` by a notary before the draw, or `paid` for;
            None if nothing binds it.
        sha256: digest of the chosen thing, hex; empty for a number, or without a register.
        tries: number of selections that it counts as; 1 where there was nothing to select from.
        note: more for the reader: the number, or the time by which it was committed.

    Raises:
        StatisticsError: the name, the binding or the number is none of these.
    """

    what: str
    bound: Bound | None
    sha256: str = ""
    tries: int = 1
    note: str = ""

    def __post_init__(self) -> None:
        texts = (self.what, self.sha256, self.note)
        if self.what not in UNBOUND or self.bound not in (None, *get_args(Bound)) or not all(map(_is_text, texts)):
            raise StatisticsError(f"{self.what!r} bound by {self.bound!r}: name a choice, and what binds it")
        if type(self.tries) is not int or self.tries < 1 or (self.tries > 1 and self.bound is None):
            raise StatisticsError(f"{self.what} has {self.tries!r} tries: count from 1, and only what is bound")

    def __str__(self) -> str:
        """As the state line of a verdict names it."""
        name = UNBOUND[self.what] if self.bound is None else f"{self.what} {self.bound}"
        counted = f", {self.tries} tries" if self.tries > 1 else ""
        return f"{name}{f' {self.note}' if self.note else ''}{counted}"


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def unbound(choices: Iterable[Choice]) -> list[str]:
    """The choices that nothing binds, in words."""
    return [str(choice) for choice in choices if choice.bound is None]


def named(choices: Iterable[Choice]) -> str:
    """The end of a verdict's state line: what nothing binds, and by when a dated choice was committed."""
    return "".join(f"; {choice}" for choice in choices if choice.bound is None or choice.note)


def paid(choices: Iterable[Choice]) -> int:
    """The number of tries that these choices count as, together."""
    return math.prod(choice.tries for choice in choices)


class Watch(Protocol):
    """A preprocess function under watch: the suspect must be given what was committed to."""

    def __call__(self, value: Any, answer: Any) -> Any:
        """The example that the function makes."""

    def choice(self) -> Choice:
        """What the examples so far say about the function."""


class Record(Protocol):
    """The owner's register, as far as a verdict depends on it."""

    def past(self, watermark: str) -> tuple[int, frozenset[int]]:
        """What it tells about a watermark, by its public id.

        Returns:
            Number of secrets that it commits to: each is a key that could have been tried. And the rows whose answers
            it shows to everybody: they count as misses.

        Raises:
            RegisterError: it cannot be read.
        """

    def logged(self, queries: str) -> Choice:
        """Whether the log with this digest was committed to, by a time that an authority attests."""

    def watch(self, watermark: str, triggers: TriggerSet, preprocess: Callable[[Any, Any], Any]) -> Watch:
        """A watch over the preprocess function of a watermark, by its public id."""
