import base64
import copy
import json
import random
import shutil
import sys
import tracemalloc
from datetime import datetime, timedelta, timezone

import pytest
from logs import MARK, NOW, OPENED, OWNER, RECORDER, REGISTER, SECRET, TRIGGERS, VECTORS, checkpoints, refusals, written

from wmplug.errors import RegisterError
from wmplug.register import receipts
from wmplug.register.checking import check
from wmplug.register.statements import TYPES, decode
from wmplug.register.timestamps import Trust


def test_a_report_of_a_good_register(tmp_path):
    report = check(written(tmp_path / "register", checkpoints(5)))
    assert report.ok
    assert (report.register, report.entries, report.attested, report.stamps) == (REGISTER, 5, 0, ())
    assert report.counts["training.checkpoint"] == 2
    assert report.between(3) == (None, None)
    assert [finding.code for finding in report.findings] == ["no-salt"]


def test_entries_lie_between_the_times_of_tokens():
    report = check(VECTORS / "story_ok", now=NOW)
    assert [(stamp.seq, stamp.head) for stamp in report.stamps] == [(2, 1), (4, 3), (9, 8)]
    first, second, third = (stamp.gen_time for stamp in report.stamps)
    assert first < second < third
    assert report.between(1) == (None, first)
    assert report.between(2) == (first, second)  # it names the token, so it came after
    assert report.between(5) == (second, third)
    assert report.between(9) == (third, None)
    assert report.attested == 9


def test_the_tokens_of_a_lab_give_times_but_attest_nothing():
    report = check(VECTORS / "lab_authority_ok", now=NOW)
    assert report.ok
    assert report.attested == 0
    assert [stamp.lab for stamp in report.stamps] == [True]


def test_who_checks_may_believe_others_than_the_owner_does(tmp_path):
    """policy.json is the owner's word: an owner can pin an authority of his own making."""
    policy = json.loads((VECTORS / "story_ok" / "policy.json").read_bytes())["tsa"]
    trusted = [Trust.from_json(one) for one in policy]
    folder = shutil.copytree(VECTORS / "story_ok", tmp_path / "register")
    other = (VECTORS / "rsa_authority_ok" / "policy.json").read_bytes()
    (folder / "policy.json").write_bytes(other)
    assert refusals(check(folder, now=NOW)) == [("wrong-root", seq) for seq in (9, 4, 2)]
    assert check(folder, authorities=trusted, now=NOW).attested == 9
    report = check(VECTORS / "story_ok", authorities=[], now=NOW)
    assert refusals(report) == [("authority-not-trusted", seq) for seq in (9, 4, 2)]
    assert report.attested == 0


def test_a_damaged_entry_is_named_with_what_was_good(tmp_path):
    folder = written(tmp_path / "register", checkpoints(6))
    lines = (folder / "log.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "log.jsonl").write_bytes(b"".join([*lines[:4], b"junk\n", *lines[5:]]))
    report = check(folder)
    assert refusals(report) == [("not-an-envelope", 4)]
    assert f"entry 4 at byte {sum(map(len, lines[:4]))}" in report.findings[0].text
    assert (report.entries, report.head) == (4, decode(lines[3], 3, 0).hash)


def test_what_follows_a_damaged_entry_is_not_called_deleted(tmp_path):
    """Tokens of later entries are still in anchors/: nothing is known of what they stamp."""
    folder = shutil.copytree(VECTORS / "story_ok", tmp_path / "register")
    log = folder / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"payload", b"payl0ad", 1))
    assert refusals(check(folder, now=NOW)) == [("not-an-envelope", 0)]


def test_progress_is_told(tmp_path):
    told = []
    check(written(tmp_path / "register", checkpoints(1030)), progress=told.append)
    assert told == [0, 512, 1024]


@pytest.mark.once
def test_every_flipped_bit_of_a_log_is_refused(tmp_path):
    """With a receipt for its head: without one, a log that lost its end looks like one that was never longer."""
    folder = written(tmp_path / "register", checkpoints(4))
    log, given = folder / "log.jsonl", receipt_of(folder)
    whole = log.read_bytes()
    chance = random.Random(3)
    flips = [(place, 1) for place in range(len(whole))]
    flips += [(place, 1 << chance.randrange(1, 8)) for place in chance.sample(range(len(whole)), 400)]
    for place, mask in flips:
        flipped = bytearray(whole)
        flipped[place] ^= mask
        log.write_bytes(flipped)
        assert not check(folder, receipts=[given]).ok, place
    log.write_bytes(whole[:-1] + b"\x0b")
    assert [finding.code for finding in check(folder).findings] == ["torn-tail", "no-salt"]


def receipt_of(folder):
    return receipts.receipt(receipts.Register(folder), OWNER)


def test_a_log_cut_anywhere_is_refused_against_a_receipt(tmp_path):
    folder = written(tmp_path / "register", checkpoints(4))
    log, given = folder / "log.jsonl", receipt_of(folder)
    whole = log.read_bytes()
    for cut in [*range(0, len(whole), 9), len(whole) - 1]:
        log.write_bytes(whole[:cut])
        assert not check(folder, receipts=[given]).ok, cut


