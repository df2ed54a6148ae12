import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmplug import Owner
from wmplug.errors import CorruptEntryError, RegisterError
from wmplug.register import Register, Signer
from wmplug.register.receipts import Difference, Receipt, diff, read, receipt

OWNER, STRANGER = Signer(bytes(32)), Signer(bytes([1]) * 32)


@pytest.fixture
def register(tmp_path):
    made = Register.of(Owner.create(tmp_path / "register", name="Ada", passphrase="secret", scrypt_n=2**10))
    made.append("owner.identity", {"statement": "I am Ada"})
    return made


@pytest.fixture
def given_out(register):
    return receipt(register, OWNER)


def test_a_receipt_names_the_head_and_is_read_again(register, given_out, tmp_path):
    assert (given_out.register, given_out.seq, given_out.hash) == (register.id, 1, register.head.hash)
    assert given_out.verify(OWNER.public)
    (tmp_path / "receipt.json").write_text(json.dumps(given_out.to_json()))
    assert read(tmp_path / "receipt.json") == given_out


def test_it_is_the_word_of_one_key(given_out):
    assert not given_out.verify(STRANGER.public)


@pytest.mark.parametrize("change", [{"register": "0" * 64}, {"seq": 0}, {"seq": 2**60}, {"hash": "0" * 64}])
def test_another_field_is_another_receipt(given_out, change):
    assert not Receipt.from_json({**given_out.to_json(), **change}).verify(OWNER.public)


@given(place=st.integers(0, 63), bit=st.integers(0, 7))
def test_any_flipped_bit_of_the_signature_is_refused(place, bit):
    signed = bytearray(OWNER.sign(b"{}"))
    good = Receipt("0" * 64, 0, "0" * 64, OWNER.keyid, bytes(signed))
    signed[place] ^= 1 << bit
    assert not good.verify(OWNER.public)  # over something else
    assert not Receipt("0" * 64, 0, "0" * 64, OWNER.keyid, bytes(signed)).verify(OWNER.public)


def test_an_entry_cannot_be_passed_off_as_a_receipt(register, given_out):
    """Both are signed by the same key: the type that is signed with them tells them apart."""
    payload = json.dumps({"hash": given_out.hash, "register": register.id, "seq": 1}, separators=(",", ":")).encode()
    forged = Receipt(register.id, 1, given_out.hash, OWNER.keyid, OWNER.sign(payload))
    assert not forged.verify(OWNER.public)


def test_a_log_without_entries_has_no_receipt(register):
    register.log.unlink()
    with pytest.raises(RegisterError, match="no entry yet"):
        receipt(register, OWNER)


@pytest.mark.parametrize("document", [None, 3, [], {}, "receipt", {"register": "a", "seq": "x"}])
def test_what_is_no_receipt(document):
    with pytest.raises(RegisterError, match=r"wmplug register receipt"):
        Receipt.from_json(document)


@pytest.mark.parametrize("name", ["register", "seq", "hash", "keyid", "sig"])
def test_a_receipt_that_lacks_a_field(given_out, name):
    document = given_out.to_json()
    del document[name]
    with pytest.raises(RegisterError, match=name):
        Receipt.from_json(document)


def test_a_file_that_is_no_receipt(tmp_path):
    (tmp_path / "junk").write_bytes(b"junk")
    for file in ("junk", "none"):
        with pytest.raises(RegisterError, match=f"{file} is not a receipt"):
            read(tmp_path / file)


def _copy(register, folder, entries):
    """The register as it was after so many entries."""
    folder.mkdir()
    (folder / "owner.pub").write_bytes((register.path / "owner.pub").read_bytes())
    (folder / "log.jsonl").write_bytes(b"".join(register.log.read_bytes().splitlines(keepends=True)[:entries]))
    return Register(folder, OWNER)


def test_copies_of_different_length(register, tmp_path):
    older = _copy(register, tmp_path / "older", 1)
    assert diff(register, register) == Difference(2, 0, 0)
    assert diff(older, register) == Difference(1, 0, 1)
    assert [diff(*pair).relation for pair in ((older, register), (register, older), (older, older))] == [
        "first-older",
        "second-older",
        "same",
    ]


def test_copies_that_were_both_continued(register, tmp_path):
    other = _copy(register, tmp_path / "other", 1)
    other.append("owner.identity", {"statement": "I am Grace"})
    other.append("owner.identity", {"statement": "indeed"})
    assert diff(register, other) == Difference(1, 1, 2)
    assert diff(register, other).relation == "fork"


def test_two_registers_are_not_compared(register, tmp_path):
    eve = Register.of(Owner.create(tmp_path / "eve", name="Eve", passphrase="secret", scrypt_n=2**10))
    with pytest.raises(RegisterError, match="two registers"):
        diff(register, eve)


def test_a_damaged_copy_is_not_compared(register, tmp_path):
    damaged = _copy(register, tmp_path / "damaged", 2)
    damaged.log.write_bytes(damaged.log.read_bytes() + b"junk\n")
    with pytest.raises(CorruptEntryError):
        diff(register, damaged)


def test_a_receipt_is_a_value(given_out):
    assert copy.copy(given_out) == given_out
    assert "signature" not in repr(given_out)
