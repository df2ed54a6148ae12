import base64
import json
import re
from datetime import datetime, timedelta, timezone

import pytest
from pages import PASSPHRASE, Text, results

from wmplug import create
from wmplug.errors import RegisterError
from wmplug.keys.owner import Owner
from wmplug.register import Register, anchors, receipts, timestamps
from wmplug.register.checking import Report
from wmplug.register.ordering import Stamp
from wmplug.register.statements import Signer
from wmplug.register.witness import Witness
from wmplug.report import assets, checks, dossier, facts, words


def test_a_labs_stamps_attest_nothing_and_the_page_says_so_first(document, page):
    assert document["attestation"]["status"] == "not attested"
    assert any("LAB ONLY" in reason for reason in document["attestation"]["reasons"])
    assert page.text.index("NOT ATTESTED") < page.text.index("In short")
    assert {mark["key"] for mark in document["watermarks"]} == {"lab"}
    assert results(document)["timestamps"] == results(document)["order"] == "not attested"
    assert page.text.count("Lab only: the") == 2
    assert '@top-right { content: "NOT ATTESTED"' in dossier.render(document)


def test_without_any_stamp_nothing_is_attested(hostile):
    document = dossier.gather(hostile)
    assert document["attestation"]["status"] == "not attested"
    assert "no timestamp" in document["attestation"]["reasons"][0]
    assert results(document)["timestamps"] == results(document)["order"] == "not attested"
    assert "None: there is no timestamp" in Text(dossier.render(document)).text
    assert "There is none. NOT ATTESTED." in Text(dossier.render(document)).text


@pytest.mark.usefixtures("real_authority")
def test_an_authoritys_stamps_attest_and_the_page_is_calm(story):
    document = dossier.gather(story.path)
    assert results(document)["timestamps"] == results(document)["order"] == "passed"
    assert document["attestation"] == {
        "status": "attested",
        "headline": "ATTESTED",
        "text": "Neutral authorities date every entry of this register.",
        "reasons": [],
    }
    page = dossier.render(document)
    assert "NOT ATTESTED" not in Text(page).text.partition("1. Who")[0]
    assert "@top-right" not in page


@pytest.mark.usefixtures("real_authority")
def test_a_certificate_that_no_list_speaks_for_is_named_on_page_one(story, lab):
    later = datetime.now(timezone.utc) + timedelta(days=30)  # the lists that the owner kept have run out
    document = dossier.gather(story.path, now=later)
    assert document["attestation"]["status"] == "attested"
    tsa, _ = document["attestation"]["reasons"]
    assert tsa.startswith("No current revocation list speaks for the certificate of CN=LAB ONLY")
    number = len(document["anchors"])
    assert tsa.endswith(f"; {number} of {number} timestamps rest on it.")
    assert tsa in Text(dossier.render(document)).text.partition("1. Who")[0]
    assert tsa in next(one["found"] for one in document["checks"] if one["check"] == "timestamps")
    assert all(len(anchor["unlisted"]) == 2 for anchor in document["anchors"])
    given = [lab.authority.crl(of, at=later) for of in ("tsa", "intermediate")]
    document = dossier.gather(story.path, crls=given, now=later)
    assert document["attestation"]["reasons"] == []
    assert {anchor["unrevoked_at"] for anchor in document["anchors"]} == {facts.instant(later)}


@pytest.mark.usefixtures("real_authority")
def test_what_came_after_the_last_stamp_is_named(copy):
    Register.of(Owner.open(copy, passphrase=PASSPHRASE)).append("model.released", {"version": "1.0"})
    document = dossier.gather(copy)
    assert document["attestation"]["status"] == "partly attested"
    said = "1 entry, from entry 68 on, came after the last timestamp of an authority and is dated by"
    assert said in document["attestation"]["reasons"][0]


@pytest.mark.usefixtures("real_authority")
def test_a_key_without_a_stamp_is_named_though_others_have_one(copy, digits, monkeypatch):
    owner = Owner.open(copy, passphrase=PASSPHRASE)

    def without(self, watermark, pledge, prepared):
        entry = self.register.append("secret.committed", {"watermark": watermark, "commitment": pledge.commitment})
        return {"register": self.register.id, "secret_committed": entry.seq, "salt": None}

    monkeypatch.setattr(Witness, "_anchored", without)
    mark = create(owner, scheme="random-label", carriers=digits[0][:300], classes=10, triggers=10)
    document = dossier.gather(copy)
    keys = {one["watermark"]: one["key"] for one in document["watermarks"]}
    assert keys.pop(mark.id) == "not attested"
    assert set(keys.values()) == {"attested"}
    assert document["attestation"]["status"] == "partly attested"
    assert any(mark.id in reason for reason in document["attestation"]["reasons"])


