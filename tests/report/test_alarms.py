"""Page one says what takes the ground from under the numbers: a control that matched, tries that nobody counts."""

import json
from dataclasses import replace

import pytest
from pages import PASSPHRASE, Text

from wmplug.claim.verdict import state_of
from wmplug.keys.owner import Owner
from wmplug.register import Register, receipts
from wmplug.register.statements import Signer
from wmplug.report import dossier
from wmplug.statistics.betting import log10_e_of
from wmplug.statistics.draws import log10_binomial_sf


def page_one(document):
    return Text(dossier.render(document)).text.partition("1. Who")[0]


def matching(story, matches):
    """A verdict on a control with so many matches of 60."""
    log10_e, log10_p = log10_e_of(matches, 60, 10), log10_binomial_sf(matches, 60, 0.1)
    counts = {"queries": 60, "in_set": 60, "draws": 60, "matches": matches, "keys": 1, "enough": None}
    state = state_of(log10_e, story.other.target_e)
    return replace(story.other, **counts, state=state, log10_e=log10_e, log10_p=log10_p)


@pytest.mark.parametrize(("matches", "state"), [(6, "inconclusive"), (20, "evidence"), (60, "proven")])
def test_a_control_that_matched_voids_the_test(story, matches, state):
    given = [("control", "control.json", matching(story, matches))]
    document = dossier.gather(story.path, verdicts=given)
    void = state == "proven"  # luck alone gives an honest control evidence once in twenty times
    assert document["controls"]["void"] is void
    assert document["controls"]["reasons"] == ([f"{story.other.suspect} (control.json): {state}"] if void else [])
    page, first = dossier.render(document), page_one(document)
    assert ("A CONTROL MATCHED: THE TEST IS VOID" in first) is void
    assert first.index("No neutral authority") > first.rfind("THE TEST IS VOID")
    assert ('<div class="box refused" id="controls-matched">' in page) is void
    assert page.count("test VOID</span>") == (2 if void else 0)  # beside the suspect, and on the control
    assert ('@top-right { content: "A CONTROL MATCHED' in page) is void
    assert ('<div class="box proven">' in page) is not void  # the suspect's box is not that of a proof


def test_a_suspect_that_matches_voids_nothing(story):
    assert dossier.gather(story.path)["controls"]["void"] is False


def test_a_certificates_control_counts_too(story):
    heard = {"model": "other net", "role": "control", "result": "proven", "named": "", "matched": True}
    heard |= {"matches": 20, "asked": 60, "log10_p": -6.0, "odds": "x"}
    certificate = {"case": "17", "status": "inconclusive", "notary": "N", "notary_key": "k", "register": "r"}
    certificate |= {"reasons": [], "models": [heard], "claimed_time": "2026-11-23T10:00:00Z", "source": "c.json"}
    document = dossier.gather(story.path, certificates=[certificate])
    assert document["controls"]["reasons"] == ["other net (certificate of case 17): proven"]
    assert "THE TEST IS VOID" in page_one(document)


WORD = "The number of tries, 2, is the owner's word"


def test_without_stamp_and_receipt_the_number_of_tries_is_the_owners_word(story):
    document = dossier.gather(story.path)
    assert document["tries"]["owners_word"] is True
    assert f"{WORD}: no timestamp of an authority and no receipt covers the entries from 0 on" in page_one(document)


def test_a_receipt_speaks_for_what_it_covers(copy):
    owner = Owner.open(copy, passphrase=PASSPHRASE)
    receipt = receipts.receipt(Register(copy), Signer(owner.signing_seed()))
    document = dossier.gather(copy, receipts=[receipt])
    assert document["tries"] == {
        "attempts": 2,
        "owners_word": False,
        "text": "The number of tries is 2: a timestamp of an authority, or a receipt, covers every entry.",
    }
    assert WORD not in page_one(document)
    later = Register.of(owner).append("model.released", {"version": "1.0"})
    document = dossier.gather(copy, receipts=[receipt])
    assert f"{WORD}: no timestamp of an authority and no receipt covers the entries from {later.seq} on" in page_one(
        document
    )


@pytest.mark.usefixtures("real_authority")
def test_a_stamp_speaks_for_what_it_covers(copy):
    assert dossier.gather(copy)["tries"]["owners_word"] is False
    Register.of(Owner.open(copy, passphrase=PASSPHRASE)).append("model.released", {"version": "1.0"})
    document = dossier.gather(copy)
    assert WORD in page_one(document)
    assert json.loads(dossier.encode(document))["tries"]["owners_word"] is True
