import inspect
import json

import pytest
from hearings import NOTARYS, PASSPHRASE

import wmplug
from wmplug.register.notary.identity import Notary


def test_keys(notary, tmp_path):
    opened = Notary.open(notary.path, passphrase=NOTARYS)
    assert (opened.recipient, opened.signer().public) == (notary.recipient, notary.signer().public)
    public = json.loads((notary.path / "notary.pub").read_text())
    assert public["recipient"] == notary.recipient
    assert (notary.path / "notary.enc").stat().st_mode & 0o077 == 0
    with pytest.raises(wmplug.KeyFileError, match="wrong passphrase"):
        Notary.open(notary.path, passphrase=PASSPHRASE)
    with pytest.raises(wmplug.KeyFileError, match="not there"):
        Notary.open(tmp_path, passphrase=NOTARYS)
    with pytest.raises(wmplug.InputError, match="already"):
        Notary.create(notary.path, name="x", passphrase="x", scrypt_n=2**10)
    with pytest.raises(wmplug.InputError, match="name"):
        Notary.create(tmp_path, name=" ", passphrase="x", scrypt_n=2**10)


@pytest.mark.parametrize("make", [wmplug.Owner.create, Notary.create])
def test_what_a_guess_usually_costs(make):
    assert inspect.signature(make).parameters["scrypt_n"].default == 2**17
