import dataclasses
import json

import numpy as np
import pytest
from hearings import CHALLENGED, NONCES, both, fixed

from wmplug.errors import NotaryError
from wmplug.register.challenge import Challenge, commitment
from wmplug.register.notary.case import CHALLENGE
from wmplug.register.notary.hearing import check, save_challenge


def test_nothing_is_asked_before_both_nonces_are_there(story, notary, tmp_path):
    folder, sealed, targets = fixed(story, notary, tmp_path)
    challenge = Challenge.read(folder / CHALLENGE)
    save_challenge(folder, dataclasses.replace(challenge, nonces={"notary": challenge.nonces["notary"]}))
    with pytest.raises(NotaryError, match="opponent has not revealed"):
        check(notary, folder, sealed, targets)


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
    with pytest.raises(NotaryError, match="not a commitment"):
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
