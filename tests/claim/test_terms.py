"""What a verdict says about the choices around it, and what they cost."""

import dataclasses
import json

import numpy as np
import pytest
from thieves import Stranger, Thief

import wmplug
from wmplug.claim import Questions, ask, verification
from wmplug.claim.terms import TARGET_E, Terms
from wmplug.errors import InputError, RegisterError
from wmplug.keys.owner import Owner
from wmplug.register import Register
from wmplug.watermark.choices import Choice

PASSPHRASE = "correct horse battery staple"


class Record:
    """A register that commits to so many secrets, and shows the answers of some rows to everybody."""

    def __init__(self, tries, shown):
        self.number, self.shown = tries, frozenset(shown)

    def past(self, watermark):
        if self.number is None:
            raise RegisterError("gone")
        return self.number, self.shown


def counted(mark, tries, shown=()):
    return dataclasses.replace(mark, record=Record(tries, shown))


def test_a_verdict_without_a_register_says_that_nobody_counted(mark):
    verdict = wmplug.verify(mark, Thief(mark))
    assert verdict.proven
    assert str(verdict).endswith("; tries NOT COUNTED")
    assert wmplug.Verdict.from_json(verdict.to_json()) == verdict
    assert json.loads(verdict.to_json())["choices"][0]["what"] == "tries"
    assert "tries NOT COUNTED" in str(wmplug.verify(counted(mark, None), Thief(mark)))


@pytest.mark.parametrize(("given", "registered", "both"), [(1, 5, 5), (9, 5, 9), (1, 1, 1)])
def test_the_larger_number_of_keys_counts(mark, given, registered, both):
    alone = wmplug.verify(counted(mark, 1), Thief(mark), exhaustive=True)
    verdict = wmplug.verify(counted(mark, registered), Thief(mark), exhaustive=True, keys=given)
    assert (verdict.keys, verdict.tries) == (both, both)
    assert verdict.log10_p == pytest.approx(alone.log10_p + np.log10(both))
    assert verdict.log10_e == pytest.approx(alone.log10_e - np.log10(both))
    assert "NOT" not in str(verdict)


def test_more_keys_need_more_queries(mark):
    few, many = (wmplug.verify(counted(mark, tries), Thief(mark)) for tries in (1, 10**6))
    assert few.proven
    assert many.proven
    assert few.queries < many.queries


def test_what_everybody_knows_counts_as_missed(mark, grouped):
    rows = mark.triggers.plan.choices.rows[:40].tolist()
    everybody = Thief(mark, wrong=0)
    everybody.known = {
        x: y if x in {mark.triggers.row(r).tobytes() for r in rows} else -1 for x, y in everybody.known.items()
    }
    told = wmplug.verify(counted(mark, 1), everybody, exhaustive=True)
    assert told.proven  # the danger is real
    for verdict in (
        wmplug.verify(counted(mark, 1, rows), everybody, exhaustive=True),
        wmplug.claim.judge(counted(mark, 1, rows), ask(Questions.of(mark.triggers), everybody)),
        wmplug.claim.scan({"mark": counted(mark, 1, rows)}, {"all": everybody}).verdicts["all"]["mark"],
    ):
        assert (verdict.matches, verdict.in_set, verdict.state) == (0, 40, "inconclusive")
    copy = wmplug.verify(counted(mark, 1, rows), Thief(mark), exhaustive=True)
    assert (copy.matches, copy.in_set, copy.state) == (60, 100, "proven")
    assert wmplug.verify(counted(mark, 1, rows), Thief(mark)).proven
    # Whoever saw one row of a draw knows the answer of its others.
    draw = grouped.triggers.groups[0]
    seen = wmplug.verify(counted(grouped, 1, draw[:1].tolist()), Thief(grouped), exhaustive=True)
    assert seen.queries - seen.matches == len(draw)


def test_beginning_later_is_paid_by_the_places_to_begin_at(mark):
    rows = mark.triggers.plan.choices.rows.tolist()
    whole, later = (
        wmplug.verify(counted(mark, 1), Thief(mark), rows=some, exhaustive=True) for some in (rows, rows[60:])
    )
    assert whole.choices == ()
    (choice,) = later.choices
    assert (choice.what, choice.bound, choice.tries, later.tries) == ("rows", "paid", 100, 100)
    assert later.log10_p == pytest.approx(-40 + 2)
    assert "NOT" not in str(later)


