import json
import shutil
import subprocess

import pytest

from wmplug.errors import NotaryError
from wmplug.register.notary.case import ANSWERS, CASE, CHALLENGE, RESULT
from wmplug.report import certificate


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
