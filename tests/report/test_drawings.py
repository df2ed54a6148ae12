"""Timeline and plot: where things lie."""

import re

from hypothesis import given
from hypothesis import strategies as st

from wmplug.report import strength, timeline


def event(entry, kind="artwork.committed", run=None):
    return {"entry": entry, "type": kind, "text": "x" * 200, "claimed_time": "2026-01-31T12:00:00Z", "run": run}


def anchor(entry, covers, *, holds=True, lab=False):
    return {"entry": entry, "covers": covers, "holds": holds, "lab": lab, "time": "2026-01-31T12:00:01Z"} | {
        "authority": "Time plc"
    }


def items(drawings):
    return [item for drawing in drawings for item in drawing["items"]]


def test_a_stamp_cuts_the_entries_where_it_stands():
    events = [event(0), event(1), event(2, "anchor"), event(3)]
    first, second, band, last = items(timeline.drawings(events, [anchor(2, 1)]))
    assert [first["band"], second["band"], band["band"], last["band"]] == [False, False, True, False]
    assert "entries 0 to 1 existed by" in band["above"]
    assert "entries after 2 came after" in band["below"]


def test_a_stamp_that_does_not_hold_cuts_nothing():
    (row,) = items(timeline.drawings([event(0, "anchor")], [anchor(0, 0, holds=False)]))
    assert not row["band"]


def test_quiet_entries_of_one_run_are_one_row():
    run = [event(i, "training.checkpoint", "a") for i in range(5)]
    other = [event(i, "training.checkpoint", "b") for i in range(5, 9)]
    rows = items(timeline.drawings([*run, *other, event(9)], []))
    assert [row["entries"] for row in rows] == ["0–4", "5–8", "9"]
    assert "5 looks at the model" in rows[0]["text"]


@given(st.lists(st.sampled_from(["artwork.committed", "anchor", "training.checkpoint", "system.committed"])))
def test_every_entry_is_drawn_once_and_within_its_drawing(kinds):
    events = [event(i, kind, "a") for i, kind in enumerate(kinds)]
    stamps = [anchor(i, i - 1, lab=i % 2 == 0) for i, kind in enumerate(kinds) if kind == "anchor" and i]
    drawings = timeline.drawings(events, stamps)
    seen = []
    for drawing in drawings:
        assert len(drawing["items"]) <= timeline.LAYER
        for item in drawing["items"]:
            low, _, high = item["entries"].partition("–")
            seen += range(int(low), int(high or low) + 1)
            assert 0 <= item["y"] <= drawing["height"] - timeline.ROW
            assert len(item.get("text", "")) <= timeline.TEXT
    assert seen == list(range(len(kinds)))


def look(step, log10_p, loss=None):
    state = "proven" if log10_p < -6 else "inconclusive"
    return {"step": step, "log10_p": log10_p, "loss": loss, "target": 1e6, "state": state, "odds": "o"}


def pairs(line):
    return [tuple(map(float, pair.split(","))) for pair in line.split()]


def test_stronger_is_higher_and_the_target_lies_between():
    plot = strength.plot([look(0, -0.1), look(10, -5.0), look(20, -40.0)])
    (x0, y0), (x1, y1), (x2, y2) = pairs(plot["line"])
    assert x0 < x1 < x2
    assert y0 > y1 > plot["target"]["y"] > y2
    assert plot["target"]["text"] == "target: 1 in 10⁶"
    assert plot["loss"] is None


def test_no_look_that_asked_is_no_plot():
    assert strength.plot([]) is None
    assert strength.plot([look(1, -3.0) | {"log10_p": None}]) is None


def test_the_loss_is_drawn_where_it_is_told():
    loss = strength.plot([look(0, -0.1, 2.5), look(10, -5.0, 0.5)])["loss"]
    (_, first), (_, last) = pairs(loss["line"])
    assert first < last  # downwards on the page


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(-400, 0), st.floats(0, 1.7e308)), min_size=1, max_size=300))
def test_everything_lies_on_the_page(looks):
    plot = strength.plot([look(step, log10_p, loss) for step, log10_p, loss in sorted(looks)])
    for x, y in pairs(plot["line"]):
        assert strength.LEFT <= x <= strength.WIDTH - strength.RIGHT
        assert strength.TOP <= y <= strength.TOP + strength.HEIGHT
    assert 1 <= len(plot["ticks"]) <= 8
    assert len(plot["marks"]) <= 62
    assert all(re.fullmatch(r"no evidence|1 in 10[⁰¹²³⁴⁵⁶⁷⁸⁹]+", tick["text"]) for tick in plot["ticks"])
