"""Without an authority; with one: test_anchors.py."""

import dataclasses

import numpy as np
import pytest

from wmplug import create, load, verify
from wmplug.errors import EvidenceWarning, InputError, RegisterError
from wmplug.keys.owner import Owner
from wmplug.register import Register, Signer
from wmplug.register.checking import check

PASSPHRASE = "correct horse battery staple"


def new_owner(folder, name="Ada"):
    return Owner.create(folder, name=name, passphrase=PASSPHRASE, scrypt_n=2**10)


@pytest.fixture
def owner(tmp_path):
    return new_owner(tmp_path / "register")


def make(owner, digits, **options):
    return create(owner, scheme="random-label", carriers=digits[0][:300], classes=10, **{"triggers": 20, **options})


def types(owner):
    return [entry.type for entry in Register(owner.path).entries()]


def test_the_secret_is_committed_to_before_the_triggers(owner, digits):
    mark = make(owner, digits)
    assert types(owner) == ["register.opened", "secret.committed", "triggers.committed"]
    _, secret, triggers = Register(owner.path).entries()
    assert secret.body["commitment"] == owner.pledges(mark.id)[0].commitment
    assert triggers.body["root"] == mark.public["root"]
    assert mark.public["evidence"] == {"register": owner.commitment, "secret_committed": 1, "salt": None, "lab": False}
    assert (owner.path / "commit" / f"{mark.id}.json").exists()


def test_the_same_watermark_again_is_the_same_and_no_second_attempt(owner, digits):
    first, again = make(owner, digits), make(Owner.open(owner.path, passphrase=PASSPHRASE), digits)
    assert first.public == again.public
    assert (first.triggers.symbols == again.triggers.symbols).all()
    assert types(owner).count("secret.committed") == 1
    other = make(owner, digits, triggers=21)
    assert other.id != first.id
    assert types(owner).count("secret.committed") == 2


def test_a_secret_that_is_lost_is_no_other(owner, digits):
    make(owner, digits)
    thief = dataclasses.replace(owner, _roots=(bytes(32),))
    with pytest.raises(RegisterError):
        make(thief, digits)


def test_a_pledge_shows_nothing_of_the_owners_root(owner):
    first, second = owner.pledges("aa")[0], owner.pledges("bb")[0]
    assert first.secret != second.secret
    assert first.commitment != second.commitment
    assert "secret=" not in repr(first)
    with pytest.raises(TypeError, match="not pickled"):
        first.__reduce__()


def test_the_key_follows_from_the_salt(owner):
    pledge = owner.pledges("aa")[0]
    keys = {pledge.subkeys(salt).key("label") for salt in (None, bytes(32), bytes([1]) * 32)}
    # No salt and a salt of zeros are the same to HKDF (RFC 5869, section 2.2).
    assert len(keys) == 2


def test_a_loaded_watermark_knows_its_register(owner, digits, tmp_path, monkeypatch):
    monkeypatch.delenv("WMPLUG_REGISTER", raising=False)
    mark = make(owner, digits)
    file = mark.save(tmp_path / "mark.wm")
    assert str(owner.path).encode() not in file.read_bytes()
    again = load(file, passphrase=PASSPHRASE)
    assert again.register == owner.path.absolute()
    assert again.signing_seed() == mark.signing_seed()
    moved = owner.path.rename(tmp_path / "moved")
    assert load(file, passphrase=PASSPHRASE, register=moved).register == moved
    monkeypatch.setenv("WMPLUG_REGISTER", str(moved))
    assert load(file, passphrase=PASSPHRASE).register == moved
    other = new_owner(tmp_path / "other", "Eve")
    with pytest.raises(InputError, match="another owner"):
        load(file, passphrase=PASSPHRASE, register=other.path)
    with pytest.raises(InputError, match=r"owner\.pub"):
        load(file, passphrase=PASSPHRASE, register=tmp_path)


def test_another_owners_register_at_the_remembered_place_does_not_keep_you_from_asking(
    owner, digits, tmp_path, monkeypatch
):
    monkeypatch.delenv("WMPLUG_REGISTER", raising=False)
    mark = make(owner, digits)
    file = mark.save(tmp_path / "mark.wm")
    owner.path.rename(tmp_path / "moved")
    new_owner(owner.path, "Eve")
    with pytest.warns(EvidenceWarning, match="register of another owner now: nothing is recorded"):
        found = load(file, passphrase=PASSPHRASE)
    assert found.register is None
    assert "tries NOT COUNTED" in str(verify(found, lambda batch: [0] * len(batch)))


def test_a_register_that_cannot_be_written_makes_no_watermark(owner, digits):
    make(owner, digits)
    log = owner.path / "log.jsonl"
    log.write_bytes(log.read_bytes() + b"garbage\n")
    with pytest.raises(RegisterError):
        make(owner, digits, triggers=22)


def test_nobody_else_begins_a_log_under_an_owners_id(owner, digits, tmp_path):
    """The id commits to the owner's signing key, and so does whoever publishes it early."""
    make(owner, digits)
    forged = tmp_path / "forged"
    forged.mkdir()
    (forged / "owner.pub").write_bytes((owner.path / "owner.pub").read_bytes())
    thief = Signer(bytes(32))
    opening = next(iter(Register(owner.path).entries())).body["opening"]
    body = {"name": owner.name, "public": thief.public.hex(), "opening": opening}
    Register(forged, thief).append("register.opened", body)
    (finding,) = [one for one in check(forged).findings if one.level == "refused"]
    assert finding.code == "other-owner"
    with pytest.raises(RegisterError, match="somebody else wrote it"):
        Register.of(dataclasses.replace(owner, path=forged))


def test_another_name_in_owner_pub_is_flagged(owner, digits):
    make(owner, digits)
    file = owner.path / "owner.pub"
    file.write_text(file.read_text().replace("Ada", "Eve"))
    assert [one.code for one in check(owner.path).findings if one.level == "flagged"] == ["other-name"]


def test_keys_of_two_registers_have_nothing_in_common(tmp_path, digits):
    marks = [make(new_owner(tmp_path / name), digits) for name in ("a", "b")]
    same = np.mean(marks[0].triggers.symbols == marks[1].triggers.symbols)
    assert same < 0.6  # of 20 draws from 10: twelve alike have probability 4e-8
    assert all(check(mark.register).ok for mark in marks)


@pytest.mark.parametrize(("evidence", "attested"), [(None, None), ("salted", True), ("lab", False), ("none", False)])
def test_a_verdict_says_whether_its_key_was_dated_before(owner, digits, evidence, attested):
    mark = make(owner, digits, triggers=30)
    salts = {
        None: None,
        "salted": {"salt": "ab", "lab": False},
        "lab": {"salt": "ab", "lab": True},
        "none": {"salt": None},
    }
    mark = dataclasses.replace(mark, public={**mark.public, "evidence": salts[evidence]})
    known = {
        mark.triggers.plan.inputs[i].tobytes(): int(mark.triggers.answers[i]) for i in mark.triggers.plan.choices.rows
    }
    verdict = verify(mark, lambda inputs: np.array([known[x.tobytes()] for x in inputs]))
    assert verdict.attested is attested
    assert ("NOT ATTESTED" in str(verdict)) == (attested is False)
    assert type(verdict).from_json(verdict.to_json()) == verdict
