"""Any arguments object or configuration as one canonical JSON document, without its secrets."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import hashlib
import itertools
import math
import os
import re
import types
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date
from typing import Any

import numpy as np
import rfc8785

from wmplug.errors import InputError
from wmplug.register.assets import encoding

REMOVED = "removed"
_EXACT = 2**53 - 1  # every reader of JSON holds integers up to this exactly
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ALWAYS = {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "credential", "credentials", "apikey"}
_TEXTS = {"token", "tokens", "key", "keys", "auth", "authorization", "cookie"}
_QUALIFIED = {("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key"), ("auth", "token")}
_INSIDE = re.compile(
    r"://[^/\s:@]*:[^/\s@]+@|\b(hf_|sk-|ghp_|gho_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{16,}|-----BEGIN"
    r"|(?i:(token|password|passwd|passphrase|secret|credential|key)['\"]?\s*[=:]\s*\S)"
)


def document(value: Any) -> tuple[Any, list[str]]:
    """A value as JSON holds it, and the names of the secrets removed from it.

    Numbers, texts, true, false, null, lists and mappings stay. An integer past 2**53 - 1 becomes {"int": decimal}, a
    number that is not finite {"float": "nan" | "inf" | "-inf"}; arrays, tensors and bytes become their digest (see
    `encoding`); anything else becomes {"repr": name of its type}, or its own name for a class or function.

    Raises:
        InputError: it contains itself.
    """
    removed: list[str] = []
    try:
        return _value(value, "", removed), removed
    except RecursionError:
        raise InputError(f"a {type(value).__name__} contains itself: give a plain configuration") from None


def canonical_digest(plain: Any) -> str:
    """SHA-256, in hex, of the canonical JSON (RFC 8785) of a document."""
    return hashlib.sha256(rfc8785.dumps(plain)).hexdigest()


def class_name(value: Any) -> str:
    """Module and name of a value's class, or of a class or function itself."""
    named = value if isinstance(value, (type, types.FunctionType, types.BuiltinFunctionType)) else type(value)
    return f"{named.__module__}.{named.__qualname__}".removeprefix("builtins.")


def _value(value: Any, path: str, removed: list[str]) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return _scalar(value, path, removed)
    if isinstance(value, (os.PathLike, date)):
        return _scalar(os.fspath(value) if isinstance(value, os.PathLike) else value.isoformat(), path, removed)
    if (fields := _fields(value)) is not None:
        return _mapping(fields, path, removed)
    if isinstance(value, Set):
        return sorted((_value(item, path, removed) for item in value), key=rfc8785.dumps)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_value(item, f"{path}[{i}]", removed) for i, item in enumerate(value)]
    if type(value).__module__ == "torch" and type(value).__name__ in ("dtype", "device"):
        return {"repr": str(value)}
    return _digest(value)


def _scalar(value: Any, path: str, removed: list[str]) -> Any:
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value) if abs(value) <= _EXACT else {"int": str(int(value))}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, bytes):
        value = os.fsdecode(value)
    text = str(value).encode("utf-8", "backslashreplace").decode()
    if _INSIDE.search(text):
        removed.append(path)
        return REMOVED
    return text


def _digest(value: Any) -> dict[str, Any]:
    if encoding.is_array(value) or isinstance(value, (bytes, bytearray)):
        try:
            record = encoding.read_record(value)
            return {"sha256": record.digest.hex(), "schema": record.schema}
        except InputError:
            pass
    return {"repr": class_name(value)}


def _mapping(fields: Mapping[Any, Any], path: str, removed: list[str]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in fields.items():
        name = str(key).encode("utf-8", "backslashreplace").decode()
        if name in plain or (not isinstance(key, str) and name in fields):
            name = f"{type(key).__name__}:{name}"
        where = f"{path}.{name}".removeprefix(".")
        if is_secret(name, value):
            removed.append(where)
            plain[name] = REMOVED
        else:
            plain[name] = _value(value, where, removed)
    return plain


def is_secret(name: str, value: Any) -> bool:
    """Whether a key looks as if its value were a secret.

    A number, true or false under a name that ends in "token" or "key" is a hyperparameter (`max_new_tokens`).
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    if value is None or (isinstance(value, str) and not value):
        return False
    if _ALWAYS & set(words) or _QUALIFIED & set(itertools.pairwise(words)):
        return True
    if isinstance(value, (bool, int, float, np.number)):
        return False
    last = next((word for word in reversed(words) if not word.isdigit()), "")
    return last in _TEXTS


def _fields(value: Any) -> Mapping[Any, Any] | None:
    """The settings of an object that holds settings; None for any other."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (argparse.Namespace, types.SimpleNamespace)):
        return vars(value)
    if isinstance(value, type):
        return None
    if hasattr(value, "param_groups") and hasattr(value, "defaults"):
        return _torch_optimizer(value)
    for name in ("to_dict", "to_sanitized_dict", "get_compile_config", "get_config"):
        if isinstance(made := _call(getattr(value, name, None)), Mapping):
            return {"class": class_name(value), "config": made} if name.startswith("get") else made
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return None


def _call(method: Callable[[], Any] | None) -> Any:
    try:
        return method() if callable(method) else None
    except (TypeError, NotImplementedError):  # another signature, or not implemented by this class
        return None


def _torch_optimizer(optimizer: Any) -> dict[str, Any]:
    groups = [
        {**{name: value for name, value in group.items() if name != "params"}, "tensors": len(group["params"])}
        for group in optimizer.param_groups
    ]
    return {"class": class_name(optimizer), "defaults": optimizer.defaults, "param_groups": groups}
