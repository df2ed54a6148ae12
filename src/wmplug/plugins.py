"""The registry: built-ins by dotted path, and the plugins of other distributions in the entry-point group `wmplug`.

It imports no scheme, adapter or framework before you ask for it by name. It loads plugins, and later calls them, one by
one: it reports a broken one and leaves it out, and raises an error if you ask for it.
"""

import difflib
import functools
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pluggy

from wmplug import hookspecs
from wmplug.errors import PluginError, WmplugError

if TYPE_CHECKING:
    from wmplug.schemes import Scheme
    from wmplug.suspects.protocols import Suspect
    from wmplug.tasks.base import Task

GROUP = "wmplug"

SCHEMES = {
    "random-label": "wmplug.schemes.random_label:RandomLabel",
    "close-calls": "wmplug.schemes.close_calls:CloseCalls",
    "mixed": "wmplug.schemes.mixed:Mixed",
    "tilt": "wmplug.schemes.tilt:Tilt",
    "combined": "wmplug.schemes.combined:Combined",
    "served": "wmplug.schemes.served:Served",
    "combined-served": "wmplug.schemes.combined_served:CombinedServed",
    "rows": "wmplug.schemes.rows:Rows",
    "logo": "wmplug.schemes.logo:Logo",
    "phrase": "wmplug.schemes.phrase:Phrase",
    "label-twins": "wmplug.dataset.schemes.label_twins:LabelTwins",
    "canaries": "wmplug.dataset.schemes.canaries:Canaries",
    "twins": "wmplug.dataset.schemes.twins:Twins",
    "radioactive-data": "wmplug.dataset.schemes.radioactive_data:RadioactiveData",
}
TASKS = {"classes": "wmplug.tasks.classes:Classes", "numbers": "wmplug.tasks.numbers:Numbers"}
ADAPTERS = {
    "torch": "wmplug.adapters.torch.loop:Watermarking",
    "accelerate": "wmplug.adapters.accelerate:Watermarking",
    "transformers": "wmplug.adapters.transformers.callback:WatermarkCallback",
    "keras": "wmplug.adapters.keras.callback:WatermarkCallback",
    "jax": "wmplug.adapters.jax.loop:Watermarking",
}
# Classes of suspects by family. A Keras model on the torch backend is a torch module too, so keras comes first; the
# estimators of all families are scikit-learn's, so sklearn comes last.
SUSPECTS = {
    "keras": "wmplug.adapters.keras.suspects:suspect",
    "transformers": "wmplug.adapters.transformers.suspects:suspect",
    "torch": "wmplug.adapters.torch.modules:suspect",
    "flax": "wmplug.adapters.jax.suspects:suspect",
    "xgboost": "wmplug.adapters.xgboost.suspects:suspect",
    "lightgbm": "wmplug.adapters.lightgbm.suspects:suspect",
    "sklearn": "wmplug.adapters.sklearn.suspects:suspect",
}

_BACKENDS = ("tensorflow", "torch", "jax")


class PluginWarning(UserWarning):
    """A plugin failed and was left out."""


