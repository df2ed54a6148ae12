"""The notary's times and checks over a log and tokens made by hand."""

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmplug.errors import NotaryError
from wmplug.register.checking import Report
from wmplug.register.notary import inspection
from wmplug.register.notary.case import Since
from wmplug.register.ordering import Stamp
from wmplug.register.reading import Finding
from wmplug.register.revocation import Unlisted

MARK = "cd" * 16
BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)


def entry(seq, kind, watermark=MARK, **body):
    return SimpleNamespace(
        seq=seq, type=kind, body={"watermark": watermark, **body}, claimed_time=f"2026-02-01T00:00:{seq:02d}Z"
    )


def stamp(seq, head, hours, good=True, **facts):
    return Stamp(seq, head, BEGIN + timedelta(hours=hours), "tsa", not good, **facts), {}, good


def record(entries, stamps=(), findings=()):
    report = Report("ab" * 32, len(entries), "ef" * 32, tuple(one for one, *_ in stamps), tuple(findings), {})
    return inspection._Record(report, tuple(entries), tuple(stamps))


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=5))
def test_an_event_lies_between_the_accepted_tokens_around_it(gaps):
    stamps, seq = [], 0
    for hours, (gap, good) in enumerate(gaps):
        seq += gap
        stamps.append(stamp(seq, max(0, seq - 2), hours, good))
    entries = [entry(i, "training.started") for i in range(seq + 2)]
    for one, told in zip(entries, inspection._times(MARK, record(entries, stamps)), strict=True):
        before = [s.gen_time for s, _, good in stamps if good and s.seq < one.seq]
        after = [s.gen_time for s, _, good in stamps if good and s.head >= one.seq]
        assert told == {
            "entry": one.seq,
            "event": "training.started",
            "claimed": one.claimed_time,
            "not_before": f"{max(before):%Y-%m-%dT%H:%M:%SZ}" if before else None,
            "not_after": f"{min(after):%Y-%m-%dT%H:%M:%SZ}" if after else None,
        }


def test_only_events_of_this_watermark_and_of_all_are_dated():
    release = SimpleNamespace(seq=5, type="model.released", body={"version": "1"}, claimed_time="t")
    entries = [
        entry(0, "secret.committed"),
        entry(1, "secret.committed", "another"),
        entry(2, "training.checkpoint"),
        entry(3, "triggers.committed"),
        entry(4, "training.finished"),
        release,
    ]
    assert [told["entry"] for told in inspection._times(MARK, record(entries))] == [0, 3, 4, 5]


def test_what_a_certificate_says_of_a_token():
    unlisted = Unlisted("CN=x", ())
    made, _, _ = stamp(4, 2, 1, unlisted=(unlisted,), unrevoked_at=BEGIN)
    body = {"token": "ab" * 32, "roots": ["cd" * 32]}
    assert inspection._token(made, body, True) == {
        "entry": 4,
        "covers": 2,
        "gen_time": "2026-01-01T01:00:00Z",
        "authority": "tsa",
        "sha256": "ab" * 32,
        "roots": ["cd" * 32],
        "lab": False,
        "accepted": True,
        "unlisted": ["CN=x"],
        "unrevoked_at": "2026-01-01T00:00:00Z",
    }
    assert inspection._token(stamp(4, 2, 1, good=False)[0], body, False)["unrevoked_at"] is None


def test_the_first_entry_that_names_a_system_counts():
    entries = [
        entry(3, "system.committed", files={"root": "aa"}, tensors=None),
        entry(5, "system.committed", files=None, tensors={"sha256": "bb"}),
        entry(7, "system.committed", files={"root": "aa"}, tensors={"sha256": "bb"}),
        entry(8, "system.committed", "another", files={"root": "cc"}, tensors=None),
    ]
    assert dict(inspection._systems(MARK, record(entries))) == {"aa": 3, "bb": 5}


def test_the_register_is_told_with_all_that_was_found():
    findings = [Finding(level, level, 1, f"text {i}") for i, level in enumerate(("flagged", "inconclusive"))]
    passed = inspection._check_register(record([entry(0, "x")], findings=findings).report)
    assert (passed.name, passed.result) == ("register", "passed")
    assert passed.text.startswith("1 entries, each signed, linked")
    assert passed.text.endswith("and in order; flagged: text 0; inconclusive: text 1")
    refused = [*findings, Finding("refused", "x", 1, "bad"), Finding("refused", "x", 2, "worse")]
    failed = inspection._check_register(record([], findings=refused).report)
    assert (failed.name, failed.result, failed.text) == ("register", "failed", "bad; worse")


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (None, "passed"),
        (inspection._NotAttestedError("why"), "NOT ATTESTED"),
        (inspection._InconclusiveError("why"), "inconclusive"),
        (NotaryError("why"), "failed"),
    ],
)
def test_a_check_says_how_it_ended(error, result):
    def check():
        if error:
            raise error
        return "why"

    assert inspection._run("salt", check) == inspection.Check("salt", result, "why")


