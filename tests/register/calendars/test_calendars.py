"""What calendars are asked, and what comes of their answers."""

import hashlib
import itertools
import re

import pytest
from blocks import MINED, check, codes, path_of

from wmplug.errors import EvidenceWarning, RegisterError, TimestampError
from wmplug.register import calendars


def test_a_stamp_is_pending_and_says_no_time_yet(register, calendar):
    entry = calendars.stamp(register, [calendar.url + "/"])
    assert entry.type == "retimestamp"
    content = path_of(register, entry).read_bytes()
    about = {"head": 0, "hash": next(register.entries()).hash, "calendars": [calendar.url]}
    digest = hashlib.sha256(content).hexdigest()
    assert entry.body == {**about, "kind": "opentimestamps", "file": entry.body["file"], "sha256": digest}
    assert re.fullmatch(r"000000-[0-9a-f]{8}\.ots", entry.body["file"])
    report = check(register)
    assert codes(report) == [("inconclusive", "pending", 1)]
    assert (report.ok, report.stamps, report.attested) == (True, (), 0)


def test_calendars_do_not_learn_the_hash_of_an_entry(register, calendar, monkeypatch):
    sent = []
    post = calendar.post
    monkeypatch.setattr(calendar, "post", lambda digest: sent.append(digest) or post(digest))
    head = register.head.hash
    calendars.stamp(register, [calendar.url])
    assert [len(digest) for digest in sent] == [32]
    assert sent[0].hex() not in (head, hashlib.sha256(bytes.fromhex(head)).hexdigest())


def test_before_a_block_nothing_is_completed(register, calendar):
    calendars.stamp(register, [calendar.url])
    with pytest.warns(EvidenceWarning, match=r"stays pending: .*HTTP Error 404"):
        assert calendars.upgrade(register) == []
    assert register.head.seq == 1


def test_a_completed_proof_is_a_new_file_and_dates_with_a_header_only(register, calendar):
    first = calendars.stamp(register, [calendar.url])
    before = path_of(register, first).read_bytes()
    calendar.mine(900_000)
    (second,) = calendars.upgrade(register)
    assert second.body["file"] == first.body["file"].replace(".ots", ".1.ots")
    assert path_of(register, first).read_bytes() == before
    without = check(register)
    assert without.ok
    assert ("inconclusive", "header-needed", 2) in codes(without)
    assert {seq for _, _, seq in codes(without)} == {2}, "the first file is not what is looked at any more"
    assert "needs the header of block 900000" in without.findings[-1].text
    assert without.attested == 0
    report = check(register, calendar.headers)
    (stamp,) = report.stamps
    assert codes(report) == []
    assert (stamp.seq, stamp.head, stamp.gen_time, stamp.lab) == (2, 0, MINED, False)
    block_hash = hashlib.sha256(hashlib.sha256(calendar.headers[900_000]).digest()).digest()[::-1].hex()
    assert f"block 900000 (hash {block_hash})" in stamp.authority
    assert report.attested == 1
    assert report.between(0) == (None, MINED)
    calendar.asked.clear()
    assert calendars.upgrade(register) == []
    assert calendar.asked == [], "a complete proof is not asked for again"


def test_the_earliest_of_several_blocks_counts(register, calendar):
    calendars.stamp(register, [calendar.url])
    calendar.mine(900_000)
    calendars.upgrade(register)
    calendars.stamp(register, [calendar.url])
    calendar.mine(900_001)
    calendars.upgrade(register)
    report = check(register, {900_001: calendar.headers[900_001]})
    assert [stamp.head for stamp in report.stamps] == [2]
    assert ("inconclusive", "header-needed", 2) in codes(report)
    assert [stamp.seq for stamp in check(register, calendar.headers).stamps] == [2, 4]


def test_calendars_that_do_not_answer_leave_nothing_behind(register, offline):
    with pytest.raises(TimestampError) as raised:
        calendars.stamp(register, [offline, "ftp://calendar.example", "nonsense"], timeout=1)
    assert raised.value.code == "unreachable"
    assert register.head.seq == 0
    assert not (register.path / "anchors").exists()


@pytest.mark.parametrize("url", ["ftp://calendar.example", "file:///etc/passwd", "nonsense", "http://", "http://[::1"])
def test_only_http_is_spoken(register, url):
    with pytest.raises(TimestampError) as raised:
        calendars.stamp(register, [url], timeout=1)
    assert raised.value.code in ("bad-url", "unreachable")


def test_one_that_answers_is_enough(register, calendar, offline):
    with pytest.warns(EvidenceWarning, match=re.escape(f"no proof from {offline}")):
        entry = calendars.stamp(register, [offline, calendar.url], timeout=1)
    assert entry.body["calendars"] == [calendar.url]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((200, {}, b"\xf0" * 20_000), "too-large"),
        ((200, {}, b"no proof"), "bad-proof"),
        ((200, {}, b""), "bad-proof"),
        ((500, {}, b"broken"), "unreachable"),
        ((302, {"Location": "http://127.0.0.1:9/digest"}, b""), "unreachable"),
    ],
)
def test_answers_that_are_no_proof_are_refused(register, calendar, answer, code):
    calendar.answer = answer
    with pytest.raises(TimestampError) as raised:
        calendars.stamp(register, [calendar.url])
    assert raised.value.code == code
    assert register.head.seq == 0


def test_a_calendar_that_drips_is_left(register, calendar, monkeypatch):
    ticks = itertools.count(step=6)
    monkeypatch.setattr(calendars.time, "monotonic", lambda: next(ticks))
    with pytest.raises(TimestampError, match="not done after 5 s"):
        calendars.stamp(register, [calendar.url], timeout=5)


def test_a_redirect_is_not_followed(register, calendar):
    calendar.answer = (302, {"Location": f"{calendar.url}/elsewhere"}, b"")
    with pytest.raises(TimestampError, match="302"):
        calendars.stamp(register, [calendar.url])
    assert calendar.asked == ["POST"]


def test_whom_a_pool_handed_on_to_is_asked_only_if_given(register, calendar):
    calendar.names = calendar.url.replace("127.0.0.1", "localhost")
    calendars.stamp(register, [calendar.url])
    calendar.mine(900_000)
    calendar.asked.clear()
    with pytest.warns(EvidenceWarning, match=f"--ots {calendar.names}"):
        assert calendars.upgrade(register) == []
    assert calendar.asked == []
    assert len(calendars.upgrade(register, [calendar.names])) == 1


def test_a_file_left_by_a_killed_upgrade_is_not_written_over(register, calendar):
    first = calendars.stamp(register, [calendar.url])
    left = path_of(register, first).with_suffix(".1.ots")
    left.write_bytes(b"of a process that was killed before it could record this")
    calendar.mine(900_000)
    (second,) = calendars.upgrade(register)
    assert second.body["file"].endswith(".2.ots")
    assert left.read_bytes().startswith(b"of a process")


def test_without_an_entry_or_a_calendar_there_is_nothing_to_stamp(register):
    with pytest.raises(RegisterError, match="nothing can be stamped"):
        calendars.stamp(register, [])
    register.log.unlink()
    with pytest.raises(RegisterError, match="nothing can be stamped"):
        calendars.stamp(register, ["http://127.0.0.1:9"])
