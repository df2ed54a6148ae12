"""Does a suspect data set hold records of the owner's, and whose copy are they from?

That records are there is a finding, not a proof: others may have collected the same. What the key decided of a record
is one: the label that was published with it, or which of two versions of it. The null of every probability here is that
the suspect data are independent of the label key; one-sided, matches beyond chance; exact, by `draws.log10_p`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from wmplug.dataset.likeness import BLOCK, Likeness, Match, digest, similarity
from wmplug.dataset.records import Record, Source
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError
from wmplug.statistics import combination, draws
from wmplug.statistics.draws import DrawResult
from wmplug.watermark.carriers import read_whole
from wmplug.watermark.plan import TriggerPlan
from wmplug.watermark.watermark import Watermark

Progress: TypeAlias = "Callable[[int, int | None], object]"
Marks: TypeAlias = "Watermark | Sequence[Watermark] | Mapping[str, Watermark]"


@dataclass(frozen=True)
class Held:
    """What of one watermark the data hold.

    Attributes:
        name: of the licensee or copy, else the watermark's id.
        watermark: its public id.
        of: records that the key decided something of.
        exact: how many of these are there unchanged (in one of their versions).
        near: how many only as near-duplicates.
        draws: records whose label or version could be told.
        matches: with how many of these the data have what the key drew.
        log10_p: log10 of the chance of so many under the null, exact.
    """

    name: str
    watermark: str
    of: int
    exact: int
    near: int
    draws: int
    matches: int
    log10_p: float


@dataclass(frozen=True)
class Found:
    """What a suspect data set holds.

    Attributes:
        records: read from the suspect.
        of: different records of the owner's that were looked for: those of `own`, 0 without it.
        exact: how many of these are there unchanged.
        near: how many only as near-duplicates.
        examples: names of some of the suspect's records that are the owner's.
        held: watermark by watermark.
        chosen: names of the suspect's records that are the watermarks' own; empty unless the owner asked to have them
            revealed. Secret.
    """

    records: int
    of: int
    exact: int
    near: int
    examples: tuple[str, ...]
    held: tuple[Held, ...]
    chosen: tuple[str, ...] = field(default=(), repr=False)

    def sources(self, alpha: float = 1e-3) -> tuple[str, ...]:
        """Names of the copies that the data come from, with a chance of at most alpha to name a wrong one (Holm 1979).

        Raises:
            StatisticsError: alpha is not in (0, 1).
        """
        accused = combination.holm([one.log10_p for one in self.held], alpha)
        return tuple(one.name for one, named in zip(self.held, accused, strict=True) if named)

    def to_json(self) -> dict[str, Any]:
        """All of it but what was revealed."""
        return {name: value for name, value in asdict(self).items() if name != "chosen"}

    def __str__(self) -> str:
        lines = [f"{self.records} records read"]
        if self.of:
            some = f", such as {', '.join(self.examples)}" if self.examples else ""
            lines.append(f"{self.exact} of your {self.of} are there unchanged, {self.near} nearly{some}")
        for one in self.held:
            lines.append(
                f"{one.name}: {one.exact} of {one.of} marked records are there unchanged, {one.near} nearly; "
                f"{one.matches} of {one.draws} as the key drew them, log10 p = {one.log10_p:.1f}"
            )
        return "\n".join(lines)


def find(
    marks: Marks,
    data: Any,
    *,
    own: Any = None,
    text: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    near: bool = True,
    examples: int = 5,
    reveal: bool = False,
    progress: Progress | None = None,
) -> Found:
    """Look for the owner's records in a data set, in one pass over it.

    The records that the watermarks chose are looked for, and of each that is there, what the key decided of it: its
    label, or its version. Names of records are told of `own` alone, in which those that carry the mark are hidden among
    all others, unless the owner asks.

    Args:
        marks: one watermark or several (the copies of one set), by the names of licensees where these are given.
        data: whatever `open_source` opens, or a `Source`.
        own: the owner's whole set, to count how much of it is there.
        text: column of the data, as in `open_source`.
        label: the same.
        columns: the same.
        classes: names of the owner's classes in the order of their numbers; needed where the data name their classes
            otherwise or have them in another order.
        near: look for near-duplicates too (extra `dataset`).
        examples: most names to give.
        reveal: name the records that carry a mark.
        progress: called with the number of records read and their total (None where nobody knows) now and then.

    Raises:
        InputError: no watermark, nothing that can be looked for, or data that cannot be read.
    """
    named, source = _named(marks), _opened(data, text=text, label=label, columns=columns, classes=classes)
    of_marks, theirs = {mark.classes for mark in named.values()}, source.classes
    numbers = tuple(map(str, range(len(theirs))))  # say themselves which class they are
    if classes is None and theirs != numbers and of_marks != {len(theirs)}:
        raise InputError(
            f"the data have {len(theirs)} classes ({', '.join(theirs[:8])}), and the marked set has "
            f"{' or '.join(map(str, sorted(of_marks)))}: give all names in the order in which its manifest has them "
            "(classes=, --classes)"
        )
    examples = read_whole(examples, "examples", 0, 10**6, "a number of names, 5 is usual")
    whole: Likeness[int] = Likeness(near=near)
    for record in () if own is None else _opened(own).records():
        whole.add(record.index, record.input)
    return search(named, source.records(progress), whole=whole, near=near, examples=examples, reveal=reveal)


def search(
    marks: Mapping[str, Watermark],
    records: Iterable[Record],
    *,
    whole: Likeness[int],
    near: bool = True,
    examples: int = 5,
    reveal: bool = False,
) -> Found:
    """As `find`, in records as they come.

    Args:
        marks: by name.
        records: of the suspect; their labels are the owner's.
        whole: the owner's set; may be empty.
        near: as in `find`.
        examples: as in `find`.
        reveal: as in `find`.
    """
    searched = [_Searched(name, mark) for name, mark in marks.items()]
    marked: Likeness[bytes] = Likeness(near=near)
    for one in searched:
        for key, value in one.inputs():
            marked.add(key, value)
    held_of_own: dict[int, str] = {}
    names: list[str] = []
    chosen: list[str] = []
    count = 0
    for block in _blocks(records):
        count += len(block)
        inputs = [record.input for record in block]
        for record, mine, theirs in zip(block, whole.find(inputs), marked.find(inputs), strict=True):
            if mine is not None:
                _note(held_of_own, mine.own, mine.how)
                names += [record.name][: examples - len(names)]
            if theirs is not None:
                chosen.append(record.name)
                for one in searched:
                    one.take(record, theirs)
    exact = sum(how == "exact" for how in held_of_own.values())
    near_ones = len(held_of_own) - exact
    held = tuple(one.held() for one in searched)
    return Found(count, len(whole), exact, near_ones, tuple(names), held, tuple(chosen) if reveal else ())


@dataclass(frozen=True)
class Choice:
    """What one draw decided about one record.

    Attributes:
        draw: its number in the plan.
        options: for every candidate the row of the plan that is published under it, and the label, if it decides that.
    """

    draw: int
    options: tuple[tuple[int, int | None], ...]


def choices(plan: TriggerPlan) -> list[Choice]:
    """What the draws of a plan decide about the records that are published.

    A draw that rows are asked for decides the label of the first of these. Of signs that weigh two rows each, the i-th
    decides between the i-th pair, minus first: two versions of a record. Other signs decide nothing about single
    records.
    """
    found = []
    rows, first = plan.asked.tolist(), len(plan.candidates) - plan.signs
    for draw, row in {int(plan.draw[row]): row for row in reversed(rows)}.items():
        found.append(Choice(draw, tuple((row, label) for label in plan.candidates[draw])))
    if len(plan.weighed) == 2 * plan.signs:
        for i, (minus, plus) in enumerate(plan.weighed.reshape(-1, 2).tolist()):
            found.append(Choice(first + i, ((minus, None), (plus, None))))
    return found


class _Searched:
    """One watermark: which of its records were found, and with what."""

    def __init__(self, name: str, mark: Watermark) -> None:
        self.name, self.mark = name, mark
        made = choices(mark.triggers.plan)
        self._of = len(made)
        self._by_row = {row: choice for choice in made for row, _ in choice.options}
        self._row_of = {digest(mark.triggers.row(row)): row for row in self._by_row}
        self._how: dict[int, str] = {}
        self._counts: dict[int, list[int]] = {}
        if not made:
            raise InputError(
                f"watermark {mark.id} (scheme {mark.scheme.name!r}) decides nothing about single records, so none can "
                "be looked for: give the mark of a data set"
            )

    def inputs(self) -> Iterator[tuple[bytes, Any]]:
        """The records to look for, each with its digest."""
        for key, row in self._row_of.items():
            yield key, self.mark.triggers.row(row)

    def take(self, record: Record, match: Match[bytes]) -> None:
        """One of the suspect's records that is like one of the owner's."""
        row = self._row_of.get(match.own)
        if row is None:
            return  # another watermark's
        choice = self._by_row[row]
        _note(self._how, choice.draw, match.how)
        if match.how == "near":
            row = self._nearest(choice, record.input)
        for candidate, option in enumerate(choice.options):
            if option in ((row, None), (row, record.label)):
                counts = self._counts.setdefault(choice.draw, [0] * len(choice.options))
                counts[candidate] += 1

    def _nearest(self, choice: Choice, value: Any) -> int | None:
        """The version that an altered record came from; None where that cannot be told."""
        rows = sorted({row for row, _ in choice.options})
        alike = [similarity(value, self.mark.triggers.row(row)) for row in rows]
        return rows[alike.index(max(alike))] if len(rows) == 1 or len(set(alike)) > 1 else None

    def held(self) -> Held:
        """What was found, against what the key drew."""
        symbols = self.mark.triggers.symbols
        results = [DrawResult(int(symbols[draw]), tuple(counts)) for draw, counts in self._counts.items()]
        exact = sum(how == "exact" for how in self._how.values())
        return Held(
            name=self.name,
            watermark=self.mark.id,
            of=self._of,
            exact=exact,
            near=len(self._how) - exact,
            draws=len(results),
            matches=sum(2 * result.matches > result.in_set for result in results),
            log10_p=draws.log10_p(results),
        )


def _note(how: dict[int, str], own: int, found: str) -> None:
    if how.get(own) != "exact":
        how[own] = found


def _blocks(records: Iterable[Record]) -> Iterator[list[Record]]:
    block: list[Record] = []
    for record in records:
        block.append(record)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def _named(marks: Marks) -> dict[str, Watermark]:
    if isinstance(marks, Watermark):
        marks = [marks]
    named = dict(marks) if isinstance(marks, Mapping) else {getattr(mark, "id", ""): mark for mark in marks}
    if not named or not all(isinstance(mark, Watermark) for mark in named.values()):
        raise InputError("find() needs the watermark of a data set, or several: give those that mark() or load() gave")
    return named


def _opened(data: Any, **options: Any) -> Source:
    return data if callable(getattr(data, "records", None)) else open_source(data, **options)
