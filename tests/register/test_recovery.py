import base64
import dataclasses
import itertools
import json
import os
import signal
import stat
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest

import wmplug
from wmplug import Owner
from wmplug.errors import EvidenceWarning, InputError, KeyFileError, PluginError, RegisterError, WrongPassphraseError
from wmplug.keys.owner import commitment_of
from wmplug.register import Register, Signer, anchors, recovery, statements
from wmplug.register.checking import check
from wmplug.register.recovery import combine, renounce, revoke, rotate, split

PASSPHRASE = "correct horse battery staple"
CHEAP = 2**10


@pytest.fixture
def ada(tmp_path):
    """An owner whose register holds two entries."""
    made = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=CHEAP)
    Register.of(made).append("owner.identity", {"name": "Ada"})
    return made


def again(owner, passphrase=PASSPHRASE):
    return Owner.open(owner.path, passphrase=passphrase)


def mark_of(owner, digits, **more):
    options = {"scheme": "random-label", "classes": 10, "triggers": 20, **more}
    return wmplug.create(owner, carriers=digits[0][:200], labels=digits[1][:200], **options)


def keyid(owner):
    return Signer(owner.signing_seed()).keyid


def found(folder):
    """Findings, but for those of what no authority has dated."""
    return [finding for finding in check(folder).findings if finding.level != "inconclusive"]


def codes(folder):
    return [finding.code for finding in found(folder)]


def append_raw(register, signer, kind, body):
    """An entry as whoever holds `signer` could write it, without this package's manners."""
    head = register.head
    predicate = {"register": register.id, "seq": head.seq + 1, "prev": head.hash, "type": kind, "body": body}
    predicate |= {"event_id": f"raw/{head.seq}", "claimed_time": head.claimed_time}
    with register.log.open("ab") as log:
        log.write(statements.encode(predicate, (), signer))


def rotation(register, former, new, **edits):
    """The body of a rotation, and in it whatever is edited after it was signed."""
    body = {"former": former.keyid, "public": new.public.hex(), "commitment": "ab" * 32}
    proof = new.sign(recovery._claim(register.id, body), recovery.PROOF_TYPE)
    return {**body, "proof": base64.b64encode(proof).decode(), **edits}


def test_a_rotation_is_signed_by_the_former_key_and_proven_by_the_new(ada):
    new = rotate(ada)
    entry = Register.of(new).head
    assert (entry.type, entry.keyid) == ("key.rotated", keyid(ada))
    public = Signer(new.signing_seed()).public
    assert entry.body["former"] == keyid(ada)
    assert entry.body["public"] == public.hex()
    assert entry.body["commitment"] == commitment_of(new.roots()[0])
    assert recovery.is_proven(new.commitment, entry.body)
    assert new.roots()[1:] == ada.roots()
    assert (new.name, new.commitment) == (ada.name, ada.commitment)
    after = Register.of(new).append("owner.identity", {"name": "still Ada"})
    assert after.keyid == keyid(new) != keyid(ada)
    assert check(ada.path).ok
    assert codes(ada.path) == []


def test_the_register_goes_on_over_many_rotations(ada):
    owner = ada
    for number in range(4):
        owner = rotate(owner)
        Register.of(again(owner)).append("owner.identity", {"number": number})
    assert again(owner).roots() == owner.roots()
    assert len(set(owner.roots())) == 5
    assert check(ada.path).ok
    assert check(ada.path).counts["key.rotated"] == 4


def test_a_process_that_holds_the_former_key_cannot_append(ada):
    before = Register.of(ada)
    before.append("owner.identity", {"before": True})
    rotate(ada)
    log = before.log.read_bytes()
    for register in (before, Register.of(ada)):
        with pytest.raises(RegisterError, match="was rotated or revoked since: nothing was written"):
            register.append("owner.identity", {"after": True})
    assert before.log.read_bytes() == log
    assert check(ada.path).ok


def test_what_the_former_key_signs_all_the_same_is_refused(ada):
    rotate(ada)
    append_raw(Register(ada.path), Signer(ada.signing_seed()), "owner.identity", {})
    assert codes(ada.path) == ["revoked-key"]


