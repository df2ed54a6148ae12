"""A served model whose answers mark whoever learns from them."""

import hmac
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError, ServingError, ServingWarning, SuspectError
from wmplug.schemes.served import Served, pattern_of
from wmplug.serving.answers import Scores
from wmplug.serving.copies import NEAR, Copies, Query
from wmplug.serving.log import Log
from wmplug.statistics.arrays import Array, FloatArray, IntArray, off_device, read_whole
from wmplug.suspects.protocols import Suspect
from wmplug.suspects.targets import as_suspect
from wmplug.tasks.classes import count_of, is_single
from wmplug.watermark.carriers import Inputs, read_carriers, rounded, take
from wmplug.watermark.decided import Decided
from wmplug.watermark.sizes import sized
from wmplug.watermark.watermark import Watermark

GAP, MARGIN = 0.1, 2.0
_LONE = re.compile("[\ud800-\udfff]")  # surrogates, which no encoding takes
_ODD = (
    "the scores lie from 0 to 1 in rows that do not sum to 1, or sum to 100, so they may be logits or probabilities of "
    "another kind: say which, Serving(..., logits=True) or logits=False, and let percentages be divided by 100"
)


@dataclass(frozen=True)
class Cost:
    """What a serving changes on some inputs, by the model's own probabilities.

    Attributes:
        queries: number of inputs.
        gap: below which the key decides.
        decided: number of inputs that it decides.
        changed: of these, how many get another class than the model's.
        points: expected loss of accuracy in points, if the model's probabilities are right: the sum of the differences
            where the class changes, over all inputs.
    """

    queries: int
    gap: float
    decided: int
    changed: int
    points: float

    def __str__(self) -> str:
        """One line for a person."""
        return (
            f"gap {self.gap:.3g}: the key decides {self.decided} of {self.queries} queries "
            f"({self.decided / max(1, self.queries):.2%}) and changes {self.changed} answers; expected cost "
            f"{self.points:.2f} points of accuracy" + "; no query is that unsure, so raise gap=" * (not self.decided)
        )


