import copy
import json
import os
import pickle
import stat
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from wmplug import Owner
from wmplug.errors import InputError, KeyFileError, NewerVersionError, WrongPassphraseError
from wmplug.keys.sealing import Seal, open_sealed, read_header
from wmplug.keys.streams import KeyStream, Subkeys, derive

PASSPHRASE = "correct horse battery staple"
CHEAP = 2**10
SECRET = bytes(range(32))


@pytest.fixture
def register(tmp_path):
    Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=CHEAP)
    return tmp_path / "register"


@pytest.fixture(scope="module")
def sealed():
    return Seal.make("open sesame", n=CHEAP).close({"kind": "test"}, b"the secret bytes")


def words_stream(*words):
    """A stream whose key stream is replaced by chosen 32-bit words."""
    stream = KeyStream(SECRET)
    data = b"".join(word.to_bytes(4, "little") for word in words)
    state = {"at": 0}

    def take(count):
        state["at"] += count
        return data[state["at"] - count : state["at"]]

    stream.bytes = take
    return stream


def test_create_then_open_gives_the_same_owner(register):
    first = Owner.open(register, passphrase=PASSPHRASE)
    second = Owner.open(register, passphrase=PASSPHRASE)
    assert (first.name, first.commitment) == ("Ada", second.commitment)
    assert first.pledges("aa")[0].subkeys(None).key("label") == second.pledges("aa")[0].subkeys(None).key("label")
    public = json.loads((register / "owner.pub").read_text())
    assert public["commitment"] == first.commitment
    assert len(bytes.fromhex(public["commitment"])) == 32


@pytest.mark.parametrize("name", ["", " ", "Ev\udc9bil"])
def test_a_name_that_no_document_can_show_leaves_nothing(tmp_path, name):
    with pytest.raises(InputError, match="the owner's name is "):
        Owner.create(tmp_path / "new", name=name, passphrase=PASSPHRASE, scrypt_n=2**10)
    assert not (tmp_path / "new").exists()


def test_passphrase_comes_from_the_environment(register, monkeypatch):
    monkeypatch.setenv("WMPLUG_PASSPHRASE", PASSPHRASE)
    assert Owner.open(register).name == "Ada"
    monkeypatch.delenv("WMPLUG_PASSPHRASE")
    with pytest.raises(InputError, match="WMPLUG_PASSPHRASE"):
        Owner.open(register)


def test_wrong_passphrase_is_named_and_not_quoted(register):
    with pytest.raises(WrongPassphraseError, match="wrong passphrase") as caught:
        Owner.open(register, passphrase="not this one")
    assert "not this one" not in repr(caught.value)


def test_one_passphrase_typed_on_two_keyboards_is_one(tmp_path):
    Owner.create(tmp_path / "r", name="Ada", passphrase="caf\u00e9", scrypt_n=CHEAP)
    assert Owner.open(tmp_path / "r", passphrase="cafe\u0301").name == "Ada"


def test_passphrase_that_is_no_utf8_opens_and_is_never_quoted(tmp_path):
    odd = "secret\udcffsauce"
    Owner.create(tmp_path / "r", name="Ada", passphrase=odd, scrypt_n=CHEAP)
    assert Owner.open(tmp_path / "r", passphrase=odd).name == "Ada"


def test_missing_owner_says_how_to_make_one(tmp_path):
    with pytest.raises(KeyFileError, match="wmplug init"):
        Owner.open(tmp_path, passphrase=PASSPHRASE)


def test_existing_owner_is_not_overwritten(register):
    before = (register / "secret" / "owner.enc").read_bytes()
    with pytest.raises(InputError, match="holds an owner already"):
        Owner.create(register, name="Eve", passphrase="x", scrypt_n=CHEAP)
    (register / "owner.pub").unlink()
    with pytest.raises(InputError, match="holds an owner already"):
        Owner.create(register, name="Eve", passphrase="x", scrypt_n=CHEAP)
    assert (register / "secret" / "owner.enc").read_bytes() == before


