"""Contracts for plugin authors: pytest classes to subclass in the tests of a scheme, a task or an adapter."""

try:
    import pytest as pytest
except ImportError as error:
    raise ImportError(
        "wmplug.testing consists of pytest classes, and pytest is not installed: `pip install pytest`"
    ) from error

from wmplug.testing.adapters import AdapterContract, pictures
from wmplug.testing.schemes import SchemeContract, fixed_owner, knowing, nasty_suspects, refuse_secrets
from wmplug.testing.tasks import TaskContract

__all__ = [
    "AdapterContract",
    "SchemeContract",
    "TaskContract",
    "fixed_owner",
    "knowing",
    "nasty_suspects",
    "pictures",
    "refuse_secrets",
]
