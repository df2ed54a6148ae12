"""Suspects that fail, exit, or answer what cannot be read."""

import dataclasses
import math
import sys

import numpy as np
import pytest
from thieves import Stranger, Thief, table

from wmplug import verify
from wmplug.errors import SuspectError


@pytest.mark.parametrize("target", [None, 3, object(), "no/such/folder"])
def test_what_cannot_be_asked(mark, target):
    with pytest.raises(SuspectError, match="cannot ask"):
        verify(mark, target)


def test_path_that_is_not_there_is_named(mark, tmp_path):
    with pytest.raises(SuspectError, match="nowhere"):
        verify(mark, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("suspect", "words"),
    [
        (lambda batch: np.zeros((len(batch), 11)), "gives 11 scores"),
        (lambda batch: [0.5] * len(batch), "dtype float64"),
        (lambda batch: [0] * (len(batch) - 1), "for .* inputs"),
        (lambda batch: 3, "for .* inputs"),
        (lambda batch: np.full((len(batch), 10), np.nan), "all were NaN"),
    ],
)
def test_unreadable_suspects(mark, suspect, words):
    with pytest.raises(SuspectError, match=words):
        verify(mark, suspect)


def test_suspect_class_that_gives_too_many_answers_is_refused(grouped):
    class Talkative(Stranger):
        def answer(self, inputs):
            return [*super().answer(inputs), 1, 2, 3]

    with pytest.raises(SuspectError, match=r"gave \d+ answers for \d+ inputs"):
        verify(grouped, Talkative())


def test_answers_that_are_no_class_are_counted_outside(mark):
    known = table(mark)
    verdict = verify(mark, lambda batch: [known[x.tobytes()] + 10 for x in batch], exhaustive=True)
    assert (verdict.in_set, verdict.matches, verdict.state) == (0, 0, "inconclusive")
    assert "100 outside the candidates" in str(verdict)


def test_nan_rows_are_dropped_and_counted(mark):
    known, calls = table(mark), []

    def suspect(batch):
        scores = np.eye(10)[[known[x.tobytes()] for x in batch]]
        scores[::4] = np.nan
        calls.append(len(batch))
        return scores

    verdict = verify(mark, suspect, exhaustive=True, batch_size=100)
    assert (verdict.failed, verdict.in_set, verdict.matches) == (25, 75, 75)
    assert verdict.log10_p == pytest.approx(math.log10(2) - 75)
    assert calls == [100]


@pytest.mark.parametrize("exhaustive", [False, True])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_suspect_that_raises_on_every_tenth_query(mark, exhaustive, batch_size):
    known, asked = table(mark), [0]

    def flaky(batch):
        out = []
        for x in batch:
            asked[0] += 1
            if asked[0] % 10 == 0:
                raise TimeoutError("too busy")
            out.append(known[x.tobytes()])
        return out

    verdict = verify(mark, flaky, exhaustive=exhaustive, batch_size=batch_size)
    assert verdict.proven
    assert verdict.matches == verdict.in_set == verdict.queries - verdict.failed
    assert verdict.failed <= verdict.queries / 5
    assert not exhaustive or verdict.failed == 10


def test_last_query_that_fails_alone_is_no_reason_to_stop(mark):
    """A step of one query, all of it failed, after others were answered."""
    known, rows = table(mark), mark.triggers.plan.choices.rows[[0, 7]]
    dead = {mark.triggers.row(i).tobytes() for i in rows}

    def flaky(batch):
        if any(x.tobytes() in dead for x in batch):
            raise TimeoutError("too busy")
        return [known[x.tobytes()] for x in batch]

    verdict = verify(mark, flaky)
    assert verdict.proven
    assert verdict.failed == 2


def test_suspect_that_always_raises_is_named_with_its_cause(mark):
    def broken(batch):
        raise ZeroDivisionError("no model here")

    with pytest.raises(SuspectError, match=r"answered none of .* ZeroDivisionError: no model here") as caught:
        verify(mark, broken)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_suspect_cannot_damage_the_mark(mark, owner):
    class Vandal(Stranger):
        def answer(self, inputs):
            said = super().answer(inputs)
            for x in inputs:
                x[:] = 0
            return said

    before = verify(mark, Thief(mark), exhaustive=True)
    verify(mark, Vandal(), exhaustive=True)
    assert verify(mark, Thief(mark), exhaustive=True).log10_p == before.log10_p


@pytest.mark.parametrize("exhaustive", [False, True])
def test_a_suspect_that_exits_has_failed(mark, exhaustive):
    known, first = table(mark), mark.triggers.row(mark.triggers.plan.choices.rows[0]).tobytes()

    def quits_once(batch):
        return [known[x.tobytes()] if x.tobytes() != first else sys.exit(0) for x in batch]

    verdict = verify(mark, quits_once, exhaustive=exhaustive)
    assert (verdict.state, verdict.failed) == ("proven", 1)
    with pytest.raises(SuspectError, match=r"answered none of .* SystemExit"):
        verify(mark, lambda batch: sys.exit(0), exhaustive=exhaustive)


@pytest.mark.parametrize("odd", [None, "cat", [0.5] * 9])
def test_one_odd_answer_is_one_failed_query(mark, odd):
    known, first = table(mark), mark.triggers.row(mark.triggers.plan.choices.rows[0]).tobytes()

    def suspect(batch):
        said = [np.eye(10)[known[x.tobytes()]].tolist() if x.tobytes() != first else odd for x in batch]
        return said if None not in said or len(said) > 1 else None

    verdict = verify(mark, suspect, exhaustive=True)
    assert (verdict.failed, verdict.matches, verdict.in_set) == (1, 99, 99)
    with pytest.raises(SuspectError, match="gives 9 scores"):
        verify(mark, lambda batch: np.zeros((len(batch), 9)))


def test_all_failed_points_to_preprocess(mark):
    def picky(batch):
        raise RuntimeError("shapes cannot be multiplied")

    with pytest.raises(SuspectError, match=r"multiplied.*load\(path, preprocess=.*--preprocess module:function"):
        verify(mark, picky)
    given = dataclasses.replace(mark, preprocess=lambda x, y: (x, y))
    with pytest.raises(SuspectError, match="check that preprocess= gives what the model takes"):
        verify(given, picky)
    with pytest.raises(SuspectError, match="all were NaN, so the weights are broken"):
        verify(given, lambda batch: np.full((len(batch), 10), np.nan))


def test_bare_weights_and_folders_say_what_is_there(mark, tmp_path):
    (tmp_path / "model.pt").write_bytes(b"")
    (tmp_path / "notes.md").write_text("")
    (tmp_path / "empty").mkdir()
    for path, said in [
        (tmp_path, "holds empty, model.pt, notes.md but neither config.json.*your own class"),
        (tmp_path / "model.pt", "bare weights.*your own class"),
        (tmp_path / "notes.md", "neither a checkpoint folder nor a .keras file"),
        (tmp_path / "empty", "the folder is empty: check the path"),
        (tmp_path / "none", "the file does not exist"),
    ]:
        with pytest.raises(SuspectError, match=said):
            verify(mark, path)
