"""Contracts for plugin authors: pytest classes to subclass in the tests of a scheme, a task or an adapter."""

try:
    import pytest as pytest
except ImportError as error:
    raise ImportError("wmplug.testing is made of pytest classes: `pip install pytest` where you test") from error

from wmplug.testing.adapters import AdapterContract as AdapterContract
from wmplug.testing.adapters import pictures as pictures
from wmplug.testing.schemes import SchemeContract as SchemeContract
from wmplug.testing.schemes import fixed_owner as fixed_owner
from wmplug.testing.schemes import knowing as knowing
from wmplug.testing.schemes import nasty_suspects as nasty_suspects
from wmplug.testing.schemes import refuse_secrets as refuse_secrets
from wmplug.testing.tasks import TaskContract as TaskContract
