import base64
import json
import pickle

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from wmplug.errors import CorruptEntryError
from wmplug.register.statements import FIRST, Signer, decode, encode, pre_authentication

SIGNER = Signer(bytes(range(32)))
REGISTER = "ab" * 32


def line(**changes):
    predicate = {
        "register": REGISTER,
        "seq": 3,
        "prev": FIRST,
        "type": "training.started",
        "event_id": "e",
        "claimed_time": "2026-01-31T12:00:00Z",
        "body": {"watermark": "aa", "p": -1.5},
    }
    return encode({**predicate, **changes}, [("model", "cd" * 32)], SIGNER)


def test_what_is_written_is_read():
    entry = decode(line(), 3, 70)
    assert (entry.seq, entry.type, entry.body) == (3, "training.started", {"watermark": "aa", "p": -1.5})
    assert (entry.subject, entry.keyid, entry.offset) == ((("model", "cd" * 32),), SIGNER.keyid, 70)
    assert entry.verify(SIGNER.public)
    assert not entry.verify(Signer(bytes(32)).public)


def test_an_entry_about_nothing_else_is_about_the_register():
    assert decode(encode({**json_of(line())["predicate"]}, [], SIGNER), 3, 0).subject == (("register", REGISTER),)


def json_of(written):
    return json.loads(base64.b64decode(json.loads(written)["payload"]))


def test_the_envelope_is_one_that_others_read():
    """securesystemslib is the reference implementation of DSSE."""
    envelope = Envelope.from_dict(json.loads(line()))
    assert envelope.pae() == pre_authentication(envelope.payload)
    (signature,) = envelope.signatures.values()
    public = Ed25519PublicKey.from_public_bytes(SIGNER.public)
    public.verify(bytes.fromhex(signature.signature), envelope.pae())
    assert json.loads(envelope.payload)["_type"] == "https://in-toto.io/Statement/v1"


def test_every_flipped_bit_of_a_line_is_refused():
    written = line()
    for position in range(len(written) - 1):
        for bit in range(8):
            flipped = bytearray(written)
            flipped[position] ^= 1 << bit
            try:
                entry = decode(bytes(flipped), 3, 0)
            except CorruptEntryError:
                continue
            # The keyid is a hint outside of what is signed: it then names a key that nobody knows.
            assert entry.keyid != SIGNER.keyid or not entry.verify(SIGNER.public), position


LEAF = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8)


@given(st.dictionaries(st.text(max_size=5), LEAF | st.lists(LEAF, max_size=3), max_size=4))
def test_any_body_comes_back(body):
    assert decode(line(body=body), 3, 0).body == body


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"type": "training.paused"}, "unknown-type"),
        ({"prev": "zz"}, "not-a-statement"),
        ({"claimed_time": "yesterday"}, "not-a-statement"),
        ({"body": []}, "not-a-statement"),
        ({"seq": "3"}, "not-a-statement"),
        ({"more": 1}, "not-a-statement"),
    ],
)
def test_what_is_no_entry_is_refused_by_name(changes, code):
    with pytest.raises(CorruptEntryError, match="entry 3 at byte 9") as caught:
        decode(line(**changes), 3, 9)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b'"payload"', b'"payload" ', 1),
        lambda text: b" " + text,
        lambda text: text.replace(b'{"payload', b'{"extra":1,"payload', 1),
    ],
)
def test_an_envelope_written_another_way_is_refused(edit):
    with pytest.raises(CorruptEntryError) as caught:
        decode(edit(line()), 3, 0)
    assert caught.value.code == "not-canonical"


def test_a_payload_that_is_not_canonical_is_refused_though_it_is_signed():
    payload = json.dumps(json_of(line()), indent=1).encode()
    envelope = json.loads(line())
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(SIGNER.sign(payload)).decode()
    with pytest.raises(CorruptEntryError) as caught:
        decode(json.dumps(envelope, separators=(",", ":")).encode() + b"\n", 3, 0)
    assert caught.value.code == "not-canonical"


def signed(payload):
    """A line with any payload, signed."""
    envelope = json.loads(line())
    envelope["payload"] = base64.b64encode(payload).decode()
    envelope["signatures"][0]["sig"] = base64.b64encode(SIGNER.sign(payload)).decode()
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([2.0**53, 1e20, 1e16, 123e18, -1e17])


@given(st.dictionaries(st.text(max_size=3), NUMBER | st.text(max_size=3), max_size=4))
def test_any_real_number_comes_back_and_canonical_is_what_rfc8785_says(body):
    assert decode(line(body=body), 3, 0).body == body
    statement = json_of(line())
    statement["predicate"]["body"] = body
    for spelling in (rfc8785.dumps(statement), json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()):
        if rfc8785.dumps(statement) == spelling:
            assert decode(signed(spelling), 3, 0).body == body
        else:
            with pytest.raises(CorruptEntryError, match="not canonical"):
                decode(signed(spelling), 3, 0)


@pytest.mark.parametrize(
    "number", ["-0", "1.0", "1e5", "1E-7", "1e-07", "1e+16", "9007199254740993", "0.10", "NaN", "1e999"]
)
def test_a_number_spelt_another_way_is_refused(number):
    payload = base64.b64decode(json.loads(line())["payload"]).replace(b"-1.5", number.encode())
    with pytest.raises(CorruptEntryError) as caught:
        decode(signed(payload), 3, 0)
    assert caught.value.code in ("not-canonical", "not-a-statement")


@pytest.mark.parametrize("text", [b"\n", b"{}\n", b"[" * 100_000 + b"\n", b"\x00" * 50 + b"\n", b"null\n"])
def test_garbage_is_refused(text):
    with pytest.raises(CorruptEntryError) as caught:
        decode(text, 0, 0)
    assert caught.value.code == "not-an-envelope"


def test_a_signer_is_not_pickled():
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(SIGNER)
