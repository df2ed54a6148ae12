"""A verdict's numbers against its own counts: what wmplug writes passes, what was edited does not."""

import base64
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thieves import Stranger, Thief

from wmplug import Monitor, Verdict, verify
from wmplug.claim import judge
from wmplug.claim.consistency import contradictions
from wmplug.claim.questions import Questions, ask
from wmplug.claim.verdict import SCHEMA, state_of

VECTORS = Path(__file__).parents[1] / "vectors"


def verdicts_in(value):
    if isinstance(value, str) and f'"{SCHEMA}"' in value:
        value = json.loads(value)
    if isinstance(value, dict) and value.get("schema") == SCHEMA:
        yield Verdict.from_json(json.dumps(value))
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from verdicts_in(one)


def frozen():
    """Every verdict that a release wrote: of all schemes, of the looks of a run, of a notary, in registers."""
    for file in sorted(VECTORS.rglob("*.json")):
        yield from verdicts_in(json.loads(file.read_bytes()))
    for log in sorted((VECTORS / "frozen").rglob("log.jsonl")):
        for line in log.read_bytes().splitlines():
            yield from verdicts_in(json.loads(base64.b64decode(json.loads(line)["payload"])))


FROZEN = list(frozen())


def test_what_a_release_wrote_passes():
    assert [contradictions(one) for one in FROZEN] == [[]] * len(FROZEN)
    assert {(one.scheme, one.p_is) for one in FROZEN} >= {
        (scheme, how)
        for scheme in ("random-label", "logo", "phrase", "tilt", "combined")
        for how in ("exact", "anytime")
    }


class Half(Thief):
    """Knows some of the answers, fails on some questions, and says what is no class to others."""

    def answer(self, inputs):
        given = super().answer(inputs)
        if len(inputs) == 1 and inputs[0].sum() % 7 == 0:
            raise RuntimeError("no answer")
        if any(x.sum() % 7 == 0 for x in inputs):
            raise RuntimeError("not all of them")
        return [int(x.sum() % 12) if x.sum() % 3 else y for x, y in zip(inputs, given, strict=True)]


def asked(mark):
    rows = [row for group in mark.triggers.groups[3:] for row in group.tolist()]
    monitor = Monitor(mark)
    for suspect in (Thief(mark), Stranger(), Half(mark)):
        for exhaustive in (False, True):
            yield verify(mark, suspect, exhaustive=exhaustive)
            yield verify(mark, suspect, exhaustive=exhaustive, keys=1000, max_queries=30)
            yield verify(mark, suspect, exhaustive=exhaustive, rows=rows)
            yield verify(mark, suspect, exhaustive=exhaustive, rows=rows[10:20], target_e=20)
        yield judge(mark, ask(Questions.of(mark.triggers), suspect))
        yield monitor.look(suspect, step=1)
        yield monitor.look(suspect, step=2)


@pytest.mark.parametrize("name", ["mark", "grouped"])
def test_what_wmplug_says_now_passes(request, name):
    found = list(asked(request.getfixturevalue(name)))
    assert [contradictions(one) for one in found] == [[]] * len(found)
    assert {one.state for one in found} >= {"proven", "inconclusive"}
    assert max(one.tries for one in found) >= 1000


def moved(verdict, decades):
    """The verdict with stronger numbers, and a state that they bear out."""
    log10_e = verdict.log10_e + decades
    changes = {"log10_e": log10_e, "log10_p": verdict.log10_p - decades}
    if verdict.parts:
        changes["parts"] = tuple(
            dataclasses.replace(one, log10_e=one.log10_e + decades, log10_p=one.log10_p - decades)
            for one in verdict.parts
        )
    return dataclasses.replace(verdict, state=state_of(log10_e, verdict.target_e), **changes)


class Scored(Thief):
    """Gives probabilities too: a third on the answer that it knows, and the others' answers above it."""

    def answer(self, inputs):
        sure = np.array(super().answer(inputs))
        return np.eye(10)[sure] / 3 + 2 / 3 * np.eye(10)[[int(x.astype(int).sum()) % 10 for x in inputs]]


@pytest.mark.parametrize("name", ["mark", "grouped"])
@pytest.mark.parametrize("exhaustive", [False, True])
def test_scores_leave_more_room_and_not_any(request, name, exhaustive):
    mark = request.getfixturevalue(name)
    verdict = verify(mark, Scored(mark), exhaustive=exhaustive)
    assert verdict.test.endswith("with scores")
    assert verdict.log10_e > 1
    assert contradictions(verdict) == []
    assert contradictions(moved(verdict, 150.0))
    fewer = dataclasses.replace(verdict, enough=2)
    assert "2 queries were enough" in contradictions(fewer)[0]


def test_the_edited_file_of_the_issue(mark):
    honest = verify(mark, Stranger(), max_queries=7)
    for forged in (
        dataclasses.replace(honest, suspect="MegaCorp", state="proven", log10_e=99.0, log10_p=-99.0),
        dataclasses.replace(honest, suspect="MegaCorp", state="proven", log10_e=6.1, log10_p=-6.1),
    ):
        said = "; ".join(contradictions(forged))
        assert f"log10_e = {forged.log10_e:g} of anytime e-process, and {honest.matches} matches of" in said
        assert f"log10_p = {forged.log10_p:g}" in said


