"""More digests than memory holds, in order, and the Merkle root over them in one pass."""

from __future__ import annotations

import functools
import hashlib
import heapq
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from wmplug.keys.merkle import node_hash

LIMIT = 8_000_000  # digests held at once: 256 MB
_SIZE = 32
_BLOCK = 2048 * _SIZE


class SortedDigests:
    """A multiset of 32-byte digests that is read in ascending order; past `limit` it lies in temporary files.

    Use it as a context: the files, which nobody else can open, are gone when it ends.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._held = bytearray()
        self._folder = tempfile.TemporaryDirectory(prefix="wmplug-")
        self._files: list[Path] = []

    def __enter__(self) -> SortedDigests:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def add(self, digest: bytes) -> None:
        """Take one digest in."""
        self._held += digest
        if len(self._held) >= self._limit * _SIZE:
            self._sort()
            self._files.append(Path(self._folder.name, str(len(self._files))))
            self._files[-1].write_bytes(self._held)
            self._held.clear()

    def __iter__(self) -> Iterator[bytes]:
        self._sort()
        return heapq.merge(self._in_memory(), *map(_in_file, self._files))

    def _sort(self) -> None:
        np.frombuffer(self._held, f"V{_SIZE}").sort()

    def _in_memory(self) -> Iterator[bytes]:
        for start in range(0, len(self._held), _SIZE):
            yield bytes(self._held[start : start + _SIZE])


def _in_file(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            for start in range(0, len(block), _SIZE):
                yield block[start : start + _SIZE]


def tree_root(leaves: Iterable[bytes]) -> bytes:
    """What `merkle.root` gives for the same leaf hashes, from one pass and with memory for log2 of their number."""
    waiting: list[bytes] = []
    for count, leaf in enumerate(leaves, start=1):
        waiting.append(leaf)
        while count % 2 == 0:
            count //= 2
            waiting[-2:] = [node_hash(waiting[-2], waiting[-1])]
    if not waiting:
        return hashlib.sha256(b"").digest()
    return functools.reduce(lambda right, left: node_hash(left, right), reversed(waiting))
