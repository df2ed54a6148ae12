"""Layout of the drawn timeline: entries in order, cut by timestamps into layers."""

from typing import Any

from wmplug.report import words
from wmplug.report.facts import Fact

ROW, BAND, TEXT = 22, 46, 78  # pixels, pixels, characters
LAYER = 26  # rows in one drawing: more would not fit a page
_QUIET = ("training.checkpoint", "watermark.inserted", "system.committed")
_SHAPES = {"training": "square", "watermark": "square", "suspect": "diamond", "trigger": "diamond", "key": "cross"}


def drawings(events: list[Fact], anchors: list[Fact]) -> list[Fact]:
    """Drawings, one after the other, each low enough for a page.

    Args:
        events: all entries of the dossier.
        anchors: all its timestamps.

    Returns:
        Each with `height` in pixels and `items`; an item has `y` and is a row (shape, entries, text, time) or a band.
    """
    stamps = {anchor["entry"]: anchor for anchor in anchors if anchor["holds"]}
    made: list[Fact] = []
    for item in _items(events, stamps):
        full = not made or len(made[-1]["items"]) >= LAYER or (made[-1]["items"][-1]["band"] and not item["band"])
        if full:
            made.append({"items": [], "height": 6})
        item["y"] = made[-1]["height"]
        made[-1]["items"].append(item)
        made[-1]["height"] += BAND if item["band"] else ROW
    return made


def _items(events: list[Fact], stamps: dict[int, Any]) -> list[Fact]:
    items: list[Fact] = []
    quiet: list[Fact] = []
    for event in [*events, None]:
        if event is not None and event["type"] in _QUIET and (not quiet or quiet[0]["run"] == event["run"]):
            quiet.append(event)
            continue
        items += [_together(quiet)] if len(quiet) > 2 else [_row(one) for one in quiet]
        quiet = []
        if event is not None and event["type"] in _QUIET:
            quiet = [event]
        elif event is not None:
            stamp = stamps.get(event["entry"])
            items.append(_row(event) if stamp is None else _band(stamp))
    return items


def _row(event: Fact) -> Fact:
    text = event["text"] if len(event["text"]) <= TEXT else event["text"][: TEXT - 1] + "…"
    shape = _SHAPES.get(event["type"].partition(".")[0], "circle")
    return {"band": False, "shape": shape, "entries": str(event["entry"]), "text": text, "time": event["claimed_time"]}


def _together(quiet: list[Fact]) -> Fact:
    looks = sum(event["type"] == "training.checkpoint" for event in quiet)
    text = f"Training went on: {words.count(looks, 'look')} at the model, {words.count(len(quiet), 'entry', 'entries')}"
    span = f"{quiet[0]['entry']}–{quiet[-1]['entry']}"
    return {"band": False, "shape": "square", "entries": span, "text": text, "time": quiet[-1]["claimed_time"]}


def _band(stamp: Fact) -> Fact:
    return {
        "band": True,
        "lab": stamp["lab"],
        "entries": str(stamp["entry"]),
        "time": stamp["time"],
        "above": f"{words.entries(stamp['covers'])} existed by this time",
        "below": f"entries after {stamp['entry']} came after",
        "authority": (stamp["authority"] or "")[:60],
    }
