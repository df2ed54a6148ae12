"""One arithmetic of placement, on whatever computes it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from keras_models import BACKEND, compiled

from wmplug.keys.streams import KeyStream
from wmplug.training.placement import CYCLES, THRESHOLDS, Placement, lap, place

LIBRARIES = {"numpy": np, "keras": ops}
if BACKEND == "jax":
    import jax.numpy

    LIBRARIES["jax"] = jax.numpy
TABLES = {mode: Placement.draw(KeyStream(bytes(range(32))), 12, mode) for mode in ("append", "replace")}
PLACES = compiled(lambda slot, whole, passed, cycle: place(slot, whole, passed, cycle))


def int32(xp, value):
    return ops.convert_to_tensor(value, "int32") if xp is ops else xp.asarray(value, "int32")


@pytest.mark.parametrize("name", LIBRARIES)
@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(["append", "replace"]),
    slot=st.integers(0, 2**31 - 1),
    batch=st.integers(1, 20_000),
    rate=st.integers(1, 500_000),
    pool=st.integers(1, 16_383),
)
def test_every_library_places_as_whole_numbers_do(name, mode, slot, batch, rate, pool):
    xp, tables, cycle = LIBRARIES[name], TABLES[mode], CYCLES * pool
    whole, rest = tables.share(batch, rate)
    passed = lap(xp, int32(xp, tables.thresholds), int32(xp, rest))
    first, count = place(int32(xp, slot), int32(xp, whole), passed, cycle)
    assert np.asarray(passed).tolist() == tables.lap(rest)
    assert int(count) == tables.count(slot, batch, rate)
    assert int(first) == tables.before(slot, batch, rate) % cycle


@given(slot=st.integers(0, 2**31 - 1), whole=st.integers(0, 20_000), rest=st.integers(0, 999_999))
@settings(max_examples=30, deadline=None)
def test_in_a_compiled_graph_too(slot, whole, rest):
    tables, cycle = TABLES["append"], CYCLES * 12
    found = PLACES(*(int32(ops, n) for n in (slot, whole, tables.lap(rest), cycle)))
    assert [int(n) for n in found] == list(place(slot, whole, tables.lap(rest), cycle))


def test_slots_beyond_int32_are_placed_by_their_lap():
    tables = TABLES["append"]
    for slot in (2**40 - 1, 2**40 + THRESHOLDS + 3, 2**63):
        first, count = tables.start(slot, 64, 61_234)
        assert first == tables.before(slot % 2**40, 64, 61_234) % len(tables.order)
        assert len(tables.place(slot, 64, 61_234)) == count