@dataclass(frozen=True, eq=False)
class Serving:
    """A model's answers, decided by the key where the model is unsure.

    Args:
        mark: a watermark of the scheme `served`.
        model: the served model, as `verify` takes a suspect; it must return scores. None if you pass its outputs to
            `served` yourself.
        log: where decisions are kept. Without a log no claim can ask them.
        gap: difference of the two best probabilities, below which the key decides.
        margin: least log-odds of the decided class in the scores that are served, and half of the largest; a copyist
            who trains on scores learns the decision from it.
        without_log: what happens if the log cannot be written: answers go out "unmarked", with a warning, or serving
            stops with the error ("stop").
        unreadable: what happens if the key would decide a query that cannot be read, because it holds NaN or is a text
            that is not Unicode, or has another form than the carriers and the rest of its batch: its answer alone goes
            out "unmarked", with a warning, or serving stops with an error ("stop").
        logits: whether the model returns logits, and not probabilities. None reads it off the scores of each call. Say
            it where two classes share one score.
        version: name or digest of the model; the log notes it.
        remember: how many decided queries to remember, so that near copies of one are told the same; 0 for none. The
            memory is this process's own, and takes 70 MB at most.
        batch_size: inputs in a forward pass.

    Raises:
        InputError: the mark is of another scheme, the log is another watermark's, or an argument is out of range.
        SuspectError: the model cannot be asked.
    """

    mark: Watermark
    model: Any = field(default=None, repr=False)
    log: Log | None = field(default=None, repr=False)
    gap: float = GAP
    margin: float = MARGIN
    without_log: Literal["unmarked", "stop"] = "unmarked"
    unreadable: Literal["unmarked", "stop"] = "unmarked"
    logits: bool | None = None
    version: str = ""
    batch_size: int = 64
    remember: int = 4096

    def __post_init__(self) -> None:
        if not isinstance(self.mark, Watermark) or not isinstance(self.mark.scheme, Served):
            what = getattr(getattr(self.mark, "scheme", None), "name", type(self.mark).__name__)
            raise InputError(f"mark is {what!r}: give a watermark of scheme 'served', create(scheme=\"served\", ...)")
        for name, most in (("gap", 1), ("margin", 50)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
                raise InputError(f"{name}={value!r}: give a number from 0 to {most}")
        read_whole(self.remember, "remember", 0, 10**6, "0 for none, 4096 is usual")
        for name in ("without_log", "unreadable"):
            if getattr(self, name) not in ("unmarked", "stop"):
                raise InputError(f"{name}={getattr(self, name)!r}: choose 'unmarked' or 'stop'")
        if self.log is not None and not isinstance(self.log, Log):
            raise InputError(f"log={self.log!r} is a {type(self.log).__name__}: give Log(place, mark)")
        if self.log is not None and self.log.watermark != self.mark.id:
            raise InputError(
                f"the log belongs to watermark {self.log.watermark}, not to {self.mark.id}: give each a log, after a "
                "change of the key too"
            )
        if self.model is not None:
            object.__setattr__(self, "model", self._suspect())

    def _suspect(self) -> Suspect:
        try:
            return as_suspect(self.model, self.mark, batch_size=self.batch_size)
        except SuspectError as error:
            if not hasattr(self.model, "predict_proba"):
                raise
            raise SuspectError(
                f"{type(self.model).__name__} cannot be called: give what returns its scores, .predict_proba"
            ) from error

    def answer(self, inputs: Any, customer: str = "") -> Array:
        """The model's scores for inputs in the form of the carriers, as they are served.

        Args:
            inputs: n of them.
            customer: who asks, by a name that stays the same; a clone can be traced to it.

        Returns:
            What the model returned, (n, classes) probabilities or logits, changed where the key decides.

        Raises:
            InputError: the serving has no model, or all inputs differ from the carriers in kind, shape or dtype.
            SuspectError: the model does not return scores of its classes.
            ServingError: the log cannot be written, under without_log="stop"; or an input cannot be read, under
                unreadable="stop".
        """
        inputs = _rows(inputs)
        return self.served(inputs, self._asked(inputs), customer)

    def served(self, inputs: Any, outputs: Any, customer: str = "") -> Array:
        """A model's outputs for these inputs, as they are served.

        Raises:
            InputError, SuspectError, ServingError: as in `answer`.
        """
        if not isinstance(customer, str) or not customer.isprintable():
            raise InputError(f"customer={customer!a} is not a name: give a text that can be printed, or '' for nobody")
        inputs = _rows(inputs)
        scores = self._read(outputs, len(inputs))
        if self.logits is None and is_single(scores.given):
            raise InputError(
                "the model returns one score for two classes, and a logit from 0 to 1 looks like a probability: say "
                "which it is, Serving(..., logits=True) or logits=False"
            )
        if scores.are_odd:
            warnings.warn(f"{len(inputs)} answers went out UNMARKED: {_ODD}", ServingWarning, stacklevel=2)
            return scores.given
        rows, decided, lost, queries = self._resolved(scores, inputs, customer)
        if lost:
            why = f"their queries cannot be read ({lost[0]})"
            if self.unreadable == "stop":
                raise ServingError(f"{len(lost)} of {len(inputs)} answers would go out unmarked: {why}")
            warnings.warn(f"{len(lost)} answers went out UNMARKED: {why}", ServingWarning, stacklevel=2)
        if decided is None:
            return scores.given
        new = [place for place, query in enumerate(queries) if query.logged != customer]
        try:
            if self.log is not None and new:
                self.log.add(decided.only(np.array(new)), self.version)
                for place in new:
                    queries[place].logged = customer
        except ServingError as error:
            if self.without_log == "stop":
                raise
            warnings.warn(f"{len(rows)} answers went out UNMARKED: {error}", ServingWarning, stacklevel=2)
            return scores.given
        return scores.told(rows, decided.pairs, self._coins(decided) > 0, self._leads(decided))

    def is_unsure(self, outputs: Any) -> bool:
        """Whether the key would decide any of a model's outputs.

        Raises:
            SuspectError: as in `answer`.
        """
        return bool(len(self._read(outputs, len(outputs)).unsure(self._reach)[0]))

    def likeliest(self, outputs: Any) -> IntArray:
        """(n,) the class that a model's outputs, or those that were served, score highest.

        Raises:
            SuspectError: as in `answer`.
        """
        return self._read(outputs, len(outputs)).best

    def cost(self, inputs: Any, *, share: float | None = None) -> Cost:
        """What this serving would change on inputs such as your users send; nothing is logged.

        Args:
            inputs: n of them, some thousand.
            share: of queries that the key may decide; `Cost.gap` is then the gap to serve with, at most this one's.

        Raises:
            InputError: share is out of range, or as in `answer`.
            SuspectError: as in `answer`, or the scores are all NaN, or neither logits nor probabilities.
        """
        if share is not None and not 0 < share <= 1:
            raise InputError(f"share={share!r}: give a share of the queries above 0 and up to 1")
        inputs = _rows(inputs)
        scores = self._read(self._asked(inputs), len(inputs))
        if scores.are_odd:
            raise SuspectError(_ODD)
        apart = scores.apart
        if np.isnan(apart).all():
            raise SuspectError(
                f"the served model's scores of all {len(inputs)} inputs hold NaN: ask it for inputs that it can read"
            )
        gap = self.gap if share is None else min(self.gap, float(np.nanquantile(apart, share)))
        rows, pairs = scores.unsure(gap)
        known, found, _ = self._readable(inputs, rows)
        if not known.any():
            return Cost(len(inputs), gap, 0, 0, 0.0)
        rows, decided = rows[known], Decided(found, pairs[known])
        told = scores.told(rows, decided.pairs, self._coins(decided) > 0, self._leads(decided))
        changed = self._read(told, len(inputs)).best != scores.best
        return Cost(len(inputs), gap, len(rows), int(changed.sum()), 100 * float(apart[changed].sum()) / len(inputs))

    def _asked(self, inputs: Any) -> Any:
        if self.model is None:
            raise InputError("this serving has no model: give Serving(mark, model), or pass outputs to served()")
        self._check(inputs)
        return self.model.answer(list(inputs))

    def _read(self, outputs: Any, count: int) -> Scores:
        return Scores.of(outputs, count, count_of(self.mark.task, "a serving"), self.logits)

    @property
    def _reach(self) -> float:
        """Difference of the two best probabilities, below which a query may be a copy of a decided one."""
        return self.gap * (NEAR if self.remember else 1.0)

    @cached_property
    def _copies(self) -> Copies:
        plan = self.mark.triggers.plan
        return Copies(take(plan.inputs, pattern_of(plan).rows), plan.material, self.remember)

    def _resolved(
        self, scores: Scores, inputs: Any, customer: str
    ) -> tuple[IntArray, Decided | None, list[str], list[Query]]:
        """The rows that the key decides; as which queries, None if there are none; and why others cannot be read."""
        rows, pairs = scores.unsure(self._reach)
        if not len(rows) and len(inputs):
            self._check(inputs)  # a wrong form is found at the first query, and not at the first that is unsure
        by_itself = scores.apart[rows] < self.gap
        known, found, faults = self._readable(inputs, rows)
        lost = [fault for fault, own in zip(faults, by_itself.tolist(), strict=True) if fault is not None and own]
        if not known.any():
            return rows[:0], None, lost, []
        some = rows[known]
        told = self._copies.resolve(found, pairs[known], by_itself[known], scores.probabilities[some], self._reach)
        if not told:
            return rows[:0], None, lost, []
        queries = [query for _, query in told]
        asked: Any = [query.input for query in queries]
        decided = Decided(
            asked if isinstance(found, list) else np.stack(asked),
            np.array([query.pair for query in queries], np.int64),
            (customer,) * len(queries),
        )
        return some[[place for place, _ in told]], decided, lost, queries

    def _readable(self, inputs: Any, rows: IntArray) -> tuple[npt.NDArray[np.bool_], Inputs, list[str | None]]:
        """Which of these rows can be read, (rows,); these inputs in the form of the carriers; and what is wrong."""
        faults = [_fault(inputs[row]) for row in rows.tolist()]
        whole = np.flatnonzero([fault is None for fault in faults])
        some = inputs[rows[whole]] if isinstance(inputs, np.ndarray) else [inputs[row] for row in rows[whole].tolist()]
        try:
            found: Any = self._inputs(some) if len(whole) else []
        except InputError:
            parts = [self._one(one) for one in some]
            if all(isinstance(part, InputError) for part in parts):
                raise
            for place, part in zip(whole.tolist(), parts, strict=True):
                faults[place] = str(part) if isinstance(part, InputError) else None
            found = [part[0] for part in parts if not isinstance(part, InputError)]
            found = found if isinstance(self.mark.triggers.plan.inputs, list) else np.stack(found)
        return np.array([fault is None for fault in faults], bool), found, faults

    def _one(self, value: Any) -> Inputs | InputError:
        """One input, read on its own; or what is wrong with it."""
        try:
            return self._inputs([value])
        except InputError as error:
            return error

    def _check(self, inputs: Any) -> None:
        """Raise InputError if there is no input, or if all differ from the carriers in form."""
        if not len(inputs):
            raise InputError("there are no queries: give one or more inputs in the form of the carriers")
        read = (self._one(one) for one in inputs if _fault(one) is None)
        first = next(read, None)
        if isinstance(first, InputError) and all(isinstance(one, InputError) for one in read):
            raise first

    def _coins(self, decided: Decided) -> IntArray:
        triggers, scheme = self.mark.triggers, self.mark.scheme
        assert isinstance(scheme, Served)
        return scheme.signs_of(triggers.plan, triggers.signs, self.mark.subkeys, decided)

    @cached_property
    def _leads_key(self) -> bytes:
        return self.mark.subkeys.stream("schedule", "leads").bytes(32)

    def _leads(self, decided: Decided) -> FloatArray:
        """(n,) from the margin to twice that, by the key for each input: a lead that recurs shows what was decided."""
        key = self._leads_key
        drawn = b"".join(hmac.digest(key, sha256.encode(), "sha256")[:8] for sha256 in decided.digests)
        return np.asarray(self.margin * (1 + np.frombuffer(drawn, "<u8") * 2.0**-64), np.float64)

    def _inputs(self, inputs: Any) -> Inputs:
        """Inputs in the form, shape and dtype of the carriers, rounded to it.

        Raises:
            InputError: they are others.
        """
        given, form = read_carriers(sized(inputs, self.mark.public), "queries")
        own = self.mark.triggers.plan.inputs
        if isinstance(given, list) or isinstance(own, list):
            if isinstance(given, list) and isinstance(own, list):
                return given
            raise InputError(f"queries are {form}, the carriers {self.mark.triggers.form}: give the same kind")
        cast = rounded(given, own.dtype)
        # Who asks may add a fraction to a pixel. Inputs that were normalised span little of what the carriers span.
        near = own.dtype.kind == "f" or np.array_equal(cast, given) or np.ptp(given) >= np.ptp(own) / 4
        if given.shape[1:] != own.shape[1:] or not near:
            raise InputError(
                f"queries are {given.shape[1:]} {given.dtype}, the carriers {own.shape[1:]} {own.dtype}: pass them as "
                "they were before they were scaled or normalised for the model, and let preprocess= do that"
            )
        return cast


def _rows(inputs: Any) -> Any:
    """Inputs that can be counted and taken by number.

    Raises:
        InputError: they are one alone, or nothing of the kind.
    """
    inputs = inputs.to_numpy() if hasattr(inputs, "to_numpy") else inputs
    counted = hasattr(inputs, "__len__") and hasattr(inputs, "__getitem__") and getattr(inputs, "ndim", 1) > 0
    if not counted or isinstance(inputs, (str, bytes, Mapping)):
        raise InputError(f"queries are a {type(inputs).__name__}: give a list or an array of them, [query] for one")
    return inputs


def _fault(value: Any) -> str | None:
    """Why an input lies in no cell, though its form may be right; None if it may lie in one."""
    if isinstance(value, str):
        return "one is a text that is not Unicode" if _LONE.search(value) else None
    try:
        array = np.asarray(off_device(value, "queries"))
    except ValueError:  # rows of several lengths
        return None
    return "one holds NaN or infinity" if array.dtype.kind == "f" and not np.isfinite(array).all() else None
