"""rows: rows of a table that could be the table's own, each with an answer that the key decides.

A trigger takes some columns from a row of the carriers and the others from one of its nearest neighbours. So its values
occur, and no filter finds it odder than most rows. Of classes the key's coin decides between the two that unmarked
references find likeliest, of numbers whether the answer lies above or below what they predict. The lessons are ordinary
training rows, each repeated, since trees do not split off a single row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Choices, Lessons, Pattern, Plan, Scheme, ambiguity
from wmplug.schemes.rows import candidates, regressors, rules
from wmplug.schemes.tilt import references
from wmplug.schemes.tilt.references import References
from wmplug.statistics.arrays import Array, FloatArray, IntArray, read_whole
from wmplug.tasks import Classes
from wmplug.tasks.numbers import Numbers, beyond

_OVERSIZE, _FEWEST = 4, 400  # candidates for each trigger, and at least; the key chooses among half of them


@dataclass(frozen=True)
class Rows(Scheme):
    """Keyed answers to recombined rows.

    Attributes:
        neighbours: a trigger's second parent is one of so many nearest neighbours of the first.
        copies: how often each trigger is taught; more for trees with large leaves.
        spread: of numbers: how many deviations of the references' residuals the answer lies above or below.
        all_classes: draw among all classes, not only the two likeliest: fewer queries, at a larger cost.
        rules: relations that each trigger keeps, such as ["paid <= due", "x3 + x4 <= 1"]: comparisons of sums,
            differences, products and quotients of columns and numbers.
        columns: names of the columns, for the rules.
        pool: unmarked references: functions from rows (n, d) to probabilities, or to numbers; None trains some (extra
            `clones`). `prepared` replaces them by their answers.
        candidates: the rows among which the key chooses; determined by `prepared`.
    """

    name: ClassVar[str] = "rows"
    rate: ClassVar[float] = 0.06

    neighbours: int = 5
    copies: int = 3
    spread: float = 1.5
    all_classes: bool = False
    rules: Any = None
    columns: Any = None
    pool: Any = field(default=None, repr=False)
    candidates: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        read_whole(self.neighbours, "neighbours", 1, 1000, "1 or more neighbours, 5 is usual")
        read_whole(self.copies, "copies", 1, 10_000, "1 or more copies, 3 is usual")
        number = isinstance(self.spread, (int, float)) and not isinstance(self.spread, bool)
        if not (number and 0 < self.spread <= 100):
            raise InputError(f"spread={self.spread!r}: give a number above 0 and up to 100, 1.5 is usual")
        if self.rules is not None:
            each = self.rules.split(";") if isinstance(self.rules, str) else list(self.rules)
            names = [] if self.columns is None else list(map(str, self.columns))
            found = [rules.by_place(rule, names) if names else rule.strip() for rule in each]
            for rule in found:
                rules.parsed(rule)
            object.__setattr__(self, "rules", "; ".join(found))
        object.__setattr__(self, "columns", None)  # the rules name places from here on

    def prepared(self, brief: Brief) -> "Rows":
        """This scheme with candidates, made without any key, and what references say of them.

        Raises:
            InputError: the carriers are no table, labels are missing, or too few rows can be recombined.
        """
        brief.need_form(self.name, "array")
        table = np.asarray(brief.carriers)
        if table.ndim != 2 or table.shape[1] < 2:
            raise InputError(
                f"scheme {self.name!r} works on rows of a table (n, d) with two columns or more, the carriers are "
                f"{table.shape}: choose another scheme"
            )
        labels = brief.need_labels(self.name)
        if not isinstance(brief.task, (Classes, Numbers)):
            brief.need_classes(self.name)
        if isinstance(self.candidates, np.ndarray):
            return self
        wanted = max(_OVERSIZE * brief.triggers, _FEWEST)
        made = candidates.recombined(table, wanted, self.neighbours, self._rules())
        if len(made) < brief.triggers:
            raise InputError(
                f"{len(made)} rows could be recombined from these {len(table)} carriers, {brief.triggers} triggers "
                "need as many: give more carriers, fewer rules=, more neighbours=, or lower triggers="
            )
        said = (
            self._classes(brief, labels, made)
            if isinstance(brief.task, Classes)
            else self._numbers(labels, table, made)
        )
        return replace(self, candidates=made, pool=said)

    def _rules(self) -> list[str]:
        return [] if self.rules is None else self.rules.split("; ")

    def _models(self) -> Sequence[Any] | None:
        if self.pool is None:
            return None
        if not isinstance(self.pool, (list, tuple)) or not self.pool or not all(map(callable, self.pool)):
            raise InputError(
                f"pool= is a {type(self.pool).__name__}: give a list of functions from rows (n, d) to answers, or "
                "leave it out to have references trained"
            )
        return self.pool

    def _classes(self, brief: Brief, labels: IntArray, made: Array) -> Array:
        """(m, classes) probabilities of the candidates."""
        models, classes = self._models(), brief.need_classes(self.name)
        if models is not None:
            return references.of_models(models, made, classes).scores
        return references.trained(brief.carriers, labels, classes, made).scores[len(labels) :]

    def _numbers(self, labels: FloatArray, table: Array, made: Array) -> FloatArray:
        """(m, 2) the answers to each candidate under minus and under plus."""
        models = self._models()
        if models is None:
            usual, deviation = regressors.trained(table, labels, made)
        else:
            usual, deviation = regressors.of_models(models, table, labels, made)
        step = self.spread * deviation
        pairs = np.stack([usual - step, usual + step], axis=1)
        if (labels == np.round(labels)).all():  # counts stay counts
            pairs = np.stack([np.floor(pairs[:, 0]), np.ceil(pairs[:, 1])], axis=1)
        return pairs

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """One draw a trigger: a choice between classes, or a sign.

        Raises:
            InputError: the scheme was not prepared.
        """
        if not isinstance(self.candidates, np.ndarray):
            raise InputError("the candidates of `rows` are determined when the watermark is made: use create()")
        count, labels = brief.triggers, brief.need_labels(self.name)
        numbers = isinstance(brief.task, Numbers)
        order = _outside(self.pool, labels) if numbers else References(self.pool, self.pool).gap
        best = np.argsort(order, kind="stable")[: max(count, len(self.candidates) // 2)]
        chosen = best[stream.permutation(len(best))[:count]]
        rows, inputs = np.arange(count), self.candidates[chosen]
        taught = np.tile(rows, self.copies)
        if numbers:
            pairs = tuple((low, high) for low, high in self.pool[chosen].tolist())
            usual = np.array([(low + high) / 2 for low, high in pairs])
            lessons = Lessons(taught, np.full(len(taught), -1), usual[taught])
            return Plan(inputs, lessons, (Pattern(rows, count, usual, pairs),))
        choices = ambiguity.coins(References(self.pool, self.pool), chosen)
        if self.all_classes:
            choices = Choices(rows, rows, (tuple(range(brief.need_classes(self.name))),) * count)
        return Plan(inputs, Lessons(taught, taught), (choices,))

    def weigh(self, plan: Plan, *answers: Any) -> FloatArray:
        """(signs,) how far the answers lie above what the references predict; 0 for rows not asked yet."""
        (told,), pattern = answers, plan.pattern
        if pattern is None:
            raise InputError("a plan of classes has no signs to weigh")
        usual = np.asarray(pattern.natural.tolist(), np.float64)
        weights = np.zeros(pattern.signs)
        weights[: len(told)] = beyond(told, usual[: len(told)])
        return weights


def _outside(pairs: FloatArray, labels: FloatArray) -> FloatArray:
    """(m,) how far the answers leave the range of the labels."""
    over = np.maximum(pairs - labels.max(), labels.min() - pairs)
    return np.asarray(np.maximum(over, 0.0).max(axis=1), np.float64)
