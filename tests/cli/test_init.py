import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest

import wmplug
from wmplug.cli import app

PASSPHRASE = "correct horse battery staple"


def test_init_makes_an_owner_that_the_passphrase_opens(terminal, tmp_path):
    made = terminal.json("init", "--register", tmp_path / "r", "--name", "Ada")
    owner = wmplug.Owner.open(tmp_path / "r", passphrase=PASSPHRASE)
    assert made == {"register": str(tmp_path / "r"), "name": "Ada", "commitment": owner.commitment}
    assert PASSPHRASE not in terminal.printed
    assert owner._roots[0].hex() not in terminal.printed


def test_init_twice_is_refused_and_changes_nothing(terminal, owner):
    before = (owner.path / "secret" / "owner.enc").read_bytes()
    assert "already holds an owner" in terminal.error("init", "--register", owner.path, "--name", "Eve")
    assert (owner.path / "secret" / "owner.enc").read_bytes() == before


def test_register_comes_from_the_environment(terminal, monkeypatch, owner):
    monkeypatch.setenv("WMPLUG_REGISTER", str(owner.path))
    assert str(owner.path) in terminal.error("init", "--name", "Eve")


def test_without_passphrase_and_terminal_it_says_so(terminal, monkeypatch, tmp_path):
    monkeypatch.delenv("WMPLUG_PASSPHRASE")
    assert "set WMPLUG_PASSPHRASE" in terminal.error("init", "--register", tmp_path / "r", "--name", "Ada")
    assert not (tmp_path / "r").exists()


def test_no_command_takes_a_passphrase_as_an_argument():
    for command in app.registered_commands:
        assert not any("passphrase" in name for name in command.callback.__annotations__)


def typed(words, answers, folder):
    """Run a command on a pseudo-terminal, answering each prompt; its exit code and all that was shown."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WMPLUG_")}
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "wmplug", *words],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=folder,
        env=environment,
        start_new_session=True,
    )
    os.close(follower)
    shown, left = b"", list(answers)
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if select.select([leader], [], [], 0.1)[0]:
            try:
                shown += os.read(leader, 4096)
            except OSError:
                break
            # The space after the colon comes once the echo is off.
            if left and shown.endswith(b": "):
                os.write(leader, left.pop(0).encode() + b"\n")
                shown += b"\n"
        elif process.poll() is not None:
            break
    os.close(leader)
    return process.wait(timeout=10), shown.decode()


def cost_of(file):
    """The scrypt n that a file was sealed with."""
    return json.loads(file.read_bytes().partition(b"\n")[0])["scrypt"]["n"]


def test_the_prompt_asks_twice_and_shows_nothing(tmp_path):
    code, shown = typed(["init", "--name", "Ada", "--register", "r"], ["hush hush", "hush hush"], tmp_path)
    assert code == 0, shown
    assert "hush" not in shown
    assert wmplug.Owner.open(tmp_path / "r", passphrase="hush hush").name == "Ada"
    assert cost_of(tmp_path / "r" / "secret" / "owner.enc") == 2**17


@pytest.mark.parametrize(("words", "expected"), [(["--version"], 0), (["nonsense"], 2), (["init"], 2)])
def test_exit_codes_of_the_program(words, expected, tmp_path):
    done = subprocess.run([sys.executable, "-m", "wmplug", *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == expected
    assert "Traceback" not in done.stderr
    assert (done.stdout == f"wmplug {wmplug.__version__}\n") == (expected == 0)
