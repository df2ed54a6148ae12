import base64
import errno
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from wmplug.errors import CorruptEntryError, RegisterError
from wmplug.register.ledger import Ledger, read, torn
from wmplug.register.statements import Signer

REGISTER = "ab" * 32
SIGNER = Signer(bytes(32))


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path, REGISTER, SIGNER)


def steps(path):
    return [entry.body.get("step") for entry in read(path)]


def append(ledger, step, **options):
    return ledger.append("training.checkpoint", {"step": step}, **options)[0]


def test_entries_are_numbered_linked_and_found_again(ledger):
    first, second = append(ledger, 1), append(ledger, 2)
    assert (first.seq, second.seq, second.prev) == (0, 1, first.hash)
    assert [entry.hash for entry in read(ledger.path)] == [first.hash, second.hash]


def test_a_retry_of_an_event_gives_the_entry_that_is_there(ledger, tmp_path):
    first = append(ledger, 1, event_id="one")
    append(ledger, 2)
    again, new = Ledger(tmp_path, REGISTER, SIGNER).append("training.checkpoint", {"step": 1}, event_id="one")
    assert (again, new) == (first, False)
    assert steps(ledger.path) == [1, 2]


def test_an_event_id_that_another_kind_of_event_has_is_refused(ledger):
    append(ledger, 1, event_id="secret/aa")
    with pytest.raises(RegisterError, match="written to be in the way"):
        ledger.append("secret.committed", {"watermark": "aa"}, event_id="secret/aa")
    assert steps(ledger.path) == [1]


def test_a_repair_that_cannot_be_made_is_an_error_of_the_register(ledger, tmp_path):
    append(ledger, 1)
    with ledger.path.open("ab") as log:
        log.write(b"torn")
    (tmp_path / "quarantine").write_text("a file in its place")
    with pytest.raises(RegisterError, match="could not be written"):
        append(Ledger(tmp_path, REGISTER, SIGNER), 2)


def test_two_writers_in_turn_make_one_chain(ledger, tmp_path):
    other = Ledger(tmp_path, REGISTER, Signer(bytes([1]) * 32))
    for step in range(6):
        append((ledger, other)[step % 2], step)
    assert steps(ledger.path) == list(range(6))


@pytest.mark.once
def test_a_line_cut_at_any_byte_loses_nothing_that_was_acknowledged(tmp_path):
    whole = Ledger(tmp_path, REGISTER, SIGNER)
    append(whole, 1)
    kept = whole.path.stat().st_size
    append(whole, 2)
    text = whole.path.read_bytes()
    for cut in range(kept + 1, len(text)):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "log.jsonl").write_bytes(text[:cut])
        assert torn(folder / "log.jsonl") == cut - kept
        entry = append(Ledger(folder, REGISTER, SIGNER), 3)
        told = list(read(folder / "log.jsonl"))
        assert [e.type for e in told] == ["training.checkpoint", "recovered", "training.checkpoint"]
        (file,) = (folder / "quarantine").iterdir()
        assert file.read_bytes() == text[kept:cut]
        assert told[1].body == {
            "offset": kept,
            "bytes": cut - kept,
            "sha256": hashlib.sha256(text[kept:cut]).hexdigest(),
            "file": file.name,
        }
        assert entry.seq == 2


