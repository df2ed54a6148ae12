"""Every key and commitment again, from the standard library alone, as anybody can who was shown a secret."""

import hashlib
import hmac
import json
import unicodedata
from types import SimpleNamespace

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from wmplug import Owner
from wmplug.errors import InputError, KeyFileError
from wmplug.keys.owner import binding, commitment_of, opening_of
from wmplug.keys.sealing import Seal, open_sealed, passphrase_or_environment, read_header
from wmplug.keys.streams import KeyStream

MARK = "ab" * 16
ROOTS = (bytes(range(32)), bytes(range(32, 64)))
PURPOSES = ("input", "label", "schedule", "disclosure")


def hkdf(secret, info, salt=None, length=32):
    """RFC 5869."""
    key, made = hmac.digest(salt or bytes(32), secret, "sha256"), b""
    block = b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.digest(key, block + info.encode() + bytes([number]), "sha256")
        made += block
    return made[:length]


@pytest.fixture(scope="module")
def owner(tmp_path_factory):
    return Owner("Ada", commitment_of(ROOTS[1]), tmp_path_factory.mktemp("owner"), ROOTS, Seal.make("x", n=2**10))


def test_each_root_pledges_newest_first(owner):
    pledges = owner.pledges(MARK)
    assert len(pledges) == 2
    for pledge, root in zip(pledges, ROOTS, strict=True):
        secret, blind = (hkdf(root, f"wmplug/1/{part}/{MARK}") for part in ("secret", "blind"))
        assert (pledge.watermark, pledge.secret, pledge.blind) == (MARK, secret, blind)
        assert pledge.commitment == hashlib.sha256(b"wmplug/secret/1\x00" + secret + blind).hexdigest()


@pytest.mark.parametrize("salt", [None, bytes(range(64, 96))])
def test_subkeys_follow_from_secret_id_and_salt(owner, salt):
    key = hkdf(hkdf(ROOTS[0], f"wmplug/1/secret/{MARK}"), f"wmplug/1/key/{MARK}", salt)
    subkeys = owner.pledges(MARK)[0].subkeys(salt)
    for purpose in PURPOSES:
        mine = hkdf(key, f"wmplug/1/{purpose}/{MARK}")
        assert subkeys.key(purpose) == mine
        for name in ("", "decoy"):
            expected = KeyStream(hkdf(mine, f"stream/{name}")).bytes(40)
            assert subkeys.stream(purpose, name).bytes(40) == expected
    assert subkeys.stream("label").bytes(40) == subkeys.stream("label", "").bytes(40)


def test_inputs_that_were_prepared_before_the_salt_follow_from_the_secret_alone(owner):
    pledge, salt = owner.pledges(MARK)[0], bytes(range(64, 96))
    salted, alone = pledge.subkeys(salt), pledge.subkeys(None)
    for evidence, inputs, others in (
        (None, alone, alone),
        ({"salt": None}, alone, alone),
        ({"salt": None, "prepared": "ab"}, alone, alone),
        ({"salt": salt.hex()}, salted, salted),
        ({"salt": salt.hex(), "prepared": ""}, salted, salted),
        ({"salt": salt.hex(), "prepared": "ab"}, alone, salted),
    ):
        made = pledge.subkeys_of(evidence)
        assert made.key("input") == inputs.key("input")
        assert all(made.key(purpose) == others.key(purpose) for purpose in PURPOSES[1:])


def test_what_signs_and_what_names_a_register(owner):
    seeds = [hkdf(root, "wmplug/1/sign") for root in ROOTS]
    assert owner.signing_seeds() == seeds
    assert owner.signing_seed() == seeds[0]
    assert owner.signing_seeds(MARK) == [hkdf(root, f"wmplug/1/sign/{MARK}") for root in ROOTS]
    assert owner.signing_seed(MARK) == owner.signing_seeds(MARK)[0]
    assert owner.roots() == ROOTS
    public = Ed25519PrivateKey.from_private_bytes(seeds[1]).public_key().public_bytes_raw()
    opened = hkdf(ROOTS[1], "wmplug/1/owner") + hkdf(ROOTS[1], "wmplug/1/blind")
    opening = hashlib.sha256(b"wmplug/opening/1\x00" + opened).digest()
    assert opening_of(ROOTS[1]) == opening.hex()
    assert binding(opening.hex(), public.hex()) == hashlib.sha256(b"wmplug/owner/1\x00" + opening + public).hexdigest()
    assert commitment_of(ROOTS[1]) == binding(opening.hex(), public.hex())


@pytest.mark.parametrize(("opening", "public"), [(31, 33), (33, 31), (32, 31), (31, 32), (32, 64), (0, 64)])
def test_a_binding_names_both_lengths(opening, public):
    with pytest.raises(ValueError, match=f"have {opening} and {public} bytes, not 32 each"):
        binding("ab" * opening, "cd" * public)


