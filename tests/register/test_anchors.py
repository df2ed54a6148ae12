import socket
from datetime import datetime, timedelta, timezone

import pytest

from wmplug import create
from wmplug.errors import EvidenceWarning, RegisterError
from wmplug.keys.owner import Owner
from wmplug.register import Register, anchors
from wmplug.register.checking import check
from wmplug.register.timestamps import Trust
from wmplug.training.record import Run

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def owner(tmp_path):
    return Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)


@pytest.fixture
def attested(owner, lab):
    Register.of(owner)
    anchors.trust(owner.path, lab.trust)
    return owner


@pytest.fixture
def silent(owner, lab):
    """An authority that is named and does not answer."""
    Register.of(owner)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    anchors.trust(owner.path, Trust(f"http://127.0.0.1:{port}", lab.trust.roots, policies=lab.trust.policies))
    return owner


def make(owner, digits, **options):
    return create(owner, scheme="random-label", carriers=digits[0][:300], classes=10, **{"triggers": 20, **options})


def entries(owner):
    return list(Register(owner.path).entries())


def codes(report):
    return {(finding.level, finding.code) for finding in report.findings}


def test_the_head_is_stamped_and_the_check_finds_the_time(attested, lab):
    before = datetime.now(timezone.utc) - timedelta(seconds=2)
    (outcome,) = anchors.anchor(Register.of(attested))
    assert outcome.entry.body["head"] == 0
    report = check(attested.path)
    (stamp,) = report.stamps
    assert report.ok
    assert (stamp.head, stamp.seq, stamp.lab) == (0, 1, True)
    assert before <= stamp.gen_time <= datetime.now(timezone.utc) + timedelta(seconds=2)
    assert report.between(0) == (None, stamp.gen_time)
    assert report.attested == 0  # of a lab


def test_a_watermark_takes_its_salt_from_the_token_over_its_secret(attested, digits):
    mark = make(attested, digits)
    types = [entry.type for entry in entries(attested)]
    assert types == ["register.opened", "secret.committed", "anchor", "triggers.committed", "anchor"]
    salt = mark.public["evidence"]["salt"]
    assert salt == entries(attested)[2].body["salt"]
    assert check(attested.path).ok
    assert mark.public["evidence"]["lab"]
    unsalted = attested.pledges(mark.id)[0].subkeys(None)
    assert mark.subkeys.key("label") != unsalted.key("label")
    assert make(attested, digits).public == mark.public


def test_a_salt_of_ones_own_is_refused(attested, digits, monkeypatch):
    monkeypatch.setattr(anchors, "salt_after", lambda register, seq: (bytes(32), True))
    make(attested, digits)
    assert ("refused", "salt-without-token") in codes(check(attested.path))


def test_another_tokens_salt_is_refused(attested, digits, monkeypatch):
    real = anchors.salt_after
    monkeypatch.setattr(anchors, "salt_after", lambda register, seq: (real(register, seq)[0][::-1], True))
    make(attested, digits)
    assert ("refused", "wrong-salt") in codes(check(attested.path))


def test_an_authority_that_does_not_answer_leaves_a_request_and_a_warning(silent, digits):
    with pytest.warns(EvidenceWarning, match="NOT ATTESTED"):
        mark = make(silent, digits)
    assert mark.public["evidence"]["salt"] is None
    assert len(anchors.pending(silent.path)) >= 1
    assert check(silent.path).ok


def test_a_request_without_an_answer_is_kept_and_another_authority_asked(silent, lab):
    (outcome,) = anchors.anchor(Register.of(silent), timeout=1)
    assert outcome.entry is None
    assert outcome.error.code == "unreachable"
    assert len(anchors.pending(silent.path)) == 1
    anchors.trust(silent.path, lab.trust)
    outcomes = anchors.anchor(Register.of(silent), [lab.trust])
    assert [outcome.entry.type for outcome in outcomes] == ["anchor"]
    assert check(silent.path).stamps


