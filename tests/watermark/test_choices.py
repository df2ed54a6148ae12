"""What names a choice, and as how many tries it counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmplug.errors import StatisticsError
from wmplug.watermark.choices import UNBOUND, Choice, named, paid, unbound

BINDINGS = ("committed", "drawn", "fixed", "paid")


@given(st.lists(st.tuples(st.sampled_from(sorted(UNBOUND)), st.sampled_from((None, *BINDINGS)))))
def test_a_state_line_names_exactly_what_nothing_binds(pairs):
    choices = [Choice(what=what, bound=bound) for what, bound in pairs]
    loose = [UNBOUND[what] for what, bound in pairs if bound is None]
    assert unbound(choices) == loose
    assert named(choices) == "".join(f"; {name}" for name in loose)


def test_what_was_committed_by_a_date_is_named_with_it():
    dated = Choice(what="questions", bound="committed", tries=3, note="by 2026-01-02T00:00:00Z")
    assert named([dated]) == "; questions committed by 2026-01-02T00:00:00Z, 3 tries"
    assert unbound([dated]) == []


@given(st.lists(st.integers(1, 1000)))
def test_tries_multiply(numbers):
    product = 1
    for number in numbers:
        product *= number
    assert paid(Choice(what="rows", bound="paid", tries=number) for number in numbers) == product


@pytest.mark.parametrize(
    "fields",
    [
        {"what": "moon phase", "bound": None},
        {"what": "rows", "bound": "sworn"},
        {"what": "rows", "bound": "paid", "tries": 0},
        {"what": "rows", "bound": "paid", "tries": True},
        {"what": "rows", "bound": "paid", "tries": 2.0},
        {"what": "rows", "bound": None, "tries": 2},
        {"what": "rows", "bound": None, "note": 7},
        {"what": "rows", "bound": None, "sha256": None},
    ],
)
def test_what_is_no_choice_is_refused(fields):
    with pytest.raises(StatisticsError, match=r"name a choice|count from 1"):
        Choice(**fields)