def test_all_roots_are_stored_and_opened_again(owner):
    owner.store()
    public = owner.store()  # in place of the first
    header, plain, _ = open_sealed((owner.path / "secret" / "owner.enc").read_bytes(), "x", "here")
    assert public == {name: header[name] for name in ("kind", "name", "commitment", "claimed_time")}
    assert (public["kind"], public["name"], public["commitment"]) == ("owner", "Ada", owner.commitment)
    assert public["claimed_time"].endswith("+00:00")
    assert plain == b"".join(ROOTS)
    again = Owner.open(str(owner.path), passphrase="x")
    assert (again.name, again.commitment, again.path, again.roots()) == ("Ada", owner.commitment, owner.path, ROOTS)
    again.seal().close({}, b"")  # of the same passphrase
    assert again.seal()._key == owner.seal()._key


@given(st.binary(max_size=80), st.text(min_size=1, max_size=12).filter(str.isalnum))
def test_a_sealed_file_opens_by_hand(secret, passphrase):
    blob = Seal.make(passphrase, n=2**10).close({"kind": "test", "wmplug/extra": [1]}, secret)
    line, _, ciphertext = blob.partition(b"\n")
    header = json.loads(line)
    assert header["wmplug"] == 1
    scrypt = header["scrypt"]
    assert scrypt == {"salt": scrypt["salt"], "n": 2**10, "r": 8, "p": 1}
    salt = bytes.fromhex(scrypt["salt"])
    assert len(salt) == 16
    entered = unicodedata.normalize("NFC", passphrase).encode()
    key = hashlib.scrypt(entered, salt=salt, n=2**10, r=8, p=1, dklen=32)
    assert header["check"] == hkdf(key, "wmplug/1/check", length=8).hex()
    nonce = bytes.fromhex(header["nonce"])
    assert len(nonce) == 12
    assert AESGCM(key).decrypt(nonce, ciphertext, line) == secret
    with pytest.raises(InvalidTag):
        AESGCM(key).decrypt(nonce, ciphertext, None)


def test_no_two_files_share_salt_or_nonce():
    seal = Seal.make("x", n=2**10)
    headers = [read_header(one.close({}, b""), "here") for one in (seal, seal, Seal.make("x", n=2**10))]
    assert len({header["nonce"] for header in headers}) == 3
    assert [header["scrypt"]["salt"] == headers[0]["scrypt"]["salt"] for header in headers] == [True, True, False]


@pytest.mark.parametrize("nonce", [b"", bytes(11), bytes(13), bytes(16)])
def test_a_nonce_of_another_length_is_refused(nonce):
    header = read_header(Seal.make("x", n=2**10).close({}, b""), "here")
    blob = json.dumps({**header, "nonce": nonce.hex()}).encode() + b"\n" + bytes(40)
    with pytest.raises(KeyFileError, match="first line of here was edited or damaged"):
        open_sealed(blob, "x", "here")


def test_a_public_line_has_a_limit():
    with pytest.raises(KeyFileError, match="not a file that wmplug wrote"):
        read_header(b'{"wmplug": 1, "name": "' + b"a" * (4 << 20) + b'"}\n', "here")
    long = b'{"wmplug": 1, "name": "' + b"a" * ((4 << 20) - 26) + b'"}'
    assert len(long) == (4 << 20) - 1
    assert read_header(long + b"\nrest", "here")["wmplug"] == 1


@pytest.mark.parametrize("n", [2**9, 2**10 - 1, 2**10 + 1, 3 * 2**10, 2**21])
def test_a_cost_is_a_power_of_two_within_limits(n):
    with pytest.raises(InputError, match=f"scrypt_n={n}: give a power of two"):
        Seal.make("x", n=n)


def test_a_cost_reaches_both_limits(monkeypatch):
    monkeypatch.setattr("wmplug.keys.sealing.Scrypt", lambda **options: SimpleNamespace(derive=lambda text: bytes(32)))
    assert [Seal.make("x", n=n).n for n in (2**10, 2**20)] == [2**10, 2**20]


def test_a_passphrase_is_given_or_of_the_environment(monkeypatch):
    monkeypatch.setenv("WMPLUG_PASSPHRASE", "theirs")
    assert passphrase_or_environment("mine") == "mine"
    assert passphrase_or_environment(None) == "theirs"
    for given_one, environment in (("", "theirs"), (None, "")):
        monkeypatch.setenv("WMPLUG_PASSPHRASE", environment)
        with pytest.raises(InputError, match="no passphrase: pass"):
            passphrase_or_environment(given_one)
