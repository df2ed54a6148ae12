"""Installed schemes or adapters, their origin, and broken plugins, as a table or as JSON."""

import inspect
import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from rich.markup import escape
from rich.table import Table

from wmplug import plugins
from wmplug.cli.terminal import err, out, print_json


def registered(what: str) -> tuple[plugins.Registry, Mapping[str, Any]]:
    """The registry, and its table of schemes or adapters."""
    with warnings.catch_warnings():
        # The list reports broken plugins by itself.
        warnings.simplefilter("ignore", plugins.PluginWarning)
        registry = plugins.registry()
        return registry, getattr(registry, what)


def source(module: str) -> str:
    """The distribution of a module, by its entry point."""
    package = module.partition(".")[0]
    if package == "wmplug":
        return "built in"
    points = metadata.entry_points(group=plugins.GROUP)
    distributions = (point.dist for point in points if point.value.partition(":")[0].partition(".")[0] == package)
    distribution = next(distributions, None)
    return f"{distribution.name} {distribution.version}" if distribution else package


def first_line(thing: Any) -> str:
    """The first line of an object's docstring."""
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def present(what: str, rows: list[dict[str, Any]], broken: Mapping[str, str], as_json: bool) -> None:
    """Print the rows, and the broken plugins."""
    if as_json:
        return print_json({what: rows, "broken": dict(broken)})
    columns = [c for c in ("name", "does", "parameters", "points", "install", "from") if any(c in row for row in rows)]
    table = Table(*columns, show_lines=True)
    for row in rows:
        table.add_row(*(escape(_cell(row[column])) for column in columns))
    out.print(table, soft_wrap=False)
    for name, cause in broken.items():
        err.print(f"broken plugin {name!r}: {cause}", style="bold red")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(k if v == "required" else f"{k}={v}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(value)
    return "installed" if value is None else str(value)
