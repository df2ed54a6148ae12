"""The hooks of wmplug: what a plugin may implement. docs/plugins.md has an example of each.

An implementation may leave out arguments it does not need. Plugins are called one by one, the last registered first;
one that raises is left out of that call, with a PluginWarning.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from wmplug.claim.verdict import Verdict
    from wmplug.schemes import Scheme
    from wmplug.suspects.protocols import Suspect

hookspec = pluggy.HookspecMarker("wmplug")
hookimpl = pluggy.HookimplMarker("wmplug")


@hookspec
def wmplug_schemes() -> "Mapping[str, str | Callable[..., Scheme]]":  # type: ignore[empty-body]
    """Name -> scheme class or "module:name", once, when a scheme is first looked up; a name twice is an error."""


@hookspec
def wmplug_adapters() -> Mapping[str, str | Callable[..., Any]]:  # type: ignore[empty-body]
    """Name -> factory or "module:name", once, when an adapter is first looked up; a name twice is an error.

    The factory is called as `factory(mark, **options)`. Give "module:name" where the module imports a framework: it is
    imported when the adapter is asked for.
    """


@hookspec(firstresult=True)
def wmplug_suspect(target: object, preprocess: Callable[[Any, int], Any] | None, batch_size: int) -> "Suspect | None":
    """A suspect for `target`, or None; when something is verified that is not a `Suspect` yet.

    The first plugin that knows `target` has it, before the built-in adapters. A SuspectError reaches the user.
    """


@hookspec
def wmplug_verdict(verdict: "Verdict", run: Mapping[str, Any]) -> None:
    """After each verification; `run` is empty, or holds adapter, step and epoch at a checkpoint."""


@hookspec
def wmplug_event(event: Mapping[str, Any]) -> None:
    """After a register entry is durable."""
