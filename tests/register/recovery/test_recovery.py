import base64
import itertools
import json
import stat
import sys

import pytest
from succession import CHEAP, PASSPHRASE, again, codes, mark_of

import wmplug
from wmplug import Owner
from wmplug.errors import EvidenceWarning, InputError, KeyFileError, PluginError, RegisterError
from wmplug.register import Register
from wmplug.register.checking import check
from wmplug.register.recovery import combine, renounce, rotate, split


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
    with pytest.raises(RegisterError, match="is not a register"):
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
