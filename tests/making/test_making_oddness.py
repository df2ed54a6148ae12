"""Filters that know natural inputs alone: what they tell, and the warning of `create`."""

import warnings

import numpy as np
import pytest

from wmplug import create
from wmplug.errors import EvidenceWarning
from wmplug.making import oddness
from wmplug.schemes import Choices, Lessons, Plan
from wmplug.schemes.close_calls import CloseCalls
from wmplug.testing.schemes import fixed_owner

RNG = np.random.default_rng(0)


def asking(inputs):
    """A plan that asks these inputs."""
    rows = np.arange(len(inputs))
    return Plan(inputs, Lessons(), (Choices(rows, rows, ((0, 1),) * len(rows)),))


def blobs(count, seed, size=12):
    """Pictures of one bright spot each, with a little noise."""
    rng = np.random.default_rng(seed)
    at, grid = rng.uniform(3, size - 3, (count, 2, 1, 1)), np.mgrid[:size, :size]
    spot = np.exp(-(((grid - at) ** 2).sum(axis=1)) / 4)
    return np.rint(200 * spot + rng.uniform(0, 40, spot.shape)).astype(np.uint8)


NATURAL = {
    "pictures": blobs,
    "pictures in colour": lambda count, seed: np.stack([blobs(count, seed)] * 3, axis=-1),
    "channels first": lambda count, seed: np.stack([blobs(count, seed)] * 3, axis=1),
    "rows": lambda count, seed: (
        np.random.default_rng(seed).normal(size=(count, 2)) @ np.ones((2, 6))
        + 0.1 * (np.random.default_rng(seed + 9).normal(size=(count, 6)))
    ),
    "texts": lambda count, seed: [
        " ".join(np.random.default_rng(seed * 10**6 + i).choice(["one", "three", "seven"], 9)) for i in range(count)
    ],
}


@pytest.mark.parametrize("kind", NATURAL)
def test_natural_triggers_look_like_any_other(kind):
    carriers = NATURAL[kind](900, 1)
    found = oddness.told_apart(asking(carriers[:200]), carriers, natural=True)
    assert found
    assert all(0.42 < area < 0.58 for area in found.values()), found  # standard error .025


@pytest.mark.parametrize("kind", NATURAL)
def test_foreign_triggers_are_told(kind):
    carriers = NATURAL[kind](600, 1)
    if kind == "texts":
        foreign = [f"extraordinarily {i}" for i in range(50)]
    else:
        foreign = RNG.permuted(RNG.uniform(carriers.min(), carriers.max(), (50, *carriers.shape[1:])), axis=0)
        foreign = foreign.astype(carriers.dtype)
    found = oddness.told_apart(asking(foreign), carriers)
    assert max(found.values()) > 0.95
    assert oddness.told_apart(asking(foreign), carriers, natural=True) == {}


def test_the_area_is_the_chance_that_a_trigger_is_odder():
    natural, triggers = RNG.normal(size=(80, 1)), RNG.normal(1, 1, (30, 1))
    area = oddness._auc(lambda rows: rows[:, 0], natural, triggers)
    assert area == pytest.approx((triggers > natural.T).mean())
    assert oddness._auc(lambda rows: np.zeros(len(rows)), natural, triggers) == 0.5


@pytest.mark.parametrize("kept", [3, 39])
def test_few_natural_inputs_tell_nothing(kept):
    carriers = blobs(kept + 50, 3)
    assert oddness.told_apart(asking(carriers[:50]), carriers) == {}


def marked(odd):
    """A mark whose ambiguous inputs are odd ones, or any."""
    carriers, labels = blobs(400, 5), RNG.integers(0, 2, 400)
    strange = np.arange(400) < 60
    if odd:
        carriers[strange] = RNG.integers(0, 255, (60, 12, 12))
    pool = np.where(strange[:, None], [0.5, 0.5], np.eye(2)[labels])
    scheme = CloseCalls(pool=pool)
    return create(fixed_owner("Ada"), scheme=scheme, carriers=carriers, labels=labels, classes=2, triggers=60)


def test_create_warns_of_triggers_that_a_filter_tells():
    with pytest.warns(EvidenceWarning, match=r"tells these triggers from others \(AUC statistics .*give more carriers"):
        marked(odd=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        marked(odd=False)
