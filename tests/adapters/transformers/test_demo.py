import json

import pytest
import transformers
from PIL import Image
from typer.testing import CliRunner

from wmplug import Owner
from wmplug.cli import app
from wmplug.cli.demo import command as demo
from wmplug.cli.demo.command import PASSPHRASE

NOTE = "mine, not the demo's"


def run(*words):
    return CliRunner().invoke(app, ["demo", *map(str, words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory, known_secrets):
    """One demo, into a folder with somebody's file in it."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "notes.txt").write_text(NOTE)
    verbosity = transformers.logging.get_verbosity()
    make = demo._owner

    def known(folder, place):
        with known_secrets(place):
            return make(folder, place)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "_owner", known)
        result = run("--out", folder)
    assert transformers.logging.get_verbosity() == verbosity
    return folder, result


def test_copies_are_proven_and_others_are_not(made):
    folder, result = made
    assert result.exit_code == 0, result.output
    record = json.loads((folder / "demo.json").read_text())
    assert record["as_expected"]
    states = [(f["suspect"], f["exhaustive"]["state"], f["sequential"]["state"]) for f in record["findings"]]
    assert states == [
        ("model", "proven", "proven"),
        ("fine-tuned copy", "proven", "proven"),
        ("independent model", "inconclusive", "inconclusive"),
        ("wrong key", "inconclusive", "inconclusive"),
    ]
    assert all(f["accuracy"] > 0.9 for f in record["findings"])
    assert record["findings"][0]["sequential"]["queries"] <= 20
    assert record["checkpoints"][-1]["log10_p"] < -60 < record["checkpoints"][0]["log10_p"]


def test_the_terminal_shows_the_rise_and_no_noise(made):
    folder, result = made
    record = json.loads((folder / "demo.json").read_text())
    lines = [line.split() for line in result.stdout.splitlines()]
    shown = [line for line in lines if line and line[0] in {str(row["step"]) for row in record["checkpoints"]}]
    assert [line[-1] for line in shown] == [f"{row['log10_p']:.1f}" for row in record["checkpoints"]]
    assert "train_runtime" not in result.output
    assert "it/s" not in result.output


def test_everything_lies_in_the_folder(made):
    folder, _ = made
    assert {path.name for path in folder.iterdir()} == {*demo._MADE, "demo.json", "notes.txt"}
    with Image.open(folder / "demo.png") as plot:
        assert plot.size[0] > 1000
    secret = Owner.open(folder / "register", passphrase=PASSPHRASE)._roots[0]
    for path in folder.rglob("*"):
        assert path.is_dir() or (secret not in path.read_bytes() and secret.hex().encode() not in path.read_bytes())


def test_the_saved_model_can_be_verified_by_the_command_line(made, monkeypatch):
    folder, _ = made
    monkeypatch.setenv("WMPLUG_PASSPHRASE", PASSPHRASE)
    options = ["--preprocess", "wmplug.cli.demo.models:example", "--json"]
    result = CliRunner().invoke(app, ["verify", str(folder / "mark.wm"), str(folder / "copy"), *options])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["state"] == "proven"


def test_again_into_the_same_folder(made, monkeypatch):
    folder, _ = made
    before = json.loads((folder / "demo.json").read_text())
    secret = (folder / "register" / "secret" / "owner.enc").read_bytes()
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "TUNING_EPOCHS", 1)
    result = run("--out", folder, "--json")
    after = json.loads(result.stdout)
    # One epoch teaches too little: the exit code says so.
    assert (result.exit_code, after["as_expected"]) == (1, False)
    assert after == json.loads((folder / "demo.json").read_text()) != before
    assert (folder / "notes.txt").read_text() == NOTE
    assert (folder / "register" / "secret" / "owner.enc").read_bytes() == secret


def test_a_folder_with_things_of_the_same_name_is_refused(tmp_path):
    (tmp_path / "mark.wm").write_text("precious")
    result = run("--out", tmp_path)
    assert result.exit_code == 2
    assert "not made by a demo" in result.stderr
    assert (tmp_path / "mark.wm").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1
