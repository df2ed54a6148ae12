"""The log's commitment in the owner's register: nobody can pick the questions afterwards."""

from wmplug.errors import InputError, RegisterError
from wmplug.register import Entry, Register, Signer
from wmplug.register.history import QUERIES
from wmplug.serving.log import Log
from wmplug.watermark.watermark import Watermark


def commit(log: Log, mark: Watermark) -> Entry:
    """Write the Merkle root of all decisions so far into the register. Anchor the register afterwards.

    A verdict counts each commitment as a try, because the owner could have asked the log up to any of them.

    Args:
        log: the log.
        mark: its watermark, made or loaded with a register.

    Raises:
        InputError: the log belongs to another watermark.
        RegisterError: the watermark has no register, or it cannot be written.
        ServingError: the log cannot be written, or holds no decision.
    """
    if mark.register is None:
        raise RegisterError("the watermark has no register: make it with an owner whose folder is the register")
    if log.watermark != mark.id:
        raise InputError(f"the log belongs to watermark {log.watermark}, not to {mark.id}: commit with its own")
    register = Register(mark.register, Signer(mark.signing_seed()))
    bodies = [entry.body for entry in register.entries() if entry.type == "dataset.committed"]
    own = [body for body in bodies if body.get("role") == QUERIES and body.get("watermark") == mark.id]
    root, count = log.commit({body["in_order"]: body["count"] for body in own})
    body = {
        "kind": "dataset",
        "status": "committed",
        "role": QUERIES,
        "watermark": mark.id,
        "root": root,
        "in_order": root,
        "count": count,
        "tree": "rfc9162-sha256, leaves in the order of the log",
    }
    return register.append("dataset.committed", body)
