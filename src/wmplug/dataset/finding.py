"""The search for the owner's records in a suspect data set, and for the copy that they come from.

Matching records are a finding, not a proof: others may have collected the same ones. The key's decisions about them are
a proof: which label was published with a record, or which of its two versions. The null of every probability here is
that the suspect data are independent of the label key; one-sided, matches beyond chance; exact, by `draws.log10_p`.
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
from wmplug.statistics.arrays import read_whole
from wmplug.statistics.draws import DrawResult
from wmplug.tasks.classes import count_of
from wmplug.watermark.plan import Plan
from wmplug.watermark.watermark import Watermark

Progress: TypeAlias = "Callable[[int, int | None], object]"
Marks: TypeAlias = "Watermark | Sequence[Watermark] | Mapping[str, Watermark]"


@dataclass(frozen=True)
class Holding:
    """One watermark's records in the data.

    Attributes:
        name: the licensee or copy, else the watermark's id.
        watermark: its public id.
        of: number of records that the key made a decision about.
        exact: how many of these the data hold unchanged (in one of their versions).
        near: how many they hold only as near-duplicates.
        draws: number of records whose label or version could be determined.
        matches: how many of these agree with what the key drew.
        log10_p: log10 of the chance of so many matches under the null, exact.
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
class Findings:
    """The owner's records in a suspect data set.

    Attributes:
        records: number of records read from the suspect.
        of: number of different records of `own` that were looked for; 0 without it.
        exact: how many of these the suspect holds unchanged.
        near: how many it holds only as near-duplicates.
        examples: names of some of the suspect's records that are the owner's.
        held: one entry for each watermark.
        chosen: names of the suspect's records that carry a watermark; empty unless the owner asked to reveal them.
            Secret.
    """

    records: int
    of: int
    exact: int
    near: int
    examples: tuple[str, ...]
    held: tuple[Holding, ...]
    chosen: tuple[str, ...] = field(default=(), repr=False)

    def sources(self, alpha: float = 1e-3) -> tuple[str, ...]:
        """Names of the copies that the data come from; the chance of a wrong name is at most alpha (Holm 1979).

        Raises:
            StatisticsError: alpha is not in (0, 1).
        """
        accused = combination.holm([holding.log10_p for holding in self.held], alpha)
        return tuple(holding.name for holding, named in zip(self.held, accused, strict=True) if named)

    def to_json(self) -> dict[str, Any]:
        """All fields but the revealed names."""
        return {name: value for name, value in asdict(self).items() if name != "chosen"}

    def __str__(self) -> str:
        lines = [f"{self.records} records read"]
        if self.of:
            some = f", such as {', '.join(self.examples)}" if self.examples else ""
            lines.append(f"{self.exact} of your {self.of} are there unchanged, {self.near} nearly{some}")
        for holding in self.held:
            lines.append(
                f"{holding.name}: {holding.exact} of {holding.of} marked records are there unchanged, "
                f"{holding.near} nearly; {holding.matches} of {holding.draws} as the key drew them, "
                f"log10 p = {holding.log10_p:.1f}"
            )
        return "\n".join(line.replace("\n", " ") for line in lines)  # others chose the names


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
) -> Findings:
    """Look for the owner's records in a data set, in one pass over it.

    It looks for the records that the watermarks chose, and reads from each one found what the key decided: its label,
    or its version. It names records of `own` alone, which hides those that carry the mark among all others, unless the
    owner asks for them.

    Args:
        marks: one watermark or several (the copies of one set); a mapping names the licensees.
        data: anything that `open_source` opens, or a `Source`.
        own: the owner's whole set, to count how much of it the data hold.
        text: column of the data, as in `open_source`.
        label: the same.
        columns: the same.
        classes: names of the owner's classes in the order of their numbers; needed where the data use other names or
            another order.
        near: look for near-duplicates too (extra `dataset`).
        examples: largest number of names to return.
        reveal: name the records that carry a mark.
        progress: called now and then with the number of records read and their total (None where it is unknown).

    Raises:
        InputError: no watermark, none that marks single records, or data that cannot be read.
    """
    named, source = _named(marks), _opened(data, text=text, label=label, columns=columns, classes=classes)
    of_marks, theirs = {count_of(mark.task, "find()") for mark in named.values()}, source.classes
    numbers = tuple(map(str, range(len(theirs))))  # such names are the class numbers themselves
    if classes is None and theirs != numbers and of_marks != {len(theirs)}:
        raise InputError(
            f"the data have {len(theirs)} classes ({', '.join(theirs[:8])}), and the marked set has "
            f"{' or '.join(map(str, sorted(of_marks)))}: give all names in the order of its manifest "
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
) -> Findings:
    """Do the same as `find`, in a stream of records.

    Args:
        marks: the watermarks by name.
        records: the suspect's records, with the owner's class numbers for labels.
        whole: the owner's set; may be empty.
        near: as in `find`.
        examples: as in `find`.
        reveal: as in `find`.
    """
    searches = [_Search(name, mark) for name, mark in marks.items()]
    marked: Likeness[bytes] = Likeness(near=near)
    for part in searches:
        for key, value in part.inputs():
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
                for part in searches:
                    part.take(record, theirs)
    exact = sum(how == "exact" for how in held_of_own.values())
    near_ones = len(held_of_own) - exact
    held = tuple(part.holding() for part in searches)
    return Findings(count, len(whole), exact, near_ones, tuple(names), held, tuple(chosen) if reveal else ())


