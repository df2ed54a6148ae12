"""A world for dishonest owners: an authority, two notaries, registers to copy, and innocents that plugins can ask."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "register" / "notary"))  # its hearings


@pytest.fixture(scope="session")
def adapters():
    import innocents

    from wmplug import plugins

    plugin = innocents.Adapters()
    manager = plugins.registry().manager
    manager.register(plugin, "innocents")
    yield
    manager.unregister(plugin)


@pytest.fixture(scope="session")
def world(tmp_path_factory, neutral, digits, adapters):
    from cases import World

    from wmplug.register.notary.identity import Notary

    folder = tmp_path_factory.mktemp("claims")
    notaries = [Notary.create(folder / name, name=name, passphrase=name, scrypt_n=2**10) for name in ("Nora", "Rogue")]
    made = World(folder, neutral, *notaries, *(part[:600] for part in digits))
    made.prepare(6)
    return made
