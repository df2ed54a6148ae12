"""Makes the vectors anew, byte for byte, one function a vector: `python tests/vectors/register/make.py [FOLDER]`.

What is expected of each stands here, said by hand, and not what some verifier answered.
"""

import base64
import hashlib
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch

import rfc8785
from asn1crypto import cms, tsp
from building import (
    BEGIN,
    GOOD,
    GOOD_RENEWED,
    LAB,
    LONG,
    MARK,
    NEXT,
    NOW,
    OLD,
    OPENING,
    ORDER,
    OTHER,
    OTHER_MARK,
    OWNER,
    RECORDER,
    REGISTER,
    RSA,
    STRANGER,
    THEN,
    URL,
    Log,
    authority,
    crl,
)
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID

from wmplug.register import timestamps
from wmplug.register.rotation import PROOF_TYPE
from wmplug.register.statements import PREDICATE_TYPE, STATEMENT_TYPE

HERE = Path(__file__).parent
DAY = timedelta(days=1)
# What a verifier may answer in place of the exact code, where it leaves a check to openssl.
COARSE = dict.fromkeys(
    (
        *(
            "truncated",
            "trailing-bytes",
            "malformed",
            "not-a-timestamp",
            "status-not-granted",
            "bad-signature-of-token",
        ),
        *("wrong-root", "eku-missing", "eku-not-alone", "expired-at-gen-time", "not-yet-valid", "other-certificate"),
    ),
    "bad-token",
)
FLAGS = ("clock", "torn-tail", "other-name", "token-unreadable", "signed-by-compromised-key")
CASES: list[tuple[str, Callable[[Log], Any], dict[str, Any]]] = []


def case(
    code: str | None = None,
    seq: int | None = None,
    *,
    entries: int,
    attested: int = 0,
    now: datetime = NOW,
    also: str = "",
) -> Callable[[Callable[[Log], Any]], Callable[[Log], Any]]:
    """A vector named after the function that makes it.

    Args:
        code: of what is refused; None: nothing is.
        seq: of the entry that is refused; None: the register as a whole.
        entries: that are good.
        attested: how many of them an authority has dated.
        now: by whose clock it is checked.
        also: codes of what is flagged or inconclusive, as "code@seq".
    """

    def add(make: Callable[[Log], Any]) -> Callable[[Log], Any]:
        exact = "bad-signature" if code == "bad-signature-of-token" else code
        expected = {
            "ok": code is None,
            "first_bad": seq,
            "code": exact,
            "class": COARSE.get(code or "", exact),
            "entries": entries,
            "attested": attested,
            "inconclusive": [one for one in also.split() if one.partition("@")[0] not in FLAGS],
            "flagged": [one for one in also.split() if one.partition("@")[0] in FLAGS],
            "now": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        }
        CASES.append((f"{make.__name__}_{'fail' if code else 'ok'}", make, expected))
        return make

    return add


def begin(log: Log, count: int = 3) -> None:
    """A log without anchors."""
    log.add("register.opened", {"name": "Ada", "public": OWNER.public.hex(), "opening": OPENING})
    for i in range(1, count):
        log.add("owner.identity", {"statement": f"I am Ada, line {i}"})


def commit(log: Log, *, stamped: bool = True, **evidence: Any) -> None:
    """Secret (1), its token (2), and the triggers (3)."""
    begin(log, 1)
    secret = log.add("secret.committed", {"watermark": MARK, "commitment": "cc" * 32})
    salt = log.salt(log.stamp()) if stamped else None
    triggers(log, **{"register": REGISTER, "secret_committed": secret, "salt": salt, **evidence})


def triggers(log: Log, mark: str = MARK, **evidence: Any) -> int:
    body = {"watermark": mark, "recorder": RECORDER.public.hex(), "root": "dd" * 32, "rows": 100, "evidence": evidence}
    return log.add("triggers.committed", body, subject=[("triggers", "dd" * 32)])


def train(log: Log) -> None:
    """Four entries by the recorder."""
    run = {"watermark": MARK, "run": "ee" * 16}
    for kind, body in (
        ("training.started", {"adapter": "torch", "dataset": None, "parameters": 0, "architecture": 0}),
        ("watermark.inserted", {"step": 10, "epoch": 1, "triggers": 100, "total": 100}),
        ("training.checkpoint", {"step": 20, "epoch": 2, "verdict": {"p": 1e-7, "matches": 61}, "system": None}),
        ("training.finished", {"step": 30, "epoch": 3, "triggers": 100, "verdict": None, "system": None}),
    ):
        log.add(kind, {**run, **body}, by=RECORDER)


