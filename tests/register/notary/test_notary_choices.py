"""What an owner chooses after seeing a suspect's answers does not help before a notary."""

import dataclasses
import json

import numpy as np
import pytest
from hearings import CONTROLS, by_name, certified, copy_of, fixed, hear, models, natural, sealed_for, tell

import wmplug
from wmplug.errors import NotaryError
from wmplug.register import Register, disclosure
from wmplug.register.notary.case import Adapter, Since, digests_of
from wmplug.register.notary.hearing import check
from wmplug.register.notary.identity import Notary
from wmplug.watermark.carriers import digest


def hit(mark, innocent):
    """The rows whose answer an innocent model gives by luck."""
    rows = mark.triggers.plan.choices.rows
    given = innocent(np.stack([mark.triggers.row(row) for row in rows.tolist()]))
    return rows[np.asarray(given) == mark.triggers.answers[rows]].tolist()


def spend_all_but(story, rows, certificate=None):
    others = set(story.mark.triggers.plan.choices.rows.tolist()) - set(rows)
    disclosure.spend(Register.of(story.owner), story.mark.id, others, "asked of an API", "2025-1", certificate)
    return others


@pytest.fixture(scope="module")
def large(tmp_path_factory, neutral, digits):
    return tell(tmp_path_factory.mktemp("large") / "register", neutral, digits, triggers=600)


def test_spending_what_does_not_match_chooses_no_questions(large, notary, tmp_path):
    spend_all_but(large, hit(large.mark, natural))
    result = hear(large, notary, tmp_path, natural, own=copy_of(large.mark), draws=40, strength=40)
    assert result["status"] == "inconclusive"
    verdict = result["models"][0]["verdict"]
    assert verdict["matches"] < 15
    assert [choice["bound"] for choice in verdict["choices"]] == ["drawn"]
    assert "rows that the owner alone spent stay in the draw" in by_name(result)["spent"]["text"]


@pytest.mark.parametrize("accepted", [False, True])
def test_only_certificates_of_accepted_notaries_spend(story, notary, tmp_path, accepted):
    other = Notary.create(tmp_path / "other", name="Otto", passphrase="otto", scrypt_n=2**10)
    gone = story.mark.triggers.plan.choices.rows[:30].tolist()
    signed = certified(other, story.mark, gone)
    disclosure.spend(Register.of(story.owner), story.mark.id, gone, "asked by a notary", "2025-1", signed)
    known = (other.signer().public.hex(),) if accepted else ()
    result = hear(story, notary, tmp_path, draws=70, notaries=known)
    assert result["status"] == "holds", result["reasons"]
    assert result["rows_spent_before"] == (30 if accepted else 0)
    assert bool(set(gone) & set(result["rows_asked"])) is not accepted


def test_an_edited_certificate_spends_nothing(story, notary, tmp_path):
    signed = certified(notary, story.mark, [1, 2])
    signed["certificate"]["result"]["rows_asked"] = list(range(90))
    disclosure.spend(Register.of(story.owner), story.mark.id, range(90), "asked by a notary", "2025-1", signed)
    assert hear(story, notary, tmp_path, draws=100)["rows_spent_before"] == 0


def test_what_everybody_knows_counts_as_missed(story, notary, tmp_path):
    shown = story.mark.triggers.plan.choices.rows[:40].tolist()
    body = {"watermark": story.mark.id, "case": "c", "to": "public", "rows": shown, "revealed": [{}] * 40}
    Register.of(story.owner).append("disclosure", body)
    asked = []
    known = copy_of(story.mark)

    def suspect(batch):
        asked.extend(digest(x) for x in batch)
        return known(batch)

    result = hear(story, notary, tmp_path, suspect, own=known, draws=100)
    verdict = result["models"][0]["verdict"]
    assert (verdict["matches"], verdict["in_set"]) == (60, 100)
    assert result["status"] == "holds"
    assert not {digest(story.mark.triggers.row(row)) for row in shown} & set(asked)
    assert result["rows_known"] == shown


# preprocess=


def halved(image, answer):
    return image // 2, answer


FITTED = {}


def fitted(image, answer):
    """Nothing is done when it is committed to; later it shows what the suspect answers as wished."""
    return FITTED.get(digest(np.asarray(image)), image), answer


class Prepared:
    """A model that is asked as a framework's adapter asks: by the preprocess function of the case."""

    def __init__(self, function, name):
        self.function, self.description = function, name


@pytest.fixture
def prepares(monkeypatch):
    """Models of that kind, asked with what the hearing asks with."""
    from wmplug.register.notary import hearing

    def as_suspect(target, questions, **_):
        prepare = questions.preprocess or (lambda image, answer: (image, answer))

        class Asked:
            description = target.description

            def answer(self, inputs):
                return target.function(np.stack([prepare(x, 0)[0] for x in inputs]))

        return Asked()

    monkeypatch.setattr(hearing, "as_suspect", as_suspect)


