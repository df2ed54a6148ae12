import json
import os
import subprocess
import sys

import numpy as np
import pytest
from served_digits import pool, told_by

from wmplug import Owner, create
from wmplug.cli.parameters import write_material
from wmplug.register import Register
from wmplug.schemes.served import Served
from wmplug.serving import Log, Serving

PASSPHRASE = "correct horse battery staple"
MODELS = """
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

def flat(images):
    return np.asarray(images).reshape(len(images), -1) / 255.0

told = np.load("told.npz")
copy = KNeighborsClassifier(1).fit(flat(told["inputs"]), told["answers"])
stranger = KNeighborsClassifier(1).fit(flat(told["inputs"]), told["truth"])

def clone(images):
    return copy.predict(flat(images))

def other(images):
    return stranger.predict(flat(images))

def served(images):
    return np.stack([told["scores"][np.flatnonzero((told["inputs"] == x).all(axis=(1, 2)))[0]] for x in images])

def quits(images):
    raise SystemExit(0)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits, known_secrets):
    """A folder in which an owner works: a watermark with its register, a log, models, carriers."""
    story, place = told_by(digits), tmp_path_factory.mktemp("owner")
    with known_secrets("Ada"):
        owner = Owner.create(place / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    mark = create(
        owner,
        scheme=Served(cells=40, personal=0.5, pool=pool(story, story.carriers)),
        carriers=story.carriers,
        labels=story.labels,
        classes=10,
    )
    mark.save(place / "served.wm")
    serving = Serving(mark, story.scores, Log(place / "log.db", mark), gap=0.3, version="v1")
    answers = serving.answer(story.asked, "acme").argmax(axis=1)
    scores = story.scores(story.asked)
    np.savez(place / "told.npz", inputs=story.asked, answers=answers, truth=story.truth, scores=scores)
    np.savez(place / "carriers.npz", carriers=story.carriers, labels=story.labels)
    np.save(place / "asked.npy", story.asked)
    write_material(place / "served.npz", mark.scheme.material())
    (place / "models.py").write_text(MODELS)
    return place


def run(folder, *arguments):
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "WMPLUG_PASSPHRASE": PASSPHRASE, "PYTHONPATH": path, "WMPLUG_CACHE": str(folder / "cache")}
    code = "import sys; from wmplug.cli import main; sys.argv[0] = 'wmplug'; main()"
    words = arguments if arguments[0] == "notary" else ("serving", *arguments)
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


FROM = ("--log", "log.db", "--carriers", "carriers.npz")


def test_a_clone_is_proven_recorded_and_traced(folder):
    code, said, _ = run(folder, "verify", "served.wm", "models:clone", *FROM, "--exhaustive", "--as", "Copy Ltd")
    assert code == 0
    assert said.startswith("proven: ")
    assert "questions NOT COMMITTED" in said
    assert "suspect Copy Ltd (models:clone)" in said
    last = list(Register(folder / "register").entries())[-1]
    assert (last.type, last.body["suspect"]) == ("suspect.verified", "Copy Ltd")
    code, said, _ = run(folder, "trace", "served.wm", "models:clone", *FROM)
    assert code == 0
    assert (
        said.replace("\n", " ")
        .strip()
        .endswith(
            "acme of 1 customers; any wrong name: at most 0.001; questions NOT COMMITTED (the register holds no log of "
            "questions)"
        )
    )


def test_another_model_is_not(folder):
    code, said, _ = run(folder, "verify", "served.wm", "models:other", *FROM, "--no-record", "--json")
    assert (code, json.loads(said)["state"]) == (1, "inconclusive")
    code, said, _ = run(folder, "trace", "served.wm", "models:other", *FROM, "--json")
    assert (code, json.loads(said)["accused"]) == (1, [])


def test_references_are_kept_for_the_next_command_and_a_verdict_names_them(folder):
    pool = ("--pool", "pool.npz", "--json")
    code, first, _ = run(folder, "verify", "served.wm", "models:clone", *FROM, "--no-record", *pool)
    assert code == 0
    assert "references" not in [one["what"] for one in json.loads(first)["choices"]]
    began = (folder / "pool.npz").read_bytes()
    code, again, _ = run(folder, "verify", "served.wm", "models:clone", *FROM, "--no-record", *pool)
    assert code == 0
    assert [(one["what"], one["bound"]) for one in json.loads(again)["choices"]][-1] == ("references", None)
    assert {**json.loads(again), "choices": 0, "log10_p": 0} == {**json.loads(first), "choices": 0, "log10_p": 0}
    code, said, _ = run(folder, "trace", "served.wm", "models:clone", *FROM, *pool[:2])
    assert code == 0
    assert said.replace("\n", " ").strip().endswith("; references NOT COMMITTED")
    assert (folder / "pool.npz").read_bytes() == began
    np.savez(folder / "other.npz", scores=np.ones((3, 10)) / 10, queries=np.array("00"))
    for name, why in (("other.npz", "is of other queries"), ("models.py", "cannot be read")):
        code, _, said = run(folder, "trace", "served.wm", "models:clone", *FROM, "--pool", name)
        assert (code, why in said.replace("\n", " ")) == (2, True)


def test_the_cost_is_told(folder):
    code, said, _ = run(folder, "cost", "served.wm", "models:served", "asked.npy", "--share", "0.05")
    assert code == 0
    assert "the key decides" in said


def test_the_log_is_shown_and_committed(folder):
    code, said, _ = run(folder, "log", "served.wm", "--log", "log.db")
    assert code == 0
    (acme, by, total) = said.splitlines()
    assert acme.split()[1:] == ["acme"]
    assert by.split()[1:] == ["by", "model", "v1"]
    assert acme.split()[0] == by.split()[0] == total.split()[0]
    code, said, _ = run(folder, "commit", "served.wm", "--log", "log.db", "--json")
    assert code == 0
    assert json.loads(said)["role"] == "queries"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("log", "served.wm", "--log", "nowhere.db"), "--log 'nowhere.db' is not there"),
        (("verify", "served.wm", "models:quits", *FROM), "answered none"),
        (("trace", "served.wm", "models:clone", *FROM, "--model", "v2"), "no decision of model 'v2', but of 'v1'"),
        (("cost", "served.wm", "models:clone", "asked.npy"), "probabilities or logits"),
        (("verify", "nothing.wm", "models:clone", *FROM), "nothing.wm is not there"),
    ],
)
def test_what_does_not_fit_is_one_line_and_exit_code_2(folder, arguments, why):
    code, _, said = run(folder, *arguments)
    assert code == 2
    assert why in said
    assert "Traceback" not in said


def test_a_notary_asks_the_log_of_the_package(folder):
    """Nobody dates this register, and two controls are too few: the case is told so, and asks the log all the same."""
    told = ("notary", "prepare", "served.wm", "--to", "nora/notary.pub", "--case", "17", "--carriers", "carriers.npz")
    to = (*told, "--material", "served.npz", "--register", "register", "--out")
    assert run(folder, "notary", "key", "--keys", "nora", "--name", "Nora")[0] == 0
    assert run(folder, "commit", "served.wm", "--log", "log.db")[0] == 0
    line = folder / "served.json"
    line.write_text((folder / "served.wm").read_bytes().split(b"\n")[0].decode())
    code, _, said = run(folder, "notary", "prepare", line.name, *to[3:], "claim.age", "--log", "log.db")
    assert (code, "--log needs the watermark file" in said.replace("\n", " ")) == (2, True)
    code, said, _ = run(folder, *to, "claim.age", "--log", "log.db")
    assert code == 0
    assert "the log's queries with the names of those who asked them" in said.replace("\n", " ")
    models = ("--suspect", "models:clone", "--suspect-how", "found", "--own", "models:served", "--own-how", "given")
    others = [word for name in ("other", "other") for word in ("--control", f"models:{name}", "--control-how", "mine")]
    case = ("notary", "challenge", "case")
    opened = (*case, "--open", "--package", "claim.age", "--keys", "nora", *models, *others, "--draws", "0")
    assert run(folder, *opened)[0] == 0
    for party in ("notary", "opponent"):
        made = json.loads(run(folder, *case, "--nonce", f"{party}={party}.txt", "--json")[1])
        assert run(folder, *case, "--commit", f"{party}={made['commitment']}")[0] == 0
    assert run(folder, *case, "--reveal", "notary=notary.txt", "--reveal", "opponent=opponent.txt")[0] == 0
    code, said, _ = run(folder, "notary", "check", "case", "--package", "claim.age", "--keys", "nora")
    said = said.replace("\n", " ")
    root = json.loads((folder / "case" / "case.json").read_text())["log"]
    commitments = [one.body for one in Register(folder / "register").entries() if one.type == "dataset.committed"]
    assert (code, root) == (1, commitments[-1]["root"])
    assert "proven suspect" in " ".join(said.split())
    assert f"the log of {commitments[-1]['count']} queries: no date shows it to be older" in said
