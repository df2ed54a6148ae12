import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.training.placement import CYCLES, PPM, THRESHOLDS, AutoRate, Placement, place, read_rate

KEY = bytes(range(32))
rates, batches, modes = st.integers(1, PPM // 2), st.integers(1, 512), st.sampled_from(["append", "replace"])


def placement(pool=100, mode="append", key=KEY):
    return Placement.draw(KeyStream(key), pool, mode)


@given(batch=batches, rate=rates, mode=modes)
@settings(max_examples=100, deadline=None)
def test_mean_over_all_thresholds_is_the_rate(batch, rate, mode):
    made = placement(7, mode)
    counts = [made.count(slot, batch, rate) for slot in range(THRESHOLDS)]
    share = batch * rate / (PPM - rate if mode == "append" else PPM)
    assert np.mean(counts) == pytest.approx(share, abs=0.5 / THRESHOLDS + 2 / PPM)
    assert {int(share), int(share) + 1} >= set(counts) - {0 if share < 1 else -1}
    assert max(counts) - min(counts) <= 1


@given(batch=batches, rate=rates, mode=modes, slot=st.integers(0, 2**64 - 1), pool=st.integers(1, 300))
@settings(max_examples=200, deadline=None)
def test_every_slot_gets_its_count_of_rows_in_the_pool(batch, rate, mode, slot, pool):
    made = placement(pool, mode)
    rows, count = made.place(slot, batch, rate), made.count(slot, batch, rate)
    assert len(rows) == count == len(made.rows(slot % 2**40, count, max(1, count)))
    assert len(rows) <= batch or mode == "append"
    assert ((rows >= 0) & (rows < pool)).all()


def test_append_rate_is_a_share_of_what_the_model_sees():
    made = placement()
    triggers = sum(made.count(slot, 64, 60_000) for slot in range(THRESHOLDS))
    assert triggers / (triggers + 64 * THRESHOLDS) == pytest.approx(0.06, abs=1e-5)
    made = placement(mode="replace")
    assert sum(made.count(s, 64, 60_000) for s in range(THRESHOLDS)) / (64 * THRESHOLDS) == pytest.approx(
        0.06, abs=1e-5
    )


def test_a_share_is_whole_numbers():
    """As in a compiled graph: the rest decides by thresholds, which are whole numbers too."""
    for mode, share in (("append", (4, 85_106)), ("replace", (3, 840_000))):
        got = placement(mode=mode).share(64, 60_000)
        assert (got, [type(part) for part in got]) == (share, [int, int])


def test_slots_begin_anew_after_2_to_the_40():
    """A slot of content has 64 bits, of which 40 count."""
    made = placement(1000)
    assert made.start(7, 64, 60_000) != made.start(8, 64, 60_000)
    for beyond in (2**40, 5 * 2**40, 2**63):
        assert made.start(beyond + 7, 64, 60_000) == made.start(7, 64, 60_000)


@pytest.mark.parametrize("pool", [1, 16, 100, 128])
@pytest.mark.parametrize(("batch", "rate"), [(64, 60_000), (8, 10_000), (32, 500_000)])
def test_rows_come_equally_often(pool, batch, rate):
    made = placement(pool)
    seen = Counter()
    for slot in range(3000):
        seen.update(made.place(slot, batch, rate).tolist())
    assert set(seen) == set(range(pool))
    # A cycle shows every row once, so that no row is ever ahead of another by more than the cycle that is under way.
    assert max(seen.values()) - min(seen.values()) <= 1


def test_cycles_are_reshuffled():
    order = placement(50).order.reshape(CYCLES, 50)
    assert (np.sort(order, axis=1) == np.arange(50)).all()
    assert len({tuple(cycle) for cycle in order.tolist()}) == CYCLES


def test_the_tables_are_drawn_one_after_the_other():
    """Whoever holds the schedule key can draw them again."""
    made, stream = placement(9), KeyStream(KEY)
    assert made.order.tolist() == [row for _ in range(CYCLES) for row in stream.permutation(9).tolist()]
    spaced = [(2 * n + 1) * PPM // (2 * THRESHOLDS) for n in range(THRESHOLDS)]
    assert made.thresholds.tolist() == [spaced[n] for n in stream.permutation(THRESHOLDS).tolist()]
    assert made.seed == int.from_bytes(stream.bytes(8), "little")


@given(batch=batches, rate=rates, mode=modes, slot=st.integers(0, 2 * THRESHOLDS + 5), pool=st.integers(1, 50))
@settings(max_examples=25, deadline=None)
def test_a_slot_begins_where_all_before_it_end(batch, rate, mode, slot, pool):
    made = placement(pool, mode)
    before = sum(made.count(earlier, batch, rate) for earlier in range(slot))
    assert made.before(slot, batch, rate) == before
    assert made.start(slot, batch, rate) == (before % len(made.order), made.count(slot, batch, rate))


@given(
    slot=st.integers(0, 2**31 - 1), batch=batches, rate=rates, mode=modes, pool=st.sampled_from([1, 100, 1000, 16_383])
)
@settings(max_examples=60, deadline=None)
def test_the_arithmetic_of_a_compiled_graph_fits_int32(slot, batch, rate, mode, pool):
    """As jax computes it; NumPy warns where a number does not fit."""
    made = placement(pool, mode)
    whole, rest = made.share(batch, rate)
    passed = np.array(made.lap(rest), np.int32)
    first, count = place(np.int32(slot), np.int32(whole), passed, np.int32(len(made.order)))
    assert (first.dtype, count.dtype) == (np.int32, np.int32)
    assert (int(first), int(count)) == made.start(slot, batch, rate)
    assert made.before(slot, batch, rate) % len(made.order) == first


def test_slots_of_one_width_leave_no_row_out():
    made = placement(10)
    rows = [made.rows(slot, 4, 4).tolist() for slot in range(CYCLES * 10 // 4 + 2)]
    assert list(itertools.chain(*rows)) == [*made.order.tolist(), *made.order[:8].tolist()]
    assert made.rows(3, 2, 4).tolist() == rows[3][:2]


def test_ranks_of_one_step_do_not_share_rows():
    made, world = placement(100), 4
    shared = 0
    for step in range(500):
        rows = np.concatenate([made.place(step * world + rank, 64, 60_000) for rank in range(world)])
        shared += len(rows) - len(set(rows.tolist()))
    # Only where one cycle ends and the next begins within a step may a row come twice.
    assert shared <= 500 * world * 5 / 100 * 4
    within = [made.place(rank, 64, 60_000) for rank in range(world)]
    assert len(set(np.concatenate(within).tolist())) == sum(map(len, within))


def test_placement_is_stateless_and_the_same_in_another_process():
    made = placement()
    late_first = [made.place(slot, 64, 60_000).tolist() for slot in (900, 3, 2**50)]
    assert [placement().place(slot, 64, 60_000).tolist() for slot in (900, 3, 2**50)] == late_first
    code = (
        "from wmplug.training.placement import Placement; from wmplug.keys.streams import KeyStream\n"
        "made = Placement.draw(KeyStream(bytes(range(32))), 100, 'append')\n"
        "print([made.place(slot, 64, 60_000).tolist() for slot in (900, 3, 2**50)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str(late_first)
    assert placement(key=bytes(32)).place(3, 64, 60_000).tolist() != late_first[1]


def test_slots_of_content_spread_evenly():
    made = placement()
    slots = np.array([made.slot_of(fingerprint) for fingerprint in range(20_000)], dtype=np.uint64)
    assert len(set(slots.tolist())) == 20_000
    assert made.slot_of(2**32 - 1) != placement(key=bytes(32)).slot_of(2**32 - 1)
    counts = np.bincount((slots % 16).astype(int), minlength=16)
    assert abs(counts - 1250).max() < 6 * 1250**0.5
    mean = np.mean([made.count(int(slot), 64, 60_000) for slot in slots])
    assert mean == pytest.approx(64 * 0.06 / 0.94, abs=0.02)


def test_slot_of_splitmix64_known_value():
    made = Placement("append", np.arange(1), np.arange(THRESHOLDS), 1234567)
    assert made.slot_of(0) == 6457827717110365317  # first output of splitmix64 seeded with 1234567


@pytest.mark.parametrize(
    ("pool", "mode", "words"), [(5, "prepend", "choose 'append'"), (0, "append", "teaches no rows")]
)
def test_draw_refuses(pool, mode, words):
    with pytest.raises(InputError, match=words):
        placement(pool, mode)


def test_read_rate():
    assert read_rate(None, 0.06) == (60_000, None)
    assert read_rate(0.25, 0.06) == (250_000, None)
    assert read_rate(np.float32(0.5), 0.06) == (500_000, None)
    assert read_rate("auto", 0.06) == (60_000, AutoRate(7_500, 240_000))
    assert read_rate("auto", 0.4)[1].high == PPM // 2
    assert read_rate("auto", 2e-6) == (2, AutoRate(1, 8))
    assert read_rate("auto", 15e-6) == (15, AutoRate(1, 60))
    assert (read_rate(1e-6, 0.06), read_rate(0.5, 0.06)) == ((1, None), (500_000, None))


@pytest.mark.parametrize(
    ("rate", "log10_e", "following"),
    [
        (1000, 8.99, 1500),
        (1, 8.99, 2),
        (900_000, 8.99, 240_000),
        (1000, 9.0, 1000),
        (1000, 21.0, 1000),
        (10_000, 21.01, 8000),
        (1000, 21.01, 900),
    ],
)
def test_auto_rate_step_by_step(rate, log10_e, following):
    """The target is 6; it should be cleared by 3, and 12 more change nothing."""
    assert AutoRate(900, 240_000).next(rate, log10_e, 6.0) == following


@pytest.mark.parametrize("rate", [0, -0.1, 0.51, 1, True, float("nan"), float("inf"), "0.1", "fast", [0.1], 1e-9])
def test_read_rate_refuses(rate):
    with pytest.raises(InputError, match="rate="):
        read_rate(rate, 0.06)


@given(
    start=st.floats(1e-6, 0.5),
    evidence=st.lists(st.floats(-400, 400, allow_nan=False) | st.just(-np.inf), max_size=60),
)
@settings(max_examples=100, deadline=None)
def test_auto_rate_stays_in_bounds_and_above_zero(start, evidence):
    rate, auto = read_rate("auto", start)
    assert 0 < auto.low <= rate <= auto.high <= PPM // 2
    for log10_e in evidence:
        rate = auto.next(rate, log10_e, 6.0)
        assert 0 < auto.low <= rate <= auto.high


def test_auto_rate_always_climbs_out_of_weakness():
    for start in (1e-6, 0.001, 0.06):
        rate, auto = read_rate("auto", start)
        for _ in range(40):
            rate = auto.next(rate, 0.0, 6.0)
        assert rate == auto.high


@pytest.mark.parametrize("need", [20_000, 60_000, 150_000])
def test_auto_rate_settles_where_the_claim_clears_its_target(need):
    # A model whose evidence follows the rate with a lag: log10 E tends to 9 where the rate is just what is needed.
    rate, auto = read_rate("auto", 0.06)
    strength, history = 0.0, []
    for _ in range(80):
        strength += 0.5 * (9.0 * rate / need - strength)
        rate = auto.next(rate, strength, 6.0)
        history.append((rate, strength))
    settled = history[40:]
    assert all(strength >= 6.0 for _, strength in settled)
    assert max(rate for rate, _ in settled) == min(rate for rate, _ in settled) > auto.low
