import json
import math
from dataclasses import replace

import pytest
import rfc8785
from pages import PASSPHRASE, Text

from wmplug.claim.verdict import Part
from wmplug.errors import InputError
from wmplug.keys.owner import Owner
from wmplug.register import Register, Signer
from wmplug.report import certificate, dossier, models, words
from wmplug.statistics.betting import log10_e_of
from wmplug.statistics.combination import average_log10_e
from wmplug.statistics.draws import log10_binomial_sf


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


def recorded(owner, verdicts):
    """A dossier of an owner who asked these, by the text of the entry, its reference and its verdict."""
    register = Register.of(owner)
    for suspect, reference, verdict in verdicts:
        about = {"suspect": suspect, **({"reference": reference} if reference else {})}
        body = {"watermark": verdict.watermark, **about, "rows": [], "verdict": json.loads(verdict.to_json())}
        register.append("suspect.verified", {**body, "system": None})
    return dossier.gather(owner.path)


def test_the_strongest_suspect_comes_first_and_functions_are_no_suspects(story, tmp_path):
    owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    asked = [
        ("trying:answer", None, story.other),
        ("https://api.example/v1", None, story.other),
        ("app of Copy Ltd", "trying:answer", story.stolen),
    ]
    document = recorded(owner, asked)
    assert [(one["role"], one["model"]) for one in document["suspects"] if one["role"] != "trial"] == [
        ("suspect", "app of Copy Ltd"),
        ("suspect", "https://api.example/v1"),
    ]
    assert [one["model"] for one in document["suspects"] if one["role"] == "trial"] == ["trying:answer"]
    page = " ".join(Text(dossier.render(document)).text.split())
    assert page.index("“app of Copy Ltd”") < page.index("“https://api.example/v1”")
    assert "Functions that were tried" in page
    assert "app of Copy Ltd asked as trying:answer proven" in page
    assert page.count("asked as") == 1  # where nobody gave a name, the reference is the name
    assert "Suspect “trying:answer”" not in page


def test_a_certificate_is_shown_with_suspect_and_controls(story, tmp_path):
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(signed(story)))
    read = models.certificate(file)
    assert [model["result"] for model in read["models"]] == ["proven", story.other.state, None]
    page = dossier.render(dossier.gather(story.path, certificates=[read]))
    assert "Certificate of a notary: case 17/2026" in page
    assert "about another register" not in page
    file.write_text(json.dumps(signed(story, register={"id": "0" * 64})))
    other = dossier.gather(story.path, certificates=[models.certificate(file)])
    assert "about another register" in dossier.render(other)


def test_a_certificate_that_was_edited_is_refused(story, tmp_path):
    file = tmp_path / "certificate.json"
    edited = signed(story)
    edited["certificate"]["result"]["status"] = "does not hold"
    file.write_text(json.dumps(edited))
    with pytest.raises(InputError, match="edited since it was signed"):
        models.certificate(file)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "[" * 200_000, '{"certificate": 1}', '{"certificate": {"result": {"notary": {}}}}']
)
def test_what_is_no_certificate_or_no_verdict_is_refused(tmp_path, text):
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(InputError, match="not a notary's certificate"):
        models.certificate(file)
    with pytest.raises(InputError, match="holds no verdict"):
        models.read(file)


def test_a_verdict_is_read_as_it_was_written(story, tmp_path):
    file = tmp_path / "verdict.json"
    file.write_text(story.stolen.to_json())
    assert models.read(file) == story.stolen


