"""`wmplug schemes`: the ways to make triggers."""

import dataclasses
from typing import Any

from wmplug.cli.catalogue import first_line, present, registered, source
from wmplug.cli.terminal import Json
from wmplug.errors import PluginError


def schemes(as_json: Json = False) -> None:
    """List the schemes, the ways to make triggers."""
    registry, table = registered("schemes")
    broken, rows = dict(registry.broken), []
    for name in table:
        try:
            kind = registry.scheme(name)
        except PluginError as error:
            broken[name] = str(error)
            continue
        parameters = {f.name: _default(f) for f in dataclasses.fields(kind)}
        row = {"name": name, "does": first_line(kind), "parameters": parameters, "points": sorted(kind.points)}
        rows.append({**row, "rate": kind.rate, "from": source(kind.__module__)})
    for name in registry.tasks:
        try:
            registry.task(name)
        except PluginError as error:
            broken[name] = str(error)
    present("schemes", rows, broken, as_json)


def _default(field: "dataclasses.Field[Any]") -> Any:
    return None if field.default is dataclasses.MISSING else field.default