@pytest.mark.parametrize("kept", [slice(0, 99), slice(0, None, 2)])
def test_other_rows_are_named(mark, kept):
    rows = mark.triggers.plan.choices.rows[kept].tolist()
    verdict = wmplug.verify(counted(mark, 1), Thief(mark), rows=rows)
    assert "; rows NOT COMMITTED" in str(verdict)
    assert verdict.tries == 1


def test_rows_that_nonces_drew_are_bound(mark):
    drawn = verification.only(mark, mark.triggers.plan.choices.rows[::2].tolist(), drawn=True)
    assert [choice.bound for choice in drawn.choices] == ["drawn"]
    assert "rows" not in str(wmplug.verify(counted(drawn, 1), Thief(mark)))


def test_rows_left_out_twice_are_paid_twice(mark):
    once = verification.only(mark, mark.triggers.plan.choices.rows[50:].tolist())
    twice = verification.only(once, once.triggers.plan.choices.rows[20:].tolist())
    assert wmplug.verify(counted(twice, 1), Thief(mark)).tries == 100 * 50


def test_a_limit_matters_where_every_answer_counts(mark):
    def said(**options):
        return str(wmplug.verify(counted(mark, 1), Thief(mark), **options))

    assert "; number of questions NOT COMMITTED (30 of 100)" in said(max_queries=30, exhaustive=True)
    assert "NOT" not in said(max_queries=30)  # an e-process may stop anywhere
    assert "NOT" not in said(max_queries=100, exhaustive=True)


def test_a_lower_target_is_named(mark):
    assert "; target LOWERED to 20" in str(wmplug.verify(counted(mark, 1), Stranger(), target_e=20))
    assert "target" not in str(wmplug.verify(counted(mark, 1), Stranger(), target_e=TARGET_E * 10))


def test_what_is_chosen_for_one_verification_joins_what_the_mark_has(mark):
    chosen = Choice(what="answers", bound=None)
    narrowed = verification.only(mark, mark.triggers.plan.choices.rows[50:].tolist())
    terms = Terms(counted(narrowed, 2), keys=3, chosen=[chosen])
    assert [choice.what for choice in terms.choices] == ["rows", "answers"]
    assert terms.tries == 3 * 100


def test_the_register_counts_for_a_loaded_watermark(digits, tmp_path):
    owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    given = {"scheme": "random-label", "carriers": digits[0][:300], "labels": digits[1][:300], "classes": 10}
    mark = wmplug.create(owner, **given)
    file = mark.save(tmp_path / "mark.wm")
    assert wmplug.verify(mark, Thief(mark)).keys == 1
    wmplug.create(owner, triggers=50, **given)
    loaded = wmplug.load(file, passphrase=PASSPHRASE)
    assert wmplug.verify(loaded, Thief(mark)).keys == 2
    (owner.path / "owner.pub").unlink()
    assert "tries NOT COUNTED" in str(wmplug.verify(loaded, Thief(mark)))


def test_a_create_that_fails_commits_to_no_secret(digits, tmp_path):
    """A secret weakens every later claim: what can be checked without the key is checked before."""
    owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    given = {"carriers": digits[0][:300], "labels": digits[1][:300], "classes": 10}
    for scheme, options in (
        ("tilt", {"carriers": digits[0][:3], "labels": digits[1][:3]}),
        ("random-label", {"pictures": [np.zeros((3, 3), np.uint8)]}),
        ("logo", {"logo": tmp_path / "missing.png"}),
        ("phrase", {}),
        ("random-label", {"triggers": 0}),
    ):
        with pytest.raises(InputError):
            wmplug.create(owner, scheme=scheme, **{**given, **options})
    kinds = [entry.type for entry in Register(owner.path).entries()] if (owner.path / "log.jsonl").exists() else []
    assert "secret.committed" not in kinds
    wmplug.create(owner, scheme="random-label", **given)
    assert [entry.type for entry in Register(owner.path).entries()].count("secret.committed") == 1
