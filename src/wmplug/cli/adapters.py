"""`wmplug adapters`: the frameworks whose training wmplug can watermark."""

import ast
import importlib.machinery
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wmplug import plugins
from wmplug.claim import verification
from wmplug.cli.catalogue import first_line, present, registered, source
from wmplug.cli.terminal import Json


def adapters(as_json: Json = False) -> None:
    """List the adapters: the frameworks whose training wmplug can watermark."""
    registry, table = registered("adapters")
    rows = []
    for name, factory in table.items():
        # Read adapters given as a path, without an import: a list must not need a framework.
        if isinstance(factory, str):
            module, (does, parameters) = factory.partition(":")[0], _described(factory)
        else:
            module, does, parameters = factory.__module__, first_line(factory), _signature(factory)
        install = _missing(name) if name in plugins.ADAPTERS else None
        row = {"name": name, "does": does, "parameters": parameters, "install": install, "from": source(module)}
        rows.append(row)
    present("adapters", rows, registry.broken, as_json)


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
    """The file of a module, without an import of its packages, since an adapter's package imports its framework."""
    top, *names = module.split(".")
    spec, path = importlib.util.find_spec(top), top
    for name in names:
        if spec is None or spec.submodule_search_locations is None:
            return None
        path = f"{path}.{name}"
        spec = importlib.machinery.PathFinder.find_spec(path, spec.submodule_search_locations)
    return None if spec is None else spec.origin


def _arguments(arguments: ast.arguments, tree: ast.Module) -> dict[str, Any]:
    positional = arguments.posonlyargs + arguments.args
    defaults = [*[None] * (len(positional) - len(arguments.defaults)), *arguments.defaults]
    pairs = list(zip(positional, defaults, strict=True))[2:]  # self and mark
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return {argument.arg: "required" if default is None else _value(default, tree) for argument, default in pairs}


def _value(node: ast.expr, tree: ast.Module) -> Any:
    """The value of an expression: a literal, or a constant of this module or of wmplug.claim.verification."""
    if isinstance(node, ast.Name):
        name = node.id
        for statement in tree.body:
            if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                if name in map(ast.unparse, targets):
                    return _value(statement.value, tree)
        return _plain(getattr(verification, name, name))
    try:
        return _plain(ast.literal_eval(node))
    except ValueError:
        return ast.unparse(node)


def _missing(name: str) -> str | None:
    """The command that installs a built-in adapter's framework, or None; the adapter has the framework's name."""
    return None if importlib.util.find_spec(name) else f"pip install wmplug[{name}]"
