import json
import os
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import wmplug.cli
from wmplug.cli.tsa import tsa
from wmplug.register.timestamps import Trust, fetch, make_request, verify_token

IMPRINT = bytes(range(32))
LAB = "LAB ONLY - NOT ATTESTED"


@pytest.fixture
def run():
    app = typer.Typer(cls=type(typer.main.get_command(wmplug.cli.app)))
    app.add_typer(tsa, name="tsa")
    return lambda *words: CliRunner().invoke(app, ["tsa", *map(str, words)])


def test_make_leaves_what_a_register_has_to_trust(run, tmp_path):
    made = run("make", "--dir", tmp_path / "a", "--port", 3999)
    assert made.exit_code == 0, made.output
    assert LAB in made.stderr
    trust = Trust.from_json(json.loads((tmp_path / "a" / "trust.json").read_bytes()))
    assert trust.url == "http://127.0.0.1:3999"
    assert len(trust.policies) == 1
    again = run("make", "--dir", tmp_path / "a")
    assert again.exit_code == 2
    assert "holds an authority already" in again.stderr


def test_make_as_json(run, tmp_path):
    made = run("make", "--dir", tmp_path / "a", "--rsa", "--json")
    assert made.stderr == ""
    document = json.loads(made.stdout)
    assert document["trust"] == str(tmp_path / "a" / "trust.json")
    assert LAB in document["warning"]


def test_serve_needs_an_authority(run, tmp_path):
    served = run("serve", "--dir", tmp_path)
    assert served.exit_code == 2
    assert "wmplug tsa make" in served.stderr


@pytest.mark.parametrize("as_json", [True, False])
def test_serve_answers_until_interrupted(run, tmp_path, as_json):
    assert run("make", "--dir", tmp_path).exit_code == 0
    code = (
        "import typer, wmplug.cli, wmplug.cli.tsa\n"
        "app = typer.Typer(cls=type(typer.main.get_command(wmplug.cli.app)))\n"
        "app.add_typer(wmplug.cli.tsa.tsa, name='tsa')\n"
        "app()\n"
    )
    words = ["tsa", "serve", "--dir", str(tmp_path), "--port", "0", *(["--json"] if as_json else [])]
    # A shell that starts the tests in the background has them, and what they start, ignore the signal.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    heeding = {"env": environment, "preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen([sys.executable, "-c", code, *words], stdout=-1, stderr=-1, text=True, **heeding) as process:
        try:
            if as_json:
                document = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")
                url, said = document["url"], document["warning"]
            else:
                said = process.stderr.readline()
                url = process.stdout.readline().split()[1]
                assert str(tmp_path / "trust.json") in process.stdout.readline()
            assert LAB in said
            trust = Trust.from_json(json.loads((tmp_path / "trust.json").read_bytes()))
            assert trust.url == url
            request = make_request(IMPRINT)
            token = verify_token(fetch(url, request), imprint=IMPRINT, request=request, trust=trust)
            assert token.lab
            assert LAB in token.authority
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()


def test_the_commands_import_nothing_of_timestamps_until_they_run():
    code = (
        "import sys, wmplug.cli.tsa; print(sorted(m for m in sys.modules if m.startswith(('asn1crypto', 'rfc3161'))))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_the_extra_it_is_named():
    code = "import sys\nsys.modules['asn1crypto'] = None\nimport wmplug.register.authority\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'wmplug[evidence]'" in done.stderr.splitlines()[-1]
