"""What a verdict says, and that it survives a file."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wmplug.claim.verdict import Verdict, state_of
from wmplug.errors import StatisticsError


def verdict(**changes: Any) -> Verdict:
    values: dict[str, Any] = {
        "scheme": "logo",
        "watermark": "a1b2",
        "suspect": "checkpoint-500",
        "triggers": 100,
        "queries": 100,
        "in_set": 100,
        "matches": 97,
        "draws": 100,
        "candidates": (10,),
        "log10_e": 86.5,
        "log10_p": -88.13,
        "test": "exact in-set",
        "p_is": "exact",
        "enough": 7,
    } | changes
    values.setdefault("state", state_of(values["log10_e"], values.get("target_e", 1e6)))
    return Verdict(**values)


@pytest.mark.parametrize(
    ("log10_e", "state"), [(6.0, "proven"), (5.999, "evidence"), (math.log10(20), "evidence"), (1.3, "inconclusive")]
)
def test_states(log10_e: float, state: str) -> None:
    assert state_of(log10_e, 1e6) == state
    assert state_of(-5.0, 1e6) == "inconclusive"
    assert state_of(1.0, 10.0) == "proven"


@pytest.mark.parametrize(("log10_e", "target"), [(math.nan, 1e6), (3.0, 0.5), (3.0, math.inf), (3.0, math.nan)])
def test_no_state_without_numbers(log10_e: float, target: float) -> None:
    with pytest.raises(StatisticsError, match="target"):
        state_of(log10_e, target)


def test_reads_like_the_readme() -> None:
    assert str(verdict()) == "proven: 97 of 100 answers, log10 p = -88.1, 7 queries were enough"
    one = {"queries": 7, "in_set": 7, "matches": 7, "draws": 7, "log10_e": math.log10(4.2e6), "p_is": "anytime"}
    assert str(verdict(**one, log10_p=-6.6)) == "proven: 7 of 7 answers, e-value 4.2e+06 after 7 queries"
    nothing = verdict(matches=9, log10_e=-1.2, log10_p=-0.2, enough=None)
    assert str(nothing) == "inconclusive: 9 of 100 answers, log10 p = -0.2"
    assert "1 query was enough" in str(verdict(enough=1))


def test_failed_and_foreign_answers_are_mentioned() -> None:
    assert str(verdict(in_set=90, matches=80, failed=3)) == (
        "proven: 80 of 90 answers, 7 outside the candidates, log10 p = -88.1, 7 queries were enough, 3 queries failed"
    )
    anytime = verdict(in_set=9, matches=9, failed=1, queries=12, p_is="anytime")
    assert str(anytime).endswith("e-value 3.2e+86 after 12 queries, 1 query failed")


def test_tiny_and_huge_never_print_as_zero_or_inf() -> None:
    far = verdict(log10_p=-5000.2, log10_e=4990.5)
    assert (far.p_value, far.e_value) == (0.0, math.inf)
    assert "log10 p = -5000.2" in str(far)
    anytime = verdict(log10_p=-4990.5, log10_e=4990.5, p_is="anytime")
    assert "e-value 3.2e+4990 " in str(anytime)
    assert verdict(log10_p=-77.0).p_value == pytest.approx(1e-77)
    assert verdict().e_value == pytest.approx(10**86.5)
    plain = verdict(log10_p=-0.0, log10_e=0.0, matches=0, enough=None)
    assert str(plain) == "inconclusive: 0 of 100 answers, log10 p = 0.0"
    assert "-0.0" not in plain.to_json()


def test_proven() -> None:
    assert verdict().proven
    assert not verdict(log10_e=5.9).proven


@settings(deadline=None, derandomize=True)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 0.0), st.none() | st.integers(0, 10**9), st.text())
def test_survives_json(log10_e: float, log10_p: float, step: int | None, suspect: str) -> None:
    before = verdict(log10_e=log10_e, log10_p=log10_p, step=step, suspect=suspect, candidates=(3, 16), enough=step)
    after = Verdict.from_json(before.to_json())
    assert after == before
    assert hash(after) == hash(before)


def test_json_is_strict_and_says_what_it_does_not_say() -> None:
    data = json.loads(verdict(log10_e=np.float64(0.5), queries=np.int64(100), step=np.int32(5)).to_json())
    assert data["schema"] == "wmplug/verdict/1"
    assert "never means 'not ours'" in data["note"]
    assert (data["state"], data["queries"], data["step"], data["candidates"]) == ("inconclusive", 100, 5, [10])
    assert "one-sided" in data["against"]


def broken(**changes: Any) -> str:
    return json.dumps(json.loads(verdict().to_json()) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        broken(schema="wmplug/verdict/2"),
        broken(colour="red"),
        broken(log10_e=math.inf),
        broken(log10_e="many"),
        broken(log10_e=None),
        broken(log10_e=0.0),
        broken(queries="100"),
        broken(queries=99.5),
        broken(candidates=3),
        broken(suspect=None),
        broken(p_is="guessed"),
        broken(state="not ours"),
        verdict().to_json().replace('"draws"', '"drawn"'),
    ],
)
def test_what_is_no_verdict_is_refused(text: str) -> None:
    with pytest.raises(StatisticsError, match=r"\w"):
        Verdict.from_json(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"matches": 101},
        {"in_set": 101, "matches": 101},
        {"failed": 1},
        {"draws": -1},
        {"log10_p": 0.1},
        {"log10_p": -math.inf},
        {"log10_e": math.inf},
        {"candidates": (16, 3)},
        {"candidates": (3, 3)},
        {"state": "inconclusive"},
        {"log10_e": 2.0, "state": "proven"},
    ],
)
def test_what_no_verification_can_produce_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(StatisticsError, match=r"\w"):
        verdict(**changes)


def test_what_was_enough_on_the_way_is_said_of_what_is_proven_only() -> None:
    assert "7 queries were enough" in str(verdict(enough=7))
    left = verdict(enough=7, log10_e=2.0, state="evidence")
    assert "enough" not in str(left)