def rotate(log: Log, by: Any = OWNER, proven_by: Any = NEXT, to: Any = NEXT, **changes: Any) -> None:
    """The owner's key succeeded by another, which says so too."""
    body = {"former": by.keyid, "public": to.public.hex(), "commitment": "ab" * 32, **changes}
    claim = rfc8785.dumps({"register": REGISTER, **body})
    proof = base64.b64encode(proven_by.sign(claim, PROOF_TYPE)).decode()
    log.add("key.rotated", {**body, "proof": proof}, by=by)
    log.signer = to


# What is in order


@case(entries=10, attested=9)
def story(log):
    commit(log)
    log.stamp()
    train(log)
    log.stamp()


@case(entries=7, also="no-salt@2 not-anchored@2")
def no_authority(log):
    commit(log, stamped=False)
    train(log)


@case(entries=1)
def one_entry(log):
    begin(log, 1)


@case(entries=2)
def text_and_numbers(log):
    begin(log, 1)
    numbers = [0, -1, 2**53 - 1, 0.1, 1e21, 1e-7, 123456789012345680000.0, 5e-324, -0.0, 1.0, 1e23, 0.000001]
    texts = ['\u20ac\u0000\u001f\u007f"\\/\n', "\U0001f600", "\ufb33", "\u00f6\u006f\u0308"]
    keys = {"\U0001f600": 1, "\ufb33": 2, "\r": 3, "1": 4, "\u0080": 5, "\u00f6": 6, "": 7}
    log.add("owner.identity", {"numbers": numbers, "texts": texts, "keys": keys, "deep": [[[{"a": [None, True]}]]]})


@case(entries=3, also="torn-tail")
def torn_tail(log):
    begin(log, 4)
    log.lines[3] = log.lines[3][:-1]


@case(entries=3, also="torn-tail")
def tail_of_zeros(log):
    begin(log)
    log.lines.append(bytes(4096))


@case(entries=4)
def recovered(log):
    begin(log)
    log.add("recovered", {"offset": 9, "bytes": 3, "sha256": "ab" * 32, "file": "000000000009-ab.torn"})


@case(entries=3)
def receipt(log):
    begin(log)
    log.receipt()


@case(entries=3)
def receipt_of_an_older_head(log):
    begin(log)
    log.receipt(seq=1)


@case(entries=5, attested=4)
def receipt_by_a_key_that_was_succeeded(log):
    begin(log)
    log.receipt()
    rotate(log)
    log.stamp()


@case(entries=4, attested=2)
def two_authorities(log):
    begin(log, 2)
    log.stamp(head=1)
    log.stamp(OTHER, url="http://other.example", head=1)


@case(entries=4, attested=2)
def two_authorities_whose_clocks_differ_by_seconds(log):
    begin(log, 2)
    at = log.clock + timedelta(minutes=1)
    log.stamp(at=at, head=1)
    log.stamp(OTHER, url="http://other.example", head=1, at=at - timedelta(seconds=7))


@case(entries=4)
def lab_authority(log):
    begin(log)
    log.stamp(LAB)


@case(entries=3, attested=2)
def rsa_authority(log):
    begin(log, 2)
    log.stamp(RSA)


@case(entries=3, attested=2)
def pinned_certificate(log):
    begin(log, 2)
    log.trust(GOOD, pins=("00" * 32, x509_digest(GOOD)))
    log.stamp()


def x509_digest(of: Any) -> str:
    return hashlib.sha256(of.tsa.der).hexdigest()


@case(entries=3, attested=2)
def signature_with_the_other_s(log):
    begin(log, 2)
    log.stamp(spoil=other_s)


def other_s(response: bytes) -> bytes:
    answer = tsp.TimeStampResp.load(response)
    signer = answer["time_stamp_token"]["content"]["signer_infos"][0]
    r, s = decode_dss_signature(signer["signature"].native)
    signer["signature"] = encode_dss_signature(r, ORDER - s)
    return answer.dump()


@case(entries=3, attested=2)
def added_certificate(log):
    begin(log, 2)

    def add(response: bytes) -> bytes:
        answer = tsp.TimeStampResp.load(response)
        answer["time_stamp_token"]["content"]["certificates"].append(cms.CertificateChoices.load(OTHER.root.der))
        return answer.dump()

    log.stamp(spoil=add)


@case(entries=3, attested=2)
def request_kept(log):
    begin(log, 2)
    request = timestamps.make_request(bytes.fromhex(log.hash(1)))
    log.stamp(request=request, keep=request)


@case(entries=3)
def token_that_no_entry_names(log):
    begin(log)
    log.stamp()
    log.lines.pop()


@case(entries=3, also="token-unreadable")
def file_that_is_no_token(log):
    begin(log)
    (log.folder / "anchors" / "junk.tsr").write_bytes(b"junk")


# The log


@case("empty", entries=0)
def empty(log):
    pass


