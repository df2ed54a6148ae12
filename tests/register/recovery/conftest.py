import pytest
from succession import CHEAP, PASSPHRASE

from wmplug import Owner
from wmplug.register import Register


@pytest.fixture
def ada(tmp_path):
    """An owner whose register holds two entries."""
    made = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=CHEAP)
    Register.of(made).append("owner.identity", {"name": "Ada"})
    return made
