"""The dossier's suspects: looks, tries, controls, and files that stand for models."""

import dataclasses

import pytest
from pages import PASSPHRASE, Text

from wmplug.keys.owner import Owner
from wmplug.register import Register
from wmplug.report import dossier, facts, models


def test_every_look_is_told_and_drawn(story, document, page):
    (run,) = document["runs"]
    assert len(run["looks"]) == 12
    assert run["inserted"] == 480 * 24
    assert run["looks"][-1]["state"] == "proven"
    assert run["looks"][-1]["log10_p"] < -20
    assert [tag for tag, _ in page.elements].count("svg") >= 2
    assert f"log10 p = {story.stolen.log10_p:.1f}" in page.text


def test_a_suspect_is_made_weaker_by_every_try(story, document):
    (suspect,) = [one for one in document["suspects"] if one["role"] == "suspect"]
    assert document["attempts"] == 2
    assert suspect["log10_p"] == story.stolen.log10_p
    assert story.stolen.keys == 2  # counted when it was asked
    assert suspect["counted"]["log10_p"] == pytest.approx(story.stolen.log10_p, abs=1e-4)
    assert suspect["state"] == "proven"
    assert suspect["key"] == "lab"


def test_tries_can_take_a_verdict_below_its_target(story):
    barely = dataclasses.replace(story.stolen, keys=1, log10_e=6.2)
    found = facts.Facts((), None)
    mark = {"watermark": barely.watermark, "key": "attested", "key_text": "x"}
    (before,) = models.asked(found, [("suspect", "a.json", barely)], [mark])
    (after,) = models.asked(found, [("suspect", "a.json", barely)], [mark, mark])
    assert (before["state"], after["state"]) == ("proven", "evidence")
    counted = dataclasses.replace(barely, keys=2)
    assert models.asked(found, [("suspect", "a.json", counted)], [mark, mark])[0]["state"] == "proven"


def test_controls_stand_apart_and_prove_nothing(document, page):
    (control,) = [one for one in document["suspects"] if one["role"] == "control"]
    assert control["state"] != "proven"
    assert control["entry"] is None
    assert "not recorded in the register" in page.text
    assert page.text.count("key NOT ATTESTED") == 1
    assert "1 control: 0 matched beyond luck; 1 given as a file" in page.text or control["state"] == "evidence"


def short(document):
    return Text(dossier.render(document)).text.partition("In short")[2].partition("1. Who")[0]


def test_a_verdict_that_is_given_as_a_file_is_marked_at_the_top(saved, story):
    assert "given as a file, not recorded" not in short(dossier.gather(story.path))
    given = dossier.gather(story.path, verdicts=[("suspect", "suspect.json", story.other)])
    assert short(given).count("given as a file, not recorded") == 1


def test_a_suspect_that_was_asked_twice_is_shown_once_and_with_both_entries(copy):
    register = Register.of(Owner.open(copy, passphrase=PASSPHRASE))
    (asked,) = [entry for entry in register.entries() if entry.type == "suspect.verified"]
    again = register.append("suspect.verified", asked.body)
    other = register.append("suspect.verified", {**asked.body, "suspect": "another app"})
    first, second = dossier.gather(copy)["suspects"]
    assert (first["entries"], first["source"]) == ([asked.seq, again.seq], f"entries {asked.seq}, {again.seq}")
    assert (second["entries"], second["source"]) == ([other.seq], f"entry {other.seq}")


def test_the_file_that_was_saved_stands_for_the_live_model(saved):
    (run,), assets = saved.document["runs"], saved.document["assets"]
    (system,) = [asset for asset in assets if asset["asset"] == "finished system"]
    assert saved.file.body["files"]
    assert saved.live.body["files"] is None
    assert run["system"] == system["entry"] == saved.file.seq
    assert system["digests"] == {
        "the file that was saved (SHA-256)": saved.file.body["files"]["digests"]["."],
        "the tensors, whatever the file (SHA-256)": saved.live.body["tensors"]["sha256"],
    }
    assert f"(entry {saved.live.seq}) found the same tensors in the live model." in system["text"]
    page = Text(dossier.render(saved.document)).text
    assert all(f"{name} {digest}" in page for name, digest in system["digests"].items())


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, "file"),
        ({"files": None}, "live"),
        ({"run": "0" * 32}, "live"),
        ({"tensors": {"sha256": "a", "contents": "b"}}, "live"),
        ({"tensors": None}, "live"),
    ],
)
def test_only_a_file_of_the_same_tensors_and_run_does(saved, change, kept):
    file = dataclasses.replace(saved.file, body={**saved.file.body, **change})
    about = {"run": saved.live.body["run"], "watermark": saved.live.body["watermark"]}
    end = dataclasses.replace(
        saved.live, seq=99, type="training.finished", body={**about, "system": saved.live.seq, "verdict": None}
    )
    (run,) = facts.runs(facts.Facts((file, saved.live, end), None))
    assert run["system"] == getattr(saved, kept).seq


def test_one_model_at_one_step_is_one_look(saved):
    (run,) = saved.document["runs"]
    assert [look["step"] for look in run["looks"]] == [5, 9, 10]
    last = run["looks"][-1]
    assert last["entry"] == last["entries"][0] == saved.file.seq + 1
    assert len(last["entries"]) == 3
    assert last["epoch"] == 1.0


def test_a_verdict_that_is_recorded_is_not_shown_twice(story):
    document = dossier.gather(story.path, verdicts=[("suspect", "verdict.json", story.stolen)])
    assert len(document["suspects"]) == 1


def test_a_recorded_verdict_that_is_given_as_a_controls_is_one(story):
    document = dossier.gather(story.path, verdicts=[("control", "control.json", story.stolen)])
    (one,) = document["suspects"]
    assert (one["role"], one["source"]) == ("control", "entry 66")
    assert "No control was given" not in Text(dossier.render(document)).text
