"""One commitment opens to one key: no boundary between two hashed parts can be moved."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmplug.errors import InputError, NotaryError
from wmplug.keys import merkle
from wmplug.keys.owner import Pledge, binding
from wmplug.register.challenge import commitment
from wmplug.register.receipts import PAYLOAD_TYPE
from wmplug.register.statements import pre_authentication
from wmplug.watermark.carriers import digest

MARK = "ab" * 16
LENGTHS = st.integers(0, 70)
BYTES = st.binary(max_size=70)


def opened(data, at):
    """The commitments that these bytes give, split anywhere."""
    return [
        lambda: Pledge(MARK, data[:at], data[at:]).commitment,
        lambda: binding(data[:at].hex(), data[at:].hex()),
    ]


@given(st.binary(min_size=60, max_size=70), LENGTHS)
def test_a_commitment_has_one_boundary(data, at):
    for commit in opened(data, at):
        if (len(data), at) == (64, 32):
            assert len(commit()) == 64
        else:
            with pytest.raises((InputError, ValueError)):
                commit()


@pytest.mark.parametrize("moved", range(-32, 33))
def test_the_boundary_between_secret_and_blind_stays_where_it_was(moved):
    data = os.urandom(64)
    assert Pledge(MARK, data[:32], data[32:]).commitment
    if moved:
        with pytest.raises(InputError, match=f"{32 + moved} and {32 - moved} bytes, .* refuse them") as caught:
            Pledge(MARK, data[: 32 + moved], data[32 + moved :])
        assert data[:4].hex() not in str(caught.value)


@pytest.mark.parametrize("salt", [b"", bytes(31), bytes(33), bytes(64)])
def test_a_salt_has_one_length(salt):
    # HMAC fills a short key with zeros, and hashes a long one: several salts would give one key.
    with pytest.raises(InputError, match=f"has 32 bytes, this one has {len(salt)}"):
        Pledge(MARK, bytes(32), bytes(32)).subkeys(salt)


@given(st.lists(st.tuples(BYTES, BYTES), min_size=2, max_size=2, unique=True))
def test_what_is_signed_keeps_its_parts_apart(pairs):
    first, second = (pre_authentication(payload, kind.hex()) for kind, payload in pairs)
    assert first != second
    assert pre_authentication(b"", PAYLOAD_TYPE) != pre_authentication(b" ", PAYLOAD_TYPE)


NONCES = st.tuples(st.sampled_from(["notary", "opponent"]), st.binary(min_size=16, max_size=40))


@given(st.lists(NONCES, min_size=2, max_size=2, unique=True))
def test_a_nonce_is_bound_to_case_and_party(pairs):
    assert len({commitment(case, *pair) for pair in pairs for case in ("ab" * 32, "cd" * 32)}) == 4
    with pytest.raises(NotaryError, match="at least 16"):
        commitment("ab" * 32, "notary", pairs[0][1][:15])


ARRAYS = st.builds(
    lambda dtype, shape: np.arange(np.prod(shape), dtype=dtype).reshape(shape),
    st.sampled_from(["u1", "<u2", "<i4", "<f4", "<f8"]),
    st.lists(st.integers(0, 4), min_size=1, max_size=3).map(tuple),  # a number counts as an array of one
)


@given(ARRAYS, ARRAYS)
def test_arrays_of_one_digest_are_one_array(one, other):
    same = (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    assert (digest(one) == digest(other)) is same


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_lists_of_texts_of_one_digest_are_one_list(one, other):
    assert (digest(one) == digest(other)) is (one == other)


@given(st.integers(2, 20), st.data())
def test_a_proof_holds_for_its_leaf_alone(size, data):
    leaves = [merkle.leaf_hash(bytes([i])) for i in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path, root = merkle.proof(leaves, index), merkle.root(leaves)
    assert merkle.verify_proof(leaves[index], index, size, path, root)
    # The first step hashes 0x01, left and right: the same bytes with the boundary moved are refused.
    whole = leaves[index] + path[0] if not index & 1 and index != size - 1 else path[0] + leaves[index]
    for at in (0, 31, 33, 64):
        for leaf, beside in ((whole[:at], whole[at:]), (whole[at:], whole[:at])):
            assert not merkle.verify_proof(leaf, index, size, [beside, *path[1:]], root)