@dataclass(frozen=True)
class Choice:
    """The options of one draw for one record.

    Attributes:
        draw: its number in the plan.
        options: for every candidate the row of the plan that is published under it, and the label if the draw decides
            the label.
    """

    draw: int
    options: tuple[tuple[int, int | None], ...]


def choices(plan: Plan) -> list[Choice]:
    """The decisions of a plan's draws about published records.

    A draw of choices decides the label of the first row that it asks. If the signs weigh two rows each, the i-th sign
    decides between the two rows of the i-th pair, minus first: these are two versions of a record. Other signs decide
    nothing about single records.
    """
    result = []
    if (test := plan.choices) is not None:
        rows = zip(reversed(test.draw.tolist()), reversed(test.rows.tolist()), strict=True)
        for draw, row in dict(rows).items():
            result.append(Choice(draw, tuple((row, label) for label in test.options[draw])))
    if (pattern := plan.pattern) is not None and len(pattern.rows) == 2 * pattern.signs:
        first = len(plan.options) - pattern.signs
        for i, (minus, plus) in enumerate(pattern.rows.reshape(-1, 2).tolist()):
            result.append(Choice(first + i, ((minus, None), (plus, None))))
    return result


class _Search:
    """The search for one watermark's records, and its state."""

    def __init__(self, name: str, mark: Watermark) -> None:
        self.name, self.mark = name, mark
        decisions = choices(mark.triggers.plan)
        self._of = len(decisions)
        self._by_row = {row: choice for choice in decisions for row, _ in choice.options}
        self._row_of = {digest(mark.triggers.row(row)): row for row in self._by_row}
        self._how: dict[int, str] = {}
        self._counts: dict[int, list[int]] = {}
        if not decisions:
            raise InputError(
                f"watermark {mark.id} (scheme {mark.scheme.name!r}) decides nothing about single records, so find() "
                "cannot look for any: give the mark of a data set"
            )

    def inputs(self) -> Iterator[tuple[bytes, Any]]:
        """Pairs of digest and record, for all records to look for."""
        for key, row in self._row_of.items():
            yield key, self.mark.triggers.row(row)

    def take(self, record: Record, match: Match[bytes]) -> None:
        """Count one of the suspect's records that matches one of the owner's."""
        row = self._row_of.get(match.own)
        if row is None:
            return  # a record of another watermark
        choice = self._by_row[row]
        _note(self._how, choice.draw, match.how)
        if match.how == "near":
            row = self._nearest(choice, record.input)
        for candidate, option in enumerate(choice.options):
            if option in ((row, None), (row, record.label)):
                counts = self._counts.setdefault(choice.draw, [0] * len(choice.options))
                counts[candidate] += 1

    def _nearest(self, choice: Choice, value: Any) -> int | None:
        """The version that an altered record came from; None where it could be either."""
        rows = sorted({row for row, _ in choice.options})
        alike = [similarity(value, self.mark.triggers.row(row)) for row in rows]
        return rows[alike.index(max(alike))] if len(rows) == 1 or len(set(alike)) > 1 else None

    def holding(self) -> Holding:
        """The count of records, and the test of their labels or versions against the key's draws."""
        symbols = self.mark.triggers.symbols
        results = [DrawResult(int(symbols[draw]), tuple(counts)) for draw, counts in self._counts.items()]
        exact = sum(how == "exact" for how in self._how.values())
        return Holding(
            name=self.name,
            watermark=self.mark.id,
            of=self._of,
            exact=exact,
            near=len(self._how) - exact,
            draws=len(results),
            matches=sum(2 * result.matches > result.in_set for result in results),
            log10_p=draws.log10_p(results),
        )


def _note(how: dict[int, str], own: int, match: str) -> None:
    if how.get(own) != "exact":
        how[own] = match


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
        raise InputError("find() needs the watermark of a data set, or several: pass what mark() or load() returned")
    return named


def _opened(data: Any, **options: Any) -> Source:
    return data if callable(getattr(data, "records", None)) else open_source(data, **options)