def test_a_stale_owner_rotates_nothing_away(ada):
    new = rotate(ada)
    kept = (ada.path / "secret" / "owner.enc").read_bytes()
    for stale in (ada, dataclasses.replace(new, _roots=ada.roots())):
        with pytest.raises(RegisterError, match="there was a rotation since"):
            rotate(stale)
    assert (ada.path / "secret" / "owner.enc").read_bytes() == kept


def test_owner_enc_from_before_a_rotation_is_named(ada):
    old = rotate(ada)
    copy = (ada.path / "secret" / "owner.enc").read_bytes()
    rotate(old)
    (ada.path / "secret" / "owner.enc").write_bytes(copy)
    with pytest.raises(RegisterError, match=r"owner\.enc is a copy from before it"):
        Register.of(again(ada))


def test_a_new_passphrase_replaces_the_old(ada):
    new = rotate(ada, passphrase="another one")
    assert again(ada, "another one").roots() == new.roots()
    with pytest.raises(WrongPassphraseError):
        again(ada)
    with pytest.raises(InputError, match="passphrase is empty"):
        rotate(new, passphrase="")
    assert check(ada.path).counts["key.rotated"] == 1


FORGED = {
    "proof of another key": lambda r, a, new: rotation(r, a, new, public=Signer(bytes(32)).public.hex()),
    "no proof": lambda r, a, new: rotation(r, a, new, proof=base64.b64encode(bytes(64)).decode()),
    "proof of the former": lambda r, a, new: rotation(
        r,
        a,
        new,
        proof=base64.b64encode(
            a.sign(recovery._claim(r.id, rotation(r, a, new)), recovery.PROOF_TYPE),
        ).decode(),
    ),
    "signed as an entry": lambda r, a, new: rotation(
        r, a, new, proof=base64.b64encode(new.sign(recovery._claim(r.id, rotation(r, a, new)))).decode()
    ),
    "another commitment": lambda r, a, new: rotation(r, a, new, commitment="cd" * 32),
    "another former key": lambda r, a, new: rotation(r, Signer(bytes(32)), new),
    "itself": lambda r, a, new: rotation(r, a, a),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_a_rotation_that_does_not_prove_the_new_key_is_refused(ada, forge):
    register, former, new = Register(ada.path), Signer(ada.signing_seed()), Signer(os.urandom(32))
    append_raw(register, former, "key.rotated", forge(register, former, new))
    assert codes(ada.path) == ["bad-rotation"]


def test_the_same_rotation_unforged_is_taken(ada):
    register, former, new = Register(ada.path), Signer(ada.signing_seed()), Signer(os.urandom(32))
    append_raw(register, former, "key.rotated", rotation(register, former, new))
    assert codes(ada.path) == []


def test_a_proof_for_another_register_is_refused(ada, tmp_path):
    eve = Owner.create(tmp_path / "eve", name="Eve", passphrase=PASSPHRASE, scrypt_n=CHEAP)
    former, new = Signer(ada.signing_seed()), Signer(os.urandom(32))
    append_raw(Register(ada.path), former, "key.rotated", rotation(Register(eve.path), former, new))
    assert codes(ada.path) == ["bad-rotation"]


@pytest.mark.parametrize("body", [{}, {"former": 7}, {"former": "K", "public": "zz", "proof": "", "commitment": ""}])
def test_a_rotation_without_sense_is_refused(ada, body):
    body = {name: keyid(ada) if value == "K" else value for name, value in body.items()}
    append_raw(Register(ada.path), Signer(ada.signing_seed()), "key.rotated", body)
    assert codes(ada.path)[0] in ("bad-body", "bad-rotation")


@pytest.mark.parametrize("step", ["wmplug.register.recovery._keep_former", "Owner.store", "append"])
@pytest.mark.parametrize("late", [False, True])
def test_a_rotation_cut_off_at_any_step_is_finished_or_undone(ada, monkeypatch, digits, step, late):
    place = {"Owner.store": "wmplug.keys.owner.Owner.store", "append": "wmplug.register.Register.append"}.get(
        step, step
    )
    module, _, name = place.rpartition(".")
    holder = {"wmplug.keys.owner.Owner": Owner, "wmplug.register.Register": Register}.get(module, recovery)
    real = getattr(holder, name)

    def cut(*given, **options):
        if late:
            real(*given, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, cut)
        with pytest.raises(KeyboardInterrupt):
            rotate(ada)
    assert check(ada.path).ok
    owner = again(ada)
    entry = Register.of(owner).append("owner.identity", {"after": True})
    assert entry.keyid == keyid(owner)
    mark = mark_of(owner, digits)
    assert mark_of(rotate(owner), digits).public == mark.public
    assert codes(ada.path) == []
    assert len(again(ada).roots()) in (2, 3)


ROTATE = """
import sys
from wmplug import Owner
from wmplug.register.recovery import rotate
owner = Owner.open(sys.argv[1])
print("ready", flush=True)
for _ in range(int(sys.argv[2])):
    owner = rotate(owner)
"""


def start(ada, rounds):
    environment = {**os.environ, "WMPLUG_PASSPHRASE": PASSPHRASE}
    command = [sys.executable, "-c", ROTATE, str(ada.path), str(rounds)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def test_killed_rotations_leave_a_register_that_goes_on(ada):
    log = Register(ada.path).log
    for number in range(6):
        size = log.stat().st_size
        with start(ada, 10_000) as process:
            while log.stat().st_size == size:
                time.sleep(0.001)
            time.sleep(0.0037 * number)
            process.send_signal(signal.SIGKILL)
        owner = again(ada)
        Register.of(owner).append("owner.identity", {"round": number})
        report = check(ada.path)
        assert report.ok, report.findings
    held = {commitment_of(root) for root in owner.roots()}
    told = {e.body["commitment"] for e in Register(ada.path).entries() if e.type == "key.rotated"}
    assert told < held
    assert len(told) >= 6
    shares = split(owner)
    (ada.path / "secret" / "owner.enc").unlink()
    assert combine(ada.path, shares[:2], passphrase="new", scrypt_n=CHEAP).roots() == owner.roots()


def test_two_processes_that_rotate_at_once_lose_no_secret(ada):
    processes = [start(ada, 3), start(ada, 3)]
    ends = [(process.wait(timeout=60), process.communicate()[1]) for process in processes]
    assert 0 in [code for code, _ in ends]
    assert all(code == 0 or "there was a rotation since" in said for code, said in ends)
    owner = again(ada)
    Register.of(owner).append("owner.identity", {})
    assert check(ada.path).ok
    told = [e.body["commitment"] for e in Register(ada.path).entries() if e.type == "key.rotated"]
    assert [commitment_of(root) for root in owner.roots()] == [*reversed(told), ada.commitment]


def test_watermarks_from_before_open_come_out_the_same_and_go_on_recording(ada, digits, tmp_path):
    mark = mark_of(ada, digits)
    file = mark.save(tmp_path / "mark.wm")
    owner = rotate(ada)
    for same in (wmplug.load(file, passphrase=PASSPHRASE), mark_of(owner, digits), mark_of(again(owner), digits)):
        assert same.public == mark.public
        assert same.signing_seed() == mark.signing_seed()
        assert [answer for _, answer in same.lessons()] == [answer for _, answer in mark.lessons()]
        answers = {x.tobytes(): answer for x, answer in mark.lessons()}
        assert wmplug.verify(same, lambda batch, a=answers: [a[x.tobytes()] for x in batch]).proven
        recorder = Register(owner.path, Signer(same.signing_seed()))
        recorder.append("watermark.inserted", {"watermark": mark.id, "run": "00" * 16, "step": 1})
    other = mark_of(owner, digits, triggers=30)
    assert other.signing_seed() == owner.signing_seed(other.id)
    assert codes(ada.path) == []


def test_the_owners_own_key_is_not_revoked_without_a_successor(ada):
    log = Register(ada.path).log.read_bytes()
    for key in (None, keyid(ada)):
        with pytest.raises(InputError, match="rotate` first"):
            revoke(ada, key, reason="lost")
    for key in ("", "ab" * 32):
        with pytest.raises(InputError, match="no entry introduces a key"):
            revoke(ada, key, reason="lost")
    assert Register(ada.path).log.read_bytes() == log


def test_a_former_key_may_be_revoked(ada):
    new = rotate(ada)
    entry = revoke(new, keyid(ada), reason="retired")
    assert entry.body == {"keyid": keyid(ada), "reason": "retired", "since": None}
    assert revoke(new, keyid(ada), reason="retired").seq == entry.seq
    assert codes(ada.path) == []


def test_a_watermarks_recorder_may_be_revoked(ada, digits):
    mark = mark_of(ada, digits)
    signer = Signer(mark.signing_seed())
    recorder = Register(ada.path, signer)
    event = {"watermark": mark.id, "run": "00" * 16, "step": 1}
    recorder.append("watermark.inserted", event)
    assert revoke(ada, mark.id, reason="stolen laptop").body["keyid"] == signer.keyid
    with pytest.raises(RegisterError, match="was rotated or revoked"):
        recorder.append("watermark.inserted", {**event, "step": 2})
    assert codes(ada.path) == []
    append_raw(recorder, signer, "watermark.inserted", {**event, "step": 2})
    assert codes(ada.path) == ["revoked-key"]


def test_a_recorder_cannot_revoke_or_rotate(ada, digits):
    signer = Signer(mark_of(ada, digits).signing_seed())
    for kind in ("key.revoked", "key.rotated"):
        append_raw(Register(ada.path), signer, kind, {"keyid": keyid(ada), "reason": "", "since": None})
    assert codes(ada.path) == ["not-allowed"]


def test_a_key_that_nobody_introduced_cannot_be_revoked(ada):
    body = {"keyid": "ab" * 32, "reason": "", "since": None}
    append_raw(Register(ada.path), Signer(ada.signing_seed()), "key.revoked", body)
    assert codes(ada.path) == ["unknown-key"]


def test_what_a_compromised_key_signed_is_flagged_unless_a_token_covers_it(ada, lab, digits):
    mark = mark_of(ada, digits)
    register = Register.of(ada)
    anchors.trust(ada.path, lab.trust)
    anchors.anchor(register)
    stamped = check(ada.path).stamps[0]
    event = {"watermark": mark.id, "run": "00" * 16, "step": 1}
    Register(ada.path, Signer(mark.signing_seed())).append("watermark.inserted", event)
    late = register.append("owner.identity", {"late": True}).seq
    since = stamped.gen_time + timedelta(seconds=1)
    new = renounce(ada, reason="laptop stolen", since=since)
    Register.of(new).append("owner.identity", {"again": True})
    flags = {finding.seq: finding for finding in found(ada.path)}
    assert check(ada.path).ok
    assert {finding.code for finding in flags.values()} == {"signed-by-compromised-key"}
    assert set(flags) == {stamped.seq, stamped.seq + 1}  # of the owner: the anchor, `late`, the rotation; the recorder
    assert f"in all 3 entries up to {late + 1}" in flags[stamped.seq].text
    assert "in all 1 entries" in flags[stamped.seq + 1].text
    # Known only later to have been open from the beginning: then the token covers nothing.
    revoke(new, keyid(ada), reason="since the first day", since=stamped.gen_time - timedelta(days=1))
    assert {f.seq for f in check(ada.path).findings if f.code == "signed-by-compromised-key"} == {0, stamped.seq + 1}


def test_a_token_from_after_the_compromise_covers_nothing(ada, lab):
    since = datetime.now(timezone.utc) - timedelta(hours=1)
    anchors.trust(ada.path, lab.trust)
    anchors.anchor(Register.of(ada))
    renounce(ada, reason="laptop stolen", since=since)
    (finding,) = found(ada.path)
    assert (finding.level, finding.code, finding.seq) == ("flagged", "signed-by-compromised-key", 0)


def test_renouncing_revokes_all_keys_before(ada, digits):
    mark = mark_of(ada, digits)
    new = renounce(rotate(ada), reason="laptop stolen", passphrase="another one")
    revoked = {e.body["keyid"] for e in Register(ada.path).entries() if e.type == "key.revoked"}
    assert revoked == {*(Signer(seed).keyid for seed in new.signing_seeds()[1:]), Signer(mark.signing_seed()).keyid}
    assert mark_of(again(new, "another one"), digits).public == mark.public
    assert check(ada.path).ok


def test_a_time_without_a_zone_is_refused_before_anything_is_written(ada):
    new = rotate(ada)
    log = Register(ada.path).log.read_bytes()
    with pytest.raises(InputError, match="no time zone"):
        revoke(new, keyid(ada), reason="", since=datetime(2026, 1, 31))
    with pytest.raises(InputError, match="no time zone"):
        renounce(new, reason="", since=datetime(2026, 1, 31))
    assert Register(ada.path).log.read_bytes() == log


@pytest.mark.parametrize("since", ["2026-01-31", "yesterday", 7, ""])
def test_a_revocation_since_no_time_is_refused(ada, since):
    body = {"keyid": keyid(ada), "reason": "", "since": since}
    append_raw(Register(ada.path), Signer(ada.signing_seed()), "key.revoked", body)
    assert codes(ada.path) == ["bad-body"]


def test_any_two_of_three_shares_recover_all_secrets(ada):
    owner = rotate(rotate(ada))
    shares = split(owner)
    for pair in itertools.permutations(shares, 2):
        (ada.path / "secret" / "owner.enc").unlink()
        back = combine(ada.path, pair, passphrase="new one", scrypt_n=CHEAP)
        assert back.roots() == owner.roots() == again(ada, "new one").roots()
        assert (back.name, back.commitment) == ("Ada", ada.commitment)
    assert stat.S_IMODE((ada.path / "secret" / "owner.enc").stat().st_mode) == 0o600
    assert stat.S_IMODE((ada.path / "secret" / "former.enc").stat().st_mode) == 0o600


def test_the_public_parts_of_the_folder_are_enough(ada, tmp_path):
    owner = rotate(ada)
    shares = split(owner, 5, 3)
    copy = tmp_path / "copy"
    (copy / "secret").mkdir(parents=True)
    for name in ("owner.pub", "log.jsonl", "secret/former.enc"):
        (copy / name).write_bytes((ada.path / name).read_bytes())
    assert combine(copy, shares[1:4], passphrase="new", scrypt_n=CHEAP).roots() == owner.roots()


def test_an_owner_who_never_rotated_needs_owner_pub_alone(tmp_path):
    made = Owner.create(tmp_path / "r", name="Ada", passphrase=PASSPHRASE, scrypt_n=CHEAP)
    shares = split(made)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "owner.pub").write_bytes((made.path / "owner.pub").read_bytes())
    assert combine(copy, shares[:2], passphrase="new", scrypt_n=CHEAP).roots() == made.roots()
    assert stat.S_IMODE((copy / "secret").stat().st_mode) == 0o700


def test_without_former_enc_the_newest_secret_comes_back_with_a_warning(ada):
    owner = rotate(ada)
    shares = split(owner)
    (ada.path / "secret" / "former.enc").unlink()
    with pytest.warns(EvidenceWarning, match="watermarks from before cannot be made again"):
        back = combine(ada.path, shares[:2], passphrase="new", scrypt_n=CHEAP)
    assert back.roots() == owner.roots()[:1]
    Register.of(back).append("owner.identity", {})
    assert check(ada.path).ok


def test_an_edited_former_enc_is_refused(ada):
    shares = split(rotate(ada))
    file = ada.path / "secret" / "former.enc"
    header = json.loads(file.read_bytes())
    ((name, sealed),) = header["links"].items()
    for bad in (sealed[:-2] + f"{int(sealed[-2:], 16) ^ 1:02x}", sealed[:10], "zz", 7):
        file.write_text(json.dumps({**header, "links": {name: bad}}))
        with pytest.raises(KeyFileError, match="edited or damaged"):
            combine(ada.path, shares[:2], passphrase="new", scrypt_n=CHEAP)
    for text in ("", "{}", json.dumps({**header, "kind": "owner"}), json.dumps({**header, "links": [name]})):
        file.write_text(text)
        with pytest.raises(KeyFileError):
            combine(ada.path, shares[:2], passphrase="new", scrypt_n=CHEAP)


def test_shares_of_others_or_of_former_secrets_are_told_apart(ada, tmp_path):
    eve = Owner.create(tmp_path / "eve", name="Eve", passphrase=PASSPHRASE, scrypt_n=CHEAP)
    old = split(ada)
    rotate(ada)
    kept = (ada.path / "secret" / "owner.enc").read_bytes()
    with pytest.raises(InputError, match="of a former secret, replaced by a rotation since \\(entry 2\\)"):
        combine(ada.path, old[:2], passphrase="new", scrypt_n=CHEAP)
    with pytest.raises(InputError, match="of another owner"):
        combine(ada.path, split(eve)[:2], passphrase="new", scrypt_n=CHEAP)
    with pytest.raises(InputError, match="not of one split"):
        combine(ada.path, [old[0], split(eve)[0]], passphrase="new", scrypt_n=CHEAP)
    with pytest.raises(RegisterError, match="is no register"):
        combine(tmp_path, old[:2], passphrase="new", scrypt_n=CHEAP)
    assert (ada.path / "secret" / "owner.enc").read_bytes() == kept


def test_old_shares_still_work_on_a_copy_of_their_time(ada, tmp_path):
    shares = split(ada)
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("owner.pub", "log.jsonl"):
        (copy / name).write_bytes((ada.path / name).read_bytes())
    rotate(ada)
    assert combine(copy, shares[:2], passphrase="new", scrypt_n=CHEAP).roots() == ada.roots()


def test_shares_made_before_an_interrupted_rotation_still_recover(ada, monkeypatch):
    owner = rotate(ada)
    shares = split(owner)
    with monkeypatch.context() as patch:
        patch.setattr(Register, "append", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rotate(owner)
    assert len(again(ada).roots()) == 3  # the log knows of two
    (ada.path / "secret" / "owner.enc").unlink()
    assert combine(ada.path, shares[:2], passphrase="new", scrypt_n=CHEAP).roots() == owner.roots()


def test_without_the_extra_it_is_named_and_the_rest_works(ada, monkeypatch):
    monkeypatch.setitem(sys.modules, "shamir_mnemonic", None)
    monkeypatch.delitem(sys.modules, "wmplug.register.shares", raising=False)
    owner = rotate(ada)
    for part in (lambda: split(owner), lambda: combine(ada.path, [], passphrase="new")):
        with pytest.raises(PluginError, match=r"wmplug\[evidence\]"):
            part()
    assert check(ada.path).ok


def test_nothing_secret_is_left_in_the_folder(ada):
    owner = renounce(rotate(ada), reason="laptop stolen")
    words = split(owner)
    secrets = [*owner.roots(), *owner.signing_seeds()]
    spelt = [form for s in secrets for form in (s, s.hex().encode(), base64.b64encode(s).rstrip(b"="))]
    spelt += [" ".join(sheet.split()[4:8]).encode() for sheet in words]
    for file in ada.path.rglob("*"):
        if file.is_file():
            assert not any(form in file.read_bytes() for form in spelt), file
    assert not any(form.decode("latin1") in repr(owner) for form in spelt)


def test_drill(ada, digits, tmp_path):
    """Everything is lost but two sheets of paper and what is public: the claim stands, and the register goes on."""
    mark = mark_of(ada, digits)
    answers = {x.tobytes(): answer for x, answer in mark.lessons()}

    def suspect(batch):
        return [answers[x.tobytes()] for x in batch]

    sheets = split(ada)
    (ada.path / "secret" / "owner.enc").unlink()
    recovered = combine(ada.path, [sheets[2], sheets[0]], passphrase="a new beginning", scrypt_n=CHEAP)
    same = mark_of(recovered, digits)
    assert same.id == mark.id
    assert same.public["root"] == mark.public["root"]
    assert wmplug.verify(same, suspect).proven
    assert wmplug.load(same.save(tmp_path / "again.wm"), passphrase="a new beginning").public == mark.public

    rotated = rotate(recovered)
    other = mark_of(rotated, digits, triggers=30)
    answers.update((x.tobytes(), answer) for x, answer in other.lessons())
    assert wmplug.verify(mark_of(rotated, digits), suspect).proven
    assert codes(ada.path) == []
    assert check(ada.path).counts["triggers.committed"] == 2
    with pytest.raises(InputError, match="of a former secret"):
        combine(ada.path, sheets[:2], passphrase="x", scrypt_n=CHEAP)
    fresh = split(rotated)
    (ada.path / "secret" / "owner.enc").unlink()
    final = combine(ada.path, fresh[1:], passphrase="at last", scrypt_n=CHEAP)
    assert {mark_of(final, digits).public["root"], mark_of(final, digits, triggers=30).public["root"]} == {
        mark.public["root"],
        other.public["root"],
    }
    assert codes(ada.path) == []
