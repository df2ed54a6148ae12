"""The heart: whatever a suspect answers, without the label key it is accused no oftener than the number says."""

import dataclasses
import hashlib
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from wmplug import create, verify
from wmplug.keys.streams import KeyStream, derive
from wmplug.statistics.betting import log10_e_path
from wmplug.statistics.draws import DrawResult, log10_p
from wmplug.tasks import Said
from wmplug.watermark.plan import draw_symbols

pytestmark = pytest.mark.once
KEYS = 10_000
WORDS = [f"word{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
TEXTS = [" ".join(WORDS[(7 * i + j * j + i * j) % 100] for j in range(8)) for i in range(400)]
TOPICS = np.arange(400) % 4
MARKS = {
    "random-label": ("random-label", "pictures", {"triggers": 25}),
    "random-label-text": ("random-label", "texts", {"triggers": 25}),
    "logo": ("logo", "pictures", {"triggers": 60, "variants": 3}),
    "logo-per-carrier": ("logo", "pictures", {"triggers": 25, "rule": "per-carrier"}),
    "phrase": (
        "phrase",
        "texts",
        {"triggers": 60, "phrases": [f"{a} {b}" for a, b in zip(WORDS[:24], WORDS[40:], strict=False)]},
    ),
}


@pytest.fixture(scope="module")
def owner(owner):
    """With a secret that is the same in every run, as its luck is."""
    return dataclasses.replace(owner, _roots=(bytes(range(32)),), path=Path("nowhere"))


@pytest.fixture(scope="module")
def marks(owner, digits):
    tasks = {
        "pictures": {"carriers": digits[0], "labels": digits[1], "classes": 10},
        "texts": {"carriers": TEXTS, "labels": TOPICS, "classes": 4},
    }
    return {name: create(owner, scheme=s, **tasks[kind], **options) for name, (s, kind, options) in MARKS.items()}


def drawn(key, options):
    """(draws,) answers of a label key, from the generator that draws the owner's; all draws have equally many."""
    (number,) = {len(among) for among in options}
    return KeyStream(derive(key.encode(), "key")).below(number, len(options))


@pytest.fixture(scope="module")
def symbols(marks):
    """(KEYS, draws) answers of independent label keys."""
    options = {name: mark.triggers.plan.options for name, mark in marks.items()}
    return {name: np.array([drawn(f"{name}/{i}", options[name]) for i in range(KEYS)]) for name in marks}


@pytest.mark.parametrize("name", MARKS)
def test_other_keys_draw_as_the_owners_does(marks, symbols, name):
    for i in range(0, KEYS, 100):
        stream = KeyStream(derive(f"{name}/{i}".encode(), "key"))
        assert symbols[name][i].tolist() == draw_symbols(stream, marks[name].triggers.plan.options).tolist()


def content(x):
    return hashlib.sha256(x.encode() if isinstance(x, str) else x.tobytes()).digest()


def bit_of(x):
    # The brightness of a pixel or the length of the text: a bit that is there to be seen.
    return len(x) % 2 if isinstance(x, str) else int(x.reshape(-1)[0]) % 2


def nearest(mark, rows, carriers, labels):
    """The label of the carrier most like it: what a good unmarked model says of a stamped picture."""
    if isinstance(carriers, list):
        bags = [set(text.split()) for text in carriers]
        return [int(labels[np.argmax([len(set(row.split()) & bag) for bag in bags])]) for row in rows]
    flat = carriers.reshape(len(carriers), -1).astype(float)
    return [int(labels[np.argmin(((flat - row.reshape(-1)) ** 2).sum(axis=1))]) for row in rows]


SUSPECTS = {
    "constant": lambda mark, rows, *_: [3 % mark.task.count] * len(rows),
    "two classes only": lambda mark, rows, *_: [content(x)[0] % 2 for x in rows],
    "copies a bit of the trigger": lambda mark, rows, *_: [bit_of(x) for x in rows],
    "correlated across triggers": lambda mark, rows, *_: [(i // 10) % mark.task.count for i in range(len(rows))],
    "all as the first": lambda mark, rows, *_: [content(rows[0])[0] % mark.task.count] * len(rows),
    "nearest carrier": nearest,
}


def counts_of(mark, suspect, digits):
    """What the suspect's answers amount to, draw by draw, before any key is looked at."""
    texts = mark.triggers.form == "text"
    rows = [mark.triggers.row(i) for i in mark.triggers.plan.choices.rows]
    answers = SUSPECTS[suspect](mark, rows, *((TEXTS, TOPICS) if texts else digits))
    parts = np.split(np.array(answers), np.cumsum([len(g) for g in mark.triggers.groups])[:-1])
    groups = zip(mark.triggers.groups, parts, strict=True)
    return [mark.triggers.count(group, list(map(Said, part.tolist()))).counts for group, part in groups]


def asked_draws(mark):
    return [int(mark.triggers.plan.draw[group[0]]) for group in mark.triggers.groups]


@pytest.mark.parametrize("suspect", SUSPECTS)
@pytest.mark.parametrize("name", MARKS)
def test_p_values_hold_for_every_suspect(marks, symbols, digits, name, suspect):
    mark = marks[name]
    counts = counts_of(mark, suspect, digits)
    drawn = symbols[name][:, asked_draws(mark)]
    matches = sum(np.array(c)[drawn[:, d]] for d, c in enumerate(counts))
    # p depends on the key through the matches alone: one key for each number of matches tells it.
    by_matches = {}
    for total in sorted(set(matches.tolist())):
        key = drawn[int(np.argmax(matches == total))]
        by_matches[total] = log10_p([DrawResult(int(s), c) for s, c in zip(key, counts, strict=True)])
    p = np.array([by_matches[total] for total in matches.tolist()])
    attained = sorted(set(p.tolist()))
    for alpha in (0.5, 0.1, 0.05, 0.01):
        false = int((p <= math.log10(alpha) + 1e-9).sum())
        # At a level that p can take the rate is that level exactly, in both directions; else it is below.
        level = max((10**a for a in attained if a <= math.log10(alpha) + 1e-9), default=0.0)
        low, high = binom.interval(1 - 1e-5, KEYS, min(1.0, level)) if level else (0, binom.isf(5e-6, KEYS, alpha))
        assert low <= false <= high, (alpha, level, false)


@pytest.mark.parametrize("name", MARKS)
def test_looking_after_every_draw_costs_nothing(marks, symbols, digits, name):
    mark, keys = marks[name], 1500
    for suspect in ("correlated across triggers", "nearest carrier"):
        counts = counts_of(mark, suspect, digits)
        drawn = symbols[name][:keys, asked_draws(mark)]
        highest = [
            log10_e_path([DrawResult(int(s), c) for s, c in zip(key, counts, strict=True)]).max() for key in drawn
        ]
        for alpha in (0.1, 0.05, 0.01):
            assert (np.array(highest) >= -math.log10(alpha)).sum() <= binom.isf(1e-6, keys, alpha), (suspect, alpha)


@pytest.mark.parametrize("name", MARKS)
def test_who_knows_the_answers_is_proven_and_only_with_this_key(marks, symbols, name):
    mark = marks[name]
    known = {content(mark.triggers.row(i)): int(mark.triggers.answers[i]) for i in mark.triggers.plan.choices.rows}

    def thief(batch):
        return [known[content(x)] for x in batch]

    assert verify(mark, thief).proven
    assert verify(mark, thief, exhaustive=True).log10_p < -10
    for key in symbols[name][:20]:
        other = dataclasses.replace(mark, triggers=dataclasses.replace(mark.triggers, symbols=key))
        verdict = verify(other, thief, exhaustive=True)
        assert not verdict.proven
        assert verdict.log10_p > -4


def test_whole_way_from_owner_to_verdict(owner, digits):
    """Other owners, each with inputs and answers of his own, against a suspect who answers by what he sees."""
    false, owners = Counter(), 400
    for i in range(owners):
        other = dataclasses.replace(owner, _roots=(derive(b"owners", str(i)),), path=Path("nowhere"))
        mark = create(other, scheme="random-label", carriers=digits[0][:50], classes=2, triggers=30)
        verdict = verify(mark, lambda batch: [bit_of(x) for x in batch], exhaustive=True)
        for alpha in (0.2, 0.05):
            false[alpha] += verdict.log10_p <= math.log10(alpha)
        # p of "fewer matches than by chance" would be as rare: anticorrelated answers are no better.
        false["few"] += verdict.matches <= binom.ppf(0.05, 30, 0.5) - 1
    assert false[0.2] <= binom.isf(1e-4, owners, 0.2)
    assert false[0.05] <= binom.isf(1e-4, owners, 0.05)
    assert false["few"] <= binom.isf(1e-4, owners, 0.05)