@pytest.mark.usefixtures("real_authority")
def test_a_token_that_came_back_after_training_began_dates_no_key(trust, digits, tmp_path, monkeypatch):
    owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    anchors.trust(owner.path, trust)
    with monkeypatch.context() as patch:
        patch.setattr(anchors, "attempt", lambda register: None)
        mark = create(owner, scheme="random-label", carriers=digits[0][:300], classes=10, triggers=10)
    register, fetch = Register.of(owner), timestamps.fetch

    def slow(*request, **options):
        response = fetch(*request, **options)
        register.append("training.started", {"watermark": mark.id, "run": "0" * 32})
        return response

    monkeypatch.setattr(timestamps, "fetch", slow)
    anchors.anchor(register)
    document = dossier.gather(owner.path)
    (told,) = document["watermarks"]
    assert told["key"] == "not attested"
    assert "before training started" in told["key_text"]
    assert results(document)["order"] == "refused"


def test_the_four_assets_and_the_artwork_are_there_with_their_digests(story, document, page):
    bodies = {entry.type: entry.body for entry in Register(story.path).entries() if entry.type in assets.ASSETS}
    shown = {asset["asset"]: asset["digests"] for asset in document["assets"]}
    assert set(shown) == set(assets.ASSETS.values())
    assert shown["training set"]["Merkle root"] == bodies["dataset.committed"]["root"]
    assert shown["training parameters"]["SHA-256"] == bodies["parameters.committed"]["sha256"]
    assert shown["architecture"]["SHA-256"] == bodies["architecture.committed"]["sha256"]
    assert bodies["system.committed"]["tensors"]["sha256"] in shown["finished system"].values()
    assert shown["artwork"]["SHA-256"] == bodies["artwork.committed"]["sha256"]
    for digests in shown.values():
        assert all(digest in page.text for digest in digests.values())
    assert "1,797 records" in page.text
    assert "Ada Lovelace" in page.text


def test_each_entry_lies_in_its_sandwich(story, document):
    types = [event["type"] for event in document["events"]]
    assert types == [entry.type for entry in Register(story.path).entries()]
    started = document["events"][types.index("training.started")]
    before = [anchor for anchor in document["anchors"] if anchor["entry"] < started["entry"]]
    after = [anchor for anchor in document["anchors"] if anchor["covers"] >= started["entry"]]
    assert started["not_before"] == {"time": max(one["time"] for one in before), "lab": True}
    assert started["not_after"] == {"time": min(one["time"] for one in after), "lab": True}
    assert document["events"][-1]["not_after"] is None


def test_each_check_says_what_it_found(document, page):
    found = {check["check"]: check["found"] for check in document["checks"]}
    assert found["entries"].startswith(f"{document['who']['entries']} entries held, claimed between 20")
    count = len(document["anchors"])
    assert found["timestamps"].startswith(f"{count} of {count} timestamps held, from 20")
    assert f"{count} of a laboratory (LAB ONLY). An authority dates no entry." in found["timestamps"]
    assert f"secret in entry {document['watermarks'][0]['secret_entry']}, questions in entry" in found["order"]
    assert all(text in page.text for text in found.values())
    assert "Result What was found" in page.text
    assert " passed passed" not in page.text


def test_a_lone_stamp_of_a_laboratory_is_said_in_the_singular():
    stamp = Stamp(1, 0, datetime(2026, 11, 23, tzinfo=timezone.utc), "Lab", lab=True)
    for stamps, said in (((stamp,), "The only timestamp is a"), ((stamp, stamp), "The only timestamps are a")):
        report = Report("0" * 64, 2, "0" * 64, stamps, (), {})
        assert checks.attestation(facts.Facts((), report), [])["reasons"][0].startswith(said)


def test_what_a_judge_needs_is_said(page):
    for text in (*words.NULL, *words.NOT_SAID, *words.VOID, *words.GLOSSARY.values(), words.SANDWICH):
        assert " ".join(text.split()) in page.text


def test_the_page_says_nothing_that_the_json_does_not(document, page):
    said = dossier.encode(document).decode()
    page_digest = re.search(r"says the same, SHA-256 ([0-9a-f]{64})", page.text)[1]
    hexes = set(re.findall(r"\b[0-9a-f]{32,64}\b", page.text)) - {page_digest}
    assert len(hexes) > 20
    assert {one for one in hexes if one not in said} == set()
    times = set(re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", page.text))
    assert {one for one in times if one.replace(" ", "T") not in said} == set()


def test_the_json_says_nothing_that_the_page_does_not(document, page):
    def texts(value, name=""):
        if isinstance(value, dict):
            return [one for key, inner in value.items() for one in texts(inner, key)]
        if isinstance(value, list):
            return [one for inner in value for one in texts(inner, name)]
        return [(name, value)] if isinstance(value, str) else []

    # Machines' names of things, which the page has in words, and the events of a run, which it shows as one.
    machine = {"check", "type", "hash", "key", "made", "status", "asset", "note", "run"}
    for part in ("attestation", "who", "watermarks", "assets", "checks", "acquired", "authorities", "words", "anchors"):
        for name, text in texts(document[part]):
            shown = text.replace("T", " ").replace("Z", " UTC") if re.fullmatch(r"\d{4}-\S+Z", text) else text
            assert name in machine or " ".join(shown.split()) in page.text, (part, name, text)


def test_the_page_is_made_of_the_json_alone(document):
    assert dossier.render(json.loads(dossier.encode(document))) == dossier.render(document)
    assert document["schema"] == "wmplug/dossier/1"


def test_nothing_can_be_loaded_and_nothing_runs(page):
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "img", "link", "iframe", "object", "embed", "form", "base", "video", "audio", "image"}
    policy = [attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"]
    for _, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "srcset", "style")]
        assert attrs.get("href", "#").startswith("#")


