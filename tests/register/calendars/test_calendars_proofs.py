"""What a proof dates, and what is none."""

import json
from datetime import datetime, timezone

import pytest
from bitcoin.core import CBlockHeader
from blocks import GENESIS, GENESIS_ROOT, check, codes, file_of, path_of, rewrite
from hypothesis import given
from hypothesis import strategies as st
from opentimestamps.core.notary import (
    BitcoinBlockHeaderAttestation,
    LitecoinBlockHeaderAttestation,
    PendingAttestation,
)
from opentimestamps.core.op import OpAppend, OpSHA256
from opentimestamps.core.timestamp import Timestamp

from wmplug.errors import InputError, TimestampError
from wmplug.register import calendars


def test_block_0_of_the_real_chain_is_of_its_time():
    start = Timestamp(bytes.fromhex(GENESIS_ROOT))
    start.attestations.add(BitcoinBlockHeaderAttestation(0))
    (end,) = calendars.check_calendar(file_of(start), GENESIS_ROOT, {0: GENESIS})
    assert end.time == datetime(2009, 1, 3, 18, 15, 5, tzinfo=timezone.utc)
    assert "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f" in end.text


def test_a_header_of_another_block_is_refused(proven):
    register, entry, headers = proven
    wrong = {900_000: headers[900_000][:40] + b"\0\0\0\0" + headers[900_000][44:]}
    report = check(register, wrong)
    assert codes(report) == [("refused", "wrong-merkle-root", entry.seq), ("inconclusive", "pending", 1)]
    assert not report.ok
    assert report.stamps == ()


def test_another_way_to_the_same_block_is_refused(proven):
    register, entry, headers = proven
    content = path_of(register, entry).read_bytes()
    nonce = content.index(b"\xf0\x10") + 2
    altered = rewrite(register, content[:nonce] + bytes(16) + content[nonce + 16 :])
    assert ("refused", "wrong-merkle-root", altered.seq) in codes(check(register, headers))


def test_a_proof_of_another_entry_is_refused(proven):
    register, entry, headers = proven
    other = calendars.stamp(register, entry.body["calendars"])
    foreign = rewrite(register, path_of(register, other).read_bytes())
    report = check(register, headers)
    assert ("refused", "wrong-start", foreign.seq) in codes(report)
    assert [stamp.seq for stamp in report.stamps] == [entry.seq]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"head": 1}, "wrong-head"),
        ({"head": -1}, "wrong-head"),
        ({"head": 99}, "wrong-head"),
        ({"head": True}, "wrong-head"),
        ({"head": None}, "wrong-head"),
        ({"hash": "00" * 32}, "wrong-head"),
        ({"sha256": "00" * 32}, "proof-replaced"),
        ({"sha256": None}, "proof-replaced"),
        ({"file": "../owner.pub"}, "bad-body"),
        ({"file": None}, "bad-body"),
        ({"file": "000000-ffffffff.ots"}, "proof-missing"),
    ],
)
def test_an_entry_that_tells_otherwise_is_refused(proven, change, code):
    register, entry, headers = proven
    lying = register.append("retimestamp", {**entry.body, **change})
    assert ("refused", code, lying.seq) in codes(check(register, headers))


@pytest.mark.parametrize("edit", ["truncate", "flip", "remove"])
def test_a_file_that_is_not_the_recorded_one_is_refused(proven, edit):
    register, entry, headers = proven
    file = path_of(register, entry)
    content = file.read_bytes()
    if edit == "remove":
        file.unlink()
    else:
        file.write_bytes(content[:-9] if edit == "truncate" else content[:-20] + b"\0" + content[-19:])
    code = "proof-missing" if edit == "remove" else "proof-replaced"
    report = check(register, headers)
    assert ("refused", code, entry.seq) in codes(report)
    assert report.attested == 0
    if edit != "remove":
        with pytest.raises(TimestampError, match="is not the proof that was recorded"):
            calendars.upgrade(register)


