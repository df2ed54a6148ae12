import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmplug.register.statements import TYPES
from wmplug.report import words

_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_SCALE = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}


@pytest.mark.parametrize(
    ("log10_p", "said"),
    [
        (0.0, "almost certain"),
        (math.log10(0.534), "54 in 100"),
        (math.log10(1 / 40.5), "about one in 40"),
        (-3.2, "less than one in 1 thousand"),
        (-8.9, "less than one in 100 million"),
        (-14.0, "less than one in 100 trillion"),
        (-28.3, "less than one in 10²⁸"),
        (-1234.5, "less than one in 10¹²³⁴"),
    ],
)
def test_a_chance_is_said_in_words(log10_p, said):
    assert words.odds(log10_p) == said


def _meant(said):
    """log10 of the chance that the words state."""
    if said == words.CERTAIN:
        return 0.0
    if found := re.fullmatch(r"(\d+) in 100", said):
        return math.log10(int(found[1]) / 100)
    number, _, name = re.fullmatch(r"(?:about|less than) one in (\S+)( (\w+))?", said).groups()[0:3]
    if number.startswith("10") and set(number[2:]) <= set("⁰¹²³⁴⁵⁶⁷⁸⁹") and number != "10":
        return -int(number[2:].translate(_RAISED))
    return -(math.log10(int(number.replace(",", ""))) + _SCALE.get(name, 0))


@given(st.floats(-5000, 0))
def test_a_chance_is_never_made_smaller_and_at_most_ten_times_larger(log10_p):
    assert log10_p - 1e-9 <= _meant(words.odds(log10_p)) <= log10_p + 1.01


def test_a_comparison_never_overstates():
    assert words.comparison(-2) is None
    assert words.comparison(-8) is None
    for wins in range(2, 9):
        assert f"{wins} times in a row" in words.comparison(-wins * math.log10(13_983_816) - 1e-9)
        assert f"{wins} times in a row" not in words.comparison(-wins * math.log10(13_983_816) + 1e-9)


def test_every_type_of_entry_has_words():
    for kind in TYPES:
        assert words.event(kind, {})
        assert kind not in words.event(kind, {})


def test_what_is_one_is_said_in_the_singular():
    assert (words.entries(0), words.entries(7)) == ("entry 0", "entries 0 to 7")
    assert (words.named([4]), words.named([4, 9])) == ("entry 4", "entries 4, 9")
    assert words.event("watermark.inserted", {"triggers": 1}).endswith(": 1 time")
    assert words.event("watermark.inserted", {"triggers": 1200}).endswith(": 1,200 times")


def test_what_inconclusive_means_is_said():
    assert "never means that the model is not a copy" in words.STATES["inconclusive"]
    assert any("not the chance that the other side is innocent" in text for text in words.NOT_SAID)
