import json
from dataclasses import replace

import pytest
import rfc8785

from wmplug.claim.verdict import Part
from wmplug.errors import InputError
from wmplug.register import Signer
from wmplug.report import certificate, dossier, suspects


def signed(story, **changes):
    """A certificate as a notary signs it, of what the dossier shows."""
    models = [("suspect", "suspect", story.stolen), ("control", "other net", story.other)]
    signer = Signer(bytes(range(32)))
    result = {
        "case": "17/2026",
        "status": "holds",
        "reasons": [],
        "notary": {"name": "N. Otary", "public": signer.public.hex()},
        "register": {"id": story.mark.public["evidence"]["register"]},
        "models": [
            {"name": name, "role": role, "verdict": json.loads(verdict.to_json())} for role, name, verdict in models
        ]
        + [{"name": "mine", "role": "own", "verdict": None}],
    }
    document = {"schema": certificate.SCHEMA, "result": {**result, **changes}, "claimed_time": "2026-11-23T10:00:00Z"}
    sig = signer.sign(rfc8785.dumps(document), certificate.TYPE).hex()
    return {"certificate": document, "signature": {"keyid": signer.keyid, "sig": sig}}


def test_a_certificate_is_shown_with_suspect_and_controls(story, tmp_path):
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(signed(story)))
    read = suspects.certificate(file)
    assert [model["result"] for model in read["models"]] == ["proven", story.other.state, None]
    page = dossier.render(dossier.gather(story.path, certificates=[read]))
    assert "Certificate of a notary: case 17/2026" in page
    assert "about another register" not in page
    file.write_text(json.dumps(signed(story, register={"id": "0" * 64})))
    other = dossier.gather(story.path, certificates=[suspects.certificate(file)])
    assert "about another register" in dossier.render(other)


def test_a_certificate_that_was_edited_is_refused(story, tmp_path):
    file = tmp_path / "certificate.json"
    edited = signed(story)
    edited["certificate"]["result"]["status"] = "does not hold"
    file.write_text(json.dumps(edited))
    with pytest.raises(InputError, match="edited since it was signed"):
        suspects.certificate(file)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "[" * 200_000, '{"certificate": 1}', '{"certificate": {"result": {"notary": {}}}}']
)
def test_what_is_no_certificate_or_no_verdict_is_refused(tmp_path, text):
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(InputError, match="no notary's certificate"):
        suspects.certificate(file)
    with pytest.raises(InputError, match="holds no verdict"):
        suspects.read(file)


def test_a_verdict_is_read_as_it_was_written(story, tmp_path):
    file = tmp_path / "verdict.json"
    file.write_text(story.stolen.to_json())
    assert suspects.read(file) == story.stolen


def test_signs_are_told_as_signs(story):
    """A verdict of two channels counts each in its own unit; thousands of ordinary answers are not 'none of these'."""
    first = story.stolen
    signs = Part(test="exact weighted signs", queries=4000, failed=0, of=299, matches=201, log10_e=11.0, log10_p=-12.4)
    answers = Part(test="exact in-set", queries=20, failed=0, of=20, matches=first.matches, log10_e=3.0, log10_p=-4.0)
    both = replace(first, queries=first.queries + 4000, parts=(answers, signs))
    alone = replace(first, queries=4000, in_set=299, matches=201, draws=300, test=signs.test, enough=None)
    for verdict, wanted in ((both, f"{answers}; 201 of 299 signs matched"), (alone, "201 of 299 signs matched")):
        (told,) = (one["text"] for one in asked(story, verdict))
        assert told.startswith(wanted)
        assert "none of the possible answers" not in told


def asked(story, verdict):
    found = dossier.gather(story.path, verdicts=[("suspect", "another", verdict)])
    return [one for one in found["suspects"] if one["source"] == "another"]
