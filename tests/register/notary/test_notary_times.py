"""What the notary says of a claim whose times no accepted authority attests."""

import dataclasses
import hashlib
import re

import pytest
from hearings import CLASSES, Story, by_name, hear, owner_at, tell, trained

import wmplug
from wmplug.register import Register, anchors, timestamps
from wmplug.report import certificate


def test_no_authority_that_the_notary_accepts(story, notary, tmp_path):
    result = hear(story, notary, tmp_path, authorities=("00" * 32,))
    assert result["status"] == "NOT ATTESTED"
    assert by_name(result)["time"]["result"] == "NOT ATTESTED"
    assert {time["not_before"] for time in result["times"]} == {None}


def test_one_accepted_root_among_others_does_not_speak_for_them(neutral, lab, notary, digits, tmp_path):
    """The register trusts two roots for one authority: a token may be by either, and the notary knows one of them."""
    two = dataclasses.replace(neutral, roots=(*neutral.roots, *lab.trust.roots))
    story = tell(tmp_path / "register", two, digits)
    known = (hashlib.sha256(neutral.roots[0]).hexdigest(),)
    result = hear(story, notary, tmp_path / "one", authorities=known)
    assert result["status"] == "NOT ATTESTED"
    assert not any(token["accepted"] for token in result["tokens"])
    assert hear(story, notary, tmp_path / "both")["status"] == "holds"


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


@pytest.mark.parametrize("late", [False, True])
def test_a_token_that_came_back_after_training_began_dates_nothing_before_it(
    lab, neutral, notary, digits, tmp_path, monkeypatch, late
):
    """A lab's token is there in time. The one that the notary accepts covers the triggers alone, and comes too late."""
    fetch, owner = timestamps.fetch, owner_at(tmp_path / "register", neutral)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    with monkeypatch.context() as patch:
        patch.setattr(anchors, "attempt", lambda register: None)
        mark = wmplug.create(owner, scheme="random-label", classes=CLASSES, **task)
    anchors.trust(owner.path, lab.trust)
    register = Register.of(owner)
    anchors.anchor(register, [lab.trust])

    def slow(*request, **options):
        response = fetch(*request, **options)
        trained(owner, mark)
        return response

    with monkeypatch.context() as patch:
        patch.setattr(timestamps, "fetch", slow if late else fetch)
        anchors.anchor(register, [neutral])
    if not late:
        trained(owner, mark)
    result = hear(Story(owner, mark, task, neutral), notary, tmp_path)
    assert result["status"] == ("NOT ATTESTED" if late else "holds")
    assert ("between the triggers' root and the start" in by_name(result)["time"]["text"]) is late


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