@case("not-an-envelope", 3, entries=3)
def zeros_with_newline(log):
    begin(log)
    log.lines.append(bytes(300) + b"\n")


@case("not-an-envelope", 3, entries=3)
def garbage_with_newline(log):
    begin(log)
    log.lines.append(b"\x93\xfegarbage\n")


@case("not-an-envelope", 1, entries=1)
def blank_line(log):
    begin(log)
    log.lines.insert(1, b"\n")


@case("not-an-envelope", 1, entries=1)
def two_signatures(log):
    begin(log)
    envelope = json.loads(log.lines[1])
    envelope["signatures"] *= 2
    log.envelope(1, envelope)


@case("not-an-envelope", 1, entries=1)
def no_signature(log):
    begin(log)
    log.envelope(1, {**json.loads(log.lines[1]), "signatures": []})


def edited(name: str, code: str, *path: Any, to: Any) -> None:
    """One field of entry 1 changed, under the old signature."""

    def make(log: Log) -> None:
        begin(log)
        log.edit(1, *path, to=to)

    make.__name__ = f"edited_{name}"
    case(code, 1, entries=1)(make)


edited("register", "other-register", "predicate", "register", to="00" * 32)
edited("seq", "out-of-order", "predicate", "seq", to=2)
edited("prev", "broken-chain", "predicate", "prev", to="00" * 32)
edited("type", "bad-signature", "predicate", "type", to="disclosure")
edited("event_id", "bad-signature", "predicate", "event_id", to="another")
edited("claimed_time", "bad-signature", "predicate", "claimed_time", to="2020-01-01T00:00:00Z")
edited("body", "bad-signature", "predicate", "body", "statement", to="I am Eve")
edited("subject", "bad-signature", "subject", 0, "digest", "sha256", to="00" * 32)
edited("subject_name", "bad-signature", "subject", 0, "name", to="another")
edited("type_of_statement", "unknown-version", "_type", to=STATEMENT_TYPE + "x")
edited("type_of_predicate", "unknown-version", "predicateType", to=PREDICATE_TYPE + "x")
edited("extra_field", "bad-signature", "more", to=1)


@case("bad-signature", 1, entries=1)
def edited_signature(log):
    begin(log)
    log.envelope(1, _with_signature(log, 1, sig="A" * 86 + "=="))


@case("unknown-key", 1, entries=1)
def edited_keyid(log):
    begin(log)
    log.envelope(1, _with_signature(log, 1, keyid="00" * 32))


@case("not-canonical", 1, entries=1)
def short_signature(log):
    begin(log)
    log.envelope(1, _with_signature(log, 1, sig="AAAA"))


def _with_signature(log: Log, seq: int, **changes: str) -> Any:
    envelope = json.loads(log.lines[seq])
    envelope["signatures"][0] |= changes
    return envelope


@case("not-canonical", 1, entries=1)
def edited_payload_type(log):
    begin(log)
    log.envelope(1, {**json.loads(log.lines[1]), "payloadType": "application/json"})


@case("broken-chain", 2, entries=2)
def replaced_by_the_owner(log):
    begin(log)
    statement = json.loads(log.payload(1))
    statement["predicate"]["body"] = {"statement": "I am Grace"}
    log.put(1, rfc8785.dumps(statement), OWNER)


@case("out-of-order", 1, entries=1)
def dropped(log):
    begin(log)
    del log.lines[1]


@case("out-of-order", 0, entries=0)
def dropped_first(log):
    begin(log)
    del log.lines[0]


@case("out-of-order", 1, entries=1)
def swapped(log):
    begin(log)
    log.lines[1:] = reversed(log.lines[1:])


@case("out-of-order", 2, entries=2)
def duplicate(log):
    begin(log)
    log.lines.insert(2, log.lines[1])


@case("duplicate-event", 3, entries=3)
def duplicate_event(log):
    begin(log)
    log.add("owner.identity", event_id="event 1")


@case("not-opened", 0, entries=0)
def not_opened(log):
    log.add("owner.identity", {"public": OWNER.public.hex()})


@case("not-opened", 3, entries=3)
def opened_twice(log):
    begin(log)
    log.add("register.opened", {"name": "Ada", "public": OWNER.public.hex(), "opening": OPENING})


@case("other-register", 0, entries=0)
def log_of_another_register(log):
    log.add("register.opened", {"name": "Ada", "public": OWNER.public.hex(), "opening": OPENING}, register="00" * 32)


@case("bad-body", 0, entries=0)
def opened_without_a_key(log):
    log.add("register.opened", {"name": "Ada"})


@case("bad-body", 3, entries=3)
def anchor_that_names_a_file_elsewhere(log):
    begin(log)
    log.stamp(file="../owner.pub")