@pytest.mark.parametrize("error", [KeyError("salt"), TypeError("salt"), ValueError("salt"), AttributeError("salt")])
def test_what_wmplug_never_writes_fails_a_check(error):
    def check():
        raise error

    found = inspection._run("salt", check)
    assert (found.name, found.result) == ("salt", "failed")
    assert found.text == f"what the owner gave is not what wmplug writes ({type(error).__name__}: {error})"


def test_rows_that_were_spent_or_shown_are_counted():
    text = inspection._spent(frozenset({1, 2}), frozenset({5}))
    assert "name 2 rows, which are not asked again; 1 more were shown to everybody and count as misses" in text


@pytest.mark.parametrize("name", ["case", "package", "watermark", "root", "log"])
def test_a_package_of_another_claim_is_refused(name):
    packed = SimpleNamespace(case="c1", sha256="p1", public={"id": "w1", "root": "r1"}, log="l1")
    fixed = {"case": "c1", "package": "p1", "watermark": "w1", "root": "r1", "log": "l1"}
    assert inspection._claim(packed, SimpleNamespace(**fixed)).startswith("the package is the one")
    with pytest.raises(NotaryError, match=f"^the package is for {name} {fixed[name]}, the case was fixed for other:"):
        inspection._claim(packed, SimpleNamespace(**{**fixed, name: "other"}))


COMMITTED = entry(3, "secret.committed", commitment="e1")
AGAIN = entry(5, "secret.committed", commitment="e2", prepared="p1")


def opened(*entries, owner="ab" * 32, commitment="e1", evidence=None):
    public = {"id": MARK, "owner": {"commitment": owner}, "evidence": evidence}
    package = SimpleNamespace(public=public, pledge=SimpleNamespace(commitment=commitment))
    return inspection._commitment(package, record(entries))


def test_secret_and_blind_open_the_first_commitment():
    assert opened(COMMITTED, AGAIN) == "secret and blind open the commitment of entry 3"
    assert opened(COMMITTED, evidence={"salt": "s"}).endswith("of entry 3")
    assert opened(AGAIN, commitment="e2", evidence={"prepared": "p1"}).endswith("of entry 5")


@pytest.mark.parametrize(
    ("entries", "facts", "words"),
    [
        ([entry(3, "secret.committed", "another", commitment="e1")], {}, f"no commitment to the secret .* {MARK}"),
        ([COMMITTED], {"owner": "cd" * 32}, "names another owner"),
        ([COMMITTED, AGAIN], {"commitment": "e2"}, "do not open the commitment of entry 3"),
        ([COMMITTED], {"evidence": {"prepared": "p1"}}, "root over prepared inputs is not the one that entry 3"),
        ([AGAIN], {"commitment": "e2"}, "root over prepared inputs is not the one that entry 5"),
    ],
)
def test_a_secret_that_was_not_committed_to_is_refused(entries, facts, words):
    with pytest.raises(NotaryError, match=words):
        opened(*entries, **facts)


def test_only_the_first_timestamp_over_the_commitment_gives_the_salt():
    early, first, later = (entry(seq, "anchor", head=seq - 1, salt=f"0{seq}" * 32) for seq in (3, 4, 6))
    log = record([early, COMMITTED, first, later])

    def salted(byte, log=log):
        return inspection._salt(SimpleNamespace(public={"id": MARK}, salt=bytes([byte]) * 32), log)

    assert salted(4) == "the salt is that of the first timestamp over the commitment, entry 4"
    for byte in (3, 6, 0):
        with pytest.raises(NotaryError, match="another key was chosen"):
            salted(byte)
    with pytest.raises(NotaryError, match="another key was chosen"):
        salted(4, record([COMMITTED, early]))
    assert inspection._salt(SimpleNamespace(salt=None), log) == "the key has no salt of a timestamp"


RECORDED = {"root": "r1", "rows": 4, "draws": 3, "triggers": 2, "classes": 9, "scheme": "s", "evidence": {"salt": "x"}}


def derived(entries, **public):
    made, package = [], SimpleNamespace(public={"id": MARK, **RECORDED, **public})
    package.derive = lambda: SimpleNamespace(answers=[0] * 4)
    return inspection._derive(package, record(entries), made), [len(one.answers) for one in made]


def test_triggers_have_the_facts_of_the_one_entry_that_commits_to_them():
    text, made = derived([entry(4, "triggers.committed", **RECORDED)])
    assert text == "4 inputs and answers follow from secret and salt, and have the root of entry 4"
    assert made == [4]
    for count in (0, 2):
        with pytest.raises(NotaryError, match=f"commits to the triggers of this watermark {count} times"):
            derived([entry(4 + i, "triggers.committed", **RECORDED) for i in range(count)])