def test_an_owner_whose_secret_is_kept_elsewhere_is_not_replaced(register):
    (register / "secret" / "owner.enc").unlink()
    before = (register / "owner.pub").read_bytes()
    with pytest.raises(InputError, match="holds an owner already"):
        Owner.create(register, name="Eve", passphrase="x", scrypt_n=CHEAP)
    assert (register / "owner.pub").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": " "}, "name is ' '"),
        ({"name": None}, "name is None"),
        ({"passphrase": ""}, "passphrase is empty"),
        ({"passphrase": b"open sesame"}, "given as bytes: give a str$"),
        ({"scrypt_n": 3}, "power of two"),
        ({"scrypt_n": 2**30}, "power of two"),
        ({"scrypt_n": 2.0**12}, "power of two"),
    ],
)
def test_create_refuses(tmp_path, options, words):
    with pytest.raises(InputError, match=words):
        Owner.create(tmp_path / "r", **{"name": "Ada", "passphrase": "x", "scrypt_n": CHEAP, **options})
    assert not (tmp_path / "r").exists()


def test_secret_files_are_for_their_owner_only(tmp_path):
    mask = os.umask(0)
    try:
        Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=CHEAP)
    finally:
        os.umask(mask)
    modes = {name: stat.S_IMODE((tmp_path / "register" / name).stat().st_mode) for name in ("secret", "owner.pub")}
    assert modes == {"secret": 0o700, "owner.pub": 0o644}
    assert stat.S_IMODE((tmp_path / "register" / "secret" / "owner.enc").stat().st_mode) == 0o600
    assert sorted(p.name for p in (tmp_path / "register").rglob("*")) == ["owner.enc", "owner.pub", "secret"]


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    from wmplug.keys.files import write_new

    write_new(tmp_path / "file", b"old", 0o600)

    def full(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_new(tmp_path / "file", b"new", 0o600)
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_written_file_is_on_disk_with_its_name(tmp_path, monkeypatch):
    """The folder is synced after the rename: before it, the name on disk is still the old file's."""
    from wmplug.keys.files import write_new

    done, renamed, synced = [], os.replace, os.fsync

    def replace(*names):
        done.append("renamed")
        renamed(*names)

    def sync(descriptor):
        done.append(os.fstat(descriptor).st_ino)
        synced(descriptor)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(os, "fsync", sync)
    write_new(tmp_path / "file", b"new", 0o600)
    assert done == [(tmp_path / "file").stat().st_ino, "renamed", tmp_path.stat().st_ino]


def test_sealed_bytes_come_back(sealed):
    header, secret, seal = open_sealed(sealed, "open sesame", "here")
    assert (header["kind"], secret) == ("test", b"the secret bytes")
    again = seal.close({"kind": "other"}, b"more")
    assert open_sealed(again, "open sesame", "here")[1] == b"more"
    assert b"the secret bytes" not in sealed


def test_every_truncation_is_refused(sealed):
    for length in range(len(sealed)):
        with pytest.raises(KeyFileError):
            open_sealed(sealed[:length], "open sesame", "here")
    with pytest.raises(KeyFileError, match="truncated or edited"):
        open_sealed(sealed[:-1], "open sesame", "here")
    with pytest.raises(KeyFileError, match="truncated or edited"):
        open_sealed(sealed + b"\n", "open sesame", "here")


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x10, 0x80])
def test_every_flipped_byte_is_refused_quickly(sealed, mask):
    start = time.monotonic()
    for at in range(len(sealed)):
        edited = bytearray(sealed)
        edited[at] ^= mask
        with pytest.raises(KeyFileError):
            open_sealed(bytes(edited), "open sesame", "here")
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"7",
        b"null",
        b"{}",
        b'{"wmplug": "1"}',
        b'{"wmplug": 1.0}',
        b'{"wmplug": true}',
        b'{"wmplug": 0}',
        b'{"wmplug": -1}',
        b'{"wmplug": 1e999}',
        b'{"wmplug": 1}',
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"PK\x03\x04 a zip file",
    ],
)
def test_what_is_no_sealed_file_is_refused(line):
    with pytest.raises(KeyFileError) as caught:
        open_sealed(line + b"\nrest", "x", "here")
    assert not isinstance(caught.value, NewerVersionError)


