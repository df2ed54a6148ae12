import base64
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest
from succession import CHEAP, PASSPHRASE, again, append_raw, codes, keyid, mark_of, rotation

import wmplug
from wmplug import Owner
from wmplug.errors import InputError, RegisterError, WrongPassphraseError
from wmplug.keys.owner import commitment_of
from wmplug.register import Register, Signer, recovery
from wmplug.register.checking import check
from wmplug.register.recovery import combine, rotate, split


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
