"""Accuracy against evidence: one model for each value of a parameter, and the evidence left in its clone."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from wmplug.audit.attacks import Attack, chosen
from wmplug.audit.grid import run
from wmplug.audit.setting import Setting
from wmplug.audit.training import accuracy
from wmplug.errors import InputError

SCHEMA = "wmplug/audit-sweep/1"
Make = Callable[[float | None, int], tuple[Any, nn.Module]]


@dataclass(frozen=True)
class Point:
    """One model.

    Attributes:
        value: of the parameter.
        seed: of its training.
        accuracy: in [0, 1].
        cost: accuracy less that of the unmarked model of the same seed, in points.
        own: log10 p of the model itself.
        clone: log10 p of the attack's result.
        clone_accuracy: its accuracy, in [0, 1].
    """

    value: float
    seed: int
    accuracy: float
    cost: float
    own: float
    clone: float
    clone_accuracy: float


@dataclass(frozen=True)
class Sweep:
    """The cost of each value and the evidence in a clone; prints as a table.

    Attributes:
        parameter: name of the varied parameter.
        attack: name of the cloning attack.
        points: one for each value and seed.
    """

    parameter: str
    attack: str
    points: tuple[Point, ...]

    def table(self) -> Table:
        """A rich table."""
        table = Table(box=box.SIMPLE)
        for name in (self.parameter, "seed", "accuracy", "cost", "own model", self.attack, "its accuracy"):
            table.add_column(name, justify="right", no_wrap=True)
        for p in self.points:
            percent = (f"{100 * p.accuracy:.1f} %", f"{p.cost:+.1f}", f"{p.own:.1f}", f"{p.clone:.1f}")
            table.add_row(f"{p.value:g}", str(p.seed), *percent, f"{100 * p.clone_accuracy:.1f} %")
        return table

    def __str__(self) -> str:
        """The table."""
        console = Console(width=120, color_system=None)
        with console.capture() as captured:
            console.print(self.table())
        return captured.get().rstrip()

    def to_json(self) -> str:
        """Strict JSON."""
        document = {"schema": SCHEMA, "parameter": self.parameter, "attack": self.attack}
        return json.dumps({**document, "points": [asdict(point) for point in self.points]}, indent=1, allow_nan=False)


def sweep(
    make: Make,
    setting: Setting,
    values: Sequence[float],
    seeds: Sequence[int] = (0,),
    *,
    parameter: str = "delta",
    attack: str | Attack = "hard-clone",
    progress: Callable[[int, int], None] | None = None,
) -> Sweep:
    """Train a model for each value, clone it, and measure the evidence in the clone.

    Args:
        make: `make(value, seed) -> (mark, model)` trains a model; for the value None an unmarked one, with None for its
            mark.
        setting: the attacker's means.
        values: of the parameter.
        seeds: of training and attack.
        parameter: its name.
        attack: the attack before the measurement.
        progress: called with (models done, all models).

    Raises:
        InputError: no values.
    """
    if not values:
        raise InputError("values=() sweeps over nothing: give some, such as 0.1, 0.3 and 1")
    (used,) = chosen((attack,))
    points: list[Point] = []
    for seed in seeds:
        _, twin = make(None, seed)
        plain = accuracy(twin, setting.test_inputs, setting.test_labels)
        for value in values:
            mark, model = make(value, seed)
            report = run(mark, model, setting, (used,), (seed,))
            points.append(_point(value, seed, plain, report.cells))
            if progress is not None:
                progress(len(points), len(values) * len(seeds))
    return Sweep(parameter, used.name, tuple(points))


def _point(value: float, seed: int, plain: float, cells: Sequence[Any]) -> Point:
    own, clone = cells
    if clone.failed is not None:
        raise InputError(
            f"attack {clone.name!r} made no clone ({clone.failed}): change the setting, or choose another attack"
        )
    return Point(
        value=value,
        seed=seed,
        accuracy=own.accuracy,
        cost=100 * (own.accuracy - plain),
        own=own.verdict.log10_p,
        clone=clone.verdict.log10_p,
        clone_accuracy=clone.accuracy,
    )
