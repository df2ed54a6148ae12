"""What a hearing says of a revoked authority, and of one of which nobody can tell: the owner leaves its lists out."""

import hashlib
from datetime import datetime, timedelta, timezone

import pytest
from hearings import CLASSES, Story, by_name, fixed, hear, owner_at, tell, trained

import wmplug
from wmplug.errors import InputError
from wmplug.register import Register, anchors, authority
from wmplug.register.checking import check as check_register
from wmplug.register.notary.case import ANSWERS, RESULT
from wmplug.register.notary.hearing import check
from wmplug.report import certificate


@pytest.fixture(scope="session")
def unlisted(listless, digits, tmp_path_factory):
    """An owner whose register has no revocation list at all."""
    return tell(tmp_path_factory.mktemp("unlisted"), listless[1], digits)


def lists(made, *, at=None, **revoked):
    return [made.crl("tsa", at=at, **revoked), made.crl("intermediate", at=at)]


def test_without_a_list_the_hearing_is_inconclusive_and_asks_nothing(unlisted, notary, tmp_path):
    result = hear(unlisted, notary, tmp_path)
    assert result["status"] == "inconclusive"
    assert by_name(result)["time"]["result"] == "inconclusive"
    assert {one["result"] for one in result["checks"] if one["name"] != "time"} == {"passed"}
    for name in ("tsa", "intermediate"):
        assert f"no current revocation list speaks for the certificate of CN=Listless ({name})" in result["reasons"][0]
    assert "fetch http://127.0.0.1:1/intermediate.crl, and give it (--crl)" in result["reasons"][0]
    assert result["rows_asked"] == []
    assert not (tmp_path / "case" / ANSWERS).exists()
    assert {token["unrevoked_at"] for token in result["tokens"]} == {None}
    certificate.certify(notary, tmp_path / "case")
    page = (tmp_path / "case" / "certificate.html").read_text()
    assert "no current revocation list speaks for CN=Listless (tsa)" in page
    assert "never means" in page


def test_lists_that_the_notary_gives_speak_and_are_named(unlisted, listless, notary, tmp_path):
    given = lists(listless[0])
    case = fixed(unlisted, notary, tmp_path)
    result = check(notary, *case, crls=given)
    assert result["status"] == "holds", result["reasons"]
    assert result["revocation_lists"] == [hashlib.sha256(one).hexdigest() for one in given]
    assert {tuple(token["unlisted"]) for token in result["tokens"]} == {()}
    assert all(token["unrevoked_at"] for token in result["tokens"])
    certificate.certify(notary, tmp_path / "case")
    page = (tmp_path / "case" / "certificate.html").read_text()
    assert all(digest in page for digest in result["revocation_lists"])
    assert "not revoked as of 20" in page


def test_a_revoked_authority_is_refused_though_the_owner_left_its_list_out(unlisted, listless, notary, tmp_path):
    assert check_register(unlisted.owner.path).ok
    case = fixed(unlisted, notary, tmp_path)
    result = check(notary, *case, crls=lists(listless[0], revoked=datetime.now(timezone.utc)))
    assert result["status"] == "does not hold"
    assert by_name(result)["register"]["result"] == "failed"
    assert "was revoked on" in result["reasons"][0]
    assert result["rows_asked"] == []


@pytest.mark.parametrize("left_out", ["tsa", "intermediate"])
def test_each_certificate_needs_a_list(unlisted, listless, notary, tmp_path, left_out):
    given = dict(zip(("tsa", "intermediate"), lists(listless[0]), strict=True))
    del given[left_out]
    result = check(notary, *fixed(unlisted, notary, tmp_path), crls=list(given.values()))
    assert result["status"] == "inconclusive"
    assert result["reasons"][0].count("no current revocation list") == 1
    assert f"CN=Listless ({left_out})" in result["reasons"][0]


def test_a_list_of_another_issuer_speaks_for_nothing(unlisted, lab, notary, tmp_path):
    result = check(notary, *fixed(unlisted, notary, tmp_path), crls=lists(lab.authority))
    assert by_name(result)["time"]["result"] == "inconclusive"


