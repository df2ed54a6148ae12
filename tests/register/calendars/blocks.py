"""What a calendar commits to, and the blocks whose headers its proofs lead to."""

import hashlib
import os
from datetime import datetime, timezone

from bitcoin.core import CBlockHeader
from opentimestamps.core.notary import (
    BitcoinBlockHeaderAttestation,
    PendingAttestation,
)
from opentimestamps.core.op import OpAppend, OpPrepend, OpSHA256
from opentimestamps.core.serialize import BytesSerializationContext
from opentimestamps.core.timestamp import DetachedTimestampFile, Timestamp, cat_sha256d, make_merkle_tree

from wmplug.register import calendars, checking

PASSPHRASE = "correct horse battery staple"
MINED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=timezone.utc)
# Block 0, as every node has it.
GENESIS_ROOT = "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
GENESIS = bytes.fromhex("01" + "00" * 35 + GENESIS_ROOT + "29ab5f49ffff001d1dac2b7c")


def serialized(made):
    context = BytesSerializationContext()
    made.serialize(context)
    return context.getbytes()


def file_of(timestamp):
    return serialized(DetachedTimestampFile(OpSHA256(), timestamp))


class Calendar:
    """As the servers do it: a digest is committed to at once, and proven when a block is mined."""

    def __init__(self):
        self.commitments, self.proven, self.headers = {}, {}, {}
        self.asked = []
        self.answer = None  # instead of what is right: (status, headers, body)
        self.names = None  # itself in a pending attestation as this, as a pool does

    def post(self, digest):
        made = Timestamp(digest)
        commitment = made.ops.add(OpPrepend(os.urandom(4))).ops.add(OpSHA256()).ops.add(OpAppend(os.urandom(8)))
        commitment.attestations.add(PendingAttestation(self.names or self.url))
        self.commitments[commitment.msg.hex()] = commitment.msg
        return serialized(made)

    def mine(self, height):
        """A block of what was submitted, as one transaction among others."""
        leaves = {name: Timestamp(message) for name, message in self.commitments.items()}
        hashed = [leaf.ops.add(OpSHA256()) for leaf in (*leaves.values(), Timestamp(os.urandom(40)))]
        transaction = make_merkle_tree(hashed).ops.add(OpPrepend(b"in")).ops.add(OpAppend(b"out"))
        root = cat_sha256d(transaction.ops.add(OpSHA256()).ops.add(OpSHA256()), Timestamp(os.urandom(32)))
        root.attestations.add(BitcoinBlockHeaderAttestation(height))
        self.proven |= leaves
        block = CBlockHeader(2, os.urandom(32), root.msg, int(MINED.timestamp()), 0x1D00FFFF, 7)
        self.headers[height] = block.serialize()


def check(register, headers=()):
    return calendars.check(checking.check(register.path), register.path, dict(headers))


def codes(report):
    return [(finding.level, finding.code, finding.seq) for finding in report.findings]


def path_of(register, entry):
    return register.path / "anchors" / entry.body["file"]


def rewrite(register, content):
    """A proof recorded by the owner himself, of whatever content."""
    calendars.write_new(register.path / "anchors" / "000000-00000000.ots", content, 0o644)
    digest = hashlib.sha256(content).hexdigest()
    named = {"head": 0, "hash": next(register.entries()).hash, "file": "000000-00000000.ots", "sha256": digest}
    return register.append("retimestamp", {"kind": "opentimestamps", "calendars": [], **named})