@pytest.mark.parametrize("name", list(RECORDED))
def test_a_fact_that_the_register_has_otherwise_is_named(name):
    with pytest.raises(NotaryError, match=f"^entry 4 has another {name} than the package$"):
        derived([entry(4, "triggers.committed", **RECORDED)], **{name: "other"})
    kept = {one: value for one, value in RECORDED.items() if one != name}
    with pytest.raises(NotaryError, match=f"^entry 4 has another {name} than the package$"):
        derived([entry(4, "triggers.committed", **kept)])


def test_each_fact_that_differs_is_named():
    with pytest.raises(NotaryError, match=r"^entry 4 has another rows and another draws than the package$"):
        derived([entry(4, "triggers.committed", **RECORDED)], rows=5, draws=5)


PACKAGE = SimpleNamespace(public={"id": MARK}, salt=bytes(32))
SECRET = entry(1, "secret.committed")


@pytest.mark.parametrize(
    ("stamps", "since", "error"),
    [
        ([], "2026-02-01", inspection._NotAttestedError),
        ([stamp(3, 2, 0, good=False)], "2026-02-01", inspection._NotAttestedError),
        ([stamp(1, 0, 0)], "2026-02-01", inspection._NotAttestedError),
        ([stamp(3, 1, 0)], "2026-01-02", None),
        ([stamp(3, 1, 24)], "2026-01-02", NotaryError),
        ([stamp(3, 1, 0), stamp(5, 4, 24 * 99)], "2026-01-02", None),
    ],
)
def test_the_secret_has_to_be_there_before_the_suspect(stamps, since, error):
    given_date = Since(since, "its page")
    if error is None:
        text = inspection._suspect(PACKAGE, record([SECRET], stamps), given_date)
        assert text == f"the secret was there by 2026-01-01T00:00:00Z, the suspect is known since {since} (its page)"
    else:
        with pytest.raises(error) as caught:
            inspection._suspect(PACKAGE, record([SECRET], stamps), given_date)
        assert type(caught.value) is error


TRIGGERS, STARTED = entry(4, "triggers.committed"), entry(8, "training.started")
ANCHORS = [entry(seq, "anchor", head=head) for seq, head in ((2, 1), (6, 4), (9, 8))]
SALTED, PROMPT, LATE = stamp(2, 1, 0), stamp(6, 4, 1), stamp(9, 8, 2)


def timed(stamps, *left_out, salt=bytes(32), findings=(), points=("samples",), log=""):
    entries = [one for one in (SECRET, TRIGGERS, STARTED, *ANCHORS) if one not in left_out]
    entries = sorted(entries, key=lambda one: one.seq)
    package = SimpleNamespace(public={"id": MARK}, salt=salt, scheme=SimpleNamespace(points=set(points)))
    return inspection._time(package, record(entries, stamps, findings), log)


def test_secret_before_salt_and_triggers_before_training():
    assert timed([SALTED, PROMPT, LATE]).startswith("secret before salt, triggers before training")


@pytest.mark.parametrize(
    ("stamps", "options", "words"),
    [
        ([SALTED, PROMPT, LATE], {"salt": None}, "the key was made without a timestamp"),
        ([PROMPT, LATE], {}, "the timestamp that the key follows from is of no authority"),
        ([stamp(2, 1, 0, good=False), PROMPT], {}, "the timestamp that the key follows from is of no authority"),
        ([SALTED, LATE], {}, "no timestamp that the notary accepts lies between"),
        ([SALTED, stamp(6, 4, 1, good=False)], {}, "no timestamp that the notary accepts lies between"),
        ([SALTED, stamp(6, 3, 1)], {}, "no timestamp that the notary accepts lies between"),
        ([SALTED, stamp(8, 4, 1)], {}, "no timestamp that the notary accepts lies between"),
    ],
)
def test_each_gap_in_time_is_named(stamps, options, words):
    with pytest.raises(inspection._NotAttestedError) as caught:
        timed(stamps, **options)
    assert str(caught.value).startswith(words)
    assert "; " not in str(caught.value)


def test_no_training_and_several_gaps():
    with pytest.raises(inspection._NotAttestedError, match=r"^no training with this watermark is recorded$"):
        timed([SALTED, PROMPT], STARTED)
    finding = Finding("inconclusive", "salt-unproven", 4, "its salt rests on entry 2, which does not hold")
    other = Finding("inconclusive", "not-anchored", 4, "another thing")
    with pytest.raises(inspection._NotAttestedError) as caught:
        timed([], STARTED, salt=None, findings=[other, finding])
    assert [why.split()[1] for why in str(caught.value).split("; ")] == ["salt", "key", "training"]


