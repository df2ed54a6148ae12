"""Whatever a user gives as a suspect, as a `Suspect`."""

import os
from pathlib import Path
from typing import Any

from wmplug import plugins
from wmplug.errors import SuspectError
from wmplug.suspects.functions import CallableSuspect
from wmplug.suspects.protocols import Suspect
from wmplug.watermark.watermark import Watermark

_WEIGHTS = {".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".h5", ".hdf5", ".npz", ".msgpack"}


def as_suspect(target: Any, mark: Watermark, *, batch_size: int = 64) -> Suspect:
    """Whatever answers, as a Suspect.

    Raises:
        SuspectError: nothing knows how to ask it.
        PluginError: its framework is not installed.
    """
    if isinstance(target, Suspect):
        return target
    made = plugins.registry().suspect(target, mark.preprocess, batch_size)
    if made is not None:
        return made
    if callable(target):
        return CallableSuspect(target, batch_size)
    if isinstance(target, (str, os.PathLike)):
        raise SuspectError(f"cannot ask {str(target)!r}: {_why_not(Path(target))}")
    raise SuspectError(
        f"cannot ask a {type(target).__name__}: give a model, a pipeline, an existing checkpoint folder or .keras "
        "file, or a function from inputs to labels or scores"
    )


def _why_not(path: Path) -> str:
    own = "load them into your own class and give that model (on the command line: module:name of it)"
    if path.is_dir():
        names = sorted(found.name for found in path.iterdir())
        some = ", ".join(names[:5]) + ", ..." * (len(names) > 5) if names else "nothing"
        return f"the folder holds {some} but no config.json, so is no transformers checkpoint: for bare weights, {own}"
    if path.suffix in _WEIGHTS:
        return f"a {path.suffix} file is bare weights without their model: {own}"
    if path.exists():
        return "it is neither a checkpoint folder nor a .keras file: load the model yourself and give that"
    return "there is no such file: give a model, a checkpoint folder or .keras file that exists, or a function"
