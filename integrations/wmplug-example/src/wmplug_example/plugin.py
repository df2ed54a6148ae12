"""The hooks. Loaded whenever wmplug looks for plugins, so it imports no framework."""

from wmplug import hookimpl


@hookimpl
def wmplug_schemes():
    """The scheme `table`."""
    return {"table": "wmplug_example.table:Table"}


@hookimpl
def wmplug_adapters():
    """The adapter `skorch`."""
    return {"skorch": "wmplug_example.skorch:WatermarkCallback"}


@hookimpl
def wmplug_suspect(target, preprocess, batch_size):
    """A skorch net is asked through its module."""
    if not any(base.__module__.startswith("skorch.") for base in type(target).__mro__):
        return None
    from wmplug.adapters.torch.modules import ModuleSuspect

    return ModuleSuspect(target.module_, preprocess=preprocess, batch_size=batch_size)
