"""A register of others that holds pipes, devices and endless files where its files belong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wmplug
from wmplug.errors import CorruptEntryError, KeyFileError, RegisterError
from wmplug.register import Register, anchors, checking, ledger, receipts
from wmplug.watermark.file import read_public

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="session")
def anchored(tmp_path_factory, lab):
    folder = tmp_path_factory.mktemp("anchored")
    owner = wmplug.Owner.create(folder / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    anchors.trust(owner.path, lab.trust)
    anchors.anchor(Register.of(owner))
    return owner.path


@pytest.fixture
def folder(anchored, tmp_path):
    return shutil.copytree(anchored, tmp_path / "register")


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def endless(path):
    with path.open("wb") as file:
        file.truncate(1 << 40)


PUT = pytest.mark.parametrize("put", [pipe, device, endless])


@PUT
@pytest.mark.parametrize("name", ["owner.pub", "policy.json", "log.jsonl"])
def test_a_part_that_is_no_file(folder, put, name):
    (folder / name).unlink()
    put(folder / name)
    try:
        report = checking.check(folder)
    except RegisterError as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert (name, put, report.ok) == ("log.jsonl", endless, False)


@PUT
@pytest.mark.parametrize("pattern", ["*.tsr", "*.tsq", "*.crl"])
def test_an_anchor_that_is_no_file(folder, put, pattern):
    for file in (folder / "anchors").glob(pattern):
        file.unlink()
        put(file)
    report = checking.check(folder)
    assert not report.ok
    put(folder / "anchors" / "999999-other.tsr")
    assert "token-unreadable" in {finding.code for finding in checking.check(folder).findings}


@pytest.mark.parametrize("put", [pipe, device])
def test_writing_to_a_log_that_is_no_file(folder, put):
    owner = wmplug.Owner.open(folder, passphrase=PASSPHRASE)
    register = Register.of(owner)
    (folder / "log.jsonl").unlink()
    put(folder / "log.jsonl")
    with pytest.raises(RegisterError, match="not a regular file"):
        register.append("suspect.acquired", {})


def test_a_line_that_never_ends(folder, monkeypatch):
    monkeypatch.setattr(ledger, "_LINE", 4000)
    log = folder / "log.jsonl"
    with log.open("ab") as file:
        file.write(b"x" * 4001)
    with pytest.raises(CorruptEntryError, match="no entry is that long"):
        list(Register(folder).entries())
    log.write_bytes(log.read_bytes()[:-4001])
    owner = wmplug.Owner.open(folder, passphrase=PASSPHRASE)
    with pytest.raises(RegisterError, match="longer than the 4,000"):
        Register.of(owner).append("suspect.acquired", {"description": "x" * 4000})
    assert checking.check(folder).ok


@PUT
def test_what_is_given_beside_a_register(tmp_path, put):
    put(tmp_path / "x")
    for read in (receipts.read, anchors.read_trust):
        with pytest.raises(RegisterError, match=r"regular file|more than"):
            read(tmp_path / "x")


def test_a_watermark_file_without_a_line(tmp_path):
    endless(tmp_path / "x.wm")
    with pytest.raises(KeyFileError, match="not a file that wmplug wrote"):
        read_public(tmp_path / "x.wm")


@pytest.mark.parametrize(
    "command",
    [
        ["register", "check", "--register", "{0}"],
        ["register", "log", "--register", "{0}"],
        ["report", "--register", "{0}", "--out", "{0}/x.html"],
        ["register", "check", "--register", "{1}", "--receipt", "{0}/owner.pub"],
        ["register", "check", "--register", "{1}", "--trust", "{0}/owner.pub"],
        ["register", "check", "--register", "{1}", "--crl", "{0}/owner.pub"],
        ["create", "--register", "{1}", "--carriers", "{0}/pipe.npy", "--out", "{0}/x.wm"],
        ["dataset", "mark", "{0}/pipe.csv", "{0}/copy.csv", "--register", "{1}"],
        ["register", "diff", "{1}", "{0}"],
        ["report", "--register", "{1}", "--out", "{0}/x.html", "--verdict", "{0}/owner.pub"],
        ["report", "--register", "{1}", "--out", "{0}/x.html", "--certificate", "{0}/owner.pub"],
        ["notary", "leaves", "{0}/owner.pub"],
        ["notary", "spend", "{0}/owner.pub"],
        ["show", "{0}/owner.pub"],
        ["verify", "{0}/owner.pub", "{0}/owner.pub"],
    ],
)
def test_no_command_waits_for_a_pipe(anchored, folder, command):
    (folder / "owner.pub").unlink()
    for name in ("owner.pub", "pipe.npy", "pipe.csv"):
        pipe(folder / name)
    given = [word.format(folder, anchored) for word in command]
    run = [sys.executable, "-c", "from wmplug.cli import main; main()", *given]
    where = {**os.environ, "PYTHONPATH": str(Path(wmplug.__file__).parents[1]), "WMPLUG_PASSPHRASE": PASSPHRASE}
    made = subprocess.run(run, capture_output=True, text=True, timeout=60, env=where, check=False)
    assert made.returncode == 2, made.stderr
    assert made.stderr.startswith("error: ")
    assert json.dumps(made.stderr).count("\\n") == 1