def test_signs_are_told_as_signs(story):
    """A verdict of two channels counts each in its own unit; thousands of ordinary answers are not 'none of these'."""
    first = replace(story.stolen, keys=1, enough=None)
    signs = Part(test="exact weighted signs", queries=4000, failed=0, of=299, matches=201, log10_e=11.0, log10_p=-12.4)
    counts = {"queries": first.queries, "failed": 0, "of": first.in_set, "matches": first.matches}
    of = first.matches, first.in_set
    answers = Part(test="exact in-set", **counts, log10_e=log10_e_of(*of, 10), log10_p=log10_binomial_sf(*of, 0.1))
    whole = {"test": f"twice the smaller p of {answers.test} and {signs.test}", "candidates": (2, 10)}
    whole |= {"log10_e": average_log10_e([answers.log10_e, signs.log10_e]), "log10_p": answers.log10_p + math.log10(2)}
    both = replace(first, triggers=4060, queries=first.queries + 4000, parts=(answers, signs), **whole)
    own = {"test": signs.test, "log10_e": signs.log10_e, "log10_p": signs.log10_p, "candidates": (2,)}
    alone = replace(first, triggers=4000, queries=4000, in_set=299, matches=201, draws=300, **own)
    for verdict, wanted in ((both, f"{answers}; 201 of 299 signs matched"), (alone, "201 of 299 signs matched")):
        (told,) = (one["text"] for one in asked(story, verdict))
        assert told.startswith(wanted)
        assert "none of the possible answers" not in told


def asked(story, verdict):
    found = dossier.gather(story.path, verdicts=[("suspect", "another", verdict)])
    return [one for one in found["suspects"] if one["source"] == "another"]


def test_an_edited_verdict_is_refused_with_its_numbers(story):
    edited = replace(story.other, suspect="MegaCorp", state="proven", log10_e=99.0, log10_p=-99.0)
    with pytest.raises(InputError) as refused:
        asked(story, edited)
    said = str(refused.value)
    assert said.startswith("another contradicts itself (log10_e")
    assert f"{story.other.matches} matches of {story.other.in_set}" in said


def test_a_file_is_a_statement_of_its_giver_and_an_entry_the_owners_word(story):
    given = replace(story.stolen, suspect="MegaCorp")
    document = dossier.gather(story.path, verdicts=[("suspect", "mega.json", given)])
    recorded, file = document["suspects"]
    assert (recorded["standing"], file["standing"]) == ("recorded", "unverified")
    assert recorded["meaning"].endswith(words.OWNERS)
    assert file["meaning"].endswith(words.UNVERIFIED)
    page = dossier.render(document)
    assert '<div class="box proven">' in page
    assert '<div class="box open">' in page
    assert words.OWNERS in Text(page).text
    assert page.count("UNVERIFIED</span>") == 1
    assert page.count("UNVERIFIED: given as a file") == 1


def test_the_very_verdict_that_the_register_holds_is_the_owners_word(story):
    (one,) = dossier.gather(story.path, verdicts=[("suspect", "same.json", story.stolen)])["suspects"]
    assert one["standing"] == "recorded"
    assert "UNVERIFIED" not in dossier.render(dossier.gather(story.path))


def test_an_entry_that_contradicts_itself_shows_no_number(copy, story):
    edited = replace(story.other, state="proven", log10_e=99.0, log10_p=-99.0)
    register = Register.of(Owner.open(copy, passphrase=PASSPHRASE))
    body = {"watermark": story.mark.id, "suspect": "MegaCorp", "rows": [], "verdict": json.loads(edited.to_json())}
    register.append("suspect.verified", body)
    document = dossier.gather(copy)
    (one,) = [each for each in document["suspects"] if each["model"] == "MegaCorp"]
    assert one["state"] == "unreadable"
    assert "contradict each other" in dossier.render(document)


def test_a_certificate_with_a_verdict_that_contradicts_itself_is_refused(story, tmp_path):
    edited = replace(story.other, state="proven", log10_e=99.0, log10_p=-99.0)
    model = {"name": "suspect", "role": "suspect", "verdict": json.loads(edited.to_json())}
    (tmp_path / "certificate.json").write_text(json.dumps(signed(story, models=[model])))
    with pytest.raises(InputError, match="its numbers contradict each other"):
        models.certificate(tmp_path / "certificate.json")