def test_a_silent_list_leaves_the_time_open_unless_another_token_speaks():
    silent, other = Unlisted("CN=a", ()), Unlisted("CN=b", ())
    quiet = stamp(6, 4, 1, unlisted=(silent,))
    with pytest.raises(inspection._InconclusiveError) as caught:
        timed([stamp(2, 1, 0, unlisted=(other, silent)), quiet])
    assert str(caught.value) == f"{other}; {silent}"  # each once
    with pytest.raises(inspection._InconclusiveError):
        timed([SALTED, quiet])
    # Of two tokens between triggers and training, one that a list speaks for is enough.
    assert timed([SALTED, quiet, stamp(7, 5, 1)])
    # A token that the claim does not rest on needs none.
    assert timed([SALTED, PROMPT, stamp(9, 8, 2, unlisted=(silent,))])


def test_what_no_training_teaches_needs_none_on_record_and_a_log_in_its_place():
    served = {"points": ("answers",), "log": "ab" * 32}
    assert "no training teaches this watermark" in timed([SALTED], STARTED, **served)
    with pytest.raises(inspection._NotAttestedError, match=r"^no training teaches .* the package holds no log"):
        timed([SALTED, PROMPT], STARTED, points=("answers",))
    with pytest.raises(inspection._NotAttestedError, match="is of no authority"):
        timed([PROMPT], STARTED, **served)
    with pytest.raises(inspection._InconclusiveError):
        timed([stamp(2, 1, 0, unlisted=(Unlisted("CN=a", ()),))], STARTED, **served)
    # A log loosens nothing for what training teaches.
    for points in (("samples",), ("samples", "answers")):
        with pytest.raises(inspection._NotAttestedError, match=r"^no training with this watermark is recorded$"):
            timed([SALTED, PROMPT], STARTED, points=points, log="ab" * 32)


LOGGED = {"role": "queries", "root": "r1", "in_order": "r1", "count": 3}
LOG = entry(5, "dataset.committed", **LOGGED)


def logged(entries, stamps, since=None, count=3):
    package, found = SimpleNamespace(public={"id": MARK}, log="r1", decided=[None] * count), []
    when = None if since is None else Since(since, "its page")
    return inspection._log(package, record([SECRET, *entries], stamps), when, found), found


def test_a_log_is_committed_to_and_dated_before_the_suspect():
    text, (facts,) = logged([LOG], [stamp(7, 5, 24), stamp(6, 4, 1), stamp(9, 8, 30)], "2026-01-03")
    assert text.startswith("entry 5 commits to the package's 3 queries, in their order; it was there by 2026-01-02T00")
    assert facts == {"root": "r1", "count": 3, "entry": 5, "not_after": "2026-01-02T00:00:00Z", "commitments": 1}
    another = entry(6, "dataset.committed", "another", **{**LOGGED, "in_order": "r2"})
    again, trained = entry(7, "dataset.committed", **LOGGED), entry(8, "dataset.committed", root="r3")
    assert logged([LOG, another, again, trained], [stamp(9, 8, 1)])[1][0]["commitments"] == 2


@pytest.mark.parametrize(
    "other",
    [
        entry(5, "dataset.committed", "another", **LOGGED),
        entry(5, "dataset.committed", **{**LOGGED, "role": "training"}),
        entry(5, "dataset.committed", **{**LOGGED, "root": "r2"}),
        entry(5, "dataset.committed", **{**LOGGED, "count": 4}),
        entry(5, "parameters.committed", **LOGGED),
    ],
)
def test_queries_that_the_register_does_not_commit_to_are_refused(other):
    with pytest.raises(NotaryError, match="the package's 3 queries are none of the"):
        logged([other], [stamp(7, 6, 1)])


@pytest.mark.parametrize(
    ("stamps", "since", "error"),
    [
        ([], None, inspection._NotAttestedError),
        ([stamp(7, 5, 1, good=False), stamp(6, 4, 1)], "2026-02-01", inspection._NotAttestedError),
        ([stamp(7, 5, 24)], "2026-01-02", NotaryError),
        ([stamp(7, 5, 24)], "2026-01-03", None),
        ([stamp(7, 5, 1, unlisted=(Unlisted("CN=a", ()),))], None, inspection._InconclusiveError),
        ([stamp(7, 5, 1, unlisted=(Unlisted("CN=a", ()),)), stamp(9, 5, 2)], "2026-01-02", None),
        # The token that a list speaks for came after the suspect.
        (
            [stamp(7, 5, 1, unlisted=(Unlisted("CN=a", ()),)), stamp(9, 5, 48)],
            "2026-01-02",
            inspection._InconclusiveError,
        ),
    ],
)
def test_a_log_has_to_be_there_before_the_suspect(stamps, since, error):
    if error is None:
        assert logged([LOG], stamps, since)
        return
    with pytest.raises(error) as caught:
        logged([LOG], stamps, since)
    assert type(caught.value) is error
