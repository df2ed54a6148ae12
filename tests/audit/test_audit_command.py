"""`wmplug audit`, on digits and on a model of one's own."""

import json

import pytest
from PIL import Image
from typer.testing import CliRunner

import wmplug
from wmplug.audit import digits as laboratory
from wmplug.cli import app
from wmplug.keys.owner import Owner

PASSPHRASE = "correct horse battery staple"
OWN = """
import dataclasses

import torch

from wmplug.audit import digits

torch.manual_seed(0)
network, other = digits.network(), digits.network()


def twin():
    return other


def setting():
    return dataclasses.replace(digits.setting(), epochs=2, make=None)


def preprocess(image, answer):
    return digits.example(image, answer)


def nothing():
    return 5
"""


@pytest.fixture
def audit(monkeypatch, tmp_path):
    monkeypatch.setenv("WMPLUG_PASSPHRASE", PASSPHRASE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(laboratory, "EPOCHS", 3)

    def call(*words, code=0):
        result = CliRunner().invoke(app, ["audit", *map(str, words)])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return call


def test_digits_are_marked_attacked_and_drawn(audit, tmp_path):
    words = ("--scheme", "random-label", "--attack", "int8", "--attack", "labels-only", "--out", tmp_path / "out")
    found = json.loads(audit(*words, "--json").stdout)
    assert [row["name"] for row in found["rows"]] == ["own model", "int8", "labels-only", "unmarked twin"]
    assert found["scheme"] == "random-label"
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == found
    with Image.open(tmp_path / "out" / "audit.png") as drawn:
        assert drawn.format == "PNG"
    again = audit(*words)
    assert "unmarked twin" in again.stdout
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 2


@pytest.mark.parametrize(("scheme", "triggers"), [("served", 0), ("combined-served", 100)])
def test_digits_are_served_asked_and_cloned(audit, scheme, triggers):
    words = ("--scheme", scheme, "--attack", "soft-clone", "--attack", "fine-tune", "--json")
    found = json.loads(audit(*words).stdout)
    assert found["scheme"] == scheme
    assert [row["name"] for row in found["rows"]] == ["own model", "soft-clone", "fine-tune", "unmarked clone"]
    assert all(list(row["parts"]) == ["triggers", "signs"] * (triggers > 0) for row in found["rows"])
    assert found["rows"][-1]["log10_p"] > -2
    assert min(cell["verdict"]["queries"] for cell in found["cells"]) > 20 + triggers  # as many as the log holds


def test_a_model_of_ones_own(audit, tmp_path, owner):
    (tmp_path / "audited_model.py").write_text(OWN)
    images, labels = laboratory.parts()
    own = wmplug.create(
        owner, scheme="random-label", carriers=images[:200], labels=labels[:200], classes=10, triggers=30
    )
    own.save(tmp_path / "own.wm")
    words = ["own.wm", "audited_model:network", "--data", "audited_model:setting", "--attack", "fp16"]
    more = ["--preprocess", "audited_model:preprocess", "--twin", "audited_model:twin"]
    found = json.loads(audit(*words, *more, "--json").stdout)
    assert found["watermark"] == own.id
    assert [row["name"] for row in found["rows"]] == ["own model", "fp16", "unmarked twin"]
    assert {row["state"] for row in found["rows"]} == {"inconclusive"}  # it was never trained
    for change, why in (
        (["own.wm"], "takes MODEL, its torch model, and --data"),
        ([*words[:3], "audited_model:nothing"], "returned a int: return a wmplug.audit.Setting"),
        (["own.wm", "audited_model:nothing", *words[2:]], "returned a int: name a torch module"),
    ):
        assert why in audit(*change, code=2).stderr


def test_a_sweep_over_delta(audit, tmp_path):
    (tmp_path / "audited_model.py").write_text(OWN)
    document = json.loads(audit("--sweep", "delta", "--values", "1", "--json", "--out", "swept").stdout)
    assert [point["value"] for point in document["points"]] == [1.0]
    assert (tmp_path / "swept" / "sweep.png").is_file()
    missing = audit("--sweep", "delta", "--data", "audited_model:setting", code=2).stderr
    assert "without make=" in missing


def test_the_key_of_the_laboratory_is_no_owners(tmp_path):
    made = laboratory.mark("random-label")
    stranger = Owner.create(tmp_path / "register", name="digits", passphrase=PASSPHRASE, scrypt_n=2**10)
    assert made.public["owner"]["commitment"] != stranger.commitment


def test_what_is_wrong_is_said_before_anything_is_trained(audit, tmp_path, monkeypatch):
    monkeypatch.setattr(laboratory, "trained", None)
    (tmp_path / "file").touch()
    (tmp_path / "sus.py").write_text(OWN + "\n\ndef bad():\n    raise RuntimeError('boom')\n")
    for words, says in [
        (["--attack", "nope"], "no attack is called 'nope'"),
        (["--attack", "fp16", "--attack", "fp16"], "each once"),
        (["--out", tmp_path / "file"], "is a file"),
        (["--twin", "sus:twin"], "give FILE.wm first"),
        (["--sweep", "delta", "--attack", "int8"], "takes --values"),
        (["--sweep", "delta", "--values", "-1,.3"], "above 0 and up to 5"),
        (["--sweep", "delta", "--values", ".3,.3"], "each once"),
        (["x.wm", "sus:network", "--data", "sus:bad"], "RuntimeError: boom"),
    ]:
        assert says in " ".join(audit(*words, code=2).stderr.split()), words
