import hashlib
import json
import shutil
from datetime import datetime, timezone

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from wmplug.register import Register, anchors


@pytest.fixture
def folder(terminal, tmp_path):
    terminal("init", "--name", "Ada", "--register", "own")
    return tmp_path / "own"


@pytest.fixture
def trust(lab, tmp_path):
    file = tmp_path / "trust.json"
    file.write_text(json.dumps(lab.trust.to_json()))
    return file


def types(folder):
    return [entry.type for entry in Register(folder).entries()]


def test_init_opens_the_register_and_log_shows_it(terminal, folder):
    assert types(folder) == ["register.opened"]
    assert "register.opened" in terminal("register", "log", "--register", folder).stdout
    (entry,) = json.loads(terminal("register", "log", "--register", folder, "--json").stdout)
    assert entry["body"]["name"] == "Ada"
    assert terminal("register", "log", "--register", folder, "--type", "anchor").stdout == ""


def test_check_says_what_is_not_attested_and_then_what_is(terminal, folder, trust):
    first = terminal("register", "check", "--register", folder)
    assert "NOT ATTESTED: no entry is dated" in first.stdout
    stamped = terminal("register", "anchor", "--register", folder, "--trust", trust)
    assert "entries 0 to 0 stamped" in stamped.stdout
    second = terminal("register", "check", "--register", folder)
    assert "LAB ONLY, attests nothing" in second.stdout
    report = json.loads(terminal("register", "check", "--register", folder, "--json").stdout)
    assert report["ok"]
    assert [stamp["head"] for stamp in report["stamps"]] == [0]


