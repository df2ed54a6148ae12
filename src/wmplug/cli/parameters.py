"""Parameters of a scheme from `--set KEY=VALUE`, and the file that keeps its material."""

import dataclasses
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np

from wmplug import plugins
from wmplug.cli import inputs as files
from wmplug.errors import InputError
from wmplug.keys.files import write_new
from wmplug.watermark.carriers import Inputs


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


def check_material(file: Path) -> None:
    """Refuse a place where `write_material` cannot write.

    Raises:
        InputError: the file exists, or its folder does not.
    """
    if os.path.lexists(file) or not file.parent.is_dir():
        raise InputError(f"--material {file} exists already, or its folder does not: give a new FILE.npz")


def write_material(file: Path, material: Mapping[str, Inputs]) -> None:
    """Keep a scheme's material, for the owner's eyes only."""
    packed = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in material.items()}
    np.savez(packed, **arrays)
    write_new(file, packed.getvalue(), 0o600)


def read_material(file: Path) -> dict[str, Inputs]:
    """What `write_material` kept.

    Raises:
        InputError: the file holds something else.
    """
    try:
        kept = np.load(file, allow_pickle=False)
        if not hasattr(kept, "files"):
            raise ValueError("it holds one array without a name")
        with kept:
            found = {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"--material {file} cannot be read ({error}): give what `wmplug create` wrote") from error
    return {name: value.tolist() if value.dtype.kind == "U" else value for name, value in found.items()}
