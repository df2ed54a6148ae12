"""Resolution of targets: from anything that a user gives, or from a text on the command line, to a `Suspect`."""

import importlib
import os
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from wmplug import plugins
from wmplug.errors import InputError, SuspectError
from wmplug.suspects.functions import CallableSuspect
from wmplug.suspects.protocols import Suspect

_WEIGHTS = {".safetensors", ".h5", ".hdf5", ".npz", ".msgpack"}
_PICKLES = {".pt", ".pth", ".bin", ".ckpt"}  # PyTorch's, of weights, of a whole module, or TorchScript


class Prepared(Protocol):
    """A watermark, or its questions."""

    @property
    def preprocess(self) -> Callable[[Any, Any], Any] | None:
        """Turns (input, answer) into what a model's data set yields."""


def as_suspect(target: Any, questions: Prepared, *, batch_size: int = 64) -> Suspect:
    """A Suspect for anything that answers.

    Args:
        target: the thing that answers.
        questions: the questions that it will be asked, or their watermark.
        batch_size: inputs in a forward pass.

    Raises:
        SuspectError: no adapter or plugin knows how to ask it.
        PluginError: its framework is not installed.
    """
    if isinstance(target, Suspect):
        return target
    made = plugins.registry().suspect(target, questions.preprocess, batch_size)
    if made is not None:
        return made
    if callable(target):
        return CallableSuspect(target, batch_size)
    if isinstance(target, (str, os.PathLike)):
        raise SuspectError(f"cannot ask {str(target)!r}: {_why_not(Path(os.fsdecode(target)))}")
    raise SuspectError(
        f"cannot ask a {type(target).__name__}, which none of these knows: {plugins.registry().asked(target)}. Give a "
        "model, a pipeline, an existing checkpoint folder or .keras file, or a function from inputs to labels or scores"
    )


def resolve(
    text: str,
    *,
    preprocess: Callable[[Any, int], Any] | None = None,
    batch_size: int = 64,
    what: str = "SUSPECT",
) -> Any:
    """The target that a text names, as `verify` takes it.

    An existing path and a text that a plugin knows are returned unchanged: `as_suspect` asks the plugins again when
    there are questions. Any other text names the object at module:name; the search includes the current folder.

    Args:
        text: a path, a URL or another text that a plugin knows, or module:name.
        preprocess: passed to the plugins.
        batch_size: passed to the plugins.
        what: name of the option, for errors.

    Raises:
        InputError: the text names nothing of the kind.
        SuspectError: a plugin knows the text and cannot ask its target.
    """
    if os.path.exists(text) or plugins.registry().offered(text, preprocess, batch_size) is not None:
        return text
    module, colon, name = text.partition(":")
    if colon and module and name and not name.startswith("//"):
        return from_module(text, what)
    raise InputError(
        f"{what} {text!r} is not an existing file or folder, no installed plugin knows it (wmplug_suspect), and it is "
        "not a module:name: check its spelling, or install the plugin"
    )


def from_module(path: str, what: str) -> Any:
    """The function or object at `module:name`, the current folder included.

    Raises:
        InputError: the place holds nothing, or a class, or something that cannot be called.
    """
    module, colon, name = path.partition(":")
    if not (colon and module and name):
        raise InputError(
            f"{what} {path!r} is not a module:name: give a module's name, a colon and a name in the module"
        )
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(module)
    # The user's module may raise anything while it is imported.
    except Exception as error:
        if not (isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")):
            raise InputError(
                f"{what} {path!r}: importing {module} from {os.getcwd()} raised {type(error).__name__} ({error}): "
                "correct that module"
            ) from error
        raise InputError(f"{what} {path!r} cannot be found from {os.getcwd()} ({error}): check its spelling") from error
    try:
        target = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{what} {path!r} cannot be found from {os.getcwd()} ({error}): check its spelling") from error
    if isinstance(target, type) or not (callable(target) or hasattr(target, "answer")):
        raise InputError(
            f"{what} {path!r} is {target!r}: name a function, or an object that can be asked, not its class"
        )
    return target


def _why_not(path: Path) -> str:
    own = "load them into your own class and pass that model (on the command line: its module:name)"
    if path.is_dir():
        names = sorted(found.name for found in path.iterdir())
        if not names:
            return "the folder is empty: check the path"
        some = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
        return (
            f"the folder holds {some} but neither config.json nor adapter_config.json, so it is not a transformers "
            f"checkpoint: for bare weights, {own}"
        )
    if path.suffix in _WEIGHTS and path.exists():
        return f"a {path.suffix} file holds bare weights without a model: {own}"
    if path.suffix in _PICKLES and path.exists():
        return (
            f"a {path.suffix} file holds bare weights, a whole module or a program, and wmplug loads none of these: "
            f"loading may run code of the file. Of bare weights, {own}; of the others, load them yourself if you trust "
            "the file (torch.load, torch.jit.load) and pass the model"
        )
    if path.exists():
        return "it is neither a checkpoint folder nor a .keras file: load the model yourself and pass the model"
    return "the file does not exist: give a model, an existing checkpoint folder or .keras file, or a function"