def test_names_stay_text(hostile):
    made = dossier.render(dossier.gather(hostile))
    page = Text(made)
    assert {tag for tag, _ in page.elements} & {"script", "img"} == set()
    assert '<script>alert("x")</script>' in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "holds no verdict that can be read" in page.text


def test_no_secret_is_in_it(story, document):
    said = dossier.encode(document) + dossier.render(document).encode()
    for secret in story.secrets:
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert form not in said


def test_a_register_that_was_edited_is_refused_loudly_and_told_up_to_there(copy):
    lines = (copy / "log.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "log.jsonl").write_bytes(b"".join([*lines[:9], lines[8], *lines[10:]]))
    document = dossier.gather(copy)
    assert document["attestation"]["status"] == "refused"
    assert len(document["events"]) == 9
    assert results(document)["entries"] == "refused"
    assert results(document)["order"] == "incomplete"
    page = dossier.render(document)
    assert "THIS REGISTER DOES NOT HOLD" in Text(page).text
    assert '@top-right { content: "THIS REGISTER DOES NOT HOLD"' in page


def test_a_token_that_was_replaced_is_refused_in_the_check_of_timestamps(copy):
    token = sorted((copy / "anchors").glob("*.tsr"))[-1]
    token.write_bytes(token.read_bytes()[:-1])
    document = dossier.gather(copy)
    assert results(document)["timestamps"] == "refused"
    assert results(document)["entries"] == "passed"
    assert [anchor["holds"] for anchor in document["anchors"]].count(False) == 1
    assert "does not hold" in Text(dossier.render(document)).text


def test_every_finding_is_shown(copy):
    (copy / "anchors" / "999999-x.tsr").write_bytes(b"no token")
    with (copy / "log.jsonl").open("ab") as log:
        log.write(b'{"cut')
    document = dossier.gather(copy)
    text = Text(dossier.render(document)).text
    for code in ("torn-tail", "token-unreadable"):
        assert code in text
    assert (results(document)["entries"], results(document)["timestamps"]) == ("flagged", "not attested")


def test_receipts_are_checked(story, copy):
    owner = Owner.open(copy, passphrase=PASSPHRASE)
    given = receipts.receipt(Register(copy), Signer(owner.signing_seed()))
    assert results(dossier.gather(copy, receipts=[given]))["receipts"] == "passed"
    lines = (copy / "log.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "log.jsonl").write_bytes(b"".join(lines[:-1]))
    assert results(dossier.gather(copy, receipts=[given]))["receipts"] == "refused"


def test_another_choice_of_authorities_is_told(story):
    document = dossier.gather(story.path, authorities=[])
    assert document["authorities"]["chosen_by"] == "whoever made this dossier"
    assert results(document)["timestamps"] == "refused"


def test_a_body_that_wmplug_never_writes_hides_nothing_else(copy, story):
    recorder = Register(copy, Signer(story.mark.signing_seed()))
    recorder.append("dataset.committed", {"root": 7, "count": "many", "watermark": story.mark.id})
    document = dossier.gather(copy)
    assert document["assets"][-1]["text"] == "What its entry says cannot be read."
    recorder.append("training.started", {"watermark": story.mark.id, "versions": 7})
    with pytest.raises(RegisterError, match="wmplug never writes"):
        dossier.gather(copy)


def test_a_log_without_an_entry_is_refused(copy):
    (copy / "log.jsonl").write_bytes(b"")
    document = dossier.gather(copy)
    assert document["attestation"]["status"] == "refused"
    assert "Owner: unknown" in Text(dossier.render(document)).text


def test_an_id_that_is_none_never_reaches_the_style(copy):
    public = json.loads((copy / "owner.pub").read_text())
    (copy / "owner.pub").write_text(json.dumps({**public, "commitment": '"} body { display: none'}))
    with pytest.raises(RegisterError, match="64 hex digits"):
        dossier.gather(copy)


def test_a_long_run_fits_a_page(story):
    document = dossier.gather(story.path)
    document["runs"][0]["looks"] *= 100
    page = Text(dossier.render(document))
    assert "of 1,200 looks are shown" in page.text
    assert [tag for tag, _ in page.elements].count("tr") < 150
