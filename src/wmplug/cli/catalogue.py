"""`wmplug schemes` and `wmplug adapters`: what is installed, and what of it is broken."""

import ast
import dataclasses
import importlib.machinery
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from wmplug import plugins
from wmplug.claim import verification
from wmplug.cli.terminal import Json, err, out, print_json
from wmplug.errors import PluginError


def schemes(as_json: Json = False) -> None:
    """List the schemes: how triggers can be made."""
    registry, table = _registered("schemes")
    broken, rows = dict(registry.broken), []
    for name in table:
        try:
            kind = registry.scheme(name)
        except PluginError as error:
            broken[name] = str(error)
            continue
        parameters = {f.name: _default(f) for f in dataclasses.fields(kind)}
        row = {"name": name, "does": _first_line(kind), "parameters": parameters, "points": sorted(kind.points)}
        rows.append({**row, "rate": kind.rate, "from": _source(kind.__module__)})
    _present("schemes", rows, broken, as_json)


def adapters(as_json: Json = False) -> None:
    """List the adapters: the frameworks whose training can be watermarked."""
    registry, table = _registered("adapters")
    rows = []
    for name, found in table.items():
        # Those given as a path are read, not imported: a list must not cost a framework, nor need it.
        if isinstance(found, str):
            module, (does, parameters) = found.partition(":")[0], _described(found)
        else:
            module, does, parameters = found.__module__, _first_line(found), _signature(found)
        install = _missing(name) if name in plugins.ADAPTERS else None
        row = {"name": name, "does": does, "parameters": parameters, "install": install, "from": _source(module)}
        rows.append(row)
    _present("adapters", rows, registry.broken, as_json)


def _registered(what: str) -> tuple[plugins.Registry, Mapping[str, Any]]:
    with warnings.catch_warnings():
        # Broken plugins have a place of their own in the list.
        warnings.simplefilter("ignore", plugins.PluginWarning)
        registry = plugins.registry()
        return registry, getattr(registry, what)


def _source(module: str) -> str:
    """The distribution that a module comes with, known by its entry point."""
    package = module.partition(".")[0]
    if package == "wmplug":
        return "built in"
    points = metadata.entry_points(group=plugins.GROUP)
    found = (point.dist for point in points if point.value.partition(":")[0].partition(".")[0] == package)
    distribution = next(found, None)
    return f"{distribution.name} {distribution.version}" if distribution else package


def _first_line(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").partition("\n")[0]


def _default(field: "dataclasses.Field[Any]") -> Any:
    return None if field.default is dataclasses.MISSING else field.default


def _signature(factory: Callable[..., Any]) -> dict[str, Any]:
    try:
        parameters = list(inspect.signature(factory).parameters.values())[1:]
    except (TypeError, ValueError):
        return {}
    kept = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: "required" if p.default is p.empty else _plain(p.default) for p in kept}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (bool, int, float, str)) else repr(value)


def _described(path: str) -> tuple[str, dict[str, Any]]:
    """First docstring line and parameters after the mark of the class at `module:name`, from its source."""
    module, _, name = path.partition(":")
    if (origin := _origin(module)) is None:
        return "", {}
    tree = ast.parse(Path(origin).read_text(encoding="utf-8"))
    kind = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if kind is None:
        return "", {}
    start = next((n for n in kind.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    does = " ".join((ast.get_docstring(kind) or "").partition("\n\n")[0].split())
    return does, {} if start is None else _arguments(start.args, tree)


def _origin(module: str) -> str | None:
    """The file of a module; its packages are not imported, since an adapter's imports its framework."""
    top, *names = module.split(".")
    spec, found = importlib.util.find_spec(top), top
    for name in names:
        if spec is None or spec.submodule_search_locations is None:
            return None
        found = f"{found}.{name}"
        spec = importlib.machinery.PathFinder.find_spec(found, spec.submodule_search_locations)
    return None if spec is None else spec.origin


def _arguments(arguments: ast.arguments, tree: ast.Module) -> dict[str, Any]:
    positional = arguments.posonlyargs + arguments.args
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    pairs = list(zip(positional, defaults, strict=True))[2:]  # self and mark
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {argument.arg: "required" if default is None else _value(default, tree) for argument, default in pairs}


def _value(node: ast.expr, tree: ast.Module) -> Any:
    """What an expression is worth: a literal, or a constant of this module or of wmplug.claim.verification."""
    if isinstance(node, ast.Name):
        name = node.id
        for found in tree.body:
            if isinstance(found, (ast.Assign, ast.AnnAssign)) and found.value is not None:
                targets = found.targets if isinstance(found, ast.Assign) else [found.target]
                if name in map(ast.unparse, targets):
                    return _value(found.value, tree)
        return _plain(getattr(verification, name, name))
    try:
        return _plain(ast.literal_eval(node))
    except ValueError:
        return ast.unparse(node)


def _missing(name: str) -> str | None:
    """What to install for a built-in adapter; each bears its framework's name."""
    return None if importlib.util.find_spec(name) else f"pip install wmplug[{name}]"


def _present(what: str, rows: list[dict[str, Any]], broken: Mapping[str, str], as_json: bool) -> None:
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