@case("bad-body", 3, entries=3)
def anchor_with_a_negative_head(log):
    begin(log)
    names = ("hash", "file", "token", "tsa", "salt")
    log.add("anchor", {**dict.fromkeys(names, log.hash(1)), "crls": [], "head": -2})


def respelt(name: str, code: str, spell: Callable[[bytes], bytes], *, payload: bool) -> None:
    """Entry 1 written another way, and signed by the owner where it is the payload."""

    def make(log: Log) -> None:
        begin(log)
        if payload:
            log.put(1, spell(log.payload(1)), OWNER)
        else:
            log.lines[1] = spell(log.lines[1])

    make.__name__ = name
    case(code, 1, entries=1)(make)


respelt("payload_with_spaces", "not-canonical", lambda p: p.replace(b":", b": ", 1), payload=True)
respelt("payload_with_newline", "not-canonical", lambda p: p + b"\n", payload=True)
respelt("payload_out_of_order", "not-canonical", lambda p: b'{"z":1,' + p[1:], payload=True)
respelt("payload_with_a_key_twice", "not-canonical", lambda p: p.replace(b'"seq":1', b'"seq":2,"seq":1'), payload=True)
respelt("payload_with_an_escape", "not-canonical", lambda p: p.replace(b"Ada", b"\\u0041da"), payload=True)
respelt("payload_with_a_float_number", "not-canonical", lambda p: p.replace(b'"seq":1', b'"seq":1.0'), payload=True)
respelt("payload_that_is_no_json", "not-a-statement", lambda p: p[:-1], payload=True)
respelt("payload_that_is_no_utf8", "not-a-statement", lambda p: p.replace(b"Ada", b"\xff\xfe\xfd"), payload=True)
respelt("payload_with_not_a_number", "not-a-statement", lambda p: p.replace(b'"seq":1', b'"seq":NaN'), payload=True)
respelt(
    "payload_with_a_huge_number", "not-a-statement", lambda p: p.replace(b'"seq":1', b'"seq":%d' % 2**53), payload=True
)
respelt("envelope_with_spaces", "not-canonical", lambda t: t.replace(b":", b": ", 1), payload=False)
respelt("envelope_with_more", "not-canonical", lambda t: b'{"more":1,' + t[1:], payload=False)
respelt("envelope_with_carriage_return", "not-canonical", lambda t: t[:-1] + b"\r\n", payload=False)


