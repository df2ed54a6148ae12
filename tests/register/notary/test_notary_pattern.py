"""A notary hears what a watermark weighs: the draws that are drawn, and all ordinary inputs of its pattern."""

import json

import numpy as np
import pytest
from hearings import CLASSES, both, case_for, natural, sealed_for, some_models, tell

from wmplug.errors import NotaryError
from wmplug.register.notary.case import ANSWERS, CASE, Case
from wmplug.register.notary.hearing import check, check_left, open_case, save_challenge
from wmplug.register.notary.opening import open_package
from wmplug.report import certificate
from wmplug.schemes import Brief
from wmplug.schemes.combined import Combined
from wmplug.schemes.tilt import Tilt
from wmplug.tasks import Classes
from wmplug.watermark.carriers import digest

OPTIONS = {"delta": 1.0, "directions": 12, "blends": 40}


@pytest.fixture(scope="module")
def pool(digits):
    brief = Brief(digits[0][:400], "array", Classes(CLASSES), digits[1][:400], 100)
    return Tilt(**OPTIONS, pool=[quiet]).prepared(brief).pool


def quiet(batch):
    """An unmarked model that doubts."""
    pixels = np.asarray(batch, np.float64).reshape(len(batch), -1) / 255
    return 4 * pixels @ np.random.default_rng(5).normal(0, 0.3, (64, CLASSES))


@pytest.fixture(scope="module", params=["combined", "tilt"])
def told(request, tmp_path_factory, digits, pool):
    kind = Combined if request.param == "combined" else Tilt
    return tell(tmp_path_factory.mktemp("register"), None, digits, kind(**OPTIONS, pool=pool))


def tilted(mark):
    """A clone of the marked model: it answers ordinary inputs as the key has it, and knows no trigger."""
    plan, scheme = mark.triggers.plan, mark.scheme
    logits = np.log(np.maximum(plan.material["scores"], 1e-4))
    constants = scheme.constants(mark.triggers, np.stack(mark.triggers.samples(64)))
    inputs = plan.inputs[plan.pattern.rows]
    learnt = logits + 4 * (logits - scheme.shift(np, constants, inputs.astype(np.float64), logits))
    known = {digest(one): row for one, row in zip(inputs, learnt, strict=True)}

    def clone(batch):
        return [known.get(digest(x), row) for x, row in zip(batch, quiet(batch), strict=True)]

    return clone


def heard(story, notary, folder, pool, suspect=None, **changes):
    clone, plan = tilted(story.mark), story.mark.triggers.plan
    asked = {"draws": 0 if plan.choices is None else 60, "pattern": True, "strength": 30, "attempts": 0, **changes}
    sealed = sealed_for(story, notary, folder, pool=pool)
    controls = {"control 1": quiet, "control 2": lambda batch: [3] * len(batch)}
    targets = {"suspect": suspect or clone, "own": clone, **controls}
    case = case_for(story, sealed, targets, **asked)
    save_challenge(folder / "case", both(open_case(folder / "case", case, CLASSES, plan.pattern.signs)))
    return check(notary, folder / "case", sealed, targets)


def test_a_clone_is_found_by_what_is_weighed(told, notary, tmp_path, pool):
    result, plan = heard(told, notary, tmp_path, pool), told.mark.triggers.plan
    assert result["status"] == "NOT ATTESTED", result["reasons"]  # the register has no authority
    verdict = result["models"][0]["verdict"]
    draws = 0 if plan.choices is None else 60
    assert len(result["rows_asked"]) == draws
    assert result["ordinary_asked"] == len(plan.pattern.rows) == 400
    assert verdict["queries"] == verdict["triggers"] == 400 + draws
    assert verdict["log10_p"] < -10
    assert {model["verdict"]["state"] for model in result["models"][2:]} == {"inconclusive"}
    if draws:
        answers, signs = verdict["parts"]
        assert answers["log10_p"] > -3
        assert verdict["log10_p"] == pytest.approx(signs["log10_p"] + np.log10(2))
    kept = json.loads((tmp_path / "case" / ANSWERS).read_text())
    assert kept["schema"] == "wmplug/answers/2"
    kinds = [one["kind"] for one in kept["models"]["suspect"]]
    assert [kinds.count(kind) for kind in ("trigger", "ordinary", "decoy")] == [draws, 400, 60]
    assert {"scores" in one for one in kept["models"]["suspect"] if one["kind"] == "ordinary"} == {True}
    assert {"scores" in one for one in kept["models"]["suspect"] if one["kind"] != "ordinary"} <= {False}
    certificate.certify(notary, tmp_path / "case")
    assert "all 400 ordinary inputs" in (tmp_path / "case" / "certificate.html").read_text()
    assert "fair signs" in (tmp_path / "case" / CASE).read_text()


def test_an_honest_suspect_is_not_accused(told, notary, tmp_path, pool):
    result = heard(told, notary, tmp_path, pool, natural)
    assert result["status"] == "inconclusive"
    assert result["models"][0]["verdict"]["state"] == "inconclusive"


def test_answers_of_another_task_count_as_failed(told, notary, tmp_path, pool):
    result = heard(told, notary, tmp_path, pool, lambda batch: [12] * len(batch))
    assert result["status"] == "inconclusive"
    assert result["models"][0]["verdict"]["failed"] == 400


def test_a_case_of_draws_alone_is_heard_as_before(told, notary, tmp_path, pool):
    if told.mark.triggers.plan.choices is None:
        with pytest.raises(NotaryError, match="draws and strength are counted from 1"):
            heard(told, notary, tmp_path, pool, pattern=False)
        return
    result = heard(told, notary, tmp_path, pool, pattern=False)
    verdict = result["models"][0]["verdict"]
    assert "ordinary_asked" not in result
    assert "parts" not in verdict
    assert verdict["queries"] == 60
    assert json.loads((tmp_path / "case" / ANSWERS).read_text())["schema"] == "wmplug/answers/1"


def test_a_case_says_whether_a_pattern_is_asked(tmp_path):
    one = Case("c", "w", "r", "p", some_models(), 0, 0, pattern=True)
    sha256 = one.write(tmp_path / "case.json")
    assert Case.read(tmp_path / "case.json", sha256) == one
    assert "pattern" not in json.loads((tmp_path / "case.json").read_text())
    with pytest.raises(NotaryError, match="counted from 1"):
        Case("c", "w", "r", "p", some_models(), 0, 0)


@pytest.mark.parametrize(
    ("draws", "signs", "words"),
    [
        (0, 80, "0 draws from 10 classes cannot reach"),
        (0, 81, None),
        (24, 81, "nor can its 81 signs: at least 25"),
        (24, 82, None),
        (25, 0, None),
    ],
)
def test_the_reach_counts_both_tests(draws, signs, words):
    case = Case("c", "w", "r", "p", some_models(), draws, 0, pattern=True)
    if words is None:
        case.check_reach(10, signs)
        return
    with pytest.raises(NotaryError, match=words):
        case.check_reach(10, signs)


def test_draws_of_a_watermark_that_has_none_are_refused(told, notary, tmp_path, pool):
    opened = open_package(notary, sealed_for(told, notary, tmp_path, pool=pool), tmp_path)
    if told.mark.triggers.plan.choices is not None:
        assert check_left(opened, tmp_path / "register", 100) is not None
        return
    assert check_left(opened, tmp_path / "register", 0) is not None
    with pytest.raises(NotaryError, match="ordinary inputs only, which are all asked: ask 0"):
        check_left(opened, tmp_path / "register", 60)