class Registry:
    """Schemes, adapters and suspects by name.

    Args:
        entry_points: the entry points to load; the installed ones by default.

    Attributes:
        broken: plugins that failed, by entry-point name, each with its distribution and the cause.
    """

    def __init__(self, entry_points: Iterable[metadata.EntryPoint] | None = None) -> None:
        self.manager = pluggy.PluginManager("wmplug")
        self.manager.add_hookspecs(hookspecs)
        self.broken: dict[str, str] = {}
        self._sources: dict[str, str] = {}
        if os.environ.get("WMPLUG_TRACE") == "1":
            # Never on standard output, which belongs to --json.
            self.manager.trace.root.setwriter(lambda text: print(text, end="", file=sys.stderr))
            self.manager.enable_tracing()
        for point in metadata.entry_points(group=GROUP) if entry_points is None else entry_points:
            self._load(point)

    def _load(self, point: metadata.EntryPoint) -> None:
        # pluggy's own loader stops at the first broken entry point and takes the good ones with it.
        source = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        try:
            if point.name in self._sources:
                raise PluginError(f"{self._sources[point.name]} already has a plugin of that name: uninstall one")
            self._register(point.load(), point.name)
        # A module that calls sys.exit() counts as broken, like one that raises.
        except (Exception, SystemExit) as error:
            self._leave_out(point.name, source, error)
        else:
            self._sources[point.name] = source

    def _register(self, plugin: Any, name: str) -> None:
        hooks = [n for n in dir(plugin) if n.startswith("wmplug_") and callable(getattr(plugin, n))]
        marks = {hook: self.manager.parse_hookimpl_opts(plugin, hook) for hook in hooks}
        if unmarked := [hook for hook, mark in marks.items() if mark is None]:
            raise PluginError(f"{', '.join(unmarked)} is never called: put @wmplug.hookimpl above it")
        if wrapping := [hook for hook, mark in marks.items() if mark and (mark["wrapper"] or mark["hookwrapper"])]:
            raise PluginError(
                f"{', '.join(wrapping)} is a hook wrapper, and plugins are called one by one: return a value"
            )
        try:
            self.manager.register(plugin, name)
            self.manager.check_pending()
            if not self.manager.get_hookcallers(plugin):
                raise PluginError("it implements none of the hooks: docs/plugins.md lists them")
        except Exception:
            # pluggy keeps the hooks that it registered before the fault.
            if self.manager.is_registered(plugin):
                self.manager.unregister(plugin)
            raise

    def _leave_out(self, name: str, source: str, error: BaseException) -> None:
        self.broken[name] = f"{source}: {type(error).__name__}: {' '.join(str(error).split())}"
        warnings.warn(f"wmplug leaves out the plugin {name!r} of {self.broken[name]}", PluginWarning, stacklevel=4)

    def _each(
        self, hook: str, let_through: tuple[type[Exception], ...] = (), **arguments: Any
    ) -> Iterator[tuple[str, Any]]:
        """Name and result of each plugin that implements `hook`, the last registered first; None is skipped."""
        caller = getattr(self.manager.hook, hook)
        plugins = {found.plugin_name: found.plugin for found in reversed(caller.get_hookimpls())}
        for name, plugin in plugins.items():
            others = [other for other in plugins.values() if other is not plugin]
            try:
                result = self.manager.subset_hook_caller(hook, others)(**arguments)
            except let_through:
                raise
            except (Exception, SystemExit) as error:
                self._leave_out(name, f"{self._sources[name]}, {hook}", error)
                continue
            for value in result if isinstance(result, list) else [result]:
                if value is not None:
                    yield name, value

    def tell(self, hook: str, **arguments: Any) -> None:
        """Call a hook that only listens; a listener that raises causes a PluginWarning and never ends a training."""
        for _ in self._each(hook, **arguments):
            pass

    @functools.cached_property
    def schemes(self) -> "Mapping[str, str | Callable[..., Scheme]]":
        """Name -> dotted path or class."""
        return self._merge("scheme", SCHEMES, "wmplug_schemes")

    @functools.cached_property
    def tasks(self) -> "Mapping[str, str | Callable[..., Task]]":
        """Name -> dotted path or class."""
        return self._merge("task", TASKS, "wmplug_tasks")

    @functools.cached_property
    def adapters(self) -> Mapping[str, str | Callable[..., Any]]:
        """Name -> dotted path or factory."""
        return self._merge("adapter", ADAPTERS, "wmplug_adapters")

    def _merge(self, kind: str, table: Mapping[str, str], hook: str) -> dict[str, Any]:
        merged: dict[str, Any] = dict(table)
        sources = dict.fromkeys(table, "wmplug itself")
        for plugin, offered in self._each(hook):
            source = self._sources[plugin]
            if not isinstance(offered, Mapping) or not all(isinstance(f, str) or callable(f) for f in offered.values()):
                wrong = PluginError(f"returned {offered!r}: return a mapping from names to classes or 'module:name'")
                self._leave_out(plugin, f"{source}, {hook}", wrong)
                continue
            for name, factory in offered.items():
                if name in merged:
                    raise PluginError(
                        f"the {kind} {name!r} is offered twice, by {sources[name]} and by {source} ({factory!r}): "
                        "uninstall one"
                    )
                merged[name], sources[name] = factory, source
        return merged

    def scheme(self, name: str) -> "type[Scheme]":
        """A scheme class by name.

        Raises:
            PluginError: no scheme has this name, or its plugin or module cannot be loaded.
        """
        found: type[Scheme] = self._named("scheme", name, self.schemes)
        return found

    def task(self, name: str) -> "type[Task]":
        """A task class by name.

        Raises:
            PluginError: no task has this name, or its plugin or module cannot be loaded.
        """
        found: type[Task] = self._named("task", name, self.tasks)
        return found

    def adapter(self, name: str) -> Callable[..., Any]:
        """An adapter's factory by name.

        Raises:
            PluginError: no adapter has this name, or its framework is not installed.
        """
        found: Callable[..., Any] = self._find("adapter", name, self.adapters)
        return found

    def _named(self, kind: str, name: str, table: Mapping[str, Any]) -> Any:
        found = self._find(kind, name, table)
        if getattr(found, "name", None) != name:
            # A saved mark looks its scheme and its task up by the class's own name.
            raise PluginError(f"the {kind} offered as {name!r} is {found!r}: its `name` must be {name!r} too")
        return found

    def _find(self, kind: str, name: str, table: Mapping[str, Any]) -> Any:
        if name in table:
            factory = table[name]
            return load(factory) if isinstance(factory, str) else factory
        if name in self.broken:
            raise PluginError(f"the plugin {name!r} is broken and was left out ({self.broken[name]})")
        near = difflib.get_close_matches(name, table, n=1, cutoff=0.4)
        meant = f"; did you mean {near[0]!r}?" if near else "."
        broken = "".join(f" The plugin {n!r} is broken and was left out ({why})." for n, why in self.broken.items())
        raise PluginError(f"there is no {kind} {name!r}{meant} There are: {', '.join(sorted(table))}.{broken}")

    def offered(
        self, target: object, preprocess: Callable[[Any, int], Any] | None, batch_size: int
    ) -> "Suspect | None":
        """The suspect that the first plugin that knows `target` returns for it; None if no plugin knows it.

        Raises:
            SuspectError: a plugin knows `target` and cannot ask it.
            PluginError: what it returned cannot be asked.
        """
        made: Suspect
        arguments = {"target": target, "preprocess": preprocess, "batch_size": batch_size}
        for name, made in self._each("wmplug_suspect", (WmplugError,), **arguments):
            if not (hasattr(made, "description") and callable(getattr(made, "answer", None))):
                raise PluginError(
                    f"the plugin {name!r} returned a {type(made).__name__} for {target!r}, which cannot be asked: "
                    "return an object with a description and answer(inputs), or None"
                )
            return made
        return None

    def suspect(
        self, target: object, preprocess: Callable[[Any, int], Any] | None, batch_size: int
    ) -> "Suspect | None":
        """The suspect that plugins, or else the built-in adapters, return for `target`; None if none knows it.

        A family that cannot ask the target returns None, and the next is asked.

        Raises:
            SuspectError: a plugin or adapter knows `target` and cannot ask it.
            PluginError: its framework is not installed.
        """
        if (made := self.offered(target, preprocess, batch_size)) is not None:
            return made
        for family in families(target):
            asked: Suspect | None = load(SUSPECTS[family])(target, preprocess=preprocess, batch_size=batch_size)
            if asked is not None:
                return asked
        return None

    def asked(self, target: object) -> str:
        """Who is asked about a target, in words: plugins by name, then adapters."""
        plugins = [found.plugin_name for found in reversed(self.manager.hook.wmplug_suspect.get_hookimpls())]
        named = [*(f"plugin {name!r}" for name in plugins), *(f"adapter {name!r}" for name in families(target))]
        return ", ".join(named) or "no plugin and no adapter"