def test_a_list_that_its_issuer_did_not_sign_leaves_the_case_unheard(unlisted, listless, notary, tmp_path):
    altered = bytearray(listless[0].crl())
    altered[-1] ^= 1
    (tmp_path / "altered.crl").write_bytes(altered)
    case = fixed(unlisted, notary, tmp_path)
    with pytest.raises(InputError, match=r"altered\.crl: the revocation list names .* which did not sign it"):
        check(notary, *case, crls=[tmp_path / "altered.crl"])
    assert not (tmp_path / "case" / RESULT).exists()
    assert check(notary, *case, crls=lists(listless[0]))["status"] == "holds"


def test_a_genuine_list_that_has_run_out_hides_what_came_later(listless, notary, digits, tmp_path):
    """Whoever holds a stolen key dates tokens back, and shows a list from before it was known to be stolen."""
    made, trust = listless
    then = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(authority, "_now", lambda: then)
        story = tell(tmp_path / "register", trust, digits)
    case = fixed(story, notary, tmp_path)
    old = lists(made, at=then + timedelta(days=1))
    assert {stamp.unrevoked_at for stamp in check_register(story.owner.path, crls=old).stamps} == {
        then + timedelta(days=1)
    }
    result = check(notary, *case, crls=old)
    assert by_name(result)["time"]["result"] == "inconclusive"
    (tmp_path / "case" / RESULT).unlink()
    assert check(notary, *case, crls=[*old, *lists(made)])["status"] == "holds"


def stamped(listless, neutral, digits, folder, *, salt, after):
    """A register whose key rests on one authority's token, and its triggers on another's."""
    owner = owner_at(folder / "register", salt)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchors, "attempt", lambda register: anchors.anchor(register, [after]))
        mark = wmplug.create(owner, scheme="random-label", classes=CLASSES, **task)
    anchors.trust(owner.path, after)
    trained(owner, mark)
    both = type(salt)("both", (*listless[1].roots, *neutral.roots))
    return Story(owner, mark, task, both)


@pytest.mark.parametrize("first", [True, False])
def test_both_the_salts_stamp_and_that_before_training_need_lists(listless, neutral, notary, digits, tmp_path, first):
    one, other = (listless[1], neutral) if first else (neutral, listless[1])
    story = stamped(listless, neutral, digits, tmp_path, salt=one, after=other)
    result = hear(story, notary, tmp_path)
    assert by_name(result)["time"]["result"] == "inconclusive"
    assert "CN=Listless (tsa)" in result["reasons"][0]
    assert "CN=Neutral" not in result["reasons"][0]


def test_one_listed_stamp_between_triggers_and_training_is_enough(listless, neutral, notary, digits, tmp_path):
    owner = owner_at(tmp_path / "register", neutral)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    mark = wmplug.create(owner, scheme="random-label", classes=CLASSES, **task)
    anchors.anchor(Register.of(owner), [listless[1]])
    anchors.trust(owner.path, listless[1])
    trained(owner, mark)
    both = type(neutral)("both", (*listless[1].roots, *neutral.roots))
    result = hear(Story(owner, mark, task, both), notary, tmp_path)
    assert result["status"] == "holds", result["reasons"]
    assert [bool(token["unlisted"]) for token in result["tokens"]] == [False, False, True]


def test_a_later_anchor_of_the_owner_brings_the_lists(neutral, notary, digits, tmp_path):
    """They speak for its earlier tokens too, which came without any."""
    owner = owner_at(tmp_path / "register", neutral)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anchors.timestamps, "fetch_crls", lambda certificates, timeout: [])
        mark = wmplug.create(owner, scheme="random-label", classes=CLASSES, **task)
    trained(owner, mark)
    assert all(stamp.unlisted for stamp in check_register(owner.path).stamps)
    anchors.anchor(Register.of(owner))
    assert hear(Story(owner, mark, task, neutral), notary, tmp_path)["status"] == "holds"