def test_every_truncation_of_a_proof_is_refused(proven):
    register, entry, headers = proven
    content = path_of(register, entry).read_bytes()
    hashed = next(register.entries()).hash
    assert any(end.time for end in calendars.check_calendar(content, hashed, headers))
    for length in range(len(content)):
        with pytest.raises(TimestampError) as raised:
            calendars.check_calendar(content[:length], hashed, headers)
        assert raised.value.code == "bad-proof"
    with pytest.raises(TimestampError, match="cannot be read"):
        calendars.check_calendar(content + b"\0", hashed, headers)


def test_a_truncated_proof_that_its_owner_recorded_is_refused(proven):
    register, entry, headers = proven
    cut = rewrite(register, path_of(register, entry).read_bytes()[:-3])
    assert ("refused", "bad-proof", cut.seq) in codes(check(register, headers))


def sample():
    """A proof with all that there is in one."""
    start = Timestamp(bytes(range(32)))
    last = start.ops.add(OpAppend(b"nonce")).ops.add(OpSHA256())
    last.attestations |= {BitcoinBlockHeaderAttestation(1), LitecoinBlockHeaderAttestation(2)}
    last.attestations.add(PendingAttestation("https://calendar.example"))
    return file_of(start), start.msg.hex(), {1: CBlockHeader(hashMerkleRoot=last.msg).serialize()}


@pytest.mark.filterwarnings("ignore:OpReverse:PendingDeprecationWarning")
@given(st.data())
def test_whatever_the_bytes_a_proof_dates_only_what_it_starts_from_or_is_refused(data):
    content, hashed, headers = sample()
    edited = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        edited[data.draw(st.integers(0, len(edited) - 1))] = data.draw(st.integers(0, 255))
    ends, refused = [], None
    try:
        ends = calendars.check_calendar(bytes(edited), hashed, headers)
    except TimestampError as error:
        refused = error.code
    assert refused in (None, "bad-proof", "wrong-start", "wrong-merkle-root")
    assert {end.code for end in ends} <= {"verified", "pending", "header-needed", "unknown-attestation"}
    assert all((end.code == "verified") == (end.time is not None) for end in ends)
    # Whoever can change the digest or the way, and not where it leads, has broken SHA-256.
    assert not any(end.time for end in ends) or edited[33:73] == content[33:73]


def test_what_each_end_says():
    content, hashed, headers = sample()
    assert sorted(end.code for end in calendars.check_calendar(content, hashed, headers)) == [
        "pending",
        "unknown-attestation",
        "verified",
    ]


def test_a_height_of_thousands_of_digits_is_refused():
    start = Timestamp(bytes(32))
    start.attestations.add(BitcoinBlockHeaderAttestation(1 << 40_000))
    with pytest.raises(TimestampError, match="a block that cannot be"):
        calendars.check_calendar(file_of(start), "00" * 32, {})


def test_a_proof_nested_beyond_measure_is_refused():
    content = sample()[0][:65] + b"\x08" * 5000
    with pytest.raises(TimestampError, match="recursion depth"):
        calendars.check_calendar(content, bytes(range(32)).hex(), {})


def test_other_retimestamps_are_let_be(register):
    register.append("retimestamp", {"kind": "of another kind"})
    assert codes(check(register)) == []


def test_entries_after_a_damaged_one_are_not_looked_at(proven):
    register, _, headers = proven
    lines = register.log.read_bytes().splitlines(keepends=True)
    register.log.write_bytes(b"".join([*lines[:2], lines[2].replace(b'"sig":"', b'"sig":"A'), *lines[3:]]))
    report = check(register, headers)
    assert report.stamps == ()
    assert not report.ok


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}x", '{"one": "00"}', '{"1": "zz"}', '{"1": 1}', '{"1": "' + "00" * 79 + '"}', '"1"']
)
def test_headers_that_are_none_are_named(tmp_path, text):
    (tmp_path / "headers.json").write_text(text)
    with pytest.raises(InputError, match=r"headers\.json"):
        calendars.read_headers(tmp_path / "headers.json")


def test_headers_are_read(tmp_path):
    (tmp_path / "headers.json").write_text(json.dumps({"0": GENESIS.hex()}))
    assert calendars.read_headers(tmp_path / "headers.json") == {0: GENESIS}
