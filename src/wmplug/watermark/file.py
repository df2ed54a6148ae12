"""The file of a watermark: a public line, then everything secret, sealed with the owner's passphrase."""

import io
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wmplug.errors import InputError, KeyFileError
from wmplug.keys.files import opened
from wmplug.keys.sealing import PUBLIC, read_header
from wmplug.keys.streams import Purpose, Subkeys
from wmplug.statistics.arrays import Array
from wmplug.tasks.base import Task, column, decoded, encoded, listed
from wmplug.watermark.carriers import Form, Inputs
from wmplug.watermark.plan import SIGN, Choices, Lessons, Pattern, Plan, Test, TriggerSet, check_rows


def id_of(path: Path) -> Any:
    """The id of the watermark in a file; None if the file does not hold one."""
    try:
        return read_public(path).get("id")
    except KeyFileError:
        return None


def read_public(path: str | Path) -> dict[str, Any]:
    """The public line of a saved watermark; reading it needs no key, and it proves nothing by itself.

    Raises:
        KeyFileError: the file is not a watermark.
    """
    path = Path(path)
    return read_header(blob_of(path, PUBLIC), str(path))


def blob_of(path: Path, first: int = -1) -> bytes:
    """The file's bytes, or the first of them; raises KeyFileError if it does not exist."""
    if not path.is_file():
        raise KeyFileError(f"{path} is not there: give the file that `wmplug create` or mark.save(path) wrote")
    with opened(path) as file:
        return file.read(first)


_MATERIAL = "material/"
_PURPOSES: tuple[Purpose, ...] = ("input", "label", "schedule", "disclosure")
_NONE = np.zeros(0, np.int64)


def columns(triggers: TriggerSet) -> dict[str, Array]:
    """A trigger set as arrays, as the file holds it.

    Returns:
        draw: (N,) the draw of choices of each row, -1 for none.
        labels: (N,) natural answers, see `_stored`.
        asked, taught, weighed: rows of the choices, the lessons and the pattern.
        symbols: (draws,) the results of the draws; the last `signs` draws are signs.
        targets: the two answers of each row of the pattern, one after the other, if it has targets.
        candidates, candidate_counts: the options of all draws, one after the other, and their number in each draw.
    """
    plan, task = triggers.plan, triggers.task
    choices, pattern = plan.choices, plan.pattern
    options = [task.encode(option) for draw in (choices.options if choices else ()) for option in draw]
    targets = [task.encode(answer) for pair in (pattern.targets if pattern else ()) for answer in pair]
    signs = 0 if pattern is None else pattern.signs
    return {
        "draw": plan.draw,
        "labels": _stored(encoded(task, plan.natural)),
        "asked": _NONE if choices is None else choices.rows,
        "taught": plan.lessons.rows,
        "symbols": triggers.symbols,
        "candidates": _stored(options + signs * list(SIGN)),
        "candidate_counts": np.array([len(draw) for draw in plan.options]),
        "weighed": _NONE if pattern is None else pattern.rows,
        "signs": np.array(signs),
        **({} if pattern is None or not pattern.targets else {"targets": _stored(targets)}),
    }


def plan_of(inputs: Inputs, held: Mapping[str, Array], task: Task, material: Mapping[str, Array]) -> Plan:
    """The plan behind the arrays of `columns`."""
    draw, natural = held["draw"], decoded(task, _read(held["labels"]))
    if not len(inputs) == len(draw) == len(natural):
        raise InputError("a plan needs one draw and one label for each of its inputs")
    asked, taught = held["asked"], held["taught"]
    weighed, signs = held.get("weighed", _NONE), int(held.get("signs", 0))  # absent in the first files
    check_rows(len(inputs), asked, taught, weighed)
    counts, stored = held["candidate_counts"].tolist(), iter(_read(held["candidates"]))
    options = [tuple(itertools.islice(stored, count)) for count in counts][: len(counts) - signs]
    tests: list[Test] = []
    if len(asked):
        tests.append(Choices(asked, draw[asked], tuple(tuple(map(task.decode, draw)) for draw in options)))
    if signs:
        taught_as = iter([task.decode(value) for value in _read(held["targets"])] if "targets" in held else [])
        tests.append(Pattern(weighed, signs, natural[weighed], tuple(zip(taught_as, taught_as, strict=True))))
    return Plan(inputs, Lessons(taught, draw[taught], natural[taught]), tuple(tests), material)


def _stored(values: list[Any]) -> Array:
    """Encoded answers as an array: int64 with -1 for none if all are whole numbers from 0, else JSON as bytes."""
    if all(value is None or (type(value) is int and value >= 0) for value in values):
        return column(values)
    packed: Array = _bytes(json.dumps(values).encode())
    return packed


def _read(stored: Array) -> list[Any]:
    """The encoded answers that `_stored` was given."""
    values: list[Any] = json.loads(stored.tobytes()) if stored.dtype == np.uint8 else listed(stored)
    return values


def pack(triggers: TriggerSet, subkeys: Subkeys, record: Mapping[str, str]) -> bytes:
    """The secret part of the file; `record` holds the place where runs are recorded, and the seed that signs them."""
    inputs = triggers.plan.inputs
    arrays: dict[str, Any] = {
        "inputs": inputs if isinstance(inputs, np.ndarray) else _bytes(json.dumps(inputs).encode()),
        **columns(triggers),
        "keys": _bytes(b"".join(subkeys.key(p) for p in _PURPOSES)),
        "record": _bytes(json.dumps(dict(record)).encode()),
        **{_MATERIAL + name: array for name, array in triggers.plan.material.items()},
    }
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def unpack(body: bytes, form: Form, task: Task) -> tuple[TriggerSet, Subkeys, dict[str, str]]:
    """The arguments of `pack`, from its bytes."""
    with np.load(io.BytesIO(body), allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    inputs = json.loads(arrays["inputs"].tobytes()) if form == "text" else arrays["inputs"]
    material = {name.removeprefix(_MATERIAL): a for name, a in arrays.items() if name.startswith(_MATERIAL)}
    keys = arrays["keys"].tobytes()
    subkeys = Subkeys({p: keys[32 * i : 32 * i + 32] for i, p in enumerate(_PURPOSES)})
    triggers = TriggerSet(plan_of(inputs, arrays, task, material), form, task, arrays["symbols"])
    return triggers, subkeys, json.loads(arrays["record"].tobytes())


def _bytes(data: bytes) -> Any:
    return np.frombuffer(data, np.uint8)
