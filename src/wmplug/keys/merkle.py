"""Merkle tree of RFC 9162 (section 2.1.1): one hash that commits to an ordered list of leaves."""

import hashlib
from collections.abc import Sequence


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes in the order given; the root of no leaves is SHA-256 of nothing.

    Args:
        leaves: 32-byte leaf hashes (see `leaf_hash`).
    """
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    # The left subtree takes the largest power of two that leaves something for the right one.
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(root(leaves[:split]), root(leaves[split:]))


def proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Inclusion proof of one leaf: the sibling hashes up to the root, the lowest first (RFC 9162, section 2.1.3.1).

    Args:
        leaves: 32-byte leaf hashes.
        index: number of the leaf, in range(len(leaves)).
    """
    if len(leaves) == 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*proof(leaves[:split], index), root(leaves[split:])]
    return [*proof(leaves[split:], index - split), root(leaves[:split])]


def verify_proof(leaf: bytes, index: int, size: int, path: Sequence[bytes], expected: bytes) -> bool:
    """Whether a leaf hash is number `index` of the `size` leaves below a root (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size or any(len(part) != 32 for part in (leaf, *path)):
        return False
    node, last, found = index, size - 1, leaf
    for beside in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            found = node_hash(beside, found)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            found = node_hash(found, beside)
        node, last = node >> 1, last >> 1
    return last == 0 and found == expected
