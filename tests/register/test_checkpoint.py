import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logs import MARK, NOW, OPENED, OWNER, RECORDER, SECRET, TRIGGERS, VECTORS, checkpoints, refusals, written

from wmplug.errors import KeyFileError, RegisterError
from wmplug.register import Register, receipts
from wmplug.register.checking import check
from wmplug.register.checkpoint import Checkpoint, load, own_signer, save
from wmplug.register.statements import Entry, Signer, decode, decode_known

BEGINNING = list(checkpoints(6))
CHECKPOINT = ("training.checkpoint", {"watermark": MARK, "run": "ab" * 16, "step": 9, "verdict": None}, RECORDER)
REVOKED = ("key.revoked", {"keyid": RECORDER.keyid, "reason": "lost", "since": "2026-01-01T00:00:00Z"}, OWNER)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("WMPLUG_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def file(tmp_path):
    return tmp_path / "checkpoint.json"


@pytest.fixture
def folder(tmp_path, file):
    """A register that was checked."""
    folder = written(tmp_path / "register", BEGINNING)
    assert check(folder, checkpoint=file).taken is None
    return folder


@pytest.fixture
def verified(monkeypatch):
    """The numbers of the entries whose signatures are verified."""
    seqs, real = [], Entry.verify
    monkeypatch.setattr(Entry, "verify", lambda entry, public: seqs.append(entry.seq) or real(entry, public))
    return seqs


def edited(file, **changes):
    document = json.loads(file.read_bytes())
    document["checkpoint"].update(changes)
    file.write_text(json.dumps(document))


def test_a_log_that_grew_needs_only_its_new_signatures(folder, file, verified):
    written(folder, [*BEGINNING, CHECKPOINT])
    report = check(folder, checkpoint=file)
    assert verified == [6]
    assert (report.ok, report.entries, report.taken.entries) == (True, 7, 6)
    assert report.to_json()["taken"]["entries"] == 6
    assert check(folder, checkpoint=file).taken.entries == 7
    assert verified == [6]
    assert check(folder).taken is None
    assert verified == [6, *range(7)]


def test_a_checkpoint_that_says_nothing_new_keeps_its_time(folder, file):
    signer = own_signer()
    former = load(file, signer, check(folder).register)
    save(file, Checkpoint(**{**vars(former), "checked": "2026-01-31T12:00:00Z"}), signer)
    assert check(folder, checkpoint=file).taken.checked == "2026-01-31T12:00:00Z"
    assert load(file, signer, former.register).checked == "2026-01-31T12:00:00Z"


def test_the_checkpoint_and_its_key_are_private_and_apart(folder, file, state):
    assert [path.stat().st_mode & 0o777 for path in (file, state / "checker.key", state)] == [0o600, 0o600, 0o700]


@pytest.mark.parametrize("change", [{"entries": 9}, {"length": 1}, {"sha256": "00" * 32}, {"head": "00" * 32}])
def test_an_edited_checkpoint_is_refused(folder, file, change):
    edited(file, **change)
    with pytest.raises(RegisterError, match="edited since you signed it: remove it"):
        check(folder, checkpoint=file)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"checkpoint": {}}', "[" * 4000, " " * 5000, '{"checkpoint": []}'])
def test_what_is_no_checkpoint_is_refused(folder, file, text):
    file.write_text(text)
    with pytest.raises(RegisterError, match="not a checkpoint"):
        check(folder, checkpoint=file)


def test_a_pipe_in_its_place_is_not_waited_for(folder, file):
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(RegisterError, match="not a checkpoint"):
        check(folder, checkpoint=file)


def test_an_owner_who_hands_over_a_checkpoint_gains_nothing(folder, file):
    """Not with a signature of their own, and not under the name of yours."""
    claimed = Checkpoint(**json.loads(file.read_bytes())["checkpoint"])
    save(file, claimed, Signer(bytes([7]) * 32))
    with pytest.raises(RegisterError, match="another key than yours"):
        check(folder, checkpoint=file)
    document = json.loads(file.read_bytes())
    file.write_text(json.dumps({**document, "keyid": own_signer().keyid}))
    with pytest.raises(RegisterError, match="edited since you signed it"):
        check(folder, checkpoint=file)


