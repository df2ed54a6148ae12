"""Merkle tree of RFC 9162 (section 2.1.1): one hash that commits to an ordered list of leaves."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


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


@dataclass(frozen=True)
class Frontier:
    """What a tree needs to grow: without its leaves it cannot prove one, and yields the same roots.

    Attributes:
        size: number of leaves so far.
        peaks: roots (32 bytes) of the full subtrees that they fill, the largest first: one for each 1 in the binary
            digits of `size`.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def grown(self, leaves: Iterable[bytes]) -> "Frontier":
        """The frontier after further leaf hashes."""
        size, peaks = self.size, list(self.peaks)
        for node in leaves:
            full = size
            while full & 1:  # two subtrees of one height are one of the next
                node, full = node_hash(peaks.pop(), node), full >> 1
            peaks.append(node)
            size += 1
        return Frontier(size, tuple(peaks))

    @property
    def root(self) -> bytes:
        """The tree's root, as `root` has it of all leaves."""
        if not self.peaks:
            return root(())
        return functools.reduce(lambda right, left: node_hash(left, right), reversed(self.peaks))


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
