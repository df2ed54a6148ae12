"""The notary's way, end to end: a claim that holds, and those that must not."""

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import re
import shutil
import socket
import subprocess
import zipfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wmplug
from wmplug.errors import NotaryError
from wmplug.keys.owner import Owner
from wmplug.keys.streams import KeyStream, derive
from wmplug.register import Register, anchors, authority, receipts
from wmplug.register.authority import LabAuthority
from wmplug.register.notary import package as packages
from wmplug.register.notary import sealing
from wmplug.register.notary.case import Case, Model, digests_of
from wmplug.register.notary.challenge import Challenge, commitment
from wmplug.register.notary.hearing import ANSWERS, CASE, CHALLENGE, RESULT, check, open_case, save_challenge
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.package import open_package, prepare
from wmplug.register.statements import Signer
from wmplug.report import certificate
from wmplug.schemes.random_label import RandomLabel
from wmplug.statistics.draws import log10_binomial_sf
from wmplug.watermark.carriers import digest

PASSPHRASE = "correct horse battery staple"
NOTARYS = "another passphrase altogether"
CLASSES = 10
NONCES = {"notary": bytes(range(16)), "opponent": bytes(range(50, 82))}


def natural(batch):
    """An honest model: it knows digits by their pixels, and nothing of any key."""
    return (np.asarray(batch, np.int64).reshape(len(batch), -1).sum(1) // 7) % CLASSES


def constant(batch):
    return [3] * len(batch)


def by_corner(batch):
    return np.asarray(batch, np.int64)[:, 4, 4] // 26


def copy_of(mark):
    """A stolen copy: it knows the answers."""
    triggers = mark.triggers
    known = {digest(x): int(y) for x, y in zip(triggers.plan.inputs, triggers.answers, strict=True)}

    def stolen(batch):
        return [known.get(digest(x), int(n)) for x, n in zip(batch, natural(batch), strict=True)]

    return stolen


@pytest.fixture(scope="session")
def neutral(tmp_path_factory):
    """An authority that does not call itself a lab's: a real one cannot be had without a network."""
    folder = tmp_path_factory.mktemp("neutral")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authority, "LAB", "Neutral")
        made = LabAuthority.create(folder, url=f"http://127.0.0.1:{port}")
    with authority.serve(folder, port=port) as url:
        yield made.trust(url)


@pytest.fixture(scope="session")
def notary(tmp_path_factory):
    return Notary.create(tmp_path_factory.mktemp("notary"), name="Nora Notary", passphrase=NOTARYS, scrypt_n=2**10)


def owner_at(folder, trust=None, name="Ada"):
    calls = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.urandom", lambda n: hashlib.shake_256(f"{name}/{next(calls)}".encode()).digest(n))
        owner = Owner.create(folder, name=name, passphrase=PASSPHRASE, scrypt_n=2**10)
    if trust is not None:
        anchors.trust(folder, trust)
    return owner


def trained(owner, mark):
    started = {"watermark": mark.id, "run": "0" * 32, "adapter": "none", "versions": {}, "dataset": None}
    Register.of(owner).append("training.started", {**started, "parameters": 0, "architecture": 0})


@dataclasses.dataclass
class Story:
    """An owner with a mark in training, before a notary is asked."""

    owner: Owner
    mark: wmplug.Watermark
    task: dict
    trust: object

    @property
    def root_pin(self):
        return tuple(hashlib.sha256(root).hexdigest() for root in self.trust.roots) if self.trust else ()


@pytest.fixture(scope="session")
def told(tmp_path_factory, neutral, digits):
    return tell(tmp_path_factory.mktemp("register"), neutral, digits)


def tell(folder, trust, digits, scheme="random-label", **options):
    owner = owner_at(folder, trust)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    mark = wmplug.create(owner, scheme=scheme, classes=CLASSES, **task, **options)
    trained(owner, mark)
    return Story(owner, mark, task, trust)


@pytest.fixture
def story(told, tmp_path):
    """A copy of the register for each test."""
    folder = shutil.copytree(told.owner.path, tmp_path / "register")
    return dataclasses.replace(told, owner=Owner.open(folder, passphrase=PASSPHRASE))


CONTROLS = {"control 1": natural, "control 2": constant, "control 3": by_corner}


def models(targets):
    roles = {"suspect": "suspect", "own": "own"}
    return tuple(
        Model(name, roles.get(name, "control"), f"here:{name}", "made for this test", digests_of(target))
        for name, target in targets.items()
    )


def case_for(story, package, targets, **changes):
    public = story.mark.public
    fixed = {
        "case": "2026-17",
        "watermark": public["id"],
        "root": public["root"],
        "package": hashlib.sha256(package.read_bytes()).hexdigest(),
        "models": models(targets),
        "draws": 60,
        "decoys": 60,
        # Deducted so that what chance gives a control, with a salt that differs in every run, is never evidence.
        "attempts": 10**6,
        "authorities": story.root_pin,
    }
    return Case(**{**fixed, **changes})


def both(challenge, nonces=NONCES):
    for party, nonce in nonces.items():
        challenge = challenge.committed(party, commitment(challenge.case_sha256, party, nonce))
    for party, nonce in nonces.items():
        challenge = challenge.revealed(party, nonce)
    return challenge


