"""The case, in writing."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import hearings
import pytest
from hearings import CHALLENGED, fixed, natural, rewritten, some_models

from wmplug.errors import NotaryError
from wmplug.register.challenge import Challenge
from wmplug.register.notary import certificates
from wmplug.register.notary.case import CASE, CHALLENGE, RESULT, Case, digests_of
from wmplug.register.notary.hearing import check, open_case
from wmplug.register.notary.opening import open_package
from wmplug.report import certificate
from wmplug.statistics.draws import log10_binomial_sf


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
    assert digests_of(natural) == {"source": hashlib.sha256(Path(hearings.__file__).read_bytes()).hexdigest()}


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
        with pytest.raises(NotaryError, match=r"RecursionError|nested too deeply|ValueError"):
            read(folder / name)
        (folder / name).write_bytes(kept)
    sealed = shutil.copy(heard[1] / "claim.age", tmp_path)
    rewritten(notary, Path(sealed), lambda members: members.update({"package.json": DEEP}))
    with pytest.raises(NotaryError, match="not a package"):
        open_package(notary, sealed, tmp_path / "out")
    nested = []
    for _ in range(5000):
        nested = [nested]
    signed = {"certificate": {"x": nested}, "signature": {"keyid": notary.signer().keyid, "sig": ""}}
    with pytest.raises(NotaryError, match="not a certificate"):
        certificates.verify(signed, notary.signer().public)
    document = {**CHALLENGED.to_json(), "case": nested}
    with pytest.raises(NotaryError, match="not a challenge"):
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
