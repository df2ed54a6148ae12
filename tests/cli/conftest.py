import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import wmplug
from wmplug.cli import app
from wmplug.register.recovery import combine

PASSPHRASE = "correct horse battery staple"


class Terminal:
    """Runs commands in this process and keeps all they printed."""

    def __init__(self):
        self.runner = CliRunner()
        self.printed = ""

    def __call__(self, *words, code=0):
        result = self.runner.invoke(app, [str(word) for word in words])
        self.printed += result.output + repr(result.exception)
        assert code is None or result.exit_code == code, result.output + repr(result.exception)
        return result

    def json(self, *words, code=0):
        result = self(*words, "--json", code=code)
        assert result.stderr == ""
        return json.loads(result.stdout)

    def error(self, *words):
        result = self(*words, code=2)
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        return result.stderr


@pytest.fixture(autouse=True)
def found_by_processes(monkeypatch):
    # A relative PYTHONPATH would not lead processes in other folders to this wmplug.
    monkeypatch.setenv("PYTHONPATH", str(Path(wmplug.__file__).parents[1]))


@pytest.fixture(autouse=True)
def cheap_to_open(monkeypatch):
    """What commands seal in this process; what it usually costs is asserted of processes of their own."""
    for make in (wmplug.Owner.create.__func__, combine):
        monkeypatch.setitem(make.__kwdefaults__, "scrypt_n", 2**10)


@pytest.fixture
def terminal(monkeypatch, tmp_path):
    monkeypatch.setenv("WMPLUG_PASSPHRASE", PASSPHRASE)
    monkeypatch.delenv("WMPLUG_REGISTER", raising=False)
    monkeypatch.chdir(tmp_path)
    return Terminal()


@pytest.fixture
def pictures(tmp_path, digits):
    """300 digits as carriers.npy and labels.npy."""
    images, labels = digits
    np.save(tmp_path / "carriers.npy", images[:300])
    np.save(tmp_path / "labels.npy", labels[:300])
    return ["--carriers", tmp_path / "carriers.npy", "--labels", tmp_path / "labels.npy", "--classes", 10]


@pytest.fixture
def mark(owner, digits):
    images, labels = digits
    return wmplug.create(owner, scheme="random-label", carriers=images[:300], labels=labels[:300], classes=10)


@pytest.fixture
def file(mark, tmp_path):
    return mark.save(tmp_path / "mark.wm")
