"""A notary, an authority that is not a lab's, and a claim that was heard."""

import contextlib
import dataclasses
import shutil
import socket
from datetime import datetime, timedelta, timezone

import pytest
from hearings import NOTARYS, PASSPHRASE, hear, tell

from wmplug.keys.owner import Owner
from wmplug.register import authority
from wmplug.register.authority import LabAuthority
from wmplug.register.notary.identity import Notary


@pytest.fixture(scope="session")
def listless(tmp_path_factory):
    """An authority that is not a lab's and whose lists cannot be fetched, and the trust in it."""
    folder = tmp_path_factory.mktemp("listless")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authority, "LAB", "Listless")
        made = LabAuthority.create(
            folder, url="http://127.0.0.1:1", since=datetime.now(timezone.utc) - timedelta(days=60)
        )
    with authority.serve(folder) as url:
        yield made, made.trust(url)


@pytest.fixture(scope="session")
def notary(tmp_path_factory):
    return Notary.create(tmp_path_factory.mktemp("notary"), name="Nora Notary", passphrase=NOTARYS, scrypt_n=2**10)


@pytest.fixture(scope="session")
def told(tmp_path_factory, neutral, digits):
    return tell(tmp_path_factory.mktemp("register"), neutral, digits)


@pytest.fixture
def story(told, tmp_path):
    """A copy of the register for each test."""
    folder = shutil.copytree(told.owner.path, tmp_path / "register")
    return dataclasses.replace(told, owner=Owner.open(folder, passphrase=PASSPHRASE))


@pytest.fixture(scope="session")
def heard(told, notary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heard")
    copied = shutil.copytree(told.owner.path, folder / "register")
    story = dataclasses.replace(told, owner=Owner.open(copied, passphrase=PASSPHRASE))
    return story, folder, hear(story, notary, folder)


@pytest.fixture
def bygone(tmp_path):
    """An authority whose certificate has expired since, with no revocation list; and a way back to when it had not."""
    then = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    valid = {"since": then - timedelta(days=1), "until": then + timedelta(minutes=20)}
    made = LabAuthority.create(tmp_path / "bygone", url="http://127.0.0.1:1", **valid)

    @contextlib.contextmanager
    def back():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(authority, "_now", lambda: then)
            yield

    with authority.serve(tmp_path / "bygone", port=port) as url:
        yield made.trust(url), back
