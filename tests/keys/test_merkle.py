import hashlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from wmplug.keys.merkle import Frontier, leaf_hash, node_hash, proof, root, verify_proof

# The test vectors of Certificate Transparency (RFC 9162 section 2.1.5 has no bytes; these are from its reference code).
LEAVES = [
    bytes.fromhex(h)
    for h in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", bytes(range(96, 112)).hex())
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(1, 9))
def test_known_vectors(size):
    assert root([leaf_hash(leaf) for leaf in LEAVES[:size]]).hex() == ROOTS[size - 1]


def test_root_of_nothing():
    assert root([]) == hashlib.sha256(b"").digest()


def test_leaf_is_no_node():
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


@pytest.mark.filterwarnings("ignore:get_state is deprecated:DeprecationWarning")  # its new name is not in 6.1
@given(st.lists(st.binary(max_size=8), min_size=1, max_size=70))
@settings(max_examples=60, deadline=None)
def test_agrees_with_pymerkle(entries):
    tree = InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    assert root([leaf_hash(entry) for entry in entries]) == tree.get_state()


@given(st.lists(st.binary(max_size=2), max_size=140), st.lists(st.integers(0, 140), max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_frontier_grows_to_the_root_of_all_leaves(entries, cuts):
    leaves, found = [leaf_hash(entry) for entry in entries], Frontier()
    for first, last in itertools.pairwise([0, *sorted(cuts), len(leaves)]):
        found = found.grown(leaves[first:last])
        known = leaves[: max(first, min(last, len(leaves)))]
        assert (found.root, found.size) == (root(known), len(known))
        assert len(found.peaks) == found.size.bit_count()


@given(st.lists(st.binary(max_size=4), min_size=2, max_size=20, unique=True), st.data())
@settings(max_examples=60, deadline=None)
def test_order_and_every_leaf_count(entries, data):
    leaves = [leaf_hash(entry) for entry in entries]
    at = data.draw(st.integers(0, len(leaves) - 2))
    swapped = [*leaves[:at], leaves[at + 1], leaves[at], *leaves[at + 2 :]]
    assert len({root(leaves), root(swapped), root(leaves[:-1]), root([*leaves, leaves[-1]])}) == 4


@pytest.mark.parametrize("size", range(1, 10))
def test_a_proof_leads_to_one_root(size):
    leaves = [leaf_hash(bytes([i])) for i in range(size)]
    top = root(leaves)
    for index, leaf in enumerate(leaves):
        path = proof(leaves, index)
        assert verify_proof(leaf, index, size, path, top)
        assert not verify_proof(leaf, index, size, path, leaf_hash(b"another"))
        assert not verify_proof(leaf_hash(b"another"), index, size, path, top)
        assert not verify_proof(leaf, index, size, [*path, top], top)
        # The root itself is at the end of no path that is too short.
        assert size == 1 or not verify_proof(top, index, size, [], top)