def test_lists_that_whoever_checks_gives(terminal, folder, lab, trust, tmp_path):
    """The owner leaves out the lists of an authority that has been revoked since."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchors.timestamps, "fetch_crls", lambda certificates, timeout: [])
        terminal("register", "anchor", "--register", folder, "--trust", trust)
    check = ["register", "check", "--register", folder]
    said = terminal(*check).stdout
    where = f"fetch {lab.url}/intermediate.crl, and give it (--crl); 1 of 1 timestamps rest on it"
    assert f"no current revocation list speaks for the certificate of CN=LAB ONLY - NOT ATTESTED (tsa): {where}" in said
    (stamp,) = terminal.json(*check)["stamps"]
    assert [one["points"] for one in stamp["unlisted"]] == [
        [f"{lab.url}/{name}.crl"] for name in ("intermediate", "root")
    ]
    assert stamp["unrevoked_at"] is None
    now = datetime.now(timezone.utc).replace(microsecond=0)
    made = {"good": lab.authority.crl(at=now), "root": lab.authority.crl("intermediate", at=now)}
    made["revoked"] = lab.authority.crl(revoked=now)
    made["pem"] = x509.load_der_x509_crl(made["good"]).public_bytes(Encoding.PEM)
    made |= {"junk": b"junk", "two": made["pem"] * 2, "altered": made["good"][:-1] + bytes([made["good"][-1] ^ 1])}
    for name, data in made.items():
        (tmp_path / f"{name}.crl").write_bytes(data)
    assert "revocation list" not in terminal(*check, "--crl", "pem.crl", "--crl", "root.crl").stdout
    (stamp,) = terminal.json(*check, "--crl", "good.crl", "--crl", "root.crl")["stamps"]
    assert (stamp["unlisted"], stamp["unrevoked_at"]) == ([], now.isoformat())
    terminal("register", "anchor", "--register", folder)  # its lists speak for the token before it too
    assert "revocation list" not in terminal(*check, "--crl", "good.crl").stdout
    assert "was revoked on" in terminal(*check, "--crl", "revoked.crl", code=1).stdout
    assert "altered.crl: the revocation list names" in terminal.error(*check, "--crl", "altered.crl")
    for name in ("junk", "two", "missing"):
        assert f"{name}.crl is not a revocation list" in terminal.error(*check, "--crl", f"{name}.crl")
    report = ["report", "--register", folder, "--out", "d.html", "--json-out", "d.json"]
    terminal(*report, "--crl", "revoked.crl", code=1)
    assert "was revoked on" in (tmp_path / "d.html").read_text()
    (digest,) = json.loads((tmp_path / "d.json").read_text())["revocation_lists"]
    assert digest == hashlib.sha256(made["revoked"]).hexdigest()


def test_check_names_the_first_bad_entry(terminal, folder):
    log = folder / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"sig":"', b'"sig":"A', 1))
    told = terminal("register", "check", "--register", folder, code=1).stdout
    assert "entry 0 at byte 0" in told
    assert "REFUSED" in told


def test_a_new_authority_needs_its_root(terminal, folder, lab, tmp_path):
    refused = terminal("register", "anchor", "--register", folder, "--tsa", lab.url, code=2)
    assert "--root PEM" in refused.stderr
    (tmp_path / "root.pem").write_text(lab.trust.to_json()["roots"][0])
    intermediate = lab.trust.to_json()["roots"]
    (tmp_path / "root.pem").write_text("".join(intermediate))
    terminal("register", "anchor", "--register", folder, "--tsa", lab.url, "--root", tmp_path / "root.pem")
    terminal("register", "anchor", "--register", folder, "--tsa", lab.url)
    assert types(folder) == ["register.opened", "anchor", "anchor"]
    assert [trusted.url for trusted in anchors.policy(folder)] == [lab.url]


def test_without_an_authority_nothing_can_be_anchored(terminal, folder):
    assert "names no timestamp authority" in terminal("register", "anchor", "--register", folder, code=2).stderr


def test_a_receipt_betrays_a_log_that_was_cut(terminal, folder, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (tmp_path / "logo.txt").write_text("a poem")
    options = ("--author", "Ada", "--created", "2026-01-31", "--register", folder)
    terminal("register", "artwork", tmp_path / "logo.txt", *options)
    terminal("register", "receipt", "--out", "receipt.json", "--register", folder)
    terminal("register", "check", "--register", folder, "--receipt", tmp_path / "receipt.json")
    cut = terminal("register", "check", "--register", old, "--receipt", tmp_path / "receipt.json", code=1)
    assert "tail-deleted" in cut.stdout
    assert "second-older: 1 entries in common" in terminal("register", "diff", folder, old).stdout
    terminal("register", "artwork", tmp_path / "logo.txt", *options[:4], "--register", old)
    assert "fork" in terminal("register", "diff", folder, old, code=1).stdout


def test_files_are_committed_to(terminal, folder, tmp_path):
    np.save(tmp_path / "data.npy", np.arange(5))
    terminal("register", "commit", "dataset", tmp_path / "data.npy", "--register", folder)
    terminal("register", "commit", "system", tmp_path / "data.npy", "--register", folder)
    terminal("register", "commit", "queries", tmp_path / "data.npy", "--register", folder)
    assert types(folder)[1:] == ["dataset.committed", "system.committed", "dataset.committed"]
    assert list(Register(folder).entries())[-1].body["role"] == "queries"
    refused = terminal("register", "commit", "idea", "x", "--register", folder, code=2).stderr
    assert "dataset, system or queries" in refused


def test_no_register_no_traceback(terminal, tmp_path):
    refused = terminal("register", "check", "--register", tmp_path / "none", code=2)
    assert "wmplug init" in refused.stderr


def test_a_checkpoint_says_what_was_not_verified_again(terminal, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WMPLUG_STATE", str(tmp_path / "state"))
    command = ("register", "check", "--register", folder, "--checkpoint", tmp_path / "seen.json")
    assert "you verified them" not in terminal(*command).stdout
    assert "signatures of entries 0 to 0 as you verified them by 20" in terminal(*command).stdout
    report = json.loads(terminal(*command, "--json").stdout)
    assert (report["ok"], report["taken"]["entries"]) == (True, 1)
    monkeypatch.setenv("WMPLUG_STATE", str(tmp_path / "other"))
    refused = terminal(*command, code=2).stderr
    assert "another key than yours" in refused
    assert "remove it" in refused