def test_several_authorities_each_stamp_the_same_head(attested, silent, lab):
    outcomes = anchors.anchor(Register.of(attested), timeout=1)
    assert [outcome.entry is None for outcome in outcomes].count(True) == 1
    assert len(check(attested.path).stamps) == 1


def test_without_an_authority_nothing_is_stamped(owner):
    Register.of(owner)
    with pytest.raises(RegisterError, match="names no timestamp authority"):
        anchors.anchor(Register.of(owner))


def test_a_damaged_policy_is_named(attested):
    (attested.path / "policy.json").write_text("{")
    with pytest.raises(RegisterError, match=r"policy\.json cannot be read"):
        anchors.policy(attested.path)


def test_an_authority_is_pinned_by_its_first_answer(lab):
    pinned = anchors.pin(lab.url, lab.trust.roots)
    assert pinned.policies == lab.trust.policies


@pytest.mark.parametrize("edit", ["replace", "truncate", "remove"])
def test_a_token_that_is_not_the_recorded_one_is_refused(attested, edit):
    register = Register.of(attested)
    anchors.anchor(register)
    register.append("artwork.committed", {})
    anchors.anchor(register)
    first, second = sorted((attested.path / "anchors").glob("*.tsr"))
    if edit == "replace":
        first.write_bytes(second.read_bytes())
    elif edit == "truncate":
        first.write_bytes(first.read_bytes()[:-9])
    else:
        first.unlink()
    report = check(attested.path)
    assert not report.ok
    assert len(report.stamps) == 1
    assert {finding.seq for finding in report.findings if finding.level == "refused"} == {1}


def test_a_tail_cut_off_is_betrayed_by_its_token(attested):
    register = Register.of(attested)
    kept = register.log.read_bytes()
    register.append("artwork.committed", {"title": "what was to be forgotten"})
    anchors.anchor(register)
    register.log.write_bytes(kept)
    assert ("refused", "tail-deleted") in codes(check(attested.path))


def test_triggers_stamped_after_training_began_are_refused(owner, lab, digits):
    mark = make(owner, digits)
    Run(mark, "plain").start(data=[1], arguments={}, model=object())
    anchors.trust(owner.path, lab.trust)
    assert ("inconclusive", "not-anchored") in codes(check(owner.path))
    anchors.anchor(Register.of(owner))
    assert ("refused", "anchored-after-training") in codes(check(owner.path))


def test_triggers_stamped_before_training_are_in_order(attested, digits):
    mark = make(attested, digits)
    Run(mark, "plain").start(data=[1], arguments={}, model=object())
    report = check(attested.path)
    assert report.ok
    assert codes(report) == set()


def test_a_clock_that_was_turned_back_is_flagged(attested, monkeypatch):
    register = Register.of(attested)
    anchors.anchor(register)

    class Yesterday(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(days=1)

    monkeypatch.setattr("wmplug.register.ledger.datetime", Yesterday)
    register.append("artwork.committed", {})
    monkeypatch.undo()
    report = check(attested.path)
    assert report.ok
    assert ("flagged", "clock") in codes(report)


def test_a_year_after_the_certificate_ran_out_a_later_stamp_still_carries_the_first(attested, lab):
    register = Register.of(attested)
    anchors.anchor(register)
    late = datetime.now(timezone.utc) + timedelta(days=365 * 40)
    alone = check(attested.path, now=late)
    assert alone.ok
    assert {level for level, _ in codes(alone)} <= {"inconclusive"}


def test_no_secret_is_in_any_public_file_of_a_register(attested, digits):
    mark = make(attested, digits)
    pledge = attested.pledges(mark.id)[0]
    secrets = [attested._roots[0], pledge.secret, pledge.blind, mark.signing_seed(), attested.signing_seed()]
    secrets += [mark.subkeys.key(purpose) for purpose in ("input", "label", "schedule", "disclosure")]
    public = [f for f in attested.path.rglob("*") if f.is_file() and f.suffix != ".enc"]
    assert len(public) >= 7
    for file in public:
        content = file.read_bytes()
        for secret in secrets:
            assert secret not in content
            assert secret.hex().encode() not in content