def on_prepared(mark, prepare):
    """A copy that learned the prepared inputs."""
    rows = range(len(mark.triggers.plan.inputs))
    known = {digest(prepare(mark.triggers.row(i), 0)[0]): int(mark.triggers.answers[i]) for i in rows}
    return lambda batch: [known.get(digest(x), int(n)) for x, n in zip(batch, natural(batch), strict=True)]


def heard_with(story, notary, folder, suspect, function, controls=CONTROLS, **changes):
    functions = {"suspect": suspect, "own": suspect, **controls}
    targets = {name: Prepared(model, name) for name, model in functions.items()}
    case, package, _ = fixed(story, notary, folder, models=models(targets), **changes)
    return check(notary, case, package, targets, preprocess=function)


def test_a_committed_preprocess_is_named_and_holds(neutral, notary, digits, tmp_path, prepares):
    story = tell(tmp_path / "register", neutral, digits, preprocess=halved)
    assert story.mark.public["evidence"]["prepared"]
    result = heard_with(story, notary, tmp_path, on_prepared(story.mark, halved), halved)
    assert result["status"] == "holds", result["reasons"]
    bound = {choice["what"]: choice["bound"] for choice in result["models"][0]["verdict"]["choices"]}
    assert bound == {"rows": "drawn", "preprocess": "committed"}


def test_a_preprocess_that_was_not_committed_does_not_hold(story, notary, tmp_path, prepares):
    result = heard_with(story, notary, tmp_path, on_prepared(story.mark, halved), halved)
    assert result["status"] == "inconclusive"
    assert "preprocess NOT COMMITTED" in "; ".join(result["reasons"])


def test_a_preprocess_that_changes_afterwards_does_not_hold(neutral, notary, digits, tmp_path, prepares):
    FITTED.clear()
    story = tell(tmp_path / "register", neutral, digits, preprocess=fitted)
    like = {int(answer): image for image, answer in zip(digits[0], natural(digits[0]), strict=True)}
    for row in story.mark.triggers.plan.choices.rows.tolist():
        FITTED[digest(story.mark.triggers.row(row))] = like[int(story.mark.triggers.answers[row])]
    controls = {name: one for name, one in CONTROLS.items() if one is not natural}
    result = heard_with(story, notary, tmp_path, natural, fitted, controls)
    FITTED.clear()
    suspect = wmplug.Verdict.from_json(json.dumps(result["models"][0]["verdict"]))
    assert suspect.log10_p < -40  # the attack is real
    assert str(suspect).endswith("; preprocess NOT COMMITTED")
    assert result["status"] == "inconclusive"
    assert "preprocess NOT COMMITTED" in "; ".join(result["reasons"])


def test_a_function_of_the_notarys_own_is_fixed_in_the_case(story, notary, tmp_path, prepares):
    source = digests_of(halved)["source"]
    own = Adapter("here:halved", "written by the notary: half as bright", source)
    result = heard_with(story, notary, tmp_path, on_prepared(story.mark, halved), halved, preprocess=own)
    assert result["status"] == "holds", result["reasons"]
    assert result["preprocess"]["sha256"] == source
    named = [choice for choice in result["models"][0]["verdict"]["choices"] if choice["what"] == "preprocess"]
    assert [(choice["bound"], choice["sha256"]) for choice in named] == [("fixed", source)]
    other = dataclasses.replace(own, sha256="0" * 64)
    (tmp_path / "again").mkdir()
    with pytest.raises(NotaryError, match="you gave another"):
        heard_with(story, notary, tmp_path / "again", natural, halved, preprocess=other)


def test_prepared_inputs_that_the_secret_did_not_commit_to(story, notary, tmp_path):
    story.mark.public["evidence"]["prepared"] = "0" * 64
    try:
        with pytest.raises(NotaryError):
            sealed_for(story, notary, tmp_path)  # another root means other inputs
    finally:
        del story.mark.public["evidence"]["prepared"]


# Since when the suspect is known


@pytest.mark.parametrize(("date", "status"), [("2019-01-01", "does not hold"), ("2999-01-01", "holds")])
def test_a_suspect_that_was_there_before_the_secret(story, notary, tmp_path, date, status):
    result = hear(story, notary, tmp_path, suspect_since=Since(date, "the opponent's release page"))
    assert result["status"] == status, result["reasons"]
    assert result["suspect_since"] == {"date": date, "source": "the opponent's release page"}
    assert "release page" in by_name(result)["suspect"]["text"]


def test_without_a_date_the_result_says_so(heard):
    assert heard[2]["suspect_since"] is None


@pytest.mark.parametrize(("date", "source"), [("yesterday", "x"), ("2026-13-01", "x"), ("2026-01-01", " ")])
def test_a_date_needs_a_form_and_a_source(date, source):
    with pytest.raises(NotaryError, match="give a date as YYYY-MM-DD"):
        Since(date, source)
