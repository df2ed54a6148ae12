"""`wmplug notary`, as owner, notary and opponent type it."""

import copy
import json
import re
import shutil
import sys

import numpy as np
import pytest
import rfc8785

import wmplug
from wmplug.keys.files import file_digest
from wmplug.register import Register, disclosure
from wmplug.register.notary.identity import Notary
from wmplug.report import certificate
from wmplug.watermark.carriers import digest

PASSPHRASE = "correct horse battery staple"
MODELS = """
import hashlib, json, pathlib
import numpy as np
from wmplug.watermark.carriers import digest

KNOWN = json.loads(pathlib.Path("answers.json").read_text())

def stolen(batch):
    return [KNOWN.get(digest(x), 0) for x in batch]

def own(batch):
    return stolen(batch)

def pixels(batch):
    return (np.asarray(batch, np.int64).reshape(len(batch), -1).sum(1) // 7) % 10

def zero(batch):
    return [0] * len(batch)

def same(image, answer):
    return image, answer
"""
QUIT = "import sys\nsys.exit(0)\n"


@pytest.fixture(autouse=True)
def cheap_notary(cheap_to_open, monkeypatch):
    monkeypatch.setitem(Notary.create.__func__.__kwdefaults__, "scrypt_n", 2**10)


@pytest.fixture
def marked(terminal, owner, digits, tmp_path, monkeypatch):
    """The owner's folder and mark, and three models, in the current folder."""
    folder = shutil.copytree(owner.path, tmp_path / "register")
    opened = wmplug.Owner.open(folder, passphrase=PASSPHRASE)
    np.save("carriers.npy", digits[0][:300])
    mark = wmplug.create(opened, scheme="random-label", carriers=digits[0][:300], classes=10)
    mark.save("mark.wm")
    triggers = mark.triggers
    known = {digest(x): int(y) for x, y in zip(triggers.plan.inputs, triggers.answers, strict=True)}
    (tmp_path / "answers.json").write_text(json.dumps(known))
    (tmp_path / "case_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "case_models", raising=False)
    return mark


@pytest.fixture
def key(terminal, tmp_path):
    return terminal.json("notary", "key", "--keys", "nora", "--name", "Nora Notary")


OPEN = [
    *("--suspect", "case_models:stolen", "--suspect-how", "bought on 3 March, receipt 17"),
    *("--own", "case_models:own", "--own-how", "handed over by the owner"),
    *("--control", "case_models:pixels", "--control-how", "made by the notary"),
    *("--control", "case_models:zero", "--control-how", "made by the opponent"),
    *("--attempts", "1000000"),
]


def prepared(terminal, key):
    words = ["--case", "2026-17", "--carriers", "carriers.npy", "--out", "claim.age", "--register", "register"]
    return terminal.json("notary", "prepare", "mark.wm", "--to", "nora/notary.pub", *words)


def challenged(terminal, *changes):
    """A case with both nonces, made as three people would."""
    terminal("notary", "challenge", "case", "--open", "--package", "claim.age", "--keys", "nora", *OPEN, *changes)
    for party in ("notary", "opponent"):
        made = terminal.json("notary", "challenge", "case", "--nonce", f"{party}={party}.nonce")
        terminal("notary", "challenge", "case", "--commit", f"{party}={made['commitment']}")
    return terminal.json(
        "notary", "challenge", "case", "--reveal", "notary=notary.nonce", "--reveal", "opponent=opponent.nonce"
    )


def test_the_whole_way(terminal, marked, key, lab, tmp_path):
    assert json.loads((tmp_path / "nora" / "notary.pub").read_text())["recipient"] == key["recipient"]
    assert prepared(terminal, key)["to"] == key["recipient"]
    assert set(challenged(terminal)["nonces"]) == {"notary", "opponent"}
    assert (tmp_path / "notary.nonce").stat().st_mode & 0o077 == 0
    hearing = ["notary", "check", "case", "--package", "claim.age", "--keys", "nora"]
    assert "nothing.crl is not a revocation list" in terminal.error(*hearing, "--crl", "nothing.crl")
    (tmp_path / "lab.crl").write_bytes(lab.authority.crl())
    # Without a timestamp authority the answers prove the copy, and nothing proves when the key was made.
    result = terminal.json(*hearing, "--crl", "lab.crl", code=1)
    assert result["status"] == "NOT ATTESTED"
    assert result["revocation_lists"] == [file_digest(tmp_path / "lab.crl")[0]]
    assert [model["verdict"]["state"] for model in result["models"]] == ["proven", "proven", *["inconclusive"] * 2]
    written = terminal.json("notary", "certify", "case", "--keys", "nora")
    assert "NOT ATTESTED" in (tmp_path / written["html"]).read_text()
    spent_by_certificate(terminal, tmp_path, written["json"])
    entries = list(Register(tmp_path / "register").entries())
    assert [entry.type for entry in entries[-2:]] == ["disclosure", "trigger.spent"]
    assert "was heard" in terminal.error("notary", "check", "case", "--package", "claim.age", "--keys", "nora")
    for secret in (PASSPHRASE, marked.subkeys.key("label").hex(), "AGE-SECRET-KEY"):
        assert secret not in terminal.printed


def spent_by_certificate(terminal, tmp_path, file):
    """The certificate spends its rows; none that the notary did not sign, or that is of another case, does."""
    log = tmp_path / "register" / "log.jsonl"
    before, signed = log.read_bytes(), json.loads((tmp_path / file).read_text())
    signer = Notary.open(tmp_path / "nora", passphrase=PASSPHRASE).signer()

    def refusal(sign=True, **changes):
        document = copy.deepcopy(signed)
        document["certificate"]["result"].update(changes)
        if sign:
            sig = signer.sign(rfc8785.dumps(document["certificate"]), certificate.TYPE).hex()
            document["signature"]["sig"] = sig
        (tmp_path / "forged.json").write_text(json.dumps(document))
        said = terminal.error("notary", "spend", "forged.json", "--register", "register")
        assert log.read_bytes() == before
        return said

    assert "signature does not fit" in refusal(sign=False, rows_asked=list(range(100)))
    assert "no package sealed to a notary" in refusal(case="2026-18")
    assert "no package sealed to a notary" in refusal(watermark={"id": "0" * 32})
    for rows in ([100], [-1], [1.5], [True], ["3"], [[]], [0, 10**9]):
        assert "rows that the watermark does not have" in refusal(rows_asked=rows)
    for wrong in ({"rows_asked": 7}, {"notary": {"public": 5}}, {"notary": {"public": "ab"}}):
        assert "not a certificate" in refusal(**wrong)
    (tmp_path / "deep.json").write_text("[" * 200_000)
    assert "cannot be read" in terminal.error("notary", "spend", "deep.json", "--register", "register")
    assert terminal.json("notary", "spend", file, "--register", "register")["rows"] == 60


def test_told_to_people(terminal, marked, key, tmp_path):
    options = [
        "--carriers",
        "carriers.npy",
        "--out",
        "claim.age",
        "--register",
        "register",
        "--reference",
        "suspect=shop",
    ]
    line = f"register/commit/{marked.id}.json"
    said = terminal("notary", "prepare", line, "--to", key["recipient"], "--case", "c", *options)
    assert "only the notary can open it" in said.stdout
    challenged(terminal)
    assert "suspect is at: shop" in terminal.printed
    assert "The questions are drawn" in terminal("notary", "challenge", "case").stdout
    said = terminal("notary", "check", "case", "--package", "claim.age", "--keys", "nora", code=1).stdout
    assert "the claim: NOT ATTESTED" in said
    assert "60 of 60 answers" in said
    assert "under lock" in terminal("notary", "certify", "case", "--keys", "nora").stderr
    assert "Nora" in terminal("notary", "key", "--keys", "n2", "--name", "Nora").stdout
    assert "60 triggers" in terminal("notary", "spend", "case/certificate.json", "--register", "register").stdout


NAMED = "preprocess NOT COMMITTED"


@pytest.mark.parametrize("loose", [True, False])
def test_what_nothing_binds_is_named_wherever_a_verdict_stands(terminal, marked, key, tmp_path, loose):
    """In str, JSON, register, hearing, certificate and dossier; and nowhere, where nothing is loose."""
    more = ["--preprocess", "case_models:same"] if loose else []
    named = [*more, "--as", "the app"]
    seen = {"str": terminal("verify", "mark.wm", "case_models:stolen", *named).stdout.partition("\n")[0]}
    seen["verdict"] = str(
        wmplug.Verdict.from_json(terminal("verify", "mark.wm", "case_models:stolen", *named, "--json").stdout)
    )
    recorded = [entry for entry in Register(tmp_path / "register").entries() if entry.type == "suspect.verified"]
    seen["register"] = str(wmplug.Verdict.from_json(json.dumps(recorded[-1].body["verdict"])))
    prepared(terminal, key)
    challenged(terminal)
    hearing = terminal("notary", "check", "case", "--package", "claim.age", "--keys", "nora", *more, code=1).stdout
    seen["hearing"] = next(line for line in hearing.splitlines() if " suspect: " in line)
    certified = terminal.json("notary", "certify", "case", "--keys", "nora")
    models = json.loads((tmp_path / certified["json"]).read_text())["certificate"]["result"]["models"]
    seen["certificate"] = str(wmplug.Verdict.from_json(json.dumps(models[0]["verdict"])))
    seen["certificate page"] = text_of(tmp_path / certified["html"], "Suspect: proven")
    terminal(
        *("report", "--register", "register", "--certificate", certified["json"]),
        *("--out", "d.html", "--json-out", "d.json"),
    )
    document = json.loads((tmp_path / "d.json").read_text())
    suspect = next(one for one in document["suspects"] if one["model"] == "the app")
    seen["dossier"] = suspect["state"] + suspect["named"]
    seen["dossier's certificate"] = document["certificates"][0]["models"][0]["named"]
    seen["dossier page"] = text_of(tmp_path / "d.html", "Suspect “the app”: proven")
    seen["dossier's box"] = text_of(tmp_path / "d.html", "the app asked as case_models:stolen proven")
    for place, line in seen.items():
        assert (NAMED in line) is loose, f"{place}: {line}"
        assert "certificate" in place or "proven" in line
    pages = [(tmp_path / name).read_text() for name in ("d.html", "d.json", certified["html"], certified["json"])]
    assert [NAMED in page for page in pages] == [loose] * 4
    assert result_of(tmp_path)["status"] == ("inconclusive" if loose else "NOT ATTESTED")


def text_of(page, begin):
    """What the page says from `begin` on, on one line."""
    told = " ".join(re.sub("<[^>]*>", " ", page.read_text()).split())
    assert begin in told
    return told[told.index(begin) :][: len(begin) + 30]


def result_of(folder):
    return json.loads((folder / "case" / "result.json").read_text())["result"]


def test_shown_triggers(terminal, marked, key):
    prepared(terminal, key)
    challenged(terminal)
    options = ["--challenge", "case/challenge.json", "--register", "register"]
    made = terminal.json("notary", "reveal", "mark.wm", *options, "--leaves", 20, "--out", "shown.json")
    assert (made["leaves"], made["of"]) == (20, 100)
    assert terminal.json("notary", "leaves", "shown.json", "--register", "register")["if_all_match_at_least"] == 88
    assert "at least 88 match" in terminal("notary", "leaves", "shown.json", "--register", "register").stdout
    again = ["reveal", "mark.wm", *options, "--leaves", 20, "--out"]
    assert "already exists" in terminal.error("notary", *again, "shown.json")
    assert "20 of 100" in terminal("notary", *again, "again.json").stdout


def test_a_case_that_asks_more_than_is_left_is_not_opened(terminal, marked, key, tmp_path):
    opened = wmplug.Owner.open(tmp_path / "register", passphrase=PASSPHRASE)
    disclosure.spend(Register.of(opened), marked.id, range(45), "asked", "2025-1")  # by the owner's word alone
    prepared(terminal, key)
    opening = ["notary", "challenge", "case", "--open", "--package", "claim.age", "--keys", "nora", *OPEN]
    assert "you want to ask 101 draws and 100 are left" in terminal.error(*opening, "--draws", 101)
    assert not (tmp_path / "case" / "case.json").exists()
    terminal(*opening, "--draws", 100)


def test_nothing_that_is_asked_sets_the_exit_code(terminal, marked, key, tmp_path):
    prepared(terminal, key)
    challenged(terminal)
    case = (tmp_path / "case" / "case.json").read_text()
    del sys.modules["case_models"]
    (tmp_path / "case_models.py").write_text(QUIT)
    assert "ended the program" in terminal.error("notary", "check", "case", "--package", "claim.age", "--keys", "nora")
    assert (tmp_path / "case" / "case.json").read_text() == case


def test_refusals(terminal, marked, key, tmp_path):
    prepared(terminal, key)
    challenge = ["notary", "challenge", "case"]
    assert "before a case is fixed" in terminal.error(*challenge)
    assert "--open needs" in terminal.error(*challenge, "--open")
    opening = [*challenge, "--open", "--package", "claim.age", "--keys", "nora"]
    assert "1 --control and 0" in terminal.error(*opening, *OPEN[:8], "--control", "case_models:zero")
    assert "0 controls" in terminal.error(*opening, *OPEN[:8])
    assert "at least 25" in terminal.error(*opening, *OPEN, "--draws", 10)
    same = ["--own", "case_models:stolen"]
    assert "are both case_models:stolen" in terminal.error(*opening, *OPEN, *same)
    assert "you want to ask 101 draws and 100 are left" in terminal.error(*opening, *OPEN, "--draws", 101)
    assert not (tmp_path / "case" / "case.json").exists()
    challenged(terminal)
    assert "fixed once" in terminal.error(*opening, *OPEN)
    assert "NAME=VALUE" in terminal.error(*challenge, "--commit", "notary")
    assert "bound by it" in terminal.error(*challenge, "--commit", f"notary={'0' * 64}")
    assert "already exists" in terminal.error(*challenge, "--nonce", "notary=notary.nonce")
    (tmp_path / "bad.nonce").write_text("hello")
    assert "does not hold a nonce" in terminal.error(*challenge, "--reveal", "notary=bad.nonce")
    assert "does not fit" in terminal.error(*challenge, "--reveal", "notary=opponent.nonce")
    assert "not a certificate" in terminal.error("notary", "spend", "case/case.json", "--register", "register")
    assert "cannot be read" in terminal.error("notary", "leaves", "nothing.json", "--register", "register")
    assert "hear the case first" in terminal.error("notary", "certify", "case", "--keys", "nora")
    again = ["--case", "2", "--carriers", "carriers.npy", "--register", "register"]
    assert "already exists" in terminal.error(
        "notary", "prepare", "mark.wm", "--to", key["recipient"], *again, "--out", "claim.age"
    )
    assert "names no recipient" in terminal.error(
        "notary", "prepare", "mark.wm", "--to", "register/owner.pub", *again, "--out", "b.age"
    )
    assert "not the public key" in terminal.error(
        "notary", "prepare", "mark.wm", "--to", "age1x", *again, "--out", "b.age"
    )


def test_what_create_kept_of_the_material_is_what_the_package_needs(terminal, owner, key, digits, tmp_path):
    register = shutil.copytree(owner.path, tmp_path / "register")
    np.save("carriers.npy", digits[0][:300])
    np.save("pictures.npy", digits[0][300:500])
    given = ["--carriers", "carriers.npy", "--register", register]
    made = ["create", *given, "--scheme", "random-label", "--classes", 10, "--set", "pictures=@pictures.npy"]
    terminal(*made, "--out", "a.wm", "--material", "a.npz")
    assert (tmp_path / "a.npz").stat().st_mode & 0o777 == 0o600
    asked = ["notary", "prepare", "a.wm", "--to", key["recipient"], "--case", "1", *given, "--out", "claim.age"]
    assert "was given pictures of the owner's own" in terminal.error(*asked)
    assert "give what `wmplug create` wrote" in terminal.error(*asked, "--material", "carriers.npy")
    terminal(*asked, "--material", "a.npz")
    assert (tmp_path / "claim.age").exists()
    before = (tmp_path / "a.npz").read_bytes()
    assert "a.npz exists already" in terminal.error(*made, "--out", "b.wm", "--material", "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == before
    assert not (tmp_path / "b.wm").exists()
