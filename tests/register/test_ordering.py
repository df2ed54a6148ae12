import json
import shutil
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmplug import Owner
from wmplug.errors import TimestampError
from wmplug.register import Register, anchors, timestamps
from wmplug.register.checking import check
from wmplug.register.ordering import Stamp, check_clock, check_keys
from wmplug.register.reading import Reading

VECTORS = Path(__file__).parents[1] / "vectors" / "register"
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


@pytest.fixture
def register(tmp_path, lab):
    made = Register.of(Owner.create(tmp_path / "register", name="Ada", passphrase="secret", scrypt_n=2**10))
    anchors.trust(made.path, lab.trust)
    return made


def codes(folder, **options):
    return [finding.code for finding in check(folder, **options).findings]


# Over the wire


def test_heads_are_stamped_again_and_again(register):
    for i in range(3):
        register.append("owner.identity", {"line": i})
        anchors.anchor(register)
    report = check(register.path)
    assert report.findings == ()
    assert [(stamp.seq, stamp.head, stamp.lab) for stamp in report.stamps] == [(2, 1, True), (4, 3, True), (6, 5, True)]


def test_two_processes_that_stamp_one_head_do_not_spoil_each_others_tokens(register, lab):
    """Each writes a token for the head that it saw, and both may have seen the same."""
    both, failed = threading.Barrier(2), []

    class Meeting(Register):
        @property
        def head(self):
            found = Register(self.path).head
            both.wait(20)
            return found

    def stamp():
        try:
            meeting = Meeting(register.path)
            meeting._ledger = register._ledger.__class__(register.path, register.id, register._ledger.signer)
            anchors.anchor(meeting)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=stamp) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    report = check(register.path)
    assert report.findings == ()
    assert [stamp.head for stamp in report.stamps] == [0, 0]


def test_a_request_that_was_kept_is_compared(register):
    anchors.anchor(register)
    (request,) = (register.path / "anchors").glob("*.tsq")
    altered = bytearray(request.read_bytes())
    altered[-6] ^= 1  # in the nonce
    request.write_bytes(altered)
    assert codes(register.path) == ["wrong-nonce"]
    request.unlink()
    assert codes(register.path) == []


def test_a_bit_of_a_token_that_is_flipped_is_refused(register):
    anchors.anchor(register)
    (token,) = (register.path / "anchors").glob("*.tsr")
    whole = token.read_bytes()
    for place in range(0, len(whole), 61):
        token.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert codes(register.path) == ["token-replaced"]


def test_a_token_that_no_entry_names_proves_what_was_there(register):
    register.append("owner.identity", {})
    before = register.log.read_bytes()
    anchors.anchor(register)
    register.log.write_bytes(before)
    assert codes(register.path) == []
    register.log.write_bytes(before.splitlines(keepends=True)[0])
    assert codes(register.path) == ["tail-deleted"]


@pytest.mark.parametrize("prompt", [False, True])
def test_a_token_that_came_back_after_training_began_dates_nothing_before_it(register, monkeypatch, prompt):
    """It covers the triggers alone, and was asked for in time: but training may have begun before it was made."""
    fetch, mark = timestamps.fetch, "cd" * 16
    register.append("secret.committed", {"watermark": mark, "commitment": "ee" * 32})
    evidence = {"register": register.id, "secret_committed": 1, "salt": None}
    body = {"watermark": mark, "recorder": "ab" * 32, "root": "ff" * 32, "evidence": evidence}
    register.append("triggers.committed", body)
    if prompt:
        anchors.anchor(register)

    def slow(*request, **options):
        response = fetch(*request, **options)
        register.append("training.started", {"watermark": mark, "run": "0" * 32})
        return response

    monkeypatch.setattr(timestamps, "fetch", slow)
    anchors.anchor(register)
    assert codes(register.path) == (["no-salt"] if prompt else ["no-salt", "anchored-after-training"])


# From the vectors


def edited(tmp_path, name, **policy):
    folder = shutil.copytree(VECTORS / name, tmp_path / "register")
    document = json.loads((folder / "policy.json").read_bytes())
    document["tsa"][0].update(policy)
    (folder / "policy.json").write_text(json.dumps(document))
    return folder


def test_a_pin_is_asked_for_at_every_check(tmp_path):
    folder = edited(tmp_path, "rsa_authority_ok", pins=["ab" * 32])
    assert codes(folder, now=NOW) == ["wrong-pin"]


def test_a_token_that_is_refused_renews_nothing(tmp_path):
    folder = edited(tmp_path, "expired_since_but_stamped_again_in_time_ok")
    assert codes(folder, now=NOW) == []
    document = json.loads((folder / "policy.json").read_bytes())
    (folder / "policy.json").write_text(json.dumps({"tsa": document["tsa"][:1]}))
    assert codes(folder, now=NOW) == ["authority-not-trusted", "token-inconclusive"]


# By themselves


def stamp(seq, head, minutes, lab=False):
    return Stamp(seq, head, BEGIN + timedelta(minutes=minutes), "tsa", lab)


@given(st.lists(st.integers(0, 40), max_size=8), st.lists(st.integers(-30, 60), min_size=1, max_size=25))
def test_claims_are_held_against_the_nearest_tokens(gaps, claims):
    """As if every token were looked at for every entry."""
    found, seq, minutes = [], 0, 0
    for gap in gaps:
        seq, minutes = seq + 1 + gap % 4, minutes + gap
        found.append(stamp(seq, seq - 1, minutes))
    reading = Reading(times=[(i, BEGIN + timedelta(minutes=claim)) for i, claim in enumerate(claims)])
    check_clock(reading, found)
    slack = timedelta(minutes=5)
    wanted = [
        i
        for i, claimed in reading.times
        if any(claimed < one.gen_time - slack for one in found if one.seq <= i)
        or any(claimed > one.gen_time + slack for one in found if one.head >= i)
    ]
    assert [finding.seq for finding in reading.findings] == wanted
    assert {(finding.level, finding.code) for finding in reading.findings} <= {("flagged", "clock")}


def test_a_clock_may_be_off_by_five_minutes():
    for off, flagged in ((5, 0), (5.1, 1), (-5, 0), (-5.1, 1)):
        at = BEGIN + timedelta(minutes=10 + off)
        reading = Reading(times=[(3 if off < 0 else 1, at)])
        check_clock(reading, [stamp(2, 1, 10)])
        assert len(reading.findings) == flagged, off


def test_what_a_key_signed_while_others_had_it_is_flagged_unless_a_token_covers_it():
    since = BEGIN + timedelta(minutes=10)
    for stamps, first in (([], 1), ([stamp(3, 2, 9)], 4), ([stamp(3, 2, 11)], 1), ([stamp(6, 5, 9)], None)):
        reading = Reading(compromised={"key": since}, signed={"key": [1, 2, 4], "other": [3]})
        check_keys(reading, stamps)
        assert [finding.seq for finding in reading.findings] == ([] if first is None else [first])


def test_no_authority_answers(register, lab):
    anchors.trust(register.path, type(lab.trust)(lab.url.replace("http:", "https:"), lab.trust.roots))
    failed = [outcome.error for outcome in anchors.anchor(register)][-1]
    assert isinstance(failed, TimestampError)
    assert len(anchors.pending(register.path)) == 1
    assert check(register.path).ok