def test_the_checkpoint_of_another_register_is_refused(folder, file):
    with pytest.raises(RegisterError, match="another file for each register"):
        check(VECTORS / "story_ok", checkpoint=file, now=NOW)


def test_another_version_checks_everything_again(folder, file, verified):
    signer = own_signer()
    former = load(file, signer, check(folder).register)
    verified.clear()
    save(file, Checkpoint(**{**vars(former), "version": "0.0.0"}), signer)
    assert check(folder, checkpoint=file).taken is None
    assert verified == list(range(6))
    assert check(folder, checkpoint=file).taken == former


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_signs_nothing(folder, file, state, mode):
    (state / "checker.key").chmod(mode)
    with pytest.raises(KeyFileError, match="you alone can read"):
        check(folder, checkpoint=file)


def test_a_truncated_key_signs_nothing(folder, file, state):
    (state / "checker.key").write_bytes(bytes(31))
    with pytest.raises(KeyFileError, match="not a key of 32 bytes"):
        check(folder, checkpoint=file)


def test_a_bad_signature_behind_the_checkpoint_is_refused(folder, file):
    log = folder / "log.jsonl"
    end = log.stat().st_size
    before = file.read_bytes()
    written(folder, [*BEGINNING, CHECKPOINT])
    tail = log.read_bytes()[end:]
    stranger = bytearray(tail)
    place = tail.index(b'"sig":"') + 10
    stranger[place] = ord("A") if tail[place] != ord("A") else ord("B")
    log.write_bytes(log.read_bytes()[:end] + stranger)
    assert refusals(check(folder, checkpoint=file)) == [("bad-signature", 6)]
    assert file.read_bytes() == before  # only a good check renews it


def test_a_key_revoked_later_no_longer_signs(folder, file):
    written(folder, [*BEGINNING, REVOKED])
    report = check(folder, checkpoint=file)
    assert report.taken.entries == 6
    assert report.findings == check(folder).findings
    assert any("3 entries" in finding.text for finding in report.findings)
    written(folder, [*BEGINNING, REVOKED, CHECKPOINT])
    assert refusals(check(folder, checkpoint=file)) == [("revoked-key", 7)]


def test_rules_beyond_signatures_are_applied_to_what_is_covered(tmp_path, file):
    folder = shutil.copytree(VECTORS / "story_ok", tmp_path / "story")
    check(folder, checkpoint=file, now=NOW)
    assert check(folder, checkpoint=file, now=NOW).taken is not None
    assert refusals(check(folder, checkpoint=file, now=NOW, authorities=[])) == [
        ("authority-not-trusted", seq) for seq in (9, 4, 2)
    ]
    for token in (folder / "anchors").glob("*.tsr"):
        token.unlink()
    assert {code for code, _ in refusals(check(folder, checkpoint=file, now=NOW))} == {"token-missing"}


@pytest.mark.parametrize("kept", [2, 5])
def test_a_log_that_was_cut_is_refused_although_what_is_left_holds(folder, file, kept):
    before = file.read_bytes()
    written(folder, BEGINNING[:kept])
    assert check(folder).ok
    assert refusals(check(folder, checkpoint=file)) == [("tail-deleted", None)]
    assert file.read_bytes() == before


def test_a_log_that_its_owner_signed_anew_is_refused(folder, file):
    other = (*CHECKPOINT[:1], {**CHECKPOINT[1], "step": 99}, RECORDER)
    written(folder, [*BEGINNING[:5], other, CHECKPOINT])
    assert check(folder).ok
    assert refusals(check(folder, checkpoint=file)) == [("rewritten", None)]


def test_a_log_that_is_gone_is_refused(folder, file):
    (folder / "log.jsonl").unlink()
    assert refusals(check(folder, checkpoint=file)) == [("empty", None), ("tail-deleted", None)]