@pytest.mark.parametrize("name", ["mark", "grouped"])
@pytest.mark.parametrize("exhaustive", [False, True])
def test_one_number_that_is_stronger_is_found(request, name, exhaustive):
    mark = request.getfixturevalue(name)
    verdict = verify(mark, Thief(mark), exhaustive=exhaustive, target_e=1e9)
    low = dataclasses.replace(verdict, log10_p=verdict.log10_p - 12)
    high = dataclasses.replace(verdict, log10_e=verdict.log10_e + 12)
    assert "log10_p" in contradictions(low)[0]
    assert "log10_e" in contradictions(high)[0]


@pytest.mark.parametrize("verdict", FROZEN[:60], ids=str)
def test_no_release_wrote_much_stronger_ones(verdict):
    assert contradictions(moved(verdict, 150.0))


@given(st.integers(0, 60), st.integers(0, 60), st.integers(2, 12), st.floats(0.001, 5.0), st.booleans())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_where_counts_determine_the_numbers_any_change_is_found(mark_of_words, matches, misses, k, by, exact):
    verdict = mark_of_words(matches, misses, k, exact)
    assert contradictions(verdict) == []
    for changes in ({"log10_e": verdict.log10_e + by}, {"log10_p": min(0.0, verdict.log10_p - by)}):
        log10_e = changes.get("log10_e", verdict.log10_e)
        forged = dataclasses.replace(verdict, **changes, state=state_of(log10_e, verdict.target_e))
        # Where one may stop anytime, p rests on the way to the last e-value, which is not in a verdict.
        room = not exact and "log10_p" in changes and matches
        assert contradictions(forged) or room


@pytest.fixture(scope="module")
def mark_of_words(mark):
    """A verdict by its counts, from the tests themselves."""
    from wmplug.statistics import betting, draws
    from wmplug.statistics.draws import DrawResult

    base = verify(mark, Thief(mark), exhaustive=True)

    def of(matches, misses, k, exact):
        hit, miss = (DrawResult(0, tuple(int(i == said) for i in range(k))) for said in (0, 1))
        results = [hit] * matches + [miss] * misses
        path = betting.log10_e_path(results)
        log10_e = float(path[-1]) if results else 0.0
        log10_p = draws.log10_p(results) if exact else -float(path.max(initial=0.0))
        return dataclasses.replace(
            base,
            state=state_of(log10_e, base.target_e),
            **{"triggers": 200, "queries": matches + misses, "draws": matches + misses},
            **{"in_set": matches + misses, "matches": matches, "candidates": (k,) if results else ()},
            **{"log10_e": log10_e, "log10_p": log10_p, "enough": None},
            **{"test": "exact in-set" if exact else "anytime e-process", "p_is": "exact" if exact else "anytime"},
        )

    return of


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"test": "a test of my own"}, "none of wmplug's"),
        ({"p_is": "anytime"}, "does not fit the test"),
        ({"keys": 0}, "counted from 1"),
        ({"looks": 0}, "counted from 1"),
        ({"looks": 9}, "log10_e"),
        ({"triggers": 99}, "100 queries of a set of 99 triggers"),
        ({"enough": 101}, "101 queries were enough, of 100"),
        ({"enough": 2}, "2 queries were enough for log10_e = 6, and allow 2 at most"),
        ({"draws": 99}, "100 answers of 99 draws"),
        ({"draws": 101}, "101 draws in 100 queries"),
        ({"candidates": ()}, "among no candidates"),
        ({"candidates": (1, 10)}, "1 candidates"),
        ({"candidates": (11,)}, "log10_p"),
        ({"candidates": (10**400,)}, "more than any test has"),
        ({"triggers": 10**400}, "more than any test has"),
        ({"keys": 2}, "log10_e"),
    ],
)
def test_what_no_count_allows_is_named(mark, changes, said):
    verdict = verify(mark, Thief(mark), exhaustive=True)
    assert contradictions(verdict) == []
    assert said in "; ".join(contradictions(dataclasses.replace(verdict, **changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"queries": 1},
        {"of": 3},
        {"matches": 10**6},
        {"matches": -1},
        {"matches": "all"},
        {"log10_e": "much"},
        {"log10_e": math.nan},
        {"log10_p": -1e9},
        {"log10_p": 0.5},
        {"test": "x"},
    ],
    ids=str,
)
def test_parts_must_fit_the_whole(changes):
    verdict = next(one for one in FROZEN if one.scheme == "combined" and one.p_is == "exact")
    for place in (0, 1):
        parts = list(verdict.parts)
        parts[place] = dataclasses.replace(parts[place], **changes)
        assert contradictions(dataclasses.replace(verdict, parts=tuple(parts)))


def test_very_many_answers_take_no_memory(mark):
    verdict = verify(mark, Thief(mark), exhaustive=True)
    many = 10**11
    counts = {name: many for name in ("triggers", "queries", "in_set", "matches", "draws")}
    assert contradictions(dataclasses.replace(verdict, **counts)) == []  # weaker than it could be
    assert np.isfinite(verdict.log10_p)
