import json

import numpy as np
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

import wmplug
from wmplug.register import Register
from wmplug.report import card
from wmplug.training.record import Run

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def trained(tmp_path, terminal, digits, known_secrets):
    """A register with one run, and a verdict in a file."""
    images, labels = digits
    with known_secrets("report"):  # a control that matches by luck would void the test
        owner = wmplug.Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    mark = wmplug.create(owner, scheme="random-label", carriers=images[:300], classes=10, triggers=20)
    verdict = wmplug.verify(mark, lambda x: np.zeros(len(x), int), exhaustive=True)
    run = Run(mark, "plain")
    run.start(data=(images[:50], labels[:50]), arguments={"lr": 0.1}, model=object())
    run.finish(verdict, step=10, epoch=1.0, system={"w": np.arange(6.0)}, total=20)
    (tmp_path / "verdict.json").write_text(verdict.to_json())
    return tmp_path


def test_all_outputs_are_written_and_the_first_word_is_not_attested(trained, terminal):
    (trained / "README.md").write_text("# Model\n")
    done = terminal(
        *("report", "--register", "register", "--out", "dossier.html", "--json-out", "dossier.json"),
        *("--bom", "bom.json", "--card", "README.md", "--verdict", "verdict.json", "--control", "verdict.json"),
    )
    assert done.stdout.split() == ["dossier.html", "dossier.json", "bom.json", "README.md"]
    assert done.stderr.startswith("NOT ATTESTED")
    document = json.loads((trained / "dossier.json").read_text())
    assert [one["role"] for one in document["suspects"]] == ["suspect", "control"]
    assert document["who"]["register"] in (trained / "dossier.html").read_text()
    bom = (trained / "bom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(bom) is None
    assert card.BEGIN in (trained / "README.md").read_text()


def test_json_tells_what_was_written(trained, terminal):
    told = terminal.json("report", "--register", "register", "--out", "dossier.html")
    assert told["status"] == "not attested"
    assert told["files"] == ["dossier.html"]


def test_a_register_that_was_edited_has_a_dossier_but_nothing_public(trained, terminal):
    log = trained / "register" / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([*lines[:3], *lines[4:]]))
    (trained / "README.md").write_text("# Model\n")
    done = terminal(
        *("report", "--register", "register", "--out", "dossier.html", "--bom", "bom.json", "--card", "README.md"),
        code=1,
    )
    assert "THIS REGISTER DOES NOT HOLD" in done.stderr
    assert "THIS REGISTER DOES NOT HOLD" in (trained / "dossier.html").read_text()
    assert not (trained / "bom.json").exists()
    assert (trained / "README.md").read_text() == "# Model\n"


def test_a_receipt_is_checked(trained, terminal):
    terminal("register", "receipt", "--register", "register", "--out", "receipt.json")
    log = trained / "register" / "log.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-1]))
    terminal("report", "--register", "register", "--out", "a.html")
    terminal("report", "--register", "register", "--out", "b.html", "--receipt", "receipt.json", code=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--verdict", "README.md"], "holds no verdict"),
        (["--certificate", "README.md"], "not a notary's certificate"),
        (["--receipt", "README.md"], "not a receipt"),
        (["--trust", "README.md"], "not a trust file"),
        (["--card", "none.md"], "existing README.md"),
        (["--json-out", "dossier.html"], "one name"),
        (["--register", "nowhere"], "is not a register"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(trained, terminal, options, said):
    (trained / "README.md").write_text("# Model\n")
    before = {file.name for file in trained.iterdir()}
    assert said in terminal.error("report", "--register", "register", "--out", "dossier.html", *options)
    assert {file.name for file in trained.iterdir()} == before


@pytest.mark.parametrize("option", ["--verdict", "--control", "--certificate", "--trust", "--receipt"])
def test_a_file_that_is_nested_too_deep_is_refused_in_words(trained, terminal, option):
    (trained / "deep.json").write_text("[" * 200_000)
    said = terminal.error("report", "--register", "register", "--out", "dossier.html", option, "deep.json")
    assert "deep.json" in said
    assert "Traceback" not in said


def test_an_edited_verdict_is_refused_and_nothing_is_written(trained, terminal):
    verdict = json.loads((trained / "verdict.json").read_text())
    edited = {**verdict, "suspect": "MegaCorp", "state": "proven", "log10_e": 99.0, "log10_p": -99.0}
    (trained / "edited.json").write_text(json.dumps(edited))
    for option in ("--verdict", "--control"):
        said = terminal.error("report", "--register", "register", "--out", "dossier.html", option, "edited.json")
        assert "edited.json contradicts itself (log10_e = 99 of exact in-set" in said
    assert not (trained / "dossier.html").exists()


def test_a_verdict_of_a_file_is_unverified_until_the_register_holds_it(trained, terminal):
    options = ("report", "--register", "register", "--verdict", "verdict.json")
    terminal(*options, "--out", "before.html", "--json-out", "before.json")
    verdict = json.loads((trained / "verdict.json").read_text())
    owner = wmplug.Owner.open(trained / "register", passphrase=PASSPHRASE)
    body = {"watermark": verdict["watermark"], "suspect": "zeros", "rows": [], "verdict": verdict}
    Register.of(owner).append("suspect.verified", body)
    terminal(*options, "--out", "after.html", "--json-out", "after.json")
    before, after = (json.loads((trained / f"{name}.json").read_text())["suspects"][0] for name in ("before", "after"))
    assert (before["standing"], after["standing"]) == ("unverified", "recorded")
    assert "UNVERIFIED" in (trained / "before.html").read_text()
    assert "UNVERIFIED" not in (trained / "after.html").read_text()


def test_a_control_that_matched_is_an_alarm(trained, terminal):
    mark = wmplug.create(
        wmplug.Owner.open(trained / "register", passphrase=PASSPHRASE),
        **{"scheme": "random-label", "carriers": np.arange(6400, dtype=np.uint8).reshape(100, 8, 8), "classes": 10},
    )
    known = {mark.triggers.row(i).tobytes(): int(mark.triggers.answers[i]) for i in range(len(mark.triggers))}
    copied = wmplug.verify(mark, lambda batch: [known[x.tobytes()] for x in batch])
    (trained / "copy.json").write_text(copied.to_json())
    options = ("report", "--register", "register", "--verdict", "copy.json", "--control")
    terminal(*options, "verdict.json", "--out", "calm.html")
    loud = terminal(*options, "copy.json", "--out", "loud.html", code=1)
    assert "A CONTROL MATCHED: THE TEST IS VOID" in loud.stderr
    assert "proven" in loud.stderr
    told = terminal.json(*options, "copy.json", "--out", "told.html", code=1)
    assert len(told["controls_matched"]) == 1
    pages = [(trained / f"{name}.html").read_text() for name in ("calm", "loud")]
    assert ["THE TEST IS VOID" in page for page in pages] == [False, True]
