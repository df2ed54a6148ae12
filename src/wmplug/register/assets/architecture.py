"""The architecture, committed: what the model is made of, and which code makes it."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import rfc8785

from wmplug.keys.files import file_digest
from wmplug.register.assets.documents import canonical_digest, class_name, document

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
# Where a model was loaded from, by what, and how it is trained, is no part of its architecture.
_PASSING = ("_name_or_path", "_commit_hash", "transformers_version", "compile_config")
_GIT_SECONDS = 5
_DOCUMENT_BYTES = 65_536


def architecture(model: Any) -> dict[str, Any]:
    """Commit to an architecture.

    Args:
        model: a Transformers model (its configuration), a Keras model (its `to_json`, in which layers without
            a name of their own are numbered by how many the process made before), a torch module (the tree of modules:
            classes, names, shapes and dtypes of parameters and buffers, the text of leaf modules).

    Returns:
        The body of `architecture.committed`: kind, class, form ("config", "keras", "modules", or "class" where nothing
        more is known), document (None where it is longer than 64 KiB), sha256 (of its canonical JSON, RFC 8785),
        removed, parameters (their number), code (file name and SHA-256 of the source file of the model's
        class) and git (commit, and whether tracked files differ from it) of the working folder, each None where there
        is none.
    """
    model = _unwrapped(model)
    form, described = _description(model)
    plain, removed = document(described)
    whole = rfc8785.dumps(plain)
    return {
        "kind": "architecture",
        "class": class_name(model),
        "form": form,
        "document": plain if len(whole) <= _DOCUMENT_BYTES else None,
        "sha256": canonical_digest(plain),
        "removed": removed,
        "parameters": _parameters(model),
        "code": _code(type(model)),
        "git": git_commit(Path.cwd()),
    }


def _unwrapped(model: Any) -> Any:
    """The model below torch.compile and parallel wrappers."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif type(model).__name__ in ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"):
            model = model.module
        else:
            return model


def _description(model: Any) -> tuple[str, Any]:
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        return "config", {name: value for name, value in config.to_dict().items() if name not in _PASSING}
    if hasattr(model, "to_json") and hasattr(model, "weights"):
        try:
            text = model.to_json()
        except (NotImplementedError, TypeError, ValueError):  # a subclass that does not say how it is made
            return "keras", {"weights": [_tensor(weight.path, weight) for weight in model.weights]}
        return "keras", {name: value for name, value in json.loads(text).items() if name not in _PASSING}
    if hasattr(model, "named_modules"):
        return "modules", [_module(name, module) for name, module in model.named_modules()]
    return "class", {"class": class_name(model)}


def _module(name: str, module: Any) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": name,
        "class": class_name(module),
        "parameters": _tensors(module.named_parameters(recurse=False)),
        "buffers": _tensors(module.named_buffers(recurse=False)),
    }
    if next(module.children(), None) is None:
        described["text"] = _ADDRESS.sub("", repr(module))
    return described


def _tensors(named: Iterable[tuple[str, Any]]) -> list[dict[str, Any]]:
    return [_tensor(name, tensor) for name, tensor in named]


def _tensor(name: str, tensor: Any) -> dict[str, Any]:
    try:
        shape = list(map(int, tensor.shape))
    except RuntimeError:  # a lazy parameter has none before the first batch
        shape = None
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape}


def _parameters(model: Any) -> int | None:
    try:
        if hasattr(model, "named_parameters"):
            return sum(int(parameter.numel()) for parameter in model.parameters())
        return int(model.count_params()) if hasattr(model, "count_params") else None
    except (RuntimeError, ValueError, TypeError):  # lazy, or not built yet
        return None


def _code(kind: type) -> dict[str, str] | None:
    try:
        file = Path(inspect.getsourcefile(kind) or "")
        return {"file": file.name, "sha256": file_digest(file)[0]}
    except (TypeError, OSError):  # compiled, or typed into a prompt
        return None


def git_commit(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that holds a folder, and whether its tracked files differ from it; None without one."""
    try:
        commit = _git(folder, "rev-parse", "--verify", "HEAD").strip()
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no").strip())}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *command: str) -> str:
    # A file system monitor named in the configuration is a program, and status would otherwise write the index.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(
        ["git", "-c", "core.fsmonitor=false", *command],
        cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_GIT_SECONDS, check=True,
    )  # fmt: skip
    return done.stdout.decode("utf-8", "replace")
