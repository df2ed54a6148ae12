"""With a calendar on loopback that makes real proofs, and blocks whose headers those lead to."""

import hashlib
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import threading
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from bitcoin.core import CBlockHeader
from hypothesis import given
from hypothesis import strategies as st
from opentimestamps.core.notary import (
    BitcoinBlockHeaderAttestation,
    LitecoinBlockHeaderAttestation,
    PendingAttestation,
)
from opentimestamps.core.op import OpAppend, OpPrepend, OpSHA256
from opentimestamps.core.serialize import BytesSerializationContext
from opentimestamps.core.timestamp import DetachedTimestampFile, Timestamp, cat_sha256d, make_merkle_tree
from typer.testing import CliRunner

from wmplug import plugins
from wmplug.cli import app
from wmplug.errors import EvidenceWarning, InputError, PluginError, RegisterError, TimestampError
from wmplug.keys.owner import Owner
from wmplug.register import Register, calendars, checking

PASSPHRASE = "correct horse battery staple"
MINED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc)
# Block 0, as every node has it.
GENESIS_ROOT = "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
GENESIS = bytes.fromhex("01" + "00" * 35 + GENESIS_ROOT + "29ab5f49ffff001d1dac2b7c")


def serialized(made):
    context = BytesSerializationContext()
    made.serialize(context)
    return context.getbytes()


def file_of(timestamp):
    return serialized(DetachedTimestampFile(OpSHA256(), timestamp))


class Calendar:
    """As the servers do it: a digest is committed to at once, and proven when a block is mined."""

    def __init__(self):
        self.commitments, self.proven, self.headers = {}, {}, {}
        self.asked = []
        self.answer = None  # instead of what is right: (status, headers, body)
        self.names = None  # itself in a pending attestation as this, as a pool does

    def post(self, digest):
        made = Timestamp(digest)
        commitment = made.ops.add(OpPrepend(os.urandom(4))).ops.add(OpSHA256()).ops.add(OpAppend(os.urandom(8)))
        commitment.attestations.add(PendingAttestation(self.names or self.url))
        self.commitments[commitment.msg.hex()] = commitment.msg
        return serialized(made)

    def mine(self, height):
        """A block of what was submitted, as one transaction among others."""
        leaves = {name: Timestamp(message) for name, message in self.commitments.items()}
        hashed = [leaf.ops.add(OpSHA256()) for leaf in (*leaves.values(), Timestamp(os.urandom(40)))]
        transaction = make_merkle_tree(hashed).ops.add(OpPrepend(b"in")).ops.add(OpAppend(b"out"))
        root = cat_sha256d(transaction.ops.add(OpSHA256()).ops.add(OpSHA256()), Timestamp(os.urandom(32)))
        root.attestations.add(BitcoinBlockHeaderAttestation(height))
        self.proven |= leaves
        block = CBlockHeader(2, os.urandom(32), root.msg, int(MINED.timestamp()), 0x1D00FFFF, 7)
        self.headers[height] = block.serialize()


@pytest.fixture
def calendar():
    served = Calendar()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply("POST", lambda: served.post(body) if self.path == "/digest" else None)

        def do_GET(self):
            name = self.path.removeprefix("/timestamp/")
            self.reply("GET", lambda: serialized(served.proven[name]) if name in served.proven else None)

        def reply(self, method, made):
            served.asked.append(method)
            body = made() if served.answer is None else b""
            status, headers, body = served.answer or (404 if body is None else 200, {}, body or b"Pending")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def offline():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def register(tmp_path):
    return Register.of(Owner.create(tmp_path / "own", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10))


@pytest.fixture
def proven(register, calendar):
    """A register with a proof of its first entry, the entry that records it, and the header it needs."""
    calendars.stamp(register, [calendar.url])
    calendar.mine(900_000)
    (entry,) = calendars.upgrade(register)
    return register, entry, calendar.headers


def check(register, headers=()):
    return calendars.check(checking.check(register.path), register.path, dict(headers))


def codes(report):
    return [(finding.level, finding.code, finding.seq) for finding in report.findings]


def path_of(register, entry):
    return register.path / "anchors" / entry.body["file"]


