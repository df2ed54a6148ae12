"""Queries that a key decided between two classes, as the log of a served model holds them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import rfc8785

from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import Inputs, digest, take


@dataclass(frozen=True, eq=False, repr=False)
class Decided:
    """Decided queries, without the decisions: these follow from the key.

    Attributes:
        inputs: n inputs, in the form of the carriers.
        pairs: (n, 2) the two classes between which the key decided, the lower first.
        customers: n names of those who asked, empty for nobody's own; by default all are.
    """

    inputs: Inputs
    pairs: IntArray
    customers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.customers:
            object.__setattr__(self, "customers", ("",) * len(self.inputs))

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        named = len(set(self.customers) - {""})
        return f"{type(self).__name__}({len(self)} queries, {named} customers with a name)"

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """SHA-256 of each input, in hex."""
        return tuple(map(digest, self.inputs))

    @cached_property
    def digest(self) -> str:
        """Merkle root in hex (RFC 9162) over the queries in order, which a register commits to."""
        rows = zip(self.digests, np.asarray(self.pairs).tolist(), self.customers, strict=True)
        return merkle.root([leaf_of(sha256, low, high, who) for sha256, (low, high), who in rows]).hex()

    def only(self, rows: IntArray) -> "Decided":
        """The queries in some rows, in this order."""
        return Decided(take(self.inputs, rows), self.pairs[rows], tuple(self.customers[row] for row in rows.tolist()))

    def check(self, classes: int) -> None:
        """Raise InputError unless there are queries, each between two classes of a task with so many, in order."""
        pairs = np.asarray(self.pairs)
        fits = pairs.shape == (len(self), 2) and pairs.dtype.kind in "iu" and len(self.customers) == len(self) > 0
        if not fits or pairs.min() < 0 or pairs.max() >= classes or (pairs[:, 0] >= pairs[:, 1]).any():
            raise InputError(
                f"{len(self)} queries come with pairs {pairs.shape} {pairs.dtype}: give for each the two classes that "
                f"it was decided between, the lower first, of 0 to {classes - 1}"
            )


def leaf_of(sha256: str, low: int, high: int, customer: str) -> bytes:
    """The leaf hash (32 bytes) of one decided query, given the digest of its input."""
    return merkle.leaf_hash(rfc8785.dumps({"x_sha256": sha256, "low": low, "high": high, "customer": customer}))
