"""`wmplug schemes`: the ways to make triggers."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from wmplug.cli.catalogue import first_line, present, registered, source
from wmplug.cli.terminal import Json
from wmplug.errors import PluginError

_T = TypeVar("_T")


def schemes(as_json: Json = False) -> None:
    """List the schemes, the ways to make triggers."""
    registry, table = registered("schemes")
    broken, rows = dict(registry.broken), []
    for name, kind in _loaded(table, registry.scheme, broken).items():
        parameters = {f.name: _default(f) for f in dataclasses.fields(kind)}
        row = {"name": name, "does": first_line(kind), "parameters": parameters, "points": sorted(kind.points)}
        rows.append({**row, "rate": kind.rate, "from": source(kind.__module__)})
    _loaded(registry.tasks, registry.task, broken)  # tasks have no list of their own: a broken one is named here
    present("schemes", rows, broken, as_json)


def _loaded(names: Iterable[str], load: Callable[[str], _T], broken: dict[str, str]) -> dict[str, _T]:
    """What can be loaded, by name; `broken` gets the reason for each that cannot."""
    loaded = {}
    for name in names:
        try:
            loaded[name] = load(name)
        except PluginError as error:
            broken[name] = str(error)
    return loaded


def _default(field: "dataclasses.Field[Any]") -> Any:
    return None if field.default is dataclasses.MISSING else field.default
