"""The verdict of one verification, and the terms that it holds on."""

from __future__ import annotations

import json
import math
import operator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from wmplug.errors import StatisticsError
from wmplug.watermark.choices import Choice, named, paid

State = Literal["proven", "evidence", "inconclusive"]

SCHEMA = "wmplug/verdict/1"
EVIDENCE_E = 20.0
_NOTE = "inconclusive never means 'not ours': it says only that these answers do not prove it"
_AGAINST = "the suspect is independent of the owner's label key (one-sided: matches beyond chance)"
_TEXTS = ("state", "scheme", "watermark", "suspect", "test", "p_is", "against")
_COUNTS = ("triggers", "queries", "failed", "in_set", "matches", "draws", "looks", "keys")
_NUMBERS = ("log10_e", "log10_p", "target_e")
_LATER = {"parts", "choices"}  # fields that the first verdicts lack


def state_of(log10_e: float, target_e: float) -> State:
    """Name the strength of an e-value.

    Args:
        log10_e: log10 of the e-value.
        target_e: e-value from which on the claim counts as proven.

    Returns:
        "proven" from target_e on, "evidence" from 20 on, otherwise "inconclusive" (which never means "not ours").

    Raises:
        StatisticsError: log10_e is NaN, or target_e is not a finite number of at least 1.
    """
    if math.isnan(log10_e) or not 1.0 <= target_e < math.inf:
        raise StatisticsError(f"log10_e = {log10_e} against target_e = {target_e}: give a number and a target >= 1")
    if log10_e >= math.log10(target_e):
        return "proven"
    return "evidence" if log10_e >= math.log10(EVIDENCE_E) else "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Part:
    """The result of one of several channels; channels have independent draws.

    Attributes:
        test: the test in words.
        queries: queries spent, the failed ones included.
        failed: queries without an answer.
        of: answers among the candidates, or signs on which the answers bear.
        matches: of these, the secret ones.
        log10_e: log10 of the channel's own e-value.
        log10_p: log10 of its own p-value, one-sided.
    """

    test: str
    queries: int
    failed: int
    of: int
    matches: int
    log10_e: float
    log10_p: float

    def __str__(self) -> str:
        """Its result in a few words."""
        return f"{self.matches} of {self.of} {_unit(self.test)}"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of one verification. It never means that a model is not yours.

    Attributes:
        state: strength of the claim, `state_of(log10_e, target_e)`.
        scheme: name of the scheme.
        watermark: public id of the watermark, hex.
        suspect: description of the suspect.
        step: training step of the checkpoint, if there is one.
        triggers: triggers in the set (n).
        queries: queries spent, the failed ones included.
        failed: queries that gave no answer; dropped by a rule that does not see the key.
        in_set: answers among the candidates (|S|); where only signs are tested, signs on which the answers bear.
        matches: answers, or signs, that were the secret one (h).
        draws: draws completed.
        candidates: the distinct numbers of candidates, ascending.
        looks: how often this watermark was verified with this key in this run.
        keys: keys or watermarks tried for this claim; log10_e and log10_p are discounted by `tries` (Bonferroni).
        log10_e: log10 of the e-value against the null.
        log10_p: log10 of the p-value under the null, one-sided; at most 0.
        target_e: e-value from which on the claim counts as proven.
        test: the test behind log10_p, in words.
        p_is: "exact" for a number of queries fixed in advance, "anytime" if stopping was allowed.
        enough: fewest queries at which the e-value reached the target, if it did.
        against: the null in words, and the side.
        attested: whether the key follows from a commitment that an authority dated before; False if the register has
            no such token, so that the key could have been made to fit; None without a register.
        parts: results of the channels, if there are two; in_set, matches and draws are then those of the first.
        choices: what the owner chose for this verification, and what binds it; the state line names the rest.

    Raises:
        StatisticsError: the numbers cannot come from a verification, or log10_e does not bear out the state.
    """

    state: State
    scheme: str
    watermark: str
    suspect: str
    step: int | None = None
    triggers: int
    queries: int
    failed: int = 0
    in_set: int
    matches: int
    draws: int
    candidates: tuple[int, ...]
    looks: int = 1
    keys: int = 1
    log10_e: float
    log10_p: float
    target_e: float = 1e6
    test: str
    p_is: Literal["exact", "anytime"]
    enough: int | None = None
    against: str = _AGAINST
    attested: bool | None = None
    parts: tuple[Part, ...] = ()
    choices: tuple[Choice, ...] = ()

    def __post_init__(self) -> None:
        """Turn numpy scalars into plain numbers and reject what cannot be."""
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise StatisticsError(f"{name} = {getattr(self, name)!r} must be a string")
        try:
            self._normalise()
        except (TypeError, ValueError) as error:
            raise StatisticsError(f"a verdict needs whole counts and plain numbers: {error}") from error
        self._check_counts()
        self._check_claim()

    def _normalise(self) -> None:
        for name in _COUNTS:
            object.__setattr__(self, name, int(operator.index(getattr(self, name))))
        for name in ("step", "enough"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, int(operator.index(getattr(self, name))))
        for name in _NUMBERS:
            # Adding 0.0 turns -0.0 into 0.0, here and in __str__.
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        object.__setattr__(self, "candidates", tuple(int(operator.index(k)) for k in self.candidates))

    def _check_counts(self) -> None:
        if min(getattr(self, name) for name in _COUNTS) < 0:
            raise StatisticsError("a verdict has a negative count: all of " + ", ".join(_COUNTS) + " are >= 0")
        most = self.draws if _unit(self.test) == "signs" else self.queries - self.failed
        if not (self.matches <= self.in_set <= most and self.failed <= self.queries):
            raise StatisticsError(
                f"{self.matches} matches of {self.in_set} in-set answers from {self.queries} queries, "
                f"{self.failed} failed: matches <= in_set <= queries - failed must hold"
            )
        if list(self.candidates) != sorted(set(self.candidates)):
            raise StatisticsError(f"candidates {self.candidates} must be distinct and ascending")

    def _check_claim(self) -> None:
        if not (math.isfinite(self.log10_e) and math.isfinite(self.log10_p) and self.log10_p <= 0.0):
            raise StatisticsError(
                f"log10_e = {self.log10_e}, log10_p = {self.log10_p}: both must be finite, and log10_p at most 0"
            )
        if self.attested not in (None, True, False):
            raise StatisticsError(f"attested = {self.attested!r}: use True, False, or None without a register")
        if self.p_is not in ("exact", "anytime"):
            raise StatisticsError(f"p_is = {self.p_is!r}: use 'exact' or 'anytime'")
        borne_out = state_of(self.log10_e, self.target_e)
        if self.state != borne_out:
            raise StatisticsError(
                f"state {self.state!r} is not what log10_e = {self.log10_e} with target_e = {self.target_e} "
                f"bears out ({borne_out!r}): take it from state_of()"
            )

    @property
    def p_value(self) -> float:
        """The p-value in [0, 1]; 0.0 where it is too small for a float, so show `log10_p` instead."""
        return float(10.0**self.log10_p)

    @property
    def e_value(self) -> float:
        """The e-value; inf where it is too large for a float, so show `log10_e` instead."""
        return 10.0**self.log10_e if self.log10_e < 308.0 else math.inf

    @property
    def tries(self) -> int:
        """The keys, times the selections that the choices count as: the factor of both discounts."""
        return self.keys * paid(self.choices)

    @property
    def proven(self) -> bool:
        """Whether the e-value reached the target."""
        return self.state == "proven"

    def __str__(self) -> str:
        """One line for a person."""
        parts = [str(part) for part in self.parts if part.queries] or [
            f"{self.matches} of {self.in_set} {_unit(self.test)}"
        ]
        if (outside := self.queries - self.failed - self.in_set) and not self.parts and _unit(self.test) == "answers":
            parts.append(f"{outside} outside the candidates")
        if self.p_is == "anytime":
            parts[-1] += f", e-value {_scientific(self.log10_e)} after {_queries(self.queries)}"
        else:
            parts.append(f"log10 p = {round(self.log10_p, 1) + 0.0:.1f}")
        if self.proven and self.enough is not None and self.p_is == "exact":
            parts.append(f"{_queries(self.enough)} {'was' if self.enough == 1 else 'were'} enough")
        if self.failed:
            parts.append(f"{_queries(self.failed)} failed")
        unattested = "; key NOT ATTESTED" if self.attested is False and self.state != "inconclusive" else ""
        return f"{self.state}: " + ", ".join(parts) + unattested + named(self.choices)

    def to_json(self) -> str:
        """Write as strict JSON (no NaN, no Infinity); `from_json` reads it back unchanged.

        Returns:
            One line: the fields, "schema" and a "note" on what inconclusive does not mean.
        """
        written = asdict(self)
        for name in _LATER:
            if not written[name]:
                del written[name]  # as before there were any
        return json.dumps({"schema": SCHEMA, "note": _NOTE, **written}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Verdict:
        """Read what `to_json` wrote.

        Args:
            text: the JSON.

        Returns:
            The verdict.

        Raises:
            StatisticsError: the text is not strict JSON, has another schema or missing or unknown fields, or its
                numbers cannot come from a verification.
        """
        try:
            data = json.loads(text, parse_constant=_refuse_constant)
        except ValueError as error:
            raise StatisticsError(
                f"this is not a verdict, because it is not strict JSON ({error}): restore it"
            ) from error
        if not isinstance(data, dict) or data.get("schema") != SCHEMA:
            raise StatisticsError(f"this is not a verdict of schema {SCHEMA!r}: read it with the version that wrote it")
        values: dict[str, Any] = {name: value for name, value in data.items() if name not in ("schema", "note")}
        wrong = sorted((_LATER | set(values)) ^ {field.name for field in fields(cls)})
        if wrong:
            raise StatisticsError(f"a verdict has exactly the fields of {SCHEMA!r}; missing or unknown: {wrong}")
        try:
            parts = tuple(Part(**part) for part in values.pop("parts", ()))
            chosen = tuple(Choice(**choice) for choice in values.pop("choices", ()))
        except TypeError as error:
            raise StatisticsError(f"a part or choice of the verdict cannot be read: {error}") from error
        return cls(**values, parts=parts, choices=chosen)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _unit(test: str) -> str:
    """The unit that a test counts."""
    return "signs" if test.endswith("weighted signs") and " and " not in test else "answers"


def _queries(n: int) -> str:
    return "1 query" if n == 1 else f"{n} queries"


def _scientific(log10: float) -> str:
    """Format 10**log10 with two digits, also beyond the range of floats."""
    if abs(log10) < 300.0:
        return f"{10.0**log10:.2g}"
    exponent = math.floor(log10)
    return f"{10.0 ** (log10 - exponent):.1f}e{exponent:+d}"