@pytest.mark.parametrize("n", [0, 1, -1024, 1000, 2**30, 2**62, 1e999, 2.0**12, True, None, "1024", [1024], 10**4000])
def test_absurd_cost_is_refused_before_it_is_paid(sealed, n):
    header = read_header(sealed, "here")
    header["scrypt"]["n"] = n
    start = time.monotonic()
    with pytest.raises(KeyFileError, match="edited or damaged"):
        open_sealed(json.dumps(header).encode() + b"\n" + bytes(40), "open sesame", "here")
    assert time.monotonic() - start < 1


def test_newer_file_says_so(sealed):
    newer = sealed.replace(b'"wmplug": 1', b'"wmplug": 2')
    with pytest.raises(NewerVersionError, match=r"format 2.*install a newer wmplug"):
        open_sealed(newer, "open sesame", "here")


def test_watermark_is_no_owner(register, sealed):
    (register / "secret" / "owner.enc").write_bytes(sealed)
    with pytest.raises(KeyFileError, match="of kind 'test', not 'owner'"):
        Owner.open(register, passphrase="open sesame")


def test_nothing_secret_is_printed_or_pickled(register):
    owner = Owner.open(register, passphrase=PASSPHRASE)
    subkeys = owner.pledges("aa")[0].subkeys(None)
    secrets = [
        owner._roots[0],
        owner.seal()._key,
        *(subkeys.key(p) for p in ("input", "label", "schedule", "disclosure")),
    ]
    for thing in (owner, owner.seal(), subkeys):
        for text in (repr(thing), str(thing), f"{thing}"):
            assert not any(s.hex() in text or repr(s)[2:-1] in text for s in secrets)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError, match="not pickled"):
                pickle.dumps(thing, protocol)
        with pytest.raises(TypeError, match="not pickled"):
            copy.deepcopy(thing)
    with pytest.raises(TypeError):
        pickle.dumps(subkeys.stream("label"))


def test_subkeys_are_independent():
    purposes = ("input", "label", "schedule", "disclosure")
    keys = {Subkeys.derive(SECRET, mark).key(p) for mark in ("aa", "ab") for p in purposes}
    assert len(keys) == 8
    # Not merely different: bits agree as often as those of unrelated keys do.
    bits = np.array([np.unpackbits(np.frombuffer(key, np.uint8)) for key in sorted(keys)])
    agree = [(bits[i] == bits[j]).mean() for i in range(8) for j in range(i)]
    assert 0.35 < min(agree) <= max(agree) < 0.65
    subkeys = Subkeys.derive(SECRET, "aa")
    assert subkeys.stream("label").bytes(16) == subkeys.stream("label").bytes(16)
    assert subkeys.stream("label").bytes(16) != subkeys.stream("label", "decoy").bytes(16)


FROZEN = {
    "label": "ad71d64ef1a6c0fcad722f6e04038797852df1191327715f57d8175801d54d01",
    "bytes": "bad04d70c707b548",
    "below": [9, 5, 4, 5, 0, 4, 5, 3, 3, 2, 8, 7],
    "permutation": [5, 3, 4, 1, 2, 6, 0, 7],
    "uniform": [0.8277152192370875, 0.871662246412666],
}


def test_vectors_stay_for_ever():
    # RFC 5869, test case 3 (no salt, no info).
    assert derive(b"\x0b" * 22, "", 42).hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )
    subkeys = Subkeys.derive(SECRET, "0" * 32)
    assert subkeys.key("label").hex() == FROZEN["label"]
    stream = subkeys.stream("label")
    assert stream.bytes(8).hex() == FROZEN["bytes"]
    assert stream.below(10, 12).tolist() == FROZEN["below"]
    assert stream.permutation(8).tolist() == FROZEN["permutation"]
    assert stream.uniform(2).tolist() == FROZEN["uniform"]


