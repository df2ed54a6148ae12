import html
import json
import shutil
import subprocess

import pytest

from wmplug.errors import NotaryError
from wmplug.register.notary import certificates
from wmplug.register.notary.case import ANSWERS, CASE, CHALLENGE, RESULT
from wmplug.report import certificate


def test_certificate(heard, notary):
    _, folder, result = heard
    document, page = certificate.certify(notary, folder / "case")
    signed = json.loads(document.read_text())
    public = notary.signer().public
    assert certificates.verify(signed, public)["result"] == json.loads(json.dumps(result))
    other = bytes(public[:31]) + bytes([public[31] ^ 1])
    edited = json.loads(document.read_text().replace('"status": "holds"', '"status": "inconclusive"'))
    for wrong, by in ((signed, other), (edited, public), ({}, public)):
        with pytest.raises(NotaryError):
            certificates.verify(wrong, by)
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


def rendered(heard, notary, **changes):
    signed = json.loads(certificate.certify(notary, heard[1] / "case")[0].read_text())
    signed["certificate"]["result"].update(changes)
    return certificate.render(signed)


def test_what_the_notary_fixed_stands_on_the_page(heard, notary):
    plain = rendered(heard, notary)
    assert "Nobody stated since when the suspect is known." in plain
    assert "no function of the notary's" in html.unescape(plain)
    assert "0 rows were spent before" in plain
    assert "multiplied by 1000001, the number of tries" in plain
    own = {"reference": "mine:halved", "how": "half as bright", "sha256": "ab" * 32}
    since = {"date": "2026-03-07", "source": "the release page"}
    page = rendered(
        heard,
        notary,
        suspect_since=since,
        preprocess=own,
        rows_known=[1, 2],
        rows_spent_before=30,
        notaries=["cd" * 32],
    )
    assert "since 2026-03-07, by the release page" in page
    assert all(value in page for value in own.values())
    assert "30 rows were spent before" in page
    assert "2 were known to everybody, were not asked, and count as misses" in page
    assert "cd" * 32 in page


def test_selections_count_as_tries(heard, notary):
    models = json.loads(json.dumps(heard[2]["models"]))
    models[0]["verdict"]["choices"] = [
        {"what": "questions", "bound": "committed", "sha256": "", "tries": 3, "note": "by 2026"},
        {"what": "preprocess", "bound": None, "sha256": "", "tries": 1, "note": ""},
    ]
    page = rendered(heard, notary, models=models)
    assert "multiplied by 3000003, the number of tries" in page
    assert "times the selections that the owner could have made" in page
    assert "; questions committed by 2026, 3 tries; preprocess NOT COMMITTED" in page


def test_a_result_of_the_first_release_has_a_page(heard, notary):
    signed = json.loads(certificate.certify(notary, heard[1] / "case")[0].read_text())
    result = signed["certificate"]["result"]
    for name in ("suspect_since", "preprocess", "notaries", "rows_known", "revocation_lists"):
        result.pop(name, None)
    for model in result["models"]:
        model["verdict"].pop("choices")
    page = certificate.render(signed)
    assert "Nobody stated since when the suspect is known." in page
    assert "0 were known to everybody" in page


@pytest.mark.parametrize("state", ["inconclusive", "evidence", "proven"])
def test_a_control_that_matched_is_red(heard, notary, state):
    models = json.loads(json.dumps(heard[2]["models"]))
    models[-1]["verdict"]["state"] = state
    page = rendered(heard, notary, models=models)
    void = state == "proven"
    assert ('<tr class="void"><td>control 3</td>' in page) is void
    assert (f"<strong>VOID</strong>: {state}" in page) is void
    assert ("THE TEST IS VOID:" in page) is void


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
