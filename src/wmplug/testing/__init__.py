"""Contracts for plugin authors: pytest classes to subclass in the tests of a scheme or an adapter."""

from wmplug.testing.schemes import AdapterContract as AdapterContract
from wmplug.testing.schemes import SchemeContract as SchemeContract
from wmplug.testing.schemes import fixed_owner as fixed_owner
from wmplug.testing.schemes import knowing as knowing
from wmplug.testing.schemes import nasty_suspects as nasty_suspects
from wmplug.testing.schemes import pictures as pictures
from wmplug.testing.schemes import refuse_secrets as refuse_secrets
