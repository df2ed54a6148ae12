"""Parameters of a scheme from `--set KEY=VALUE`."""

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args

from wmplug import plugins
from wmplug.cli import inputs as files
from wmplug.errors import InputError


def read_parameters(scheme: str, pairs: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs as arguments of a scheme, checked against its fields.

    Raises:
        InputError: the scheme has no such parameter, or the value has another type than its default.
        PluginError: no scheme has this name.
    """
    fields = {f.name: f for f in dataclasses.fields(plugins.registry().scheme(scheme))}
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in fields:
            raise InputError(f"--set {pair!r}: give KEY=VALUE, the keys of scheme {scheme!r} are {', '.join(fields)}")
        values[key] = files.read(Path(text[1:]))[0] if text.startswith("@") else _typed(key, text, fields[key])
    return values


def _typed(key: str, text: str, field: "dataclasses.Field[Any]") -> Any:
    default = field.default
    words = {word for kind in get_args(field.type) for word in get_args(kind)}  # of float | Literal["auto"]
    if isinstance(default, str) or text in words:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if default is None or type(value) is type(default) or (type(default) is float and type(value) is int):
        return value
    raise InputError(
        f"--set {key}={text}: give a value of type {type(default).__name__}, such as the default {default!r}"
    )
