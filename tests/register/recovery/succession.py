"""Keys that follow one another, and entries as whoever holds one could write them."""

import base64

import wmplug
from wmplug import Owner
from wmplug.register import Signer, statements
from wmplug.register import rotation as rotations
from wmplug.register.checking import check

PASSPHRASE = "correct horse battery staple"
CHEAP = 2**10


def again(owner, passphrase=PASSPHRASE):
    return Owner.open(owner.path, passphrase=passphrase)


def mark_of(owner, digits, **more):
    options = {"scheme": "random-label", "classes": 10, "triggers": 20, **more}
    return wmplug.create(owner, carriers=digits[0][:200], labels=digits[1][:200], **options)


def keyid(owner):
    return Signer(owner.signing_seed()).keyid


def found(folder):
    """Findings, but for those of what no authority has dated."""
    return [finding for finding in check(folder).findings if finding.level != "inconclusive"]


def codes(folder):
    return [finding.code for finding in found(folder)]


def append_raw(register, signer, kind, body):
    """An entry as whoever holds `signer` could write it, without this package's manners."""
    head = register.head
    predicate = {"register": register.id, "seq": head.seq + 1, "prev": head.hash, "type": kind, "body": body}
    predicate |= {"event_id": f"raw/{head.seq}", "claimed_time": head.claimed_time}
    with register.log.open("ab") as log:
        log.write(statements.encode(predicate, (), signer))


def rotation(register, former, new, **edits):
    """The body of a rotation, and in it whatever is edited after it was signed."""
    body = {"former": former.keyid, "public": new.public.hex(), "commitment": "ab" * 32}
    proof = new.sign(rotations.claim(register.id, body), rotations.PROOF_TYPE)
    return {**body, "proof": base64.b64encode(proof).decode(), **edits}