def test_a_crash_during_the_repair_is_repaired_too(ledger, tmp_path, monkeypatch):
    append(ledger, 1)
    with ledger.path.open("ab") as log:
        log.write(b'{"payload":')
    monkeypatch.setattr(os, "ftruncate", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        append(Ledger(tmp_path, REGISTER, SIGNER), 2)
    monkeypatch.undo()
    append(Ledger(tmp_path, REGISTER, SIGNER), 2)
    assert steps(ledger.path) == [1, None, 2]
    assert [file.suffix for file in (tmp_path / "quarantine").iterdir()] == [".torn"]


@pytest.mark.parametrize("tail", [bytes(300) + b"\n", b"garbage\n", b'{"payload":"AAAA","signatures":[]}\n'])
def test_a_damaged_tail_is_named_and_nothing_is_appended(ledger, tmp_path, tail):
    append(ledger, 1)
    end = ledger.path.stat().st_size
    with ledger.path.open("ab") as log:
        log.write(tail)
    for writer in (ledger, Ledger(tmp_path, REGISTER, SIGNER)):
        with pytest.raises(CorruptEntryError, match="check") as caught:
            append(writer, 2)
        assert (caught.value.seq, caught.value.offset) == (1, end)
    assert ledger.path.stat().st_size == end + len(tail)


def test_an_edited_last_entry_is_not_built_upon(ledger, tmp_path):
    append(ledger, 1)
    envelope = json.loads(ledger.path.read_bytes())
    envelope["signatures"][0]["sig"] = "A" * 86 + "=="
    ledger.path.write_bytes(json.dumps(envelope, separators=(",", ":")).encode() + b"\n")
    with pytest.raises(CorruptEntryError) as caught:
        append(Ledger(tmp_path, REGISTER, SIGNER), 2)
    assert caught.value.code == "bad-signature"


def test_an_older_copy_put_in_its_place_is_noticed(ledger):
    append(ledger, 1)
    old = ledger.path.read_bytes()
    append(ledger, 2)
    ledger.path.write_bytes(old)
    with pytest.raises(RegisterError, match="diff"):
        append(ledger, 3)


def test_a_new_log_is_on_disk_with_its_name(ledger, monkeypatch):
    """Without a sync of the folder a crash leaves the entry in a file that no name leads to."""
    synced, real = [], os.fsync

    def sync(descriptor):
        synced.append(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    append(ledger, 1)
    assert set(synced) == {ledger.path.stat().st_ino, ledger.path.parent.stat().st_ino}


@pytest.mark.parametrize("failing", ["write", "fsync"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_what_cannot_be_written_is_rolled_back(ledger, monkeypatch, failing, code):
    append(ledger, 1)
    before, real = ledger.path.read_bytes(), getattr(os, failing)
    calls = []

    def fail(descriptor, *data):
        calls.append(data)
        if len(calls) == 1:
            if data:
                real(descriptor, data[0][:20])
            raise OSError(code, os.strerror(code))
        return real(descriptor, *data)

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(RegisterError, match=f"{os.strerror(code)}.*not recorded"):
        append(ledger, 2)
    monkeypatch.undo()
    assert ledger.path.read_bytes() == before
    assert append(ledger, 3).seq == 1


def test_a_read_only_register_says_so(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path / "none", REGISTER, SIGNER)
    with pytest.raises(RegisterError, match=r"could not be written.*write access"):
        append(ledger, 1)


def test_a_body_that_is_no_json_is_refused(ledger):
    for body in ({"p": float("nan")}, {"p": object()}, {"p": 2**60}):
        with pytest.raises(RegisterError, match="not JSON"):
            ledger.append("training.checkpoint", body)
    with pytest.raises(RegisterError, match="no event type"):
        ledger.append("training.paused", {})


def test_a_tail_without_an_end_is_measured_whole(ledger):
    append(ledger, 1)
    whole = ledger.path.read_bytes()
    for length in (1, 65535, 65536, 65537, 200_001):
        ledger.path.write_bytes(whole + b"x" * length)
        assert torn(ledger.path) == length
        ledger.path.write_bytes(b"x" * length)
        assert torn(ledger.path) == length
    ledger.path.write_bytes(whole)
    assert torn(ledger.path) == 0
    ledger.path.write_bytes(b"")
    assert torn(ledger.path) == 0


def written(path, lines):
    path.write_bytes(b"".join(lines))
    return path


def refused(path):
    with pytest.raises(CorruptEntryError) as caught:
        list(read(path))
    return caught.value.code, caught.value.seq, caught.value.offset


def test_an_entry_that_was_moved_removed_or_replaced_is_named_with_its_place(ledger, tmp_path):
    for step in range(4):
        append(ledger, step)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    first, two = len(lines[0]), len(lines[0] + lines[1])
    for edited, named in (
        ([lines[0], lines[2], lines[1], lines[3]], ("out-of-order", 1, first)),
        (lines[1:], ("out-of-order", 0, 0)),
        ([lines[0], lines[0], *lines[1:]], ("out-of-order", 1, first)),
        ([lines[0], lines[1], b"{}\n"], ("not-an-envelope", 2, two)),
        ([b"{}\n"], ("not-an-envelope", 0, 0)),
    ):
        assert refused(written(ledger.path, edited)) == named
    second = list(read(written(ledger.path, lines[:2])))[1]
    (tmp_path / "theirs").mkdir()
    for register, last, code in (
        (REGISTER, SimpleNamespace(hash="00" * 32), "broken-chain"),
        ("cd" * 32, second, "other-register"),
    ):
        theirs = Ledger(tmp_path / "theirs", register, SIGNER)
        theirs._seq, theirs._last = 1, last
        with theirs._locked() as log:
            theirs._write(log, "training.checkpoint", {}, (), "theirs")
        written(ledger.path, [*lines[:2], theirs.path.read_bytes()])
        assert refused(ledger.path) == (code, 2, two)
        theirs.path.unlink()


def test_a_line_has_a_limit(ledger, monkeypatch):
    for step in range(3):
        append(ledger, step)
    lines = ledger.path.read_bytes().splitlines(keepends=True)
    monkeypatch.setattr("wmplug.register.ledger._LINE", len(lines[0]))
    assert steps(ledger.path) == [0, 1, 2]
    monkeypatch.setattr("wmplug.register.ledger._LINE", len(lines[0]) - 1)
    assert refused(ledger.path) == ("not-an-envelope", 0, 0)
    longer = b"x" * (len(lines[0]) + 1)  # no end is in sight, and none is looked for
    monkeypatch.setattr("wmplug.register.ledger._LINE", len(lines[0]))
    ledger.path.write_bytes(lines[0] + longer)
    assert refused(ledger.path) == ("not-an-envelope", 1, len(lines[0]))
    ledger.path.write_bytes(lines[0] + longer[:-1])
    assert steps(ledger.path) == [0]  # torn


def test_an_entry_that_no_reader_would_accept_is_not_written(ledger, monkeypatch):
    append(ledger, 1)
    before = ledger.path.read_bytes()
    monkeypatch.setattr("wmplug.register.ledger._LINE", len(before))
    assert append(ledger, 2).seq == 1  # as long
    kept = ledger.path.read_bytes()
    with pytest.raises(RegisterError, match=r"a training.checkpoint entry of .* is longer than"):
        append(ledger, 10**6)
    assert ledger.path.read_bytes() == kept


def test_a_writer_waits_for_the_lock(ledger):
    append(ledger, 1)
    held = os.open(ledger.path, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    writer = threading.Thread(target=append, args=(ledger, 2))
    writer.start()
    writer.join(0.2)
    assert writer.is_alive()
    assert steps(ledger.path) == [1]
    os.close(held)
    writer.join(20)
    assert steps(ledger.path) == [1, 2]


def test_a_lock_that_is_never_given_back_is_told(ledger, monkeypatch):
    append(ledger, 1)
    monkeypatch.setattr("wmplug.register.ledger._PATIENCE", 0.1)
    held = os.open(ledger.path, os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(RegisterError, match=r"held the lock of .*log.jsonl for 0.1 seconds.*not recorded.*end that"):
        append(ledger, 2)
    os.close(held)
    append(ledger, 3)
    assert steps(ledger.path) == [1, 3]


def test_no_descriptor_is_left_open(ledger, monkeypatch):
    append(ledger, 1)
    before = len(os.listdir("/proc/self/fd"))
    for step in range(5):
        append(ledger, step, event_id=str(step % 2))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(RegisterError, match="full"):
            append(ledger, 9)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_an_entry_says(ledger):
    subject = [("triggers", "ab" * 32)]
    before = datetime.now(timezone.utc).replace(microsecond=0)
    entry, new = ledger.append("triggers.committed", {"n": 1}, subject, "mine")
    assert new
    (told,) = read(ledger.path)
    assert told == entry
    assert (told.register, told.seq, told.type, told.event_id, told.body) == (
        REGISTER,
        0,
        "triggers.committed",
        "mine",
        {"n": 1},
    )
    claimed = datetime.strptime(told.claimed_time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    assert before <= claimed <= datetime.now(timezone.utc)
    assert told.verify(SIGNER.public)
    payload = json.loads(base64.b64decode(json.loads(ledger.path.read_bytes())["payload"]))
    assert payload["subject"] == [{"name": "triggers", "digest": {"sha256": "ab" * 32}}]
    ids = {ledger.append("triggers.committed", {})[0].event_id for _ in range(3)}
    assert len(ids) == 3


def test_the_claimed_time_is_utc_wherever_the_clock_hangs(ledger, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        claimed = append(ledger, 1).claimed_time
    time.tzset()
    passed = datetime.now(timezone.utc) - datetime.fromisoformat(claimed.replace("Z", "+00:00"))
    assert timedelta() <= passed < timedelta(minutes=5)


def test_what_was_set_aside_is_private_and_named_by_its_place(ledger, tmp_path):
    append(ledger, 1)
    end = ledger.path.stat().st_size
    with ledger.path.open("ab") as log:
        log.write(b"torn")
    append(Ledger(tmp_path, REGISTER, SIGNER), 2)
    (file,) = (tmp_path / "quarantine").iterdir()
    assert file.name == f"{end:012d}-{hashlib.sha256(b'torn').hexdigest()[:16]}.torn"
    assert file.stat().st_mode & 0o777 == 0o600
    entry = list(read(ledger.path))[1]
    assert (entry.type, entry.event_id) == ("recovered", file.name)
    found = {"offset": end, "bytes": 4, "sha256": hashlib.sha256(b"torn").hexdigest(), "file": file.name}
    assert entry.body == found


def test_a_crash_between_the_entry_and_the_name_of_its_file_repeats_no_entry(ledger, tmp_path):
    append(ledger, 1)
    with ledger.path.open("ab") as log:
        log.write(b"torn")
    append(ledger, 2)
    (file,) = (tmp_path / "quarantine").iterdir()
    file.rename(file.with_suffix(".pending"))
    append(Ledger(tmp_path, REGISTER, SIGNER), 3)
    assert [entry.type for entry in read(ledger.path)].count("recovered") == 1
    assert file.exists()
    assert steps(ledger.path) == [1, None, 2, 3]


@pytest.mark.parametrize(("kind", "field"), [("key.rotated", "former"), ("key.revoked", "keyid")])
def test_a_key_that_no_longer_signs_writes_nothing(ledger, tmp_path, kind, field):
    append(ledger, 1)
    Ledger(tmp_path, REGISTER, Signer(bytes([1]) * 32)).append(kind, {field: SIGNER.keyid})
    before = ledger.path.read_bytes()
    with pytest.raises(RegisterError, match="was rotated or revoked since: nothing was written"):
        append(ledger, 2)
    assert ledger.path.read_bytes() == before
    assert append(Ledger(tmp_path, REGISTER, Signer(bytes([2]) * 32)), 2).seq == 2


def test_another_writers_last_entry_is_built_upon_unchecked(ledger, tmp_path):
    """Its key is not known here: a reader checks the whole log."""
    append(Ledger(tmp_path, REGISTER, Signer(bytes([1]) * 32)), 1)
    assert append(ledger, 2).seq == 1


def test_a_short_write_is_finished(ledger, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:100]))
    append(ledger, 1)
    append(ledger, 2)
    assert steps(ledger.path) == [1, 2]


KILLS = """
import os, signal, sys, time
from pathlib import Path
from wmplug.register.ledger import Ledger, read
from wmplug.register.statements import Signer

folder = Path(sys.argv[1])


def write(name, first, pipe):
    ledger = Ledger(folder, "ab" * 32, Signer(bytes(32)))
    for step in range(first, 10**9):
        ledger.append("training.checkpoint", {"writer": name, "step": step}, event_id=f"{name}/{step}")
        os.write(pipe, b"%d\\n" % step)


def start(name, first):
    out, pipe = os.pipe()
    child = os.fork()
    if child == 0:
        write(name, first, pipe)
    os.close(pipe)
    return child, os.fdopen(out, "rb")


acknowledged = {"a": -1, "b": -1}
for kills in range(0, 200, 2):
    children = {name: start(name, last + 1) for name, last in acknowledged.items()}
    for number, (child, out) in enumerate(children.values()):
        # From the middle of the start to some appends later; the second writer outlives a holder of the lock.
        time.sleep(0.0007 * ((kills + number) % 41))
        os.kill(child, signal.SIGKILL)
    for name, (child, out) in children.items():
        os.waitpid(child, 0)
        lines = out.read().split(b"\\n")[:-1]
        out.close()
        acknowledged[name] = int(lines[-1]) if lines else acknowledged[name]

entries = list(read(folder / "log.jsonl"))
assert [entry.seq for entry in entries] == list(range(len(entries)))
for name, last in acknowledged.items():
    written = [entry.body["step"] for entry in entries if entry.body.get("writer") == name]
    # The last may have been written and not acknowledged; its retry then finds it.
    assert written == list(range(len(written))) and len(written) in (last + 1, last + 2), (name, last, written[-3:])
print(kills + 2, sum(acknowledged.values()) + 2, sum(entry.type == "recovered" for entry in entries))
"""


@pytest.mark.once
def test_two_hundred_kills_of_two_writers_lose_nothing_that_was_acknowledged(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    kills, acknowledged, _ = map(int, done.stdout.split())
    assert kills == 200
    assert acknowledged > 20  # how many depends on the machine


class Log(RuleBasedStateMachine):
    """Appends, retries, cuts and second writers in any order: the log is what was acknowledged, and nothing else."""

    @initialize(folder=st.uuids())
    def begin(self, folder):
        self.folder = self.parent / str(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log.jsonl").unlink(missing_ok=True)
        self.writers = [Ledger(self.folder, REGISTER, SIGNER) for _ in range(2)]
        self.acknowledged = []

    @rule(writer=st.integers(0, 1), event=st.none() | st.sampled_from("xyz"))
    def append(self, writer, event):
        known = [entry for entry in self.acknowledged if entry.event_id == event]
        entry, new = self.writers[writer].append("training.checkpoint", {"event": event}, event_id=event)
        assert new == (not known)
        assert [entry] == (known or [entry])
        if new:
            self.acknowledged.append(entry)

    @rule(cut=st.integers(1, 200), writer=st.integers(0, 1))
    def crash(self, cut, writer):
        line = b'{"payload":"' + b"A" * 300
        with (self.folder / "log.jsonl").open("ab") as log:
            log.write(line[:cut])
        self.writers[writer] = Ledger(self.folder, REGISTER, SIGNER)

    @invariant()
    def nothing_is_lost(self):
        if hasattr(self, "folder") and (self.folder / "log.jsonl").exists():
            told = [entry for entry in read(self.folder / "log.jsonl") if entry.type != "recovered"]
            assert [entry.hash for entry in told] == [entry.hash for entry in self.acknowledged]


def test_any_sequence_of_appends_and_crashes(tmp_path):
    Log.parent = tmp_path
    Log.TestCase.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
    Log.TestCase("runTest").runTest()