def families(target: object) -> list[str]:
    """The built-in adapters that may know a target, by the packages of its classes or by its files, in turn."""
    packages = _packages(target)
    return [family for family in SUSPECTS if family in packages or _is_saved(target, family)]


def _packages(target: object) -> set[str]:
    found = {base.__module__.partition(".")[0] for base in type(target).__mro__}
    if "torch" in found:  # what wraps a model for parallel training, or compiles it, keeps it there
        for name in ("module", "_orig_mod"):
            if (inner := getattr(target, name, None)) is not None:
                found |= _packages(inner)
    return found


def _is_saved(target: object, family: str) -> bool:
    if not isinstance(target, (str, os.PathLike)):
        return False
    path = os.fsdecode(target)
    if family == "keras":
        # A folder is Keras's own format unpacked, if it holds no checkpoint of another.
        whole = path.endswith((".keras", ".h5", ".hdf5")) and not path.endswith(".weights.h5")
        return whole and not os.path.isdir(path)
    saved = ("config.json", "adapter_config.json")
    return family == "transformers" and any(os.path.isfile(os.path.join(path, name)) for name in saved)


def load(path: str) -> Any:
    """The object of a plugin, or of a built-in table, at `module:name`.

    Raises:
        PluginError: a package that it needs is not installed, or its module is faulty.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        # A fault in the module's own distribution must not suggest that you install a framework.
        if missing in ("", module.partition(".")[0]):
            raise PluginError(_FAULTY.format(path=path, error=f"{type(error).__name__}: {error}")) from error
        if path in (ADAPTERS["keras"], SUSPECTS["keras"]) and missing in _BACKENDS:
            raise PluginError(
                f"{path} needs {missing!r}, the backend that keras is set to, which is not installed here: set "
                f"KERAS_BACKEND to one that is (torch or jax), or `pip install {missing}`"
            ) from error
        remedy = missing
        if path in ADAPTERS.values() or path in SUSPECTS.values():
            remedy = f"wmplug[{module.split('.')[2]}]"
        raise PluginError(f"{path} needs {missing!r}, which is not installed here: `pip install '{remedy}'`") from error
    except PluginError:
        raise
    except Exception as error:
        raise PluginError(_FAULTY.format(path=path, error=f"{type(error).__name__}: {error}")) from error


_FAULTY = "{path} cannot be imported, and a missing package is not the reason ({error}): report it to the author"


@functools.cache
def registry() -> Registry:
    """The registry of all installed plugins, built at first use."""
    return Registry()


def adapter(name: str) -> Any:
    """The adapter `name`: `adapter("keras")` is the class `WatermarkCallback`, `adapter("torch")` is `Watermarking`.

    Raises:
        PluginError: no adapter has this name, or its framework is not installed.
    """
    return registry().adapter(name)
