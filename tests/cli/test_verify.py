import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import wmplug
from wmplug import plugins
from wmplug.errors import RegisterError
from wmplug.register import Register, disclosure
from wmplug.register.checking import check
from wmplug.suspects.functions import CallableSuspect

PASSPHRASE = "correct horse battery staple"

SUSPECTS = """
import json
import numpy as np

with open("answers.json") as file:
    known = {key: answer for key, answer in json.load(file)}

def copy(images):
    return np.array([known[image.tobytes().hex()] for image in images])

def stranger(images):
    return images.reshape(len(images), -1).astype(int).sum(axis=1) % 10

def halved(images):
    return copy((images * 2).astype(np.uint8))

def half(image, answer):
    return image / 2

def broken(images):
    raise RuntimeError("no connection")

class Model:
    description = "an object"
    def answer(self, inputs):
        return copy(inputs)

model = Model()

def quits(images):
    raise SystemExit(0)
number = 7
"""


@pytest.fixture
def mark(digits, tmp_path):
    """Its owner has no other, so that nothing is discounted."""
    owner = wmplug.Owner.create(tmp_path / "alone", name="Ada", passphrase=PASSPHRASE)
    return wmplug.create(owner, scheme="random-label", carriers=digits[0][:300], labels=digits[1][:300], classes=10)


@pytest.fixture
def suspects(file, mark, tmp_path):
    rows = mark.triggers.plan.choices.rows
    known = [[mark.triggers.row(i).tobytes().hex(), int(mark.triggers.answers[i])] for i in rows]
    (tmp_path / "answers.json").write_text(json.dumps(known))
    (tmp_path / "suspects.py").write_text(SUSPECTS)
    yield file
    sys.modules.pop("suspects", None)


def test_a_copy_is_proven_and_a_stranger_is_not(terminal, suspects):
    assert terminal("verify", suspects, "suspects:copy").stdout.startswith("proven: 7 of 7 answers")
    result = terminal("verify", suspects, "suspects:stranger", code=1)
    assert result.stdout.startswith("inconclusive: ")
    assert "never means 'not ours'" in result.stdout


def test_a_wrong_key_is_not_proven(terminal, suspects, rival, digits, tmp_path):
    images, labels = digits
    other = wmplug.create(rival, scheme="random-label", carriers=images[:300], labels=labels[:300], classes=10)
    other.save(tmp_path / "other.wm")
    # The model that copied the mark knows nothing of another owner's triggers.
    forgiving = SUSPECTS.replace("known[image.tobytes().hex()]", "known.get(image.tobytes().hex(), 3)")
    (tmp_path / "suspects.py").write_text(forgiving)
    assert terminal.json("verify", suspects, "suspects:copy")["state"] == "proven"
    assert terminal.json("verify", tmp_path / "other.wm", "suspects:copy", code=1)["state"] == "inconclusive"


def test_json_is_the_verdict(terminal, suspects):
    verdict = terminal.json("verify", suspects, "suspects:copy", "--exhaustive")
    assert (verdict["queries"], verdict["matches"], verdict["p_is"]) == (100, 100, "exact")
    assert verdict["log10_p"] == pytest.approx(-100)


def test_options_reach_the_verification(terminal, suspects):
    words = ["verify", suspects, "suspects:copy"]
    assert terminal.json(*words, "--target-e", 1e20)["queries"] > 7
    assert terminal.json(*words, "--max-queries", 3, code=1)["queries"] <= 3
    assert terminal.json(*words, "--keys", 1000)["keys"] == 1000
    assert terminal.json(*words, "--keys", 1000, "--max-queries", 7, code=1)["state"] == "evidence"
    assert terminal.json(*words, "--batch-size", 1)["state"] == "proven"
    assert terminal.json("verify", suspects, "suspects:model")["suspect"] == "an object"


