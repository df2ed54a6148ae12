"""Logs made by hand, signed with known keys."""

import json
from datetime import datetime, timezone
from pathlib import Path

from wmplug.keys.owner import binding
from wmplug.register.statements import FIRST, Signer, decode, encode

VECTORS = Path(__file__).parents[1] / "vectors" / "register"
OWNER, RECORDER = Signer(bytes(32)), Signer(bytes([1]) * 32)
OPENING = "ab" * 32
REGISTER, MARK = binding(OPENING, OWNER.public.hex()), "cd" * 16
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
OPENED = ("register.opened", {"name": "Ada", "public": OWNER.public.hex(), "opening": OPENING}, OWNER)
SECRET = ("secret.committed", {"watermark": MARK, "commitment": "ee" * 32}, OWNER)
EVIDENCE = {"register": REGISTER, "secret_committed": 1, "salt": None}
TRIGGERS = {"watermark": MARK, "recorder": RECORDER.public.hex(), "root": "ff" * 32, "evidence": EVIDENCE}


def written(folder, events):
    """A register's folder, its log made of (type, body, signer)."""
    folder.mkdir(exist_ok=True)
    (folder / "owner.pub").write_text(json.dumps({"commitment": REGISTER}))
    prev = FIRST
    with (folder / "log.jsonl").open("wb") as log:
        for seq, (kind, body, signer) in enumerate(events):
            predicate = {"register": REGISTER, "seq": seq, "prev": prev, "type": kind, "body": body}
            line = encode({**predicate, "event_id": str(seq), "claimed_time": "2026-01-31T12:00:00Z"}, (), signer)
            log.write(line)
            prev = decode(line, seq, 0).hash
    return folder


def checkpoints(count):
    yield from (OPENED, SECRET, ("triggers.committed", TRIGGERS, OWNER))
    for step in range(count - 3):
        yield "training.checkpoint", {"watermark": MARK, "run": "ab" * 16, "step": step, "verdict": None}, RECORDER


def refusals(report):
    return [(finding.code, finding.seq) for finding in report.findings if finding.level == "refused"]
