"""The hooks. Loaded whenever wmplug looks for plugins, so it imports no framework."""

from wmplug import hookimpl


@hookimpl
def wmplug_schemes():
    """The schemes `table` and `riddles`."""
    return {"table": "wmplug_example.table:Table", "riddles": "wmplug_example.words:Riddles"}


@hookimpl
def wmplug_tasks():
    """The task `words`, which `riddles` fits."""
    return {"words": "wmplug_example.words:Words"}


@hookimpl
def wmplug_adapters():
    """The adapter `skorch`."""
    return {"skorch": "wmplug_example.skorch:WatermarkCallback"}


@hookimpl
def wmplug_suspect(target, preprocess, batch_size):
    """A service at rows+http://..., or a skorch net, which is asked through its module."""
    if isinstance(target, str) and target.startswith(("rows+http://", "rows+https://")):
        from wmplug_example.api import Api

        return Api(target, batch_size)
    if not any(base.__module__.startswith("skorch.") for base in type(target).__mro__):
        return None
    from wmplug.adapters.torch import ModuleSuspect

    return ModuleSuspect(target.module_, preprocess=preprocess, batch_size=batch_size)