def test_other_inputs_than_the_marks_own_may_be_asked(terminal, suspects, owner, digits, tmp_path):
    images, labels = digits
    np.savez(tmp_path / "made_from.npz", carriers=images[:900], labels=labels[:900])
    np.save(tmp_path / "log.npy", images[900:])
    given = {"carriers": images[:900], "labels": labels[:900], "classes": 10}
    wmplug.create(owner, scheme="tilt", delta=1.0, directions=12, blends=10, **given).save(tmp_path / "tilt.wm")
    words = ["verify", "tilt.wm", "suspects:stranger", "--exhaustive"]
    assert terminal.json(*words, code=1)["queries"] == 900
    other = terminal.json(*words, "--queries", "log.npy", "--carriers", "made_from.npz", code=1)
    assert other["queries"] == len(images) - 900
    assert "carriers= (--carriers) differ" in terminal.error(*words, "--queries", "log.npy", "--carriers", "log.npy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mark.wm", "nothing"], "is not an existing file or folder, no installed plugin knows it"),
        (["mark.wm", "nothing:here"], "cannot be found"),
        (["mark.wm", "suspects:here"], "cannot be found"),
        (["mark.wm", "suspects:Model"], "not its class"),
        (["mark.wm", "suspects:number"], "is 7"),
        (["mark.wm", "suspects:broken"], "no connection"),
        (["mark.wm", "suspects:quits"], "SystemExit"),
        (["mark.wm", "suspects:broken"], "--preprocess module:function"),
        (["mark.wm", "quitting:model"], "before there was a verdict"),
        (["mark.wm", "leaving:model"], "leaving"),
        (["mark.wm", "bug:model"], "ZeroDivisionError"),
        (["mark.wm", "suspects:copy", "--preprocess", "quitting:function"], "before there was a verdict"),
        (["mark.wm", "suspects.py"], "cannot ask"),
        (["mark.wm", "suspects:copy", "--preprocess", "suspects:none"], "--preprocess"),
        (["mark.wm", "suspects:copy", "--target-e", "1"], "target_e"),
        (["mark.wm", "suspects:copy", "--max-queries", "0"], "max_queries"),
        (["mark.wm", "suspects:copy", "--queries", "log.npy"], "go together"),
        (["none.wm", "suspects:copy"], "is not there"),
        (["suspects.py", "suspects:copy"], "not a file that wmplug wrote"),
    ],
)
def test_what_cannot_be_asked_is_a_usage_error(terminal, suspects, tmp_path, words, said):
    (tmp_path / "quitting.py").write_text("import sys\nsys.exit(0)\n")
    (tmp_path / "bug.py").write_text("1 / 0\n")
    (tmp_path / "leaving.py").write_text("import typer\nraise typer.Exit(0)\n")
    assert said in terminal.error("verify", *words)


