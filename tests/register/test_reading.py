from datetime import datetime, timezone

import pytest

from wmplug.errors import CorruptEntryError
from wmplug.keys.owner import binding
from wmplug.register.reading import RECORDED, Reading, take
from wmplug.register.statements import FIRST, TYPES, Signer, decode, encode

OWNER, RECORDER, OTHER = (Signer(bytes([i]) * 32) for i in range(3))
OPENING = "ab" * 32
REGISTER, MARK, OTHER_MARK = binding(OPENING, OWNER.public.hex()), "cd" * 16, "ef" * 16


class Log:
    """Entries are taken as they come; links are not this module's concern."""

    def __init__(self):
        self.reading, self.seq = Reading(), 0
        self("register.opened", {"name": "Ada", "public": OWNER.public.hex(), "opening": OPENING})

    def __call__(self, kind, body=None, *, by=OWNER, time="2026-01-31T12:00:00Z"):
        predicate = {"register": REGISTER, "seq": self.seq, "prev": FIRST, "type": kind, "body": body or {}}
        line = encode({**predicate, "event_id": str(self.seq), "claimed_time": time}, (), by)
        take(self.reading, decode(line, self.seq, 0), REGISTER)
        self.seq += 1

    def commit(self, mark=MARK, recorder=RECORDER):
        self("secret.committed", {"watermark": mark})
        evidence = {"secret_committed": self.seq - 1, "salt": None}
        self("triggers.committed", {"watermark": mark, "recorder": recorder.public.hex(), "evidence": evidence})

    def refuses(self, *entry, **options):
        """The code under which the next entry is refused."""
        with pytest.raises(CorruptEntryError, match=f"entry {self.seq} ") as caught:
            self(*entry, **options)
        return caught.value.code


@pytest.fixture
def log():
    return Log()


def test_what_is_known_after_some_entries(log):
    log.commit()
    log("training.started", {"watermark": MARK}, by=RECORDER)
    reading = log.reading
    assert reading.counts == dict.fromkeys(
        ("register.opened", "secret.committed", "triggers.committed", "training.started"), 1
    )
    assert (reading.secrets, reading.started) == ({MARK: 1}, {MARK: 3})
    assert reading.triggers[MARK].seq == 2
    assert (set(reading.owners), set(reading.recorders)) == ({OWNER.keyid}, {RECORDER.keyid})
    assert reading.findings == []
    assert reading.hash(2) == reading.triggers[MARK].hash
    assert reading.hash(4) is None


def test_what_a_recorder_may_say():
    assert RECORDED < TYPES
    for kind in sorted(TYPES):
        log = Log()
        log.commit()
        if kind in RECORDED:
            log(kind, {"watermark": MARK}, by=RECORDER)
        else:
            assert log.refuses(kind, {"watermark": MARK}, by=RECORDER) in ("not-allowed", "not-opened"), kind


def test_a_recorder_speaks_of_its_own_watermark(log):
    log.commit()
    log.commit(OTHER_MARK, OTHER)
    log("training.started", {"watermark": MARK}, by=RECORDER)
    log("training.started", {"watermark": OTHER_MARK}, by=OTHER)
    log("recovered", {"offset": 1}, by=OTHER)
    assert log.refuses("training.started", {"watermark": OTHER_MARK}, by=RECORDER) == "not-allowed"


def test_a_refused_entry_leaves_no_trace(log):
    before = repr(log.reading)
    assert log.refuses("key.revoked", {"keyid": OTHER.keyid, "since": None}) == "unknown-key"
    assert log.refuses("key.revoked", {}) == "bad-body"
    assert repr(log.reading) == before


def test_the_first_of_two_counts_for_secrets_and_starts_and_the_last_for_triggers(log):
    log.commit()
    log("training.started", {"watermark": MARK})
    log("secret.committed", {"watermark": MARK})
    log("training.started", {"watermark": MARK})
    evidence = {"secret_committed": 1, "salt": None}
    log("triggers.committed", {"watermark": MARK, "recorder": OTHER.public.hex(), "evidence": evidence})
    assert (log.reading.secrets[MARK], log.reading.started[MARK], log.reading.triggers[MARK].seq) == (1, 3, 6)


def test_clocks_are_looked_at_once_a_checkpoint_is_not(log):
    log("owner.identity", time="2026-02-01T00:00:00Z")
    log("training.checkpoint", time="2026-02-02T00:00:00Z")
    times = [(0, datetime(2026, 1, 31, 12)), (1, datetime(2026, 2, 1))]
    assert log.reading.times == [(seq, time.replace(tzinfo=timezone.utc)) for seq, time in times]


@pytest.mark.parametrize("public", ["", "ab", "zz" * 32, "ab" * 33, None, 3])
def test_keys_that_are_none(log, public):
    evidence = {"secret_committed": -1, "salt": None}
    body = {"watermark": MARK, "recorder": public, "evidence": evidence}
    assert log.refuses("triggers.committed", body) == "bad-body"


def test_findings_name_the_entry(log):
    log.reading.find("flagged", "odd", None, "the register as a whole")
    log.reading.find("refused", "no-secret", decode(_line(), 7, 0), "this one")
    assert [(one.level, one.seq, one.text) for one in log.reading.findings] == [
        ("flagged", None, "the register as a whole"),
        ("refused", 7, "entry 7: this one"),
    ]


def _line():
    predicate = {"register": REGISTER, "seq": 7, "prev": FIRST, "type": "disclosure", "body": {}}
    return encode({**predicate, "event_id": "e", "claimed_time": "2026-01-31T12:00:00Z"}, (), OWNER)