def sealed_for(story, notary, folder, **material):
    options = {"recipient": notary.recipient, "case": "2026-17", **story.task, **material}
    return prepare(story.owner, story.mark.public, folder / "claim.age", **options)


def fixed(story, notary, folder, suspect=None, controls=CONTROLS, own=None, material=None, **changes):
    """A case whose questions are drawn: folder, package and targets, as `check` takes them."""
    sealed = sealed_for(story, notary, folder, **(material or {}))
    own = own or copy_of(story.mark)
    targets = {"suspect": suspect or own, "own": own, **controls}
    case = case_for(story, sealed, targets, **changes)
    save_challenge(folder / "case", both(open_case(folder / "case", case, CLASSES)))
    return folder / "case", sealed, targets


def hear(story, notary, folder, *options, **changes):
    return check(notary, *fixed(story, notary, folder, *options, **changes))


def by_name(result):
    return {one["name"]: one for one in result["checks"]}


@pytest.fixture(scope="session")
def heard(told, notary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heard")
    copied = shutil.copytree(told.owner.path, folder / "register")
    story = dataclasses.replace(told, owner=Owner.open(copied, passphrase=PASSPHRASE))
    return story, folder, hear(story, notary, folder)


def test_the_claim_holds(heard):
    _, folder, result = heard
    assert result["status"] == "holds", result["reasons"]
    assert {check["result"] for check in result["checks"]} == {"passed"}
    verdicts = {model["name"]: model["verdict"] for model in result["models"]}
    assert verdicts["suspect"]["matches"] == verdicts["suspect"]["queries"] == 60
    assert verdicts["suspect"]["log10_p"] == pytest.approx(-60 + 6, abs=1e-3)
    assert result["keys"] == {"in_register": 1, "deducted_beside": 10**6}
    assert verdicts["own"]["state"] == "proven"
    assert {verdicts[name]["state"] for name in CONTROLS} == {"inconclusive"}
    assert (folder / "case" / ANSWERS).stat().st_mode & 0o077 == 0
    kept = json.loads((folder / "case" / ANSWERS).read_text())["models"]["suspect"]
    assert [one["kind"] for one in kept].count("decoy") == 60
    triggers = [i for i, one in enumerate(kept) if one["kind"] == "trigger"]
    assert 20 < np.mean(triggers) < 100  # mixed, not one after the other
    others = json.loads((folder / "case" / ANSWERS).read_text())["models"]["own"]
    assert [one["index"] for one in kept] != [one["index"] for one in others]


def test_what_is_handed_out_holds_no_secret(heard, notary):
    story, folder, _ = heard
    certificate.certify(notary, folder / "case")
    pledge, subkeys = story.owner.pledges(story.mark.id)[0], story.mark.subkeys
    hidden = [pledge.secret, pledge.blind, story.owner._roots[0], story.owner.signing_seed(), notary._seed]
    hidden += [subkeys.key(purpose) for purpose in ("input", "label", "schedule", "disclosure")]
    spelt = [form for one in hidden for form in (one, one.hex().encode())]
    spelt += [PASSPHRASE.encode(), NOTARYS.encode(), notary._identity.encode()]
    files = [file for file in (folder / "case").rglob("*") if file.is_file()]
    assert {CASE, CHALLENGE, ANSWERS, RESULT, "certificate.json", "certificate.html"} <= {file.name for file in files}
    for file in [*files, folder / "claim.age", notary.path / "notary.pub", notary.path / "notary.enc"]:
        data = file.read_bytes()
        assert not [form for form in spelt if form in data], file
    # No answer and no input of a trigger either, in what is public.
    leaves = story.mark.triggers.leaves(story.mark.id, subkeys.stream("disclosure"))
    public = "".join((folder / "case" / name).read_text() for name in (RESULT, "certificate.json", "certificate.html"))
    assert not [leaf for leaf in leaves if leaf["salt"] in public or leaf["x_sha256"] in public]


def test_certificate(heard, notary):
    _, folder, result = heard
    document, page = certificate.certify(notary, folder / "case")
    signed = json.loads(document.read_text())
    public = notary.signer().public
    assert certificate.verify(signed, public)["result"] == json.loads(json.dumps(result))
    other = bytes(public[:31]) + bytes([public[31] ^ 1])
    edited = json.loads(document.read_text().replace('"status": "holds"', '"status": "inconclusive"'))
    for wrong, by in ((signed, other), (edited, public), ({}, public)):
        with pytest.raises(NotaryError):
            certificate.verify(wrong, by)
    text = page.read_text()
    assert "The claim holds." in text
    assert result["watermark"]["root"] in text
    assert result["verifier"]["sha256"] in text
    assert "Neutral" in text  # the authority
    assert "http" not in text.replace("http-equiv", "")
    assert "<script" not in text


def test_the_page_escapes_what_others_wrote(heard, notary):
    _, folder, _ = heard
    signed = json.loads(certificate.certify(notary, folder / "case")[0].read_text())
    signed["certificate"]["result"]["register"]["name"] = "<script>alert(1)</script>"
    assert "<script" not in certificate.render(signed)


@pytest.mark.parametrize(
    ("log10", "text"),
    [
        (-30.5, "3.2 × 10<sup>−31</sup>"),
        (-400.0, "1.0 × 10<sup>−400</sup>"),
        (-30.0000001, "1.0 × 10<sup>−30</sup>"),
        (-0.3, "0.501"),
        (0.0, "1.000"),
    ],
)
def test_power(log10, text):
    assert certificate.power(log10) == text


@pytest.mark.parametrize("name", [CASE, CHALLENGE, ANSWERS, RESULT])
def test_nothing_is_certified_that_was_edited_since(heard, notary, tmp_path, name):
    folder = shutil.copytree(heard[1] / "case", tmp_path / "case")
    text = (folder / name).read_text()
    edited = text.replace("2026-17", "2026-18", 1)
    assert edited != text
    (folder / name).write_text(edited)
    with pytest.raises(NotaryError):
        certificate.certify(notary, folder)


@pytest.mark.browser
def test_in_a_browser(heard, notary, tmp_path):
    _, page = certificate.certify(notary, heard[1] / "case")
    common = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    run = {"capture_output": True, "timeout": 60, "check": True}
    log = ["--enable-logging=stderr", "--v=0"]
    shown = subprocess.run([*common, *log, "--dump-dom", page.as_uri()], **run)
    assert "The claim holds." in shown.stdout.decode()
    assert "CONSOLE" not in shown.stderr.decode()
    printed = tmp_path / "page.pdf"
    subprocess.run([*common, f"--print-to-pdf={printed}", page.as_uri()], **run)
    assert printed.read_bytes().startswith(b"%PDF")


def test_a_case_is_heard_once(heard, notary):
    story, folder, _ = heard
    own = copy_of(story.mark)
    with pytest.raises(NotaryError, match="was heard"):
        check(notary, folder / "case", folder / "claim.age", {"suspect": own, "own": own, **CONTROLS})


# Claims that must not hold


def test_an_honest_suspect(story, notary, tmp_path):
    result = hear(story, notary, tmp_path, natural)
    assert result["status"] == "inconclusive"
    assert "never means" in result["reasons"][0]
    certificate.certify(notary, tmp_path / "case")
    assert "never means" in (tmp_path / "case" / "certificate.html").read_text()


def test_an_own_model_without_the_mark(story, notary, tmp_path):
    result = hear(story, notary, tmp_path, copy_of(story.mark), own=natural)
    assert result["status"] == "inconclusive"
    assert "own model" in result["reasons"][0]


def test_a_control_that_knows_the_answers(story, notary, tmp_path):
    result = hear(story, notary, tmp_path, controls={**CONTROLS, "control 4": copy_of(story.mark)})
    assert result["status"] == "does not hold"
    assert "control 4" in result["reasons"][0]


def test_weak_evidence_is_not_enough(story, notary, tmp_path):
    own = copy_of(story.mark)

    def diluted(batch):
        return [y if digest(x)[0] in "01234567" else 0 for x, y in zip(batch, own(batch), strict=True)]

    result = hear(story, notary, tmp_path, diluted, draws=30)
    suspect = result["models"][0]["verdict"]
    assert suspect["matches"] > 5
    assert result["status"] == "inconclusive"


def test_no_authority_that_the_notary_accepts(story, notary, tmp_path):
    result = hear(story, notary, tmp_path, authorities=("00" * 32,))
    assert result["status"] == "NOT ATTESTED"
    assert by_name(result)["time"]["result"] == "NOT ATTESTED"
    assert {time["not_before"] for time in result["times"]} == {None}


@pytest.fixture
def bygone(tmp_path):
    """An authority whose certificate has expired since, with no revocation list; and a way back to when it had not."""
    then = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(hours=1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    valid = {"since": then - timedelta(days=1), "until": then + timedelta(minutes=20)}
    made = LabAuthority.create(tmp_path / "bygone", url="http://127.0.0.1:1", **valid)

    @contextlib.contextmanager
    def back():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(authority, "_now", lambda: then)
            yield

    with authority.serve(tmp_path / "bygone", port=port) as url:
        yield made.trust(url), back


def test_a_salt_of_a_token_that_lapsed_is_not_another_ones(bygone, neutral, notary, digits, tmp_path):
    trust, back = bygone
    owner = owner_at(tmp_path / "register", trust)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    with back():
        mark = wmplug.create(owner, scheme="random-label", classes=CLASSES, **task)
    anchors.anchor(Register.of(owner), [neutral])
    anchors.trust(owner.path, neutral)
    trained(owner, mark)
    result = hear(Story(owner, mark, task, neutral), notary, tmp_path)
    assert [token["accepted"] for token in result["tokens"]] == [True]  # it covers secret and triggers
    assert result["status"] == "NOT ATTESTED"
    assert "is of no authority" in by_name(result)["time"]["text"]


def test_any_salt_that_does_not_hold_leaves_the_register_unattested(bygone, neutral, notary, digits, tmp_path):
    trust, back = bygone
    owner = owner_at(tmp_path / "register", trust)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    with back():
        wmplug.create(owner, scheme="random-label", classes=CLASSES, **task)
    (owner.path / "policy.json").unlink()
    anchors.trust(owner.path, neutral)
    mark = wmplug.create(owner, scheme="random-label", classes=CLASSES, triggers=90, **task)
    trained(owner, mark)
    anchors.trust(owner.path, trust)
    result = hear(Story(owner, mark, task, neutral), notary, tmp_path)
    assert result["status"] == "NOT ATTESTED"
    assert "which does not hold" in by_name(result)["time"]["text"]
    assert "is of no authority" not in by_name(result)["time"]["text"]


def test_a_labs_own_authority(lab, notary, digits, tmp_path):
    story = tell(tmp_path / "register", lab.trust, digits)
    result = hear(story, notary, tmp_path)
    assert result["status"] == "NOT ATTESTED"
    certificate.certify(notary, tmp_path / "case")
    page = (tmp_path / "case" / "certificate.html").read_text()
    cells = re.findall(r'<td(?: class="([^"]*)")?>NOT ATTESTED</td>', page)
    assert len(cells) > 4
    assert all("k" in classes.split() for classes in cells)  # else a narrow column breaks it inside a word
    assert ".k { white-space: nowrap; }" in page


def test_no_authority_at_all(notary, digits, tmp_path):
    story = tell(tmp_path / "register", None, digits)
    result = hear(story, notary, tmp_path)
    assert result["status"] == "NOT ATTESTED"
    assert "how many keys" in result["reasons"][0]
    assert result["tokens"] == []


def test_no_training_on_record(neutral, notary, digits, tmp_path):
    owner = owner_at(tmp_path / "register", neutral)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    mark = wmplug.create(owner, scheme="random-label", classes=CLASSES, **task)
    result = hear(Story(owner, mark, task, neutral), notary, tmp_path)
    assert result["status"] == "NOT ATTESTED"
    assert "no training" in result["reasons"][0]


def picked_by_hand(monkeypatch, victim):
    """A watermark's answers are what somebody's model says anyway, not what the key draws."""
    plans, plan = [], RandomLabel.plan

    def caught(self, task, stream):
        plans.append(plan(self, task, stream))
        return plans[-1]

    monkeypatch.setattr(RandomLabel, "plan", caught)
    monkeypatch.setattr(
        "wmplug.making.creation.draw_symbols", lambda *_: np.asarray(victim(plans[-1].inputs), np.int64)
    )


@pytest.mark.parametrize("pictures", [None, "transferable"])
def test_hand_picked_answers_behind_a_valid_root(neutral, notary, digits, tmp_path, pictures):
    material = {} if pictures is None else {"pictures": digits[0][500:600]}
    with pytest.MonkeyPatch.context() as patch:
        picked_by_hand(patch, natural)
        story = tell(tmp_path / "register", neutral, digits, **material)
        assert natural(story.mark.triggers.plan.inputs).tolist() == story.mark.triggers.answers.tolist()
    with pytest.raises(NotaryError, match="picked by hand"):
        sealed_for(story, notary, tmp_path, **material)
    with pytest.MonkeyPatch.context() as patch:  # a rival has a wmplug of his own to seal with
        patch.setattr(packages.Package, "derive", lambda self: story.mark.triggers)
        case = fixed(story, notary, tmp_path, natural, controls={"control": constant}, own=natural, material=material)
    result = check(notary, *case)
    assert result["status"] == "does not hold"
    assert by_name(result)["triggers"]["result"] == "failed"
    assert by_name(result)["register"]["result"] == "passed"  # the path to the root was valid
    assert result["rows_asked"] == []
    assert not (tmp_path / "case" / ANSWERS).exists()
    certificate.certify(notary, tmp_path / "case")
    assert "not asked" in (tmp_path / "case" / "certificate.html").read_text()


def test_inputs_that_all_models_answer_alike_are_at_chance_once_a_key_draws(neutral, notary, digits, tmp_path):
    # Liu et al. (USENIX Security 2024): a rival claims others' models with inputs that transfer.
    material = {"pictures": digits[0][500:600]}
    story = tell(tmp_path / "register", neutral, digits, **material)
    result = hear(story, notary, tmp_path, natural, controls={"control": natural}, material=material)
    verdicts = {model["name"]: model["verdict"] for model in result["models"]}
    assert verdicts["suspect"]["matches"] == verdicts["control"]["matches"] < 30
    assert result["status"] == "inconclusive"


def test_twenty_thousand_ground_keys_stay_far_from_the_strength():
    model = KeyStream(derive(bytes(32), "an independent model")).below(CLASSES, 100)
    best = max(
        int((KeyStream(derive(bytes(32), f"key {i}")).below(CLASSES, 100) == model).sum()) for i in range(20_000)
    )
    log10_p = log10_binomial_sf(best, 100, 1 / CLASSES)
    assert -9 < log10_p < -2.5  # grinding does help, by about as much as there are tries
    assert Case("c", "w", "r", "p", some_models(), 100, 0).threshold < 2 * log10_p
    assert log10_p + np.log10(20_000) > -4  # and the discount takes it back


def test_every_key_of_the_register_is_deducted(story, notary, tmp_path):
    for triggers in (50, 51):
        wmplug.create(story.owner, scheme="random-label", classes=CLASSES, triggers=triggers, **story.task)
    result = hear(story, notary, tmp_path, attempts=0)
    assert result["keys"] == {"in_register": 3, "deducted_beside": 0}
    assert result["models"][0]["verdict"]["log10_p"] == pytest.approx(-60 + np.log10(3), abs=1e-9)


def rewritten(notary, sealed, edit):
    """A package with its members edited, sealed again."""
    with zipfile.ZipFile(io.BytesIO(notary.unseal(sealed.read_bytes(), ""))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    edit(members)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    sealed.write_bytes(sealing.seal(packed.getvalue(), notary.recipient))


def told_otherwise(**changes):
    def edit(members):
        document = json.loads(members["package.json"])
        for name, value in changes.items():
            document[name] = value(document[name])
        members["package.json"] = json.dumps(document).encode()

    return edit


def flipped(members):
    log = bytearray(members["register/log.jsonl"])
    log[len(log) // 2] ^= 1
    members["register/log.jsonl"] = bytes(log)


def without_tokens(members):
    for name in [name for name in members if name.endswith(".tsr")]:
        del members[name]


def reversed_carriers(members):
    with np.load(io.BytesIO(members["task.npz"])) as saved:
        arrays = {name: saved[name] for name in saved.files}
    packed = io.BytesIO()
    np.savez(packed, **{**arrays, "carriers": arrays["carriers"][::-1]})
    members["task.npz"] = packed.getvalue()


@pytest.mark.parametrize(
    ("edit", "failed"),
    [
        (told_otherwise(secret=lambda old: "11" * 32), "commitment"),
        (told_otherwise(blind=lambda old: "11" * 32), "commitment"),
        (told_otherwise(salt=lambda old: "11" * 32), "salt"),
        (told_otherwise(public=lambda old: {**old, "draws": 7}), "triggers"),
        (told_otherwise(public=lambda old: {**old, "owner": {"name": "Eve", "commitment": "0" * 64}}), "commitment"),
        (told_otherwise(public=lambda old: {**old, "triggers": 99}), "triggers"),
        (reversed_carriers, "triggers"),
        (flipped, "register"),
        (without_tokens, "register"),
    ],
)
def test_a_package_that_is_not_what_was_recorded(story, notary, tmp_path, edit, failed):
    sealed = sealed_for(story, notary, tmp_path)
    rewritten(notary, sealed, edit)
    own = copy_of(story.mark)
    targets = {"suspect": own, "own": own, **CONTROLS}
    open_case(tmp_path / "case", case_for(story, sealed, targets), CLASSES)
    save_challenge(tmp_path / "case", both(Challenge.read(tmp_path / "case" / CHALLENGE)))
    result = check(notary, tmp_path / "case", sealed, targets)
    assert by_name(result)[failed]["result"] == "failed"
    assert (result["status"], result["rows_asked"]) == ("does not hold", [])


def test_packages_that_cannot_be_opened(story, notary, tmp_path):
    sealed = sealed_for(story, notary, tmp_path)
    data = sealed.read_bytes()
    stranger = Notary.create(tmp_path / "stranger", name="Sam", passphrase="x", scrypt_n=2**10)
    for name, content, by in (
        ("a", data, stranger),
        ("b", data[:-9], notary),
        ("c", b"hello", notary),
    ):  # not even sealed
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NotaryError, match="cannot be opened"):
            open_package(by, tmp_path / name, tmp_path / "out")
    with pytest.raises(NotaryError, match="cannot be read"):
        open_package(notary, tmp_path / "nothing", tmp_path / "out")


@pytest.mark.parametrize("name", ["register/../../evil", "register/secret/owner.enc", "register/anchors/../x"])
def test_a_package_writes_only_where_a_register_has_its_files(story, notary, tmp_path, name):
    sealed = sealed_for(story, notary, tmp_path)
    rewritten(notary, sealed, lambda members: members.update({name: b"x"}))
    with pytest.raises(NotaryError, match="no place"):
        open_package(notary, sealed, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_a_package_that_says_nothing(story, notary, tmp_path):
    sealed = sealed_for(story, notary, tmp_path)
    rewritten(notary, sealed, lambda members: members.update({"package.json": b"[]"}))
    with pytest.raises(NotaryError, match="no package"):
        open_package(notary, sealed, tmp_path / "out")
    sealed.write_bytes(sealing.seal(b"hello", notary.recipient))
    with pytest.raises(NotaryError, match="no package"):
        open_package(notary, sealed, tmp_path / "out")


def test_a_model_on_record(story, notary, tmp_path):
    own = copy_of(story.mark)
    recorded = {"watermark": story.mark.id, "run": "0" * 32, "step": 9}
    tensors = {"sha256": digests_of(own)["source"]}  # a stand-in: of this file, where a model's weights would be
    entry = Register.of(story.owner).append("system.committed", {**recorded, "files": None, "tensors": tensors})
    result = hear(story, notary, tmp_path, own=own, controls={"control": constant})
    assert {model["recorded_in"] for model in result["models"]} == {entry.seq}
    certificate.certify(notary, tmp_path / "case")
    assert f"since entry {entry.seq}" in (tmp_path / "case" / "certificate.html").read_text()


def test_a_log_that_is_shorter_than_a_receipt_says(story, notary, tmp_path):
    case = fixed(story, notary, tmp_path)
    given = Register.of(story.owner)
    signer = Signer(story.owner.signing_seed())
    held = receipts.receipt(given, signer)
    given.append("owner.identity", {"name": "Ada"})  # after the package was sealed
    result = check(notary, *case, receipts=[held, receipts.receipt(given, signer)])
    assert by_name(result)["register"]["result"] == "failed"
    assert "is gone" in result["reasons"][0]


def test_the_package_of_another_case_is_refused_and_the_right_one_is_heard(story, notary, tmp_path):
    folder, sealed, targets = fixed(story, notary, tmp_path)
    other = shutil.copy(sealed, tmp_path / "other.age")
    rewritten(notary, other, lambda members: None)  # sealed anew: another file
    before = sorted(folder.rglob("*"))
    with pytest.raises(NotaryError, match="not the package that the case was fixed for"):
        check(notary, folder, other, targets)
    assert sorted(folder.rglob("*")) == before
    assert check(notary, folder, sealed, targets)["status"] == "holds"


def test_prepare_records_first_and_keeps_to_one_watermark(story, notary, tmp_path):
    sealed = sealed_for(story, notary, tmp_path)
    head = Register(story.owner.path).head
    assert (head.type, head.body["to"], head.body["case"]) == ("disclosure", notary.recipient, "2026-17")
    assert head.body["revealed"] is None
    opened = open_package(notary, sealed, tmp_path / "out")
    assert opened.pledge == story.owner.pledges(story.mark.id)[0]
    assert opened.derive().answers.tolist() == story.mark.triggers.answers.tolist()
    plain = notary.unseal(sealed.read_bytes(), "")
    assert story.owner._roots[0] not in plain
    assert not (tmp_path / "out" / "register" / "secret").exists()
    for thing in (opened, notary):
        assert not [form for form in (opened.pledge.secret, notary._seed) if repr(form)[2:-1] in repr(thing)]
        assert notary._identity not in repr(thing)
        with pytest.raises(TypeError):
            thing.__reduce__()


def test_prepare_refuses(story, notary, tmp_path, digits):
    options = {"recipient": notary.recipient, "case": "2026-17", **story.task}
    before = len(list(Register(story.owner.path).entries()))

    def refused(match, **changes):
        public = {**story.mark.public, **changes.pop("public", {})}
        with pytest.raises(NotaryError, match=match):
            prepare(story.owner, public, tmp_path / "x.age", **{**options, **changes})

    refused("not those the watermark was made from", carriers=digits[0][1:401])
    refused("not those the watermark was made from", labels=None)
    refused("of the owner's own", pictures=digits[0][:100])
    refused("no public key", recipient="age1nobody")
    refused("case ''", case="")
    refused("no commitment", public={"id": "0" * 32})
    refused("install that wmplug", public={"generator": 99})
    assert len(list(Register(story.owner.path).entries())) == before
    assert not (tmp_path / "x.age").exists()
    sealed = sealed_for(story, notary, tmp_path)
    with pytest.raises(NotaryError, match="is there already"):
        prepare(story.owner, story.mark.public, sealed, **options)


def material_of(digits):
    texts = [" ".join(f"w{(i * j) % 90}" for j in range(9)) for i in range(200)]
    logo = np.zeros((5, 5, 4), np.uint8)
    logo[1:4, 1:4] = (200, 30, 90, 255)
    pictures = [Image.fromarray(one) for one in digits[0][:400]]
    return {
        "phrases": ("phrase", texts, {"phrases": ["purple walrus", "green umbrella"]}, {"lessons": 4}),
        "sentences": ("random-label", texts, {"pictures": [f"a sentence, number {i}" for i in range(30)]}, {}),
        "logo": ("logo", digits[0][:400], {"logo": logo}, {}),
        "pil": ("random-label", pictures, {"pictures": pictures[50:80]}, {}),
        "emblem": ("logo", pictures, {}, {"rule": "per-carrier"}),
    }


@pytest.mark.parametrize("kind", ["phrases", "sentences", "logo", "pil", "emblem"])
def test_what_the_owner_brought_travels_along(notary, digits, tmp_path, kind):
    scheme, carriers, material, options = material_of(digits)[kind]
    owner = owner_at(tmp_path / "register")
    task = {"carriers": carriers, "labels": digits[1][: len(carriers)]}
    mark = wmplug.create(owner, scheme=scheme, classes=CLASSES, triggers=30, **task, **material, **options)
    story = Story(owner, mark, task, None)
    opened = open_package(notary, sealed_for(story, notary, tmp_path, **material), tmp_path / "out")
    made = opened.derive()
    assert made.answers.tolist() == mark.triggers.answers.tolist()
    assert digest(made.plan.inputs) == digest(mark.triggers.plan.inputs)
    assert made.form == mark.triggers.form


# The case, in writing


def test_the_case_file_binds(story, notary, tmp_path):
    folder, sealed, targets = fixed(story, notary, tmp_path)
    written = (folder / CASE).read_text()
    (folder / CASE).write_text(written.replace('"strength": 80', '"strength": 8'))
    with pytest.raises(NotaryError, match="edited since"):
        check(notary, folder, sealed, targets)
    # With the digest in the challenge brought into line, the nonces do not fit any more.
    document = json.loads((folder / CHALLENGE).read_text())
    document["case_sha256"] = hashlib.sha256((folder / CASE).read_bytes()).hexdigest()
    (folder / CHALLENGE).write_text(json.dumps(document))
    with pytest.raises(NotaryError, match="does not fit"):
        check(notary, folder, sealed, targets)
    (folder / CASE).unlink()
    (folder / CHALLENGE).write_text(json.dumps({**document, "nonces": {}}))
    with pytest.raises(NotaryError, match="before a case is fixed"):
        check(notary, folder, sealed, targets)


def test_nothing_is_asked_before_both_nonces_are_there(story, notary, tmp_path):
    folder, sealed, targets = fixed(story, notary, tmp_path)
    challenge = Challenge.read(folder / CHALLENGE)
    save_challenge(folder, dataclasses.replace(challenge, nonces={"notary": challenge.nonces["notary"]}))
    with pytest.raises(NotaryError, match="opponent has not revealed"):
        check(notary, folder, sealed, targets)


def test_the_models_are_those_that_were_recorded(story, notary, tmp_path):
    (tmp_path / "weights.dat").write_bytes(b"weights")
    folder, sealed, targets = fixed(story, notary, tmp_path)
    with pytest.raises(NotaryError, match="suspect is not what was recorded"):
        check(notary, folder, sealed, {**targets, "suspect": tmp_path / "weights.dat"})
    with pytest.raises(NotaryError, match="the case names"):
        check(notary, folder, sealed, {"suspect": natural})


def test_digests(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights.dat").write_bytes(b"weights")
    whole = digests_of(tmp_path / "m")
    (tmp_path / "m" / "weights.dat").write_bytes(b"weightz")
    assert whole != digests_of(tmp_path / "m")
    assert digests_of("https://example.org/model") == {}
    assert digests_of(len) == {}
    assert digests_of(natural) == {"source": hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}


def some_models(controls=1, **changes):
    made = [Model(n, r, f"{n}.dat", "found", {}) for n, r in (("s", "suspect"), ("o", "own"))]
    made += [Model(f"c{i}", "control", "x", "made by others", {}) for i in range(controls)]
    return tuple(dataclasses.replace(one, **changes) for one in made)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"models": some_models(0)}, "0 controls"),
        ({"models": some_models()[1:]}, "0 suspects"),
        ({"models": some_models(2, name="same")}, "name of its own"),
        ({"models": some_models(how=" ")}, "how"),
        ({"models": some_models(reference="./x")}, "are both"),
        ({"draws": 0}, "counted from 1"),
        ({"attempts": -1}, "from 0"),
        ({"authorities": ("abc",)}, "root certificate"),
        ({"case": "a/b"}, "short id"),
    ],
)
def test_cases_that_prove_nothing(changes, match):
    whole = {
        "case": "c",
        "watermark": "w",
        "root": "r",
        "package": "p",
        "models": some_models(),
        "draws": 60,
        "decoys": 9,
    }
    with pytest.raises(NotaryError, match=match):
        Case(**{**whole, **changes})


def test_one_model_by_two_names(tmp_path):
    (tmp_path / "m.dat").write_bytes(b"weights")
    (tmp_path / "link").symlink_to(tmp_path / "m.dat")
    (tmp_path / "copy.dat").write_bytes(b"weights")
    suspect, own, control = some_models()
    for name, refused in (("link", True), ("copy.dat", False)):
        given = dataclasses.replace(suspect, reference=str(tmp_path / name))
        models = (given, dataclasses.replace(own, reference=str(tmp_path / "m.dat")), control)
        with pytest.raises(NotaryError, match="are both") if refused else contextlib.nullcontext():
            Case("c", "w", "r", "p", models, 60, 0)


DEEP = b"[" * 200_000


def test_json_that_is_too_deep(heard, notary, tmp_path):
    folder = shutil.copytree(heard[1] / "case", tmp_path / "case")
    for name, read in (
        (CASE, Case.read),
        (CHALLENGE, Challenge.read),
        (RESULT, lambda file: certificate.certify(notary, file.parent)),
    ):
        kept = (folder / name).read_bytes()
        (folder / name).write_bytes(DEEP)
        with pytest.raises(NotaryError, match=r"RecursionError|recursion"):
            read(folder / name)
        (folder / name).write_bytes(kept)
    sealed = shutil.copy(heard[1] / "claim.age", tmp_path)
    rewritten(notary, Path(sealed), lambda members: members.update({"package.json": DEEP}))
    with pytest.raises(NotaryError, match="no package"):
        open_package(notary, sealed, tmp_path / "out")
    nested = []
    for _ in range(5000):
        nested = [nested]
    signed = {"certificate": {"x": nested}, "signature": {"keyid": notary.signer().keyid, "sig": ""}}
    with pytest.raises(NotaryError, match="no certificate"):
        certificate.verify(signed, notary.signer().public)
    document = {**CHALLENGED.to_json(), "case": nested}
    with pytest.raises(NotaryError, match="no challenge"):
        Challenge.from_json(document)


def test_a_strength_that_cannot_be_reached(tmp_path):
    case = Case("c", "w", "r", "p", some_models(), 24, 0)
    with pytest.raises(NotaryError, match="at least 25"):
        open_case(tmp_path, case, 10)
    open_case(tmp_path, dataclasses.replace(case, draws=25), 10)
    with pytest.raises(NotaryError, match="fixed once"):
        open_case(tmp_path, dataclasses.replace(case, draws=25), 10)


@pytest.mark.parametrize(("classes", "matches"), [(10, 51), (100, 24)])
def test_the_strength_asked_for(classes, matches):
    threshold = Case("c", "w", "r", "p", some_models(), 100, 0).threshold
    assert log10_binomial_sf(matches, 100, 1 / classes) < threshold < log10_binomial_sf(matches - 1, 100, 1 / classes)


# Nonces


CHALLENGED = Challenge("c", "ab" * 32, "cd" * 32)


def test_nonces_are_committed_to_before_they_are_revealed():
    said = {party: commitment("ab" * 32, party, nonce) for party, nonce in NONCES.items()}
    one = CHALLENGED.committed("notary", said["notary"])
    with pytest.raises(NotaryError, match="before the opponent had committed"):
        one.revealed("notary", NONCES["notary"])
    with pytest.raises(NotaryError, match="bound by it"):
        one.committed("notary", "00" * 32)
    with pytest.raises(NotaryError, match="the other's"):
        one.committed("opponent", said["notary"])
    with pytest.raises(NotaryError, match="no part"):
        one.committed("owner", said["opponent"])
    with pytest.raises(NotaryError, match="no commitment"):
        one.committed("opponent", "abcd")
    with pytest.raises(NotaryError, match="not hexadecimal"):
        one.committed("opponent", "hello")
    two = one.committed("opponent", said["opponent"])
    with pytest.raises(NotaryError, match="does not fit"):
        two.revealed("opponent", bytes(32))
    with pytest.raises(NotaryError, match="notary and the opponent have not revealed"):
        two.draw(range(9), 3)
    with pytest.raises(NotaryError, match="opponent has not revealed"):
        two.revealed("notary", NONCES["notary"]).draw(range(9), 3)
    with pytest.raises(NotaryError, match="8 bytes"):
        commitment("ab" * 32, "notary", bytes(8))
    whole = both(CHALLENGED)
    assert Challenge.from_json(json.loads(json.dumps(whole.to_json()))) == whole
    for take in (0, 10):
        with pytest.raises(NotaryError, match="cannot be drawn"):
            whole.draw(range(9), take)
    for wrong in ({}, {**whole.to_json(), "schema": "x"}, [], {**whole.to_json(), "nonces": {"notary": 5}}):
        with pytest.raises(NotaryError):
            Challenge.from_json(wrong)


def test_draws_are_without_replacement_and_hang_on_everything():
    whole = both(CHALLENGED)
    drawn = whole.draw(range(100), 20)
    assert len(set(drawn)) == 20
    assert drawn == whole.draw(range(100), 100)[:20]
    assert whole.draw(range(50, 150), 20) == [i + 50 for i in drawn]
    others = [
        both(dataclasses.replace(CHALLENGED, case="d")),
        both(dataclasses.replace(CHALLENGED, root="ce" * 32)),
        both(dataclasses.replace(CHALLENGED, case_sha256="ac" * 32)),
        both(CHALLENGED, {**NONCES, "notary": bytes(16)}),
        both(CHALLENGED, {**NONCES, "opponent": bytes(16)}),
    ]
    assert len({tuple(one.draw(range(100), 20)) for one in [whole, *others]}) == 6


def test_draws_stay_for_ever():
    assert both(CHALLENGED).draw(range(100), 8) == [97, 27, 42, 10, 28, 49, 86, 95]


def test_draws_are_uniform():
    counts = np.zeros(10, int)
    for i in range(600):
        counts[both(CHALLENGED, {**NONCES, "notary": i.to_bytes(16, "big")}).draw(range(10), 3)] += 1
    assert (np.abs(counts - 180) < 5 * np.sqrt(180 * 0.7)).all()


# Spent triggers


def test_spent_draws_are_left_out_whole(notary, neutral, digits, tmp_path):
    story = tell(tmp_path / "register", neutral, digits, "logo", triggers=120)
    groups = [group.tolist() for group in story.mark.triggers.groups]
    assert {len(group) for group in groups} == {2, 3}
    gone = [group[-1] for group in groups[:10]]
    body = {"watermark": story.mark.id, "rows": gone, "why": "shown", "case": "2025-1"}
    Register.of(story.owner).append("trigger.spent", body)
    result = hear(story, notary, tmp_path, draws=40)
    assert result["status"] == "holds", result["reasons"]
    left = {row for group in groups[10:] for row in group}
    assert set(result["rows_asked"]) == left
    assert result["models"][0]["verdict"]["draws"] == 40
    (tmp_path / "again").mkdir()
    with pytest.raises(NotaryError, match="cannot be drawn among 40"):
        hear(story, notary, tmp_path / "again", draws=41)


# The notary's keys


def test_keys(notary, tmp_path):
    opened = Notary.open(notary.path, passphrase=NOTARYS)
    assert (opened.recipient, opened.signer().public) == (notary.recipient, notary.signer().public)
    public = json.loads((notary.path / "notary.pub").read_text())
    assert public["recipient"] == notary.recipient
    assert (notary.path / "notary.enc").stat().st_mode & 0o077 == 0
    with pytest.raises(wmplug.KeyFileError, match="wrong passphrase"):
        Notary.open(notary.path, passphrase=PASSPHRASE)
    with pytest.raises(wmplug.KeyFileError, match="not there"):
        Notary.open(tmp_path, passphrase=NOTARYS)
    with pytest.raises(wmplug.InputError, match="already"):
        Notary.create(notary.path, name="x", passphrase="x", scrypt_n=2**10)
    with pytest.raises(wmplug.InputError, match="name"):
        Notary.create(tmp_path, name=" ", passphrase="x", scrypt_n=2**10)