@pytest.mark.once
def test_a_long_log_is_read_in_a_stream(tmp_path):
    folder = written(tmp_path / "register", checkpoints(3000))
    check(written(tmp_path / "warm", checkpoints(3)))
    tracemalloc.start()
    try:
        report = check(folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.entries == 3000
    assert (folder / "log.jsonl").stat().st_size > 2_500_000
    assert peak < 2_000_000


ODD = [None, True, -1, 2**53 - 1, 1.5, "", "x", "a\0b", "../..", "é" * 300, [], {}, [1], {"a": 1}, [[]]]
USUAL = {
    "register.opened": OPENED[1],
    "secret.committed": SECRET[1],
    "triggers.committed": TRIGGERS,
    "training.started": {"watermark": MARK, "run": "ab" * 16},
    "key.rotated": {"former": OWNER.keyid, "public": RECORDER.public.hex(), "commitment": "ab" * 32, "proof": "AAAA"},
    "key.revoked": {"keyid": RECORDER.keyid, "reason": "lost", "since": "2026-01-01T00:00:00Z"},
    "anchor": {
        **{"head": 0, "hash": "00" * 32, "file": "a.tsr", "token": "00" * 32, "crls": ["a.crl"]},
        **{"tsa": "http://tsa.example", "salt": "00" * 32},
    },
}


def variants(body):
    """Bodies with one value in them, at any depth, put in place of another, or left out."""
    for name, value in body.items():
        yield {other: body[other] for other in body if other != name}
        yield from ({**body, name: odd} for odd in ODD)
        if isinstance(value, dict):
            yield from ({**body, name: inner} for inner in variants(value))


@pytest.mark.parametrize("kind", sorted(USUAL))
def test_no_signed_body_whatever_stops_a_check(tmp_path, kind):
    """The owner is not to be believed, and signs what he likes."""
    for body in variants(copy.deepcopy(USUAL[kind])):
        first = (kind, body, OWNER) if kind == "register.opened" else OPENED
        odd = [] if kind == "register.opened" else [(kind, body, OWNER)]
        folder = written(tmp_path / "register", [first, SECRET, ("triggers.committed", TRIGGERS, OWNER), *odd])
        (folder / "anchors").mkdir(exist_ok=True)
        (folder / "anchors" / "a.tsr").write_bytes(b"")
        assert check(folder).entries <= 4


@pytest.mark.parametrize("kind", sorted(TYPES - USUAL.keys()))
def test_other_bodies_are_free(tmp_path, kind):
    assert check(written(tmp_path / "register", [OPENED, (kind, {"anything": ["goes"]}, OWNER)])).ok


@pytest.mark.parametrize(
    "change", [{"seq": 2**60}, {"seq": -1}, {"seq": 10}, {"hash": "\ud800"}, {"register": "\ud800"}]
)
def test_odd_receipts(tmp_path, change):
    folder = written(tmp_path / "register", checkpoints(4))
    given = receipts.Receipt.from_json({**receipt_of(folder).to_json(), **change})
    assert not check(folder, receipts=[given]).ok


def test_a_receipt_beyond_the_end_and_before_the_beginning(tmp_path):
    folder = written(tmp_path / "register", checkpoints(4))
    for seq in (-1, -4, 4):
        about = receipts._payload(REGISTER, seq, "00" * 32)
        given = receipts.Receipt(REGISTER, seq, "00" * 32, OWNER.keyid, OWNER.sign(about, receipts.PAYLOAD_TYPE))
        assert check(folder, receipts=[given]).findings[0].code in ("tail-deleted", "rewritten")


def test_a_recorder_gives_no_receipts(tmp_path):
    folder = written(tmp_path / "register", checkpoints(4))
    given = receipts.receipt(receipts.Register(folder), RECORDER)
    assert refusals(check(folder, receipts=[given])) == [("bad-receipt", None)]


# What cannot be read


def test_there_is_no_register(tmp_path):
    with pytest.raises(RegisterError, match="not a register"):
        check(tmp_path)
    (tmp_path / "owner.pub").write_bytes(b"junk")
    with pytest.raises(RegisterError, match="JSONDecodeError"):
        check(tmp_path)


def test_there_is_no_log(tmp_path):
    written(tmp_path / "register", [])
    for _ in range(2):
        report = check(tmp_path / "register")
        assert (refusals(report), report.head, report.entries) == ([("empty", None)], None, 0)
        (tmp_path / "register" / "log.jsonl").unlink(missing_ok=True)


def test_a_log_that_cannot_be_read(tmp_path):
    folder = written(tmp_path / "register", [])
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").mkdir()
    with pytest.raises(RegisterError, match="cannot be read"):
        check(folder)


def test_a_policy_that_cannot_be_read(tmp_path):
    folder = shutil.copytree(VECTORS / "story_ok", tmp_path / "register")
    (folder / "policy.json").write_bytes(b"{}")
    with pytest.raises(RegisterError, match=r"policy\.json"):
        check(folder)


def test_without_the_extra_the_chain_is_checked_and_the_tokens_are_not(monkeypatch):
    for name in ("anchors", "timestamps", "tokens"):
        monkeypatch.delitem(sys.modules, f"wmplug.register.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "asn1crypto", None)
    report = check(VECTORS / "story_ok", now=NOW)
    assert (report.ok, report.entries, report.attested) == (True, 10, 0)
    assert [finding.code for finding in report.findings] == ["anchors-unchecked", "salt-unproven", "not-anchored"]
    assert "wmplug[evidence]" in report.findings[0].text


def test_now_is_now_by_default(tmp_path):
    folder = shutil.copytree(VECTORS / "tsa_in_the_future_fail", tmp_path / "register")
    assert refusals(check(folder, now=datetime(2026, 1, 10, 9, 50, tzinfo=timezone.utc))) == [("future", 2)]
    assert check(folder, now=datetime(2026, 1, 10, 10, tzinfo=timezone.utc)).ok  # clocks need not agree to the second
    assert check(folder).ok
    assert datetime.now(timezone.utc) - timedelta(days=1) > NOW.replace(month=1)


def test_every_payload_of_a_vector_is_base64_of_json():
    """What a reader without this package relies on."""
    for line in (VECTORS / "story_ok" / "log.jsonl").read_bytes().splitlines():
        assert json.loads(base64.b64decode(json.loads(line)["payload"]))["predicate"]["register"]