def test_the_program_finds_suspects_beside_it_and_exits_as_it_should(suspects, tmp_path, monkeypatch):
    monkeypatch.setenv("WMPLUG_PASSPHRASE", PASSPHRASE)

    def run(*words):
        command = [sys.executable, "-c", "from wmplug.cli import main; main()", "verify", *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert [run("mark.wm", f"suspects:{name}").returncode for name in ("copy", "stranger", "Model")] == [0, 1, 2]
    (tmp_path / "bug.py").write_text("1 / 0\n")
    done = run("mark.wm", "bug:model")
    assert done.returncode == 2
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSPHRASE not in done.stderr


def recorded(mark, kind):
    return [entry for entry in Register(mark.register).entries() if entry.type == kind]


def test_a_verification_is_recorded_with_what_was_asked(terminal, suspects, mark):
    before = len(recorded(mark, "suspect.verified"))
    terminal("verify", suspects, "suspects:copy")
    told = recorded(mark, "suspect.verified")
    assert len(told) == before + 1
    assert told[-1].body["suspect"] == "suspects:copy"
    assert len(told[-1].body["rows"]) == told[-1].body["verdict"]["queries"] == 7
    assert check(mark.register).ok


def test_a_suspect_has_a_name_for_people(terminal, suspects, mark):
    told = terminal.json("verify", suspects, "suspects:copy", "--as", "app of Copy Ltd")
    (entry,) = recorded(mark, "suspect.verified")
    assert told["suspect"] == entry.body["suspect"] == entry.body["verdict"]["suspect"] == "app of Copy Ltd"
    assert entry.body["reference"] == "suspects:copy"
    said = terminal("verify", suspects, "suspects:copy", "--as", "app of Copy Ltd").stdout.splitlines()
    assert said[0].startswith("proven: ")
    assert said[1] == "suspect app of Copy Ltd (suspects:copy)"
    assert len(terminal("verify", suspects, "suspects:copy").stdout.splitlines()) == 1


def test_a_trial_need_not_be_recorded(terminal, suspects, mark):
    assert terminal("verify", suspects, "suspects:copy", "--no-record").exit_code == 0
    assert recorded(mark, "suspect.verified") == []
    assert "give one" in terminal.error("verify", suspects, "suspects:copy", "--no-record", "--spend")


def test_spent_triggers_are_not_asked_again(terminal, suspects, mark):
    terminal("verify", suspects, "suspects:copy", "--spend")
    spent = set(recorded(mark, "trigger.spent")[-1].body["rows"])
    assert len(spent) == 7
    terminal("verify", suspects, "suspects:copy", "--fresh")
    assert not spent & set(recorded(mark, "suspect.verified")[-1].body["rows"])
    # Without --fresh the same are asked again: they are the first in order.
    terminal("verify", suspects, "suspects:copy")
    assert spent == set(recorded(mark, "suspect.verified")[-1].body["rows"])


def spend(mark, rows):
    owner = wmplug.Owner.open(mark.register, passphrase=PASSPHRASE)
    disclosure.spend(Register.of(owner), mark.id, rows, "asked of an API", "2026-1")


def test_beginning_after_the_spent_ones_is_paid_for(terminal, suspects, mark):
    spend(mark, mark.triggers.plan.choices.rows[:7].tolist())
    verdict = terminal.json("verify", suspects, "suspects:copy", "--fresh", "--exhaustive")
    (rows,) = verdict["choices"]
    assert (rows["what"], rows["bound"], rows["tries"]) == ("rows", "paid", 100)
    assert verdict["log10_p"] == pytest.approx(-93 + 2)  # once for each place to begin at
    assert "NOT COMMITTED" not in terminal("verify", suspects, "suspects:copy", "--fresh").stdout


def test_other_questions_that_fresh_leaves_out_are_named(terminal, suspects, mark):
    """An owner spends the questions that a stranger misses, who answers the others by luck: the verdict says so."""
    rows = mark.triggers.plan.choices.rows
    missed = [r for r in rows.tolist() if int(mark.triggers.row(r).astype(int).sum()) % 10 != mark.triggers.answers[r]]
    assert 0 < len(missed) < len(rows)
    spend(mark, missed)
    told = terminal("verify", suspects, "suspects:stranger", "--fresh", code=None).stdout.partition("\n")[0]
    assert told.endswith("; rows NOT COMMITTED")
    (entry,) = recorded(mark, "suspect.verified")
    assert entry.body["verdict"]["matches"] == entry.body["verdict"]["in_set"] > 0  # the attack is real
    assert str(wmplug.Verdict.from_json(json.dumps(entry.body["verdict"]))) == told
    assert terminal("verify", suspects, "suspects:stranger", code=1).stdout.startswith("inconclusive: ")


def test_what_is_not_recorded_as_spent_is_an_error(terminal, suspects, monkeypatch):
    def full(*arguments, **options):
        raise RegisterError("No space left on device")

    monkeypatch.setattr(Register, "append", full)
    assert "not recorded" in terminal("verify", suspects, "suspects:copy").stderr
    assert "NOT recorded as spent" in terminal("verify", suspects, "suspects:copy", "--spend", code=2).stderr


def test_a_verification_without_its_register_is_not_recorded_and_says_so(terminal, suspects, mark, monkeypatch):
    real = Register.__init__

    def gone(self, path, signer=None):
        raise RegisterError(f"{path} is no register")

    monkeypatch.setattr(Register, "__init__", gone)
    assert "not recorded" in terminal("verify", suspects, "suspects:copy").stderr
    assert "no register" in terminal("verify", suspects, "suspects:copy", "--fresh", code=2).stderr
    monkeypatch.setattr(Register, "__init__", real)


@pytest.fixture
def known_url(monkeypatch, mark):
    """A plugin that asks a copy at copy://here."""
    answers = {mark.triggers.row(int(i)).tobytes(): int(mark.triggers.answers[i]) for i in range(len(mark.triggers))}

    class Copies:
        @wmplug.hookimpl
        def wmplug_suspect(self, target, batch_size):
            if target == "copy://here":
                return CallableSuspect(lambda images: [answers[image.tobytes()] for image in images], batch_size)

    point = SimpleNamespace(name="copies", value="copies:it", dist=None, load=Copies)
    registry = plugins.Registry([point])
    monkeypatch.setattr(plugins, "registry", lambda: registry)
    return "copy://here"


def test_a_plugin_answers_for_a_url(terminal, file, known_url):
    assert terminal.json("verify", file, known_url)["state"] == "proven"
    assert terminal.json("dataset", "verify", file, known_url)["state"] == "proven"
    assert "no installed plugin knows it" in terminal.error("verify", file, "copy://there")
    assert "no installed plugin knows it" in terminal.error("dataset", "trace", file, "copy://there")