@case("not-canonical", 1, entries=1)
def payload_in_the_order_of_code_points(log):
    begin(log, 1)
    log.add("owner.identity", {"\ufb33": 1, "\U0001f600": 2})
    statement = json.loads(log.payload(1))
    log.put(1, json.dumps(statement, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(), OWNER)


def odd(name: str, code: str, **changes: Any) -> None:
    """A last entry, signed by the owner, that says something no entry says."""

    def make(log: Log) -> None:
        begin(log)
        log.add(changes.get("type", "owner.identity"), **changes)

    make.__name__ = name
    case(code, 3, entries=3)(make)


odd("unknown_type", "unknown-type", type="training.paused")
odd("unknown_field", "not-a-statement", more=1)
odd("number_as_text", "not-a-statement", seq="3")
odd("number_as_truth", "not-a-statement", seq=True)
odd("body_as_list", "not-a-statement", body=[])
odd("hash_in_capitals", "not-a-statement", prev="AB" * 32)
odd("time_with_offset", "not-a-statement", claimed_time="2026-01-10T10:00:00+00:00")
odd("day_that_is_none", "bad-body", claimed_time="2026-02-30T10:00:00Z")


# Keys


@case("unknown-key", 3, entries=3)
def key_that_nobody_introduced(log):
    begin(log)
    log.add("disclosure", by=STRANGER)


@case("bad-signature", 0, entries=0)
def opened_with_anothers_key(log):
    log.add("register.opened", {"name": "Ada", "public": OWNER.public.hex(), "opening": OPENING})
    log.envelope(0, _with_signature(log, 0, sig=json.loads(_by_stranger(log))["signatures"][0]["sig"]))


def _by_stranger(log: Log) -> bytes:
    other = Log(log.folder / "stranger")
    other.add("register.opened", {"name": "Ada", "public": OWNER.public.hex(), "opening": OPENING}, by=STRANGER)
    shutil.rmtree(other.folder)
    return other.lines[0]


@case("not-allowed", 4, entries=4, also="no-salt@2 not-anchored@2")
def recorder_that_speaks_for_the_owner(log):
    commit(log, stamped=False)
    log.add("training.started", {"watermark": MARK}, by=RECORDER)
    log.add("model.released", {"version": "1"}, by=RECORDER)


@case("not-allowed", 3, entries=3, also="no-salt@2")
def recorder_of_another_watermark(log):
    commit(log, stamped=False)
    log.add("training.started", {"watermark": OTHER_MARK}, by=RECORDER)


@case("revoked-key", 4, entries=4, also="no-salt@2")
def recorder_that_was_revoked(log):
    commit(log, stamped=False)
    log.add("key.revoked", {"keyid": RECORDER.keyid, "reason": "machine stolen", "since": None})
    log.add("training.started", {"watermark": MARK}, by=RECORDER)


@case("revoked-key", 4, entries=4)
def owner_that_was_revoked(log):
    begin(log)
    log.add("key.revoked", {"keyid": OWNER.keyid, "reason": "lost", "since": None})
    log.add("owner.identity")


@case(entries=5)
def key_that_was_succeeded(log):
    begin(log)
    rotate(log)
    log.add("owner.identity")


@case("revoked-key", 4, entries=4)
def former_key_after_its_successor(log):
    begin(log)
    rotate(log)
    log.add("owner.identity", by=OWNER)


@case("bad-rotation", 3, entries=3)
def successor_that_did_not_prove_it_has_the_key(log):
    begin(log)
    rotate(log, proven_by=OWNER)


@case("bad-body", 3, entries=3)
def successor_without_proof(log):
    begin(log)
    log.add("key.rotated", {"former": OWNER.keyid, "public": NEXT.public.hex(), "commitment": "ab" * 32})


@case("bad-rotation", 3, entries=3)
def successor_of_another_key(log):
    begin(log)
    rotate(log, former=STRANGER.keyid)


@case("bad-rotation", 3, entries=3)
def successor_that_was_used_before(log):
    begin(log)
    rotate(log, proven_by=OWNER, to=OWNER)


@case("unknown-key", 3, entries=3)
def revocation_of_a_key_that_nobody_introduced(log):
    begin(log)
    log.add("key.revoked", {"keyid": STRANGER.keyid, "reason": "lost", "since": None})


@case(entries=7, attested=4, also="no-salt@2 signed-by-compromised-key@5")
def recorder_that_others_had(log):
    commit(log, stamped=False)
    log.add("dataset.committed", {"watermark": MARK}, by=RECORDER)
    log.stamp()
    log.add("training.checkpoint", {"watermark": MARK}, by=RECORDER)
    log.add("key.revoked", {"keyid": RECORDER.keyid, "reason": "stolen", "since": f"{log.clock:%Y-%m-%dT%H:%M:%SZ}"})


# Cut and rewritten


@case("tail-deleted", entries=3)
def tail_deleted_but_its_token_is_there(log):
    begin(log, 5)
    log.stamp()
    del log.lines[3:]


@case("tail-deleted", entries=2)
def tail_deleted_but_there_is_a_receipt(log):
    begin(log)
    log.receipt()
    log.lines.pop()


@case("rewritten", entries=4)
def old_copy_restored_and_continued(log):
    begin(log, 4)
    log.receipt()
    del log.lines[2:]
    log.add("owner.identity", {"statement": "another line"})
    log.add("owner.identity", {"statement": "and another"})


@case("rewritten", entries=3)
def rewritten_by_the_owner_but_there_is_a_receipt(log):
    begin(log)
    log.receipt()
    log.lines.clear()
    log.clock += DAY
    begin(log)


@case(entries=3, also="other-name")
def owner_pub_with_another_name(log):
    begin(log)
    log.called = "Eve"


@case("other-owner", 0, entries=0)
def begun_with_a_key_that_the_id_does_not_commit_to(log):
    log.add("register.opened", {"name": "Ada", "public": STRANGER.public.hex(), "opening": OPENING}, by=STRANGER)
    log.add("owner.identity", by=STRANGER)


@case("tail-deleted", entries=3)
def rewritten_by_the_owner_but_its_token_is_there(log):
    begin(log)
    log.stamp()
    log.lines.clear()
    log.clock += DAY
    begin(log)


@case("wrong-imprint", 3, entries=4)
def rewritten_by_the_owner_around_its_token(log):
    begin(log)
    log.stamp(imprint=bytes.fromhex(_rewritten(log)))


def _rewritten(log: Log) -> str:
    old = log.hash(2)
    log.lines.clear()
    log.clock += DAY
    begin(log)
    return old


@case("bad-receipt", entries=3)
def receipt_by_a_stranger(log):
    begin(log)
    log.receipt(STRANGER)


@case("bad-receipt", entries=3)
def receipt_that_was_edited(log):
    begin(log)
    log.receipt(seq=1)
    file = log.folder / "receipt.json"
    file.write_text(file.read_text().replace(log.hash(1), log.hash(2)).replace('"seq": 1', '"seq": 2'))


@case("other-register", entries=3)
def receipt_of_another_register(log):
    begin(log)
    log.receipt(register="00" * 32)


# Clocks


@case(entries=4, attested=3, also="clock@2")
def clock_a_day_ahead(log):
    begin(log, 2)
    log.add("owner.identity", at=BEGIN + DAY)
    log.stamp()


@case(entries=4, attested=2, also="clock@3")
def clock_rolled_back(log):
    begin(log, 2)
    log.stamp()
    log.add("owner.identity", at=BEGIN - DAY)


@case(entries=5, attested=4, also="clock@3")
def clock_in_the_far_future(log):
    begin(log, 2)
    log.stamp()
    log.add("owner.identity", at=datetime(9999, 12, 31, tzinfo=timezone.utc))
    log.stamp()


# Timestamps


@case("wrong-root", 2, entries=3)
def tsa_wrong_root(log):
    begin(log, 2)
    log.trust(OTHER)
    log.stamp()


@case("wrong-root", 2, entries=3)
def tsa_wrong_root_of_the_same_name(log):
    begin(log, 2)
    log.trust(GOOD)
    log.stamp(authority("Good", seed="namesake"))


@case("wrong-pin", 2, entries=3)
def tsa_wrong_pin(log):
    begin(log, 2)
    log.trust(GOOD, pins=(x509_digest(OTHER),))
    log.stamp()


@case("wrong-policy", 2, entries=3)
def tsa_wrong_policy(log):
    begin(log, 2)
    log.trust(GOOD, policies=("1.3.6.1.4.1.32473.1",))
    log.stamp()


@case("policy-not-pinned", 2, entries=3)
def tsa_policy_not_pinned(log):
    begin(log, 2)
    log.trust(GOOD, policies=())
    log.stamp()


@case("authority-not-trusted", 2, entries=3)
def tsa_not_in_the_policy(log):
    begin(log, 2)
    log.stamp(tsa="http://elsewhere.example")


@case("wrong-imprint", 2, entries=3)
def tsa_wrong_message(log):
    begin(log, 2)
    log.stamp(imprint=bytes(32))


@case("wrong-imprint", 3, entries=4)
def tsa_token_of_another_register(log):
    begin(log)
    theirs = Log(log.folder / "theirs")
    theirs.add("register.opened", {"name": "Eve", "public": STRANGER.public.hex()}, by=STRANGER, register="ef" * 32)
    shutil.rmtree(theirs.folder)
    log.stamp(imprint=bytes.fromhex(theirs.hash(0)))


@case("wrong-imprint", 4, entries=5, attested=2)
def tsa_token_replayed_for_another_head(log):
    begin(log, 2)
    first = log.stamp()
    log.add("owner.identity")
    body = json.loads(log.payload(first))["predicate"]["body"]
    response = (log.folder / "anchors" / body["file"]).read_bytes()
    kept = ("authority", "gen_time", "serial", "policy", "salt", "lab")
    log.name(response, 3, URL, (), None, {name: body[name] for name in kept})


@case("wrong-nonce", 2, entries=3)
def tsa_token_replayed_for_another_request(log):
    begin(log, 2)
    log.stamp(keep=timestamps.make_request(bytes.fromhex(log.hash(1))))


@case("nonce-missing", 2, entries=3)
def tsa_nonce_dropped(log):
    begin(log, 2)
    asked = timestamps.make_request(bytes.fromhex(log.hash(1)))
    bare = tsp.TimeStampReq.load(asked).native
    del bare["nonce"]
    log.stamp(request=tsp.TimeStampReq(bare).dump(), keep=asked)


@case("wrong-request", 2, entries=3)
def tsa_request_of_something_else(log):
    begin(log, 2)
    log.stamp(keep=timestamps.make_request(bytes(32)))


@case("eku-missing", 2, entries=3)
def tsa_without_eku(log):
    begin(log, 2)
    stamped_by(log, authority("Plain", eku=()))


@case("eku-not-alone", 2, entries=3)
def tsa_with_another_eku(log):
    begin(log, 2)
    stamped_by(log, authority("Many", eku=(ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING)))


def stamped_by(log: Log, of: Any) -> None:
    """A token that its own verification refuses, so that what the entry tells is made up."""
    log.trust(of)
    response = of.issue(timestamps.make_request(bytes.fromhex(log.hash(1))), gen_time=log.clock)
    log.name(response, 1, URL, (), None, {"salt": timestamps.salt_of(response).hex()})


@case("expired-at-gen-time", 2, entries=3)
def tsa_expired_at_gen_time(log):
    begin(log, 2)
    stamped_by(log, OLD)


@case("not-yet-valid", 2, entries=3)
def tsa_not_yet_valid(log):
    begin(log, 2)
    stamped_by(log, authority("Young", (2027, 2030)))


@case("future", 2, entries=3, now=BEGIN - DAY)
def tsa_in_the_future(log):
    begin(log, 2)
    log.stamp()


@case("status-not-granted", 2, entries=3)
def tsa_not_granted(log):
    begin(log, 2)
    log.trust(GOOD)
    response = GOOD.issue(timestamps.make_request(bytes.fromhex(log.hash(1))), status="rejection")
    log.name(response, 1, URL, (), None, {"salt": "00" * 32})


@case("truncated", 2, entries=3)
def tsa_truncated(log):
    begin(log, 2)
    log.stamp(spoil=lambda response: response[:-20])


@case("trailing-bytes", 2, entries=3)
def tsa_trailing_bytes(log):
    begin(log, 2)
    log.stamp(spoil=lambda response: response + b"\0")


@case("bad-signature-of-token", 2, entries=3)
def tsa_signature_flipped(log):
    begin(log, 2)
    log.stamp(spoil=lambda response: response[:-1] + bytes([response[-1] ^ 1]))


@case("other-certificate", 2, entries=3)
def tsa_signature_that_names_another_certificate(log):
    begin(log, 2)

    def spoil(response: bytes) -> bytes:
        answer = tsp.TimeStampResp.load(response)
        signer = answer["time_stamp_token"]["content"]["signer_infos"][0]
        kept = [one for one in signer["signed_attrs"] if one["type"].native != "signing_certificate_v2"]
        named = {"certs": [{"cert_hash": bytes(32)}]}
        signer["signed_attrs"] = cms.CMSAttributes([*kept, {"type": "signing_certificate_v2", "values": [named]}])
        signer["signature"] = GOOD.tsa.sign(signer["signed_attrs"].untag().dump())
        return answer.dump()

    log.stamp(spoil=spoil)


@case("token-replaced", 2, entries=3)
def token_replaced(log):
    begin(log, 2)
    log.stamp(token="00" * 32)


@case("token-missing", 2, entries=3)
def token_deleted(log):
    begin(log, 2)
    log.stamp()
    (log.folder / "anchors" / "000002.tsr").unlink()


@case("wrong-salt", 2, entries=3)
def salt_not_of_the_token(log):
    begin(log, 2)
    log.stamp(salt="00" * 32)


@case("wrong-anchor", 2, entries=3)
def time_not_of_the_token(log):
    begin(log, 2)
    log.stamp(gen_time="2020-01-01T00:00:00Z")


@case("wrong-anchor", 2, entries=3)
def lab_that_says_it_is_none(log):
    begin(log, 2)
    log.stamp(LAB, lab=False)


@case("wrong-head", 2, entries=3)
def anchor_of_another_head(log):
    begin(log, 2)
    log.stamp(head=0, **{"hash": "00" * 32})


@case("wrong-head", 2, entries=3)
def anchor_of_what_follows(log):
    begin(log, 2)
    log.name(b"", 1, URL, (), None, {"head": 2, "salt": ""})


@case("time-runs-back", 3, entries=4, attested=2)
def time_runs_back(log):
    begin(log, 2)
    log.stamp()
    log.stamp(at=BEGIN - DAY)


# Certificates expired or revoked since


@case(entries=3, also="token-inconclusive@2")
def expired_since(log):
    log.clock = THEN
    begin(log, 2)
    log.stamp(OLD)


@case(entries=3, attested=2)
def expired_since_with_a_list_of_its_time(log):
    log.clock = THEN
    begin(log, 2)
    log.stamp(OLD, lists=(crl(OLD, THEN + DAY),))


@case(entries=3, also="token-inconclusive@2")
def expired_since_with_a_list_older_than_the_token(log):
    log.clock = THEN
    begin(log, 2)
    log.stamp(OLD, lists=(crl(OLD, THEN - DAY),))


@case(entries=4, attested=3)
def expired_since_but_stamped_again_in_time(log):
    log.clock = THEN
    begin(log, 2)
    log.stamp(OLD)
    log.stamp(LONG, url="http://long.example", at=THEN + 400 * DAY)


@case(entries=4, attested=3, also="token-inconclusive@2")
def expired_since_and_stamped_again_too_late(log):
    log.clock = THEN
    begin(log, 2)
    log.stamp(OLD)
    log.stamp(LONG, url="http://long.example", at=THEN + 800 * DAY)


@case(entries=4, attested=2, also="token-inconclusive@2")
def expired_since_and_the_later_stamp_covers_only_the_same_head(log):
    log.clock = THEN
    begin(log, 2)
    log.stamp(OLD, head=1)
    log.stamp(LONG, url="http://long.example", head=1)


def revoked(name: str, code: str | None, reason: Any, days: int, attested: int = 0) -> None:
    """A token, and a list of ten days later that revokes its certificate so many days after it."""

    def make(log: Log) -> None:
        begin(log, 2)
        listed = crl(GOOD, BEGIN + 10 * DAY, revoked=BEGIN + days * DAY, reason=reason)
        log.stamp(lists=(listed,))

    make.__name__ = f"revoked_{name}"
    case(code, 2 if code else None, entries=3, attested=attested)(make)


revoked("superseded_later", None, x509.ReasonFlags.superseded, 5, attested=2)
revoked("ceased_later", None, x509.ReasonFlags.cessation_of_operation, 5, attested=2)
revoked("superseded_before", "revoked-at-gen-time", x509.ReasonFlags.superseded, -5)
revoked("for_key_compromise", "revoked-for-cause", x509.ReasonFlags.key_compromise, 5)
revoked("without_a_reason", "revoked-for-cause", None, 5)


@case("revoked-for-cause", 2, entries=5, attested=4)
def revoked_as_the_list_of_a_later_anchor_tells(log):
    begin(log, 2)
    log.stamp()
    log.add("owner.identity")
    listed = crl(GOOD, BEGIN + 10 * DAY, revoked=BEGIN + 5 * DAY, reason=x509.ReasonFlags.key_compromise)
    log.stamp(GOOD_RENEWED, lists=(listed,), at=BEGIN + 11 * DAY)


@case("token-missing", 2, entries=3)
def list_deleted(log):
    begin(log, 2)
    log.stamp(lists=(crl(GOOD, BEGIN + DAY),))
    (log.folder / "anchors" / "000002.0.crl").unlink()


@case("bad-crl", 2, entries=3)
def list_that_its_issuer_did_not_sign(log):
    begin(log, 2)
    log.stamp(lists=(crl(GOOD, BEGIN + DAY, by=OTHER.intermediate),))


@case("bad-crl", 2, entries=3)
def list_that_is_none(log):
    begin(log, 2)
    log.stamp(lists=(b"junk",))


# The order of secret, salt, triggers and training


@case("anchored-after-training", 3, entries=9, attested=8)
def triggers_anchored_after_training(log):
    commit(log)
    train(log)
    log.stamp()


@case("triggers-after-training", 4, entries=6, attested=5)
def triggers_after_training(log):
    begin(log, 1)
    secret = log.add("secret.committed", {"watermark": MARK, "commitment": "cc" * 32})
    salt = log.salt(log.stamp())
    log.add("training.started", {"watermark": MARK})
    triggers(log, register=REGISTER, secret_committed=secret, salt=salt)
    log.stamp()


@case("triggers-after-training", 9, entries=11, attested=10)
def triggers_committed_again_after_training(log):
    commit(log)
    log.stamp()
    train(log)
    triggers(log, register=REGISTER, secret_committed=1, salt=log.salt(2))
    log.stamp()


@case(entries=8, attested=2, also="not-anchored@3")
def triggers_never_anchored(log):
    commit(log)
    train(log)


@case("no-secret", 1, entries=2, also="no-salt@1")
def triggers_without_secret(log):
    begin(log, 1)
    triggers(log, register=REGISTER, secret_committed=0, salt=None)


@case("no-secret", 3, entries=4, attested=2)
def triggers_of_another_secret(log):
    commit(log, secret_committed=0)


@case("wrong-salt", 3, entries=4, attested=2)
def triggers_with_a_salt_of_no_token(log):
    commit(log, salt="00" * 32)


@case("salt-without-token", 2, entries=4, attested=3)
def triggers_with_a_salt_before_any_token(log):
    commit(log, stamped=False, salt="00" * 32)
    log.stamp()


@case("wrong-salt", 5, entries=6, attested=4)
def triggers_with_the_salt_of_a_second_try(log):
    begin(log, 1)
    log.add("secret.committed", {"watermark": MARK, "commitment": "cc" * 32})
    log.stamp()
    log.add("secret.committed", {"watermark": MARK, "commitment": "dd" * 32})
    salt = log.salt(log.stamp())
    triggers(log, register=REGISTER, secret_committed=1, salt=salt)


@case(entries=5, also="token-inconclusive@2 salt-unproven@3")
def salt_of_a_token_that_is_inconclusive(log):
    log.clock = THEN
    begin(log, 1)
    secret = log.add("secret.committed", {"watermark": MARK, "commitment": "cc" * 32})
    salt = log.salt(log.stamp(OLD))
    triggers(log, register=REGISTER, secret_committed=secret, salt=salt)
    log.add("owner.identity")


def make(folder: Path) -> None:
    """Write all of them in a folder, in place of what was there."""
    for name, build, expected in CASES:
        target = folder / name
        shutil.rmtree(target, ignore_errors=True)
        numbers = (hashlib.shake_256(f"{name}/{i}".encode()).digest(8) for i in itertools.count())
        with patch("secrets.randbits", lambda bits, n=numbers: int.from_bytes(next(n), "big") >> (64 - bits)):
            log = Log(target)
            build(log)
            log.save()
        (target / "expect.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
