from datetime import datetime, timedelta, timezone

import pytest
from succession import again, append_raw, codes, found, keyid, mark_of

from wmplug.errors import InputError, RegisterError
from wmplug.register import Register, Signer, anchors
from wmplug.register.checking import check
from wmplug.register.recovery import renounce, revoke, rotate


def test_the_owners_own_key_is_not_revoked_without_a_successor(ada):
    log = Register(ada.path).log.read_bytes()
    for key in (None, keyid(ada)):
        with pytest.raises(InputError, match="rotate` first"):
            revoke(ada, key, reason="lost")
    for key in ("", "ab" * 32):
        with pytest.raises(InputError, match="no entry introduces a key"):
            revoke(ada, key, reason="lost")
    assert Register(ada.path).log.read_bytes() == log


def test_a_former_key_may_be_revoked(ada):
    new = rotate(ada)
    entry = revoke(new, keyid(ada), reason="retired")
    assert entry.body == {"keyid": keyid(ada), "reason": "retired", "since": None}
    assert revoke(new, keyid(ada), reason="retired").seq == entry.seq
    assert codes(ada.path) == []


def test_a_watermarks_recorder_may_be_revoked(ada, digits):
    mark = mark_of(ada, digits)
    signer = Signer(mark.signing_seed())
    recorder = Register(ada.path, signer)
    event = {"watermark": mark.id, "run": "00" * 16, "step": 1}
    recorder.append("watermark.inserted", event)
    assert revoke(ada, mark.id, reason="stolen laptop").body["keyid"] == signer.keyid
    with pytest.raises(RegisterError, match="was rotated or revoked"):
        recorder.append("watermark.inserted", {**event, "step": 2})
    assert codes(ada.path) == []
    append_raw(recorder, signer, "watermark.inserted", {**event, "step": 2})
    assert codes(ada.path) == ["revoked-key"]


def test_a_recorder_cannot_revoke_or_rotate(ada, digits):
    signer = Signer(mark_of(ada, digits).signing_seed())
    for kind in ("key.revoked", "key.rotated"):
        append_raw(Register(ada.path), signer, kind, {"keyid": keyid(ada), "reason": "", "since": None})
    assert codes(ada.path) == ["not-allowed"]


def test_a_key_that_nobody_introduced_cannot_be_revoked(ada):
    body = {"keyid": "ab" * 32, "reason": "", "since": None}
    append_raw(Register(ada.path), Signer(ada.signing_seed()), "key.revoked", body)
    assert codes(ada.path) == ["unknown-key"]


def test_what_a_compromised_key_signed_is_flagged_unless_a_token_covers_it(ada, lab, digits):
    mark = mark_of(ada, digits)
    register = Register.of(ada)
    anchors.trust(ada.path, lab.trust)
    anchors.anchor(register)
    stamped = check(ada.path).stamps[0]
    event = {"watermark": mark.id, "run": "00" * 16, "step": 1}
    Register(ada.path, Signer(mark.signing_seed())).append("watermark.inserted", event)
    late = register.append("owner.identity", {"late": True}).seq
    since = stamped.gen_time + timedelta(seconds=1)
    new = renounce(ada, reason="laptop stolen", since=since)
    Register.of(new).append("owner.identity", {"again": True})
    flags = {finding.seq: finding for finding in found(ada.path)}
    assert check(ada.path).ok
    assert {finding.code for finding in flags.values()} == {"signed-by-compromised-key"}
    assert set(flags) == {stamped.seq, stamped.seq + 1}  # of the owner: the anchor, `late`, the rotation; the recorder
    assert f"in all 3 entries up to {late + 1}" in flags[stamped.seq].text
    assert "in all 1 entries" in flags[stamped.seq + 1].text
    # Known only later to have been open from the beginning: then the token covers nothing.
    revoke(new, keyid(ada), reason="since the first day", since=stamped.gen_time - timedelta(days=1))
    assert {f.seq for f in check(ada.path).findings if f.code == "signed-by-compromised-key"} == {0, stamped.seq + 1}


def test_a_token_from_after_the_compromise_covers_nothing(ada, lab):
    since = datetime.now(timezone.utc) - timedelta(hours=1)
    anchors.trust(ada.path, lab.trust)
    anchors.anchor(Register.of(ada))
    renounce(ada, reason="laptop stolen", since=since)
    (finding,) = found(ada.path)
    assert (finding.level, finding.code, finding.seq) == ("flagged", "signed-by-compromised-key", 0)


def test_renouncing_revokes_all_keys_before(ada, digits):
    mark = mark_of(ada, digits)
    new = renounce(rotate(ada), reason="laptop stolen", passphrase="another one")
    revoked = {e.body["keyid"] for e in Register(ada.path).entries() if e.type == "key.revoked"}
    assert revoked == {*(Signer(seed).keyid for seed in new.signing_seeds()[1:]), Signer(mark.signing_seed()).keyid}
    assert mark_of(again(new, "another one"), digits).public == mark.public
    assert check(ada.path).ok


def test_a_time_without_a_zone_is_refused_before_anything_is_written(ada):
    new = rotate(ada)
    log = Register(ada.path).log.read_bytes()
    with pytest.raises(InputError, match="no time zone"):
        revoke(new, keyid(ada), reason="", since=datetime(2026, 1, 31))
    with pytest.raises(InputError, match="no time zone"):
        renounce(new, reason="", since=datetime(2026, 1, 31))
    assert Register(ada.path).log.read_bytes() == log


@pytest.mark.parametrize("since", ["2026-01-31", "yesterday", 7, ""])
def test_a_revocation_since_no_time_is_refused(ada, since):
    body = {"keyid": keyid(ada), "reason": "", "since": since}
    append_raw(Register(ada.path), Signer(ada.signing_seed()), "key.revoked", body)
    assert codes(ada.path) == ["bad-body"]
