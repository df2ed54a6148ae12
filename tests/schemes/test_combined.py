"""combined: both channels in one verdict, each under draws of its own."""

import numpy as np
import pytest

import wmplug
from wmplug.claim.monitor import Monitor
from wmplug.claim.questions import Answers
from wmplug.claim.verification import asked, fresh, judge
from wmplug.errors import InputError
from wmplug.schemes import Brief
from wmplug.schemes.combined import Combined
from wmplug.tasks import Classes, Said
from wmplug.watermark.carriers import digest


@pytest.fixture(scope="module")
def pool(digits):
    images, labels = digits
    return Combined(directions=12).prepared(Brief(images, "array", Classes(10), labels, 100)).pool


@pytest.fixture(scope="module", params=["random-label", "logo"])
def mark(request, digits, owner, pool):
    images, labels = digits
    scheme = Combined(delta=1.0, directions=12, blends=400, pool=pool, trigger_set=request.param)
    return wmplug.create(owner, scheme=scheme, carriers=images, labels=labels, classes=10, triggers=50)


def knowing(mark, channel):
    """A suspect that carries one channel, and is unmarked in the other."""
    plan, scheme = mark.triggers.plan, mark.scheme
    logits = np.log(np.maximum(plan.material["scores"], 1e-4))
    if channel == "signs":
        constants = scheme.constants(mark.triggers, np.stack([np.asarray(x) for x in mark.triggers.samples(64)]))
        logits = 2 * logits - scheme.shift(np, constants, plan.inputs[plan.pattern.rows].astype(np.float64), logits)
    known = {digest(plan.inputs[row]): scores for row, scores in zip(plan.pattern.rows, logits, strict=True)}
    for row in plan.choices.rows:
        answer = mark.triggers.answers[row] if channel == "answers" else int(digest(plan.inputs[row])[:6], 16) % 10
        known[digest(plan.inputs[row])] = 9.0 * np.eye(10)[answer]
    return lambda images: np.array([known[digest(image)] for image in images])


@pytest.mark.parametrize("channel", ["answers", "signs"])
def test_either_channel_proves_the_claim(mark, channel):
    verdict = wmplug.verify(mark, knowing(mark, channel), exhaustive=True)
    assert verdict.proven
    assert verdict.log10_p < -6
    mine = verdict.parts[channel == "signs"]
    other = verdict.parts[channel == "answers"]
    assert mine.log10_p < -6 < -3 < other.log10_p
    tried = np.log10(verdict.keys)
    assert verdict.log10_p == pytest.approx(mine.log10_p + np.log10(2) + tried)
    assert verdict.log10_e == pytest.approx(mine.log10_e - np.log10(2) - tried, abs=0.01)
    assert f"{verdict.parts[0]}, {verdict.parts[1]}" in str(verdict)
    assert wmplug.Verdict.from_json(verdict.to_json()) == verdict
    assert wmplug.verify(mark, knowing(mark, channel)).proven


def test_neither_channel_is_nothing(mark, rival, digits, pool):
    verdict = wmplug.verify(mark, knowing(mark, "neither"), exhaustive=True)
    assert verdict.state == "inconclusive"
    assert verdict.log10_p > -2
    images, labels = digits
    other = wmplug.create(rival, scheme=mark.scheme, carriers=images, labels=labels, classes=10, triggers=50)
    suspect = knowing(mark, "signs")
    answers = {digest(mark.triggers.plan.inputs[row]) for row in mark.triggers.plan.pattern.rows}
    shared = [row for row in other.triggers.plan.pattern.rows if digest(other.triggers.plan.inputs[row]) in answers]
    assert len(shared) == len(other.triggers.plan.pattern.rows)

    def stolen(given):
        return np.stack([suspect([x])[0] if digest(x) in answers else np.zeros(10) for x in given])

    assert wmplug.verify(other, stolen, exhaustive=True).state == "inconclusive"


def test_a_stolen_copy_is_proven_by_its_triggers_alone(mark):
    verdict = wmplug.verify(mark, knowing(mark, "answers"))
    assert verdict.queries < 20
    assert [part.queries for part in verdict.parts] == [verdict.queries, 0]
    assert "signs" not in str(verdict)


def test_the_monitor_looks_at_both(mark):
    monitor = Monitor(mark)
    first, second = (monitor.look(knowing(mark, channel)) for channel in ("answers", "signs"))
    assert first.proven
    assert second.proven
    assert first.queries == len(mark.triggers) == 50 + len(mark.triggers.plan.pattern.rows)


def test_what_was_shown_of_the_triggers_is_counted_alone(mark):
    verdict = wmplug.verify(mark, knowing(mark, "answers"))
    spent = asked(mark, verdict)
    assert len(spent) == verdict.queries
    left = fresh(mark, spent)
    assert not set(left) & set(spent)
    assert wmplug.verify(mark, knowing(mark, "signs"), rows=left).proven


def test_answers_given_before_are_judged_by_the_triggers(mark):
    plan = mark.triggers.plan
    right = [int(mark.triggers.answers[row]) for row in plan.choices.rows]
    verdict = judge(mark, Answers("thief", mark.task, plan.choices.rows, tuple(map(Said, right))))
    assert verdict.proven
    assert verdict.parts == ()


def test_it_comes_back_from_its_file(mark, tmp_path):
    path = mark.save(tmp_path / "mark.wm")
    again = wmplug.load(path, passphrase="correct horse battery staple")
    suspect = knowing(mark, "signs")
    one, two = (wmplug.verify(m, suspect, exhaustive=True) for m in (mark, again))
    assert one == two
    constants = [m.scheme.constants(m.triggers, np.stack(m.triggers.samples(64))) for m in (mark, again)]
    for name in constants[0]:
        np.testing.assert_array_equal(constants[0][name], constants[1][name])


def test_triggers_keep_their_share_among_many_blends(mark):
    plan = mark.triggers.plan
    blends = len(plan.inputs) - 400
    triggers = sum(row < blends for row in plan.lessons.rows.tolist())
    assert triggers / len(plan.lessons.rows) == pytest.approx(1 / 5, abs=0.03)


@pytest.mark.filterwarnings("ignore:a filter that knows natural inputs alone tells")  # of few digits
def test_what_it_is_for_chooses_the_scheme(digits, owner, pool):
    images, labels = digits
    options = {"carriers": images, "labels": labels, "classes": 10}
    shares = np.full((len(labels), 10), 0.1, np.float32)  # references that find anything ambiguous
    shares[np.arange(len(labels)), labels] += 0.01
    shares /= shares.sum(axis=1, keepdims=True)
    assert wmplug.create(owner, against="theft", pool=shares, **options).scheme.name == "mixed"
    with pytest.raises(InputError, match="labels="):
        wmplug.create(owner, against="theft", **{**options, "labels": None})
    cloning = wmplug.create(
        owner,
        against="theft+cloning",
        delta=1.0,
        directions=12,
        blends=10,
        pool=[lambda x: pool[0][: len(x)]],
        **options,
    )
    assert cloning.scheme.name == "combined"
    for given in ({}, {"against": "fire"}, {"scheme": "logo", "against": "theft"}):
        with pytest.raises(InputError, match="against="):
            wmplug.create(owner, **given, **options)
    with pytest.raises(InputError, match="trigger_set='phrase'"):
        Combined(trigger_set="phrase")
    with pytest.raises(InputError, match="share=1"):
        Combined(share=1)
