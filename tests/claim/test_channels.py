"""A channel's numbers where asking may stop at any time, against an owner who stops where it suits."""

import math
from types import SimpleNamespace

import numpy as np
from scipy.stats import binom

from wmplug.claim.channels import ChoicesChannel, PatternChannel
from wmplug.statistics import signs
from wmplug.statistics.draws import DrawResult
from wmplug.tasks import Classes, Said
from wmplug.watermark.plan import Pattern

KEYS, STOPS, CLASSES = 2000, (5, 10, 20, 40), 10


def test_the_owner_who_stops_at_the_best_moment_gains_nothing(mark):
    """The p of the exact test would: at the best of forty moments it is below 5 % for too many keys."""
    drawn, said = np.random.default_rng(7).integers(CLASSES, size=(KEYS, max(STOPS))), 3
    anytime = np.zeros(KEYS)
    counts = [int(option == said) for option in range(CLASSES)]
    for key in range(KEYS):
        channel = ChoicesChannel(mark, mark.triggers.plan.choices, 100, exhaustive=False)
        results = [DrawResult(symbol, counts) for symbol in drawn[key].tolist()]
        for stop in STOPS:
            channel.results = results[:stop]
            anytime[key] = min(anytime[key], channel.finding().log10_p)
    for alpha in (0.1, 0.05, 0.01):
        assert (anytime <= math.log10(alpha)).sum() <= binom.isf(1e-6, KEYS, alpha)
    exact = binom.sf(np.cumsum(drawn == said, axis=1) - 1, np.arange(1, max(STOPS) + 1), 1 / CLASSES).min(axis=1)
    assert (exact <= 0.05).sum() > binom.isf(1e-6, KEYS, 0.05)


class Constant:
    """A scheme whose weights are the same whatever was answered."""

    name = "constant"

    def weigh(self, plan, classes, scores):
        return np.ones(8)


def test_a_stage_not_reached_counts_as_nothing():
    """Only so is the average an e-value wherever the owner stops: all stages share their signs."""
    pattern, drawn = Pattern(np.arange(80), 8), np.ones(8, np.int64)
    triggers = SimpleNamespace(plan=None, signs=drawn)
    fake = SimpleNamespace(scheme=Constant(), task=Classes(2), triggers=triggers)
    channel = PatternChannel(fake, pattern, 80, exhaustive=False)
    one = signs.weighted_log10_e(signs.weights_of(np.ones(8)), drawn)
    assert one > 1
    seen = []
    while len(due := channel.due(math.inf)):
        channel.take([Said(0)] * len(due), "it")
        seen.append((channel.queries, channel.log10_e() - one))
    assert [queries for queries, _ in seen] == [10, 20, 40, 80]
    assert np.allclose([less for _, less in seen], np.log10([1 / 4, 2 / 4, 3 / 4, 1]))
    assert channel.finding().log10_p == -channel.log10_e()