def test_a_line_that_is_being_written_is_not_covered(folder, file, verified):
    log = folder / "log.jsonl"
    written(folder, [*BEGINNING, CHECKPOINT])
    whole = log.read_bytes()
    log.write_bytes(whole[:-5])
    check(folder, checkpoint=file)
    log.write_bytes(whole)
    assert check(folder, checkpoint=file).taken.entries == 6
    assert verified == [6]


def test_a_log_that_is_changed_while_it_is_read_is_not_taken(folder, file, monkeypatch):
    """Between the moment when its bytes are compared and the moment when they are read."""
    log = folder / "log.jsonl"
    whole = log.read_bytes()
    real = Checkpoint.covers

    def swap(checkpoint, path):
        held = real(checkpoint, path)
        place = whole.index(b'"sig":"') + 10
        log.write_bytes(whole[:place] + (b"B" if whole[place : place + 1] == b"A" else b"A") + whole[place + 1 :])
        return held

    monkeypatch.setattr(Checkpoint, "covers", swap)
    with pytest.raises(RegisterError, match="changed while it was read"):
        check(folder, checkpoint=file)


def test_a_register_that_cannot_be_noted_says_so(folder, tmp_path):
    with pytest.raises(RegisterError, match="could not be written"):
        check(folder, checkpoint=tmp_path / "none" / "checkpoint.json")


def test_a_receipt_binds_as_ever(folder, file):
    given_out = receipts.receipt(Register(folder), OWNER)
    assert check(folder, receipts=[given_out], checkpoint=file).taken.entries == 6
    signature = OWNER.sign(receipts._payload(given_out.register, 5, "00" * 32), receipts.PAYLOAD_TYPE)
    other = receipts.Receipt(given_out.register, 5, "00" * 32, OWNER.keyid, signature)
    assert refusals(check(folder, receipts=[other], checkpoint=file)) == [("rewritten", None)]


REAL = [5.0, 1e-7, 1e20, 2**53 - 1, -(2**53) + 1, 1.5e300, 0.1, -0.0, 12345678901234567890.0]


@pytest.mark.parametrize("number", REAL)
def test_known_lines_are_read_to_the_same_entry(tmp_path, number):
    body = {"x": number, "text": 'é\u2028"', "deep": [[{"y": [number]}]]}
    folder = written(tmp_path / "odd", [OPENED, ("dataset.committed", body, OWNER)])
    for line in (folder / "log.jsonl").read_bytes().splitlines(keepends=True):
        first, again = decode(line, 0, 0), decode_known(line, 0, 0)
        assert first == again
        assert repr(first.body) == repr(again.body)  # 1 and 1.0 are equal


@given(data=st.data())
def test_whatever_is_edited_both_checks_refuse_the_same(tmp_path_factory, data):
    """Bytes changed, put in, taken out and moved; before the end of what is covered and behind it."""
    folder = tmp_path_factory.mktemp("register") / "register"
    file = folder.parent / "checkpoint.json"
    written(folder, [OPENED, SECRET, ("triggers.committed", TRIGGERS, OWNER), CHECKPOINT])
    check(folder, checkpoint=file)
    log = folder / "log.jsonl"
    written(folder, [OPENED, SECRET, ("triggers.committed", TRIGGERS, OWNER), CHECKPOINT, CHECKPOINT, REVOKED])
    whole = log.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, min(len(whole), start + 40)))
    new = data.draw(st.one_of(st.binary(max_size=40), st.sampled_from([whole[end : end + 1], whole[:start], b"A"])))
    log.write_bytes(whole[:start] + new + whole[end:])
    full, incremental = check(folder), check(folder, checkpoint=file)
    if full.ok:  # it was cut between two entries
        assert set(refusals(incremental)) <= {("tail-deleted", None)}
    else:
        assert refusals(incremental) == refusals(full)
    assert (incremental.entries, incremental.head, incremental.counts) == (full.entries, full.head, full.counts)
