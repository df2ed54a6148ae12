"""What an earlier release wrote stays as it is: tests/vectors/frozen/make.py made it, once.

Which lines know how wmplug is laid out: vectors/frozen/facts.py, acts.py and notarial.py.
"""

import json
import shutil

import pytest
from vectors.frozen import acts, cases, facts, notarial
from vectors.frozen.contract import (
    FROZEN,
    RELEASES,
    MarkContract,
    assert_alike,
    assert_verdict,
    copied,
    names,
)

import wmplug
from wmplug.register import Register
from wmplug.register.checking import check
from wmplug.report import certificate


@pytest.fixture(params=RELEASES)
def release(request, tmp_path):
    return shutil.copytree(FROZEN / request.param, tmp_path / request.param)


def kept(folder):
    return json.loads((folder / "facts.json").read_text())


def loaded(folder):
    return wmplug.load(folder / "mark.wm", passphrase=cases.PASSPHRASE, register=folder / "register")


def opened(folder):
    return wmplug.Owner.open(folder / "register", passphrase=cases.PASSPHRASE)


def test_there_is_one_for_this_release():
    assert wmplug.__version__ in RELEASES


def test_a_register_checks_and_can_be_gone_on_with(release):
    before = check(release / "register")
    assert before.ok
    assert before.entries == 7
    Register.of(opened(release)).append("artwork.committed", {})
    assert check(release / "register").ok


def test_a_watermark_opens_and_is_made_again_the_same(release):
    mark = loaded(release)
    again = wmplug.create(opened(release), scheme="random-label", carriers=cases.squares(), classes=10, triggers=12)
    assert again.public == mark.public
    assert facts.facts(again) == facts.facts(mark)
    with pytest.raises(wmplug.WmplugError):
        wmplug.load(release / "mark.wm", passphrase="another")


@pytest.fixture(params=names("marks"), ids="/".join)
def frozen(request, tmp_path):
    return copied(request.param[0], "marks", request.param[1], cases.marks(), tmp_path)


@pytest.fixture(params=names("marks", having="verdicts"), ids="/".join)
def judged(request, tmp_path):
    return copied(request.param[0], "marks", request.param[1], cases.marks(), tmp_path)


class TestMarks(MarkContract):
    pass


class TestLaterMarks(MarkContract):
    @pytest.fixture(params=names("later"), ids="/".join)
    def frozen(self, request, tmp_path):
        return copied(request.param[0], "later", request.param[1], cases.later(), tmp_path)

    @pytest.fixture(params=names("later", having="verdicts"), ids="/".join)
    def judged(self, request, tmp_path):
        return copied(request.param[0], "later", request.param[1], cases.later(), tmp_path)


def test_every_case_is_frozen():
    assert {name for _, name in names("marks")} == set(cases.marks())
    assert {name for _, name in names("later")} == set(cases.later())


def test_keys_and_placements_are_drawn_the_same(release):
    found = kept(release / "marks")
    assert facts.numbers() == found["numbers"]
    assert facts.plain(facts.tables()) == found["tables"]


def test_other_questions_are_chosen_the_same(release):
    mark = wmplug.load(release / "marks" / "tilt-grey.wm", passphrase=cases.PASSPHRASE)
    found, case = facts.facts(acts.with_queries(mark)), cases.marks()["tilt-grey"]
    assert facts.made_alike(found, case) == facts.made_alike(kept(release / "marks")["queries"], case)


def test_a_register_with_a_run_is_read_the_same(release):
    folder = release / "run"
    assert facts.entries(folder / "register") == kept(folder)["entries"]
    assert check(folder / "register").ok


def test_a_run_is_recorded_the_same(release):
    folder, known = release / "run", kept(release / "run")
    written = acts.without_passing(known["entries"])
    for name in ("log.jsonl", "commit"):
        path = folder / "register" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    mark = wmplug.create(opened(folder), scheme="random-label", carriers=cases.squares(), classes=10, triggers=12)
    found = acts.trained(mark)
    assert_alike(acts.without_passing(facts.entries(folder / "register")), written)
    assert (found["lost"], len(found["verdicts"])) == (known["looks"]["lost"], 3)
    assert_alike(found["sum"], known["looks"]["sum"])
    for one, other in zip(found["verdicts"], known["looks"]["verdicts"], strict=True):
        assert_verdict(one, other)


def test_a_case_that_was_heard_can_be_certified(release):
    folder = release / "notary"
    certificate.certify(notarial.notary_in(folder), folder / "case")
    assert check(folder / "case" / "register").ok


def test_a_case_is_heard_the_same(release):
    folder = release / "notary"
    answers = (folder / "case" / "answers.json").read_bytes()
    for name in ("result.json", "answers.json"):
        (folder / "case" / name).unlink()
    shutil.rmtree(folder / "case" / "register")
    assert_alike(notarial.heard(loaded(folder), folder), kept(folder)["result"])
    assert (folder / "case" / "answers.json").read_bytes() == answers


def test_nonces_draw_the_same_rows(release):
    folder = release / "notary"
    assert notarial.drawn_rows(loaded(folder)) == kept(folder)["drawn"]


def test_a_case_is_written_the_same(release, tmp_path):
    folder = release / "notary"
    notarial.fixed(loaded(folder), folder / "claim.age", tmp_path / "case")
    for name in ("case.json", "challenge.json"):
        assert (tmp_path / "case" / name).read_bytes() == (folder / "case" / name).read_bytes()


def test_leaves_are_shown_the_same(release):
    folder = release / "notary"
    document = (folder / "shown.json").read_bytes()
    rows = notarial.shown(opened(folder), loaded(folder), folder)
    assert rows == kept(folder)["shown"]
    assert (folder / "shown.json").read_bytes() == document
    answers = facts.answers_of(loaded(folder))
    assert [answer for _, answer in notarial.checked(folder)] == [answers[row] for row in rows]
