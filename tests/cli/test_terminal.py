"""Texts of others on a terminal: no command prints a control character of theirs."""

import json
import re
import subprocess
import sys

import pytest
import typer

import wmplug
from wmplug.cli import app
from wmplug.cli.terminal import out, printable
from wmplug.register import Register

RAW = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
FORGED = "entry 99: ok"
HOSTILE = f"Mallory\x1b]0;owned\x07\x1b[2K\x7f\x9b1m\u202e\u2066 [red]ok\n{FORGED}"


def leaves(command, path=()):
    below = getattr(command, "commands", None)
    if below is None:
        return [(path, command)]
    return [leaf for name, one in below.items() for leaf in leaves(one, (*path, name))]


NUMBERS = {"classes", "leaves_"}
COMMANDS = {" ".join(path): command for path, command in leaves(typer.main.get_command(app))}


def words(name):
    """A command line that gives the hostile text wherever the command takes a text or a path."""
    given = []
    for one in COMMANDS[name].params:
        value = "2" if one.name in NUMBERS else HOSTILE
        if one.param_type_name == "argument":
            given.append(value)
        elif one.required:
            given += [one.opts[0], value]
        elif one.name in ("register", "keys"):
            given += [one.opts[0], HOSTILE]
    return [*name.split(), *given]


def shown(terminal, *given):
    result = terminal.runner.invoke(app, [str(word) for word in given])
    assert not RAW.search(result.output), repr(result.output)
    assert not any(line.strip(" \t│┃|").startswith(FORGED) for line in result.output.splitlines()), repr(result.output)
    return result


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"demo", "schemes", "adapters"}))  # these three take no text
@pytest.mark.parametrize("exists", [False, True])
def test_every_command(terminal, tmp_path, name, exists):
    if exists:
        (tmp_path / HOSTILE).write_text(json.dumps({HOSTILE: HOSTILE, "wmplug": 1, "kind": HOSTILE}) + "\n")
    result = shown(terminal, *words(name))
    assert result.output


@pytest.fixture
def hostile(terminal, tmp_path):
    """A register by an owner of a hostile name, who acquired a suspect of one, under a hostile path."""
    folder = tmp_path / HOSTILE
    shown(terminal, "init", "--name", HOSTILE, "--register", folder)
    owner = wmplug.Owner.open(folder, passphrase="correct horse battery staple")
    body = {"description": HOSTILE, "how": HOSTILE, "acquired": HOSTILE, "digests": {HOSTILE: HOSTILE}}
    Register.of(owner).append("suspect.acquired", body, event_id=HOSTILE)
    Register.of(owner).append("suspect.verified", {"suspect": HOSTILE, "verdict": HOSTILE, "watermark": HOSTILE})
    return folder


@pytest.mark.parametrize("given", [("log",), ("log", "--json"), ("check",), ("check", "--json"), ("anchor",)])
def test_a_register_of_others(terminal, hostile, given):
    assert shown(terminal, "register", *given, "--register", hostile).output
    assert shown(terminal, "register", "diff", hostile, hostile).output
    assert shown(terminal, "report", "--register", hostile, "--out", f"{HOSTILE}.html").output


def test_an_event_in_a_finding(terminal, hostile):
    log = hostile / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines) + lines[-1])
    assert "REFUSED" in shown(terminal, "register", "check", "--register", hostile).output


def test_a_suspect_by_its_own_words(terminal, file, tmp_path, monkeypatch):
    code = f"TEXT = {HOSTILE!r}\ndef raising(batch):\n    raise ValueError(TEXT)\n"
    code += "def named(batch):\n    return [0] * len(batch)\nnamed.__qualname__ = TEXT\n"
    (tmp_path / "hostile_models.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "hostile_models", raising=False)
    assert "Mallory" in shown(terminal, "verify", file, "hostile_models:raising").output
    for more in ((), ("--json",)):
        assert shown(terminal, "verify", file, "hostile_models:named", *more).exit_code == 1


def test_printable_leaves_lines_and_tabs_and_markup():
    assert printable("a\tb\nc [red] é 日本 🙂") == "a\tb\nc [red] é 日本 🙂"
    assert printable("\x1b\x00\r\x9b\u202e\ud800") == "\\u001b\\u0000\\u000d\\u009b\\u202e\\ud800"
    assert json.loads(printable(json.dumps({"a": "\x7f\x1b"}))) == {"a": "\x7f\x1b"}


def test_a_text_is_one_line_unless_it_lays_out_its_own(capsys):
    out.print("a\nb", "c", sep="\n")
    out.lines("d\ne")
    out.print("f\ng", "h")
    assert capsys.readouterr().out == "a\\u000ab\nc\nd\ne\nf\\u000ag h\n"


def test_warnings_logs_and_tracebacks():
    code = (
        "import logging, warnings\n"
        "from wmplug import cli\n"
        f"text = {HOSTILE!r}\n"
        "def app():\n"
        "    warnings.warn(text)\n"
        "    logging.getLogger(text).warning('%s', text)\n"
        "    raise ValueError(text)\n"
        "cli.app = app\n"
        "cli.main()\n"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert made.returncode == 70
    told = made.stderr.decode()
    assert told.count("Mallory") >= 3
    assert not RAW.search(told), repr(told)