def rewrite(register, content):
    """A proof recorded by the owner himself, of whatever content."""
    calendars.write_new(register.path / "anchors" / "000000-00000000.ots", content, 0o644)
    digest = hashlib.sha256(content).hexdigest()
    named = {"head": 0, "hash": next(register.entries()).hash, "file": "000000-00000000.ots", "sha256": digest}
    return register.append("retimestamp", {"kind": "opentimestamps", "calendars": [], **named})


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
    with pytest.raises(RegisterError, match="nothing to stamp"):
        calendars.stamp(register, [])
    register.log.unlink()
    with pytest.raises(RegisterError, match="nothing to stamp"):
        calendars.stamp(register, ["http://127.0.0.1:9"])


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


class Hidden:
    """Keeps the package from being found."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("opentimestamps", "bitcoin"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def without_package(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] in ("opentimestamps", "bitcoin") or name == "wmplug.register.calendars":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden, *sys.meta_path])


def test_without_the_package_the_extra_is_named(without_package):
    with pytest.raises(PluginError, match=r"pip install 'wmplug\[ots\]'"):
        plugins.load("wmplug.register.calendars:check")


def test_the_register_does_not_need_the_package():
    code = "import wmplug.register, wmplug.cli, sys; sys.exit('opentimestamps' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.fixture
def terminal(register, monkeypatch):
    """Runs `wmplug register ...` on the register."""
    monkeypatch.setenv("WMPLUG_PASSPHRASE", PASSPHRASE)

    def run(*words, code=0):
        result = CliRunner().invoke(app, ["register", *map(str, words), "--register", str(register.path)])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run


def test_from_the_command_line(terminal, register, calendar, tmp_path):
    assert "pending; some hours later" in terminal("anchor", "--ots", calendar.url).stdout
    calendar.mine(900_000)
    (entry,) = json.loads(terminal("upgrade", "--json").stdout)
    assert entry["body"]["file"].endswith(".1.ots")
    assert "no proof was completed" in terminal("upgrade").stdout
    shown = terminal("check").stdout
    assert "inconclusive: entry 2: needs the header of block 900000" in shown
    assert "NOT ATTESTED: no entry is dated" in shown
    headers = tmp_path / "headers.json"
    headers.write_text(json.dumps({height: header.hex() for height, header in calendar.headers.items()}))
    shown = terminal("check", "--headers", headers).stdout
    assert "entries 0 to 0 existed at 2026-03-04 05:06:07 UTC: Bitcoin block 900000" in shown
    assert "NOT ATTESTED: 2 at the end are not dated" in shown
    path_of(register, register.head).write_bytes(b"")
    assert "proof-replaced" in terminal("check", "--headers", headers, code=1).stdout


def test_an_authority_and_a_calendar_are_asked_together(terminal, register, calendar, lab, tmp_path):
    (tmp_path / "trust.json").write_text(json.dumps(lab.trust.to_json()))
    told = json.loads(terminal("anchor", "--trust", tmp_path / "trust.json", "--ots", calendar.url, "--json").stdout)
    assert [(set(one) & {"tsa", "ots"}, one["entry"]["body"]["head"]) for one in told] == [({"tsa"}, 0), ({"ots"}, 1)]
    report = json.loads(terminal("check", "--json").stdout)
    assert [(stamp["head"], stamp["lab"]) for stamp in report["stamps"]] == [(0, True)]
    assert [finding["code"] for finding in report["findings"]] == ["pending"]


def test_a_calendar_that_does_not_answer_ends_with_1(terminal, offline):
    assert "try again later" in terminal("anchor", "--ots", offline, code=1).stderr
    (told,) = json.loads(terminal("anchor", "--ots", offline, "--json", code=1).stdout)
    assert told["ots"] == [offline]
    assert told["entry"] is None


def test_whoever_lacks_the_package_checks_the_rest(terminal, register, without_package, tmp_path):
    register.append("retimestamp", {"kind": "opentimestamps"})
    shown = terminal("check").stdout
    assert "[calendars-unchecked]" in shown
    assert "wmplug[ots]" in shown
    (tmp_path / "headers.json").write_text("{}")
    assert "wmplug[ots]" in terminal("check", "--headers", tmp_path / "headers.json", code=2).stderr