def test_key_stream_is_aes_ctr():
    # AES-256 of the zero block under the zero key (FIPS 197).
    assert KeyStream(bytes(32)).bytes(16).hex() == "dc95c078a2408989ad48a21492842087"
    joined, parted = KeyStream(SECRET), KeyStream(SECRET)
    assert joined.bytes(37) == parted.bytes(5) + parted.bytes(32)


@pytest.mark.parametrize("bound", [2, 3, 7, 10, 16, 100])
def test_below_is_uniform_over_keys(bound):
    draws = np.concatenate([KeyStream(derive(SECRET, f"{bound}/{i}")).below(bound, 20) for i in range(2000)])
    assert chisquare(np.bincount(draws, minlength=bound)).pvalue > 1e-4
    first, second = draws[0::2] % bound, draws[1::2] % bound
    assert chisquare(np.bincount(first * bound + second, minlength=bound**2)).pvalue > 1e-4


def test_below_rejects_instead_of_folding():
    # 3 * 2**29 fits into 2**32 twice, with a rest: folded, the rest would bring the lower numbers a third time.
    bound = 3 * 2**29
    stream = words_stream(2 * bound, 2**32 - 1, bound + 5, 2 * bound - 1, 6)
    assert stream.below(bound, 3).tolist() == [5, bound - 1, 6]
    assert words_stream(2**32 - 1, 5, 7, 4).below(3, 3).tolist() == [2, 1, 1]
    assert words_stream(2**32 - 1, 0).below(2**31, 2).tolist() == [2**31 - 1, 0]


def test_folding_a_wide_bound_would_show():
    # By modulo the lower half of these would come with chance 2/3, by rejection with 1/2.
    bound = 3 * 2**29
    draws = KeyStream(SECRET).below(bound, 20_000)
    assert abs((draws < 2**30).mean() - 2 / 3) < 0.02
    assert chisquare(np.bincount(draws * 6 // bound, minlength=6)).pvalue > 1e-4


@given(bound=st.integers(1, 2**31), count=st.integers(0, 50), seed=st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_below_stays_in_range_and_repeats(bound, count, seed):
    key = derive(seed.to_bytes(8, "little"), "hypothesis")
    drawn = KeyStream(key).below(bound, count)
    assert drawn.shape == (count,)
    assert drawn.dtype == np.int64
    assert ((drawn >= 0) & (drawn < bound)).all()
    assert (drawn == KeyStream(key).below(bound, count)).all()


@pytest.mark.parametrize("count", range(8))
def test_below_with_every_count_goes_on_in_the_stream(count):
    # 3 leaves one word in 2**32 to reject, so that a prefix is a prefix.
    assert KeyStream(SECRET).below(3, count).tolist() == KeyStream(SECRET).below(3, 8)[:count].tolist()


@pytest.mark.parametrize("bound", [0, -1, 2**31 + 1])
def test_below_refuses(bound):
    with pytest.raises(InputError, match="bound"):
        KeyStream(SECRET).below(bound, 1)


@given(length=st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_permutation_is_one(length):
    assert sorted(KeyStream(SECRET).permutation(length).tolist()) == list(range(length))


def test_permutation_is_uniform():
    orders = [tuple(KeyStream(derive(SECRET, f"p{i}")).permutation(3).tolist()) for i in range(3000)]
    counts = [orders.count(o) for o in sorted(set(orders))]
    assert len(counts) == 6
    assert chisquare(counts).pvalue > 1e-4


def test_uniform_fills_the_unit_interval():
    drawn = KeyStream(SECRET).uniform(100, 100)
    assert 0 <= drawn.min() < 0.001 < 0.999 < drawn.max() < 1
    assert chisquare(np.histogram(drawn, 10, (0, 1))[0]).pvalue > 1e-4
    words = KeyStream(SECRET)
    words.bytes = lambda count: b"\xff" * count
    assert words.uniform(1)[0] < 1
