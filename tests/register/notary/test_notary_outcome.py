"""What decides a case: each way to lose it, by itself and beside the others."""

import json
from types import SimpleNamespace

import pytest
import rfc8785
from hearings import some_models

from wmplug.register.notary.case import Case
from wmplug.register.notary.inspection import Check
from wmplug.register.notary.outcome import RESULT_TYPE, ModelAnswers, _ordinary, decide, sign
from wmplug.register.statements import Signer
from wmplug.watermark.choices import Choice

MODELS = some_models(controls=2)
CASE = Case("c1", "cd" * 16, "ef" * 32, "ab" * 32, MODELS, 60, 0, strength=40)
BELOW = -40.001 * 0.30103


def verdict(state="inconclusive", log10_p=0.0, choices=()):
    return SimpleNamespace(state=state, proven=state == "proven", log10_p=log10_p, choices=choices)


def outcome(*checks, left_out=(), **changed):
    said = {"s": verdict("proven", BELOW), "o": verdict("proven", -90.0), "c0": verdict(), "c1": verdict(), **changed}
    results = [ModelAnswers(one, None if one.name in left_out else said[one.name]) for one in MODELS]
    found = tuple(Check(f"check {i}", result, f"text {i}") for i, result in enumerate(("passed", *checks)))
    return decide(CASE, SimpleNamespace(checks=found), results)


def test_a_claim_holds_if_nothing_speaks_against_it():
    assert outcome() == ("holds", [])


@pytest.mark.parametrize(
    ("checks", "status", "reasons"),
    [
        (("failed",), "does not hold", ["check 1: text 1"]),
        (("inconclusive", "failed", "NOT ATTESTED", "failed"), "does not hold", ["check 2: text 2", "check 4: text 4"]),
        (("NOT ATTESTED", "inconclusive"), "inconclusive", ["check 2: text 2"]),
        (("NOT ATTESTED", "passed"), "NOT ATTESTED", ["check 1: text 1"]),
    ],
)
def test_the_gravest_check_decides(checks, status, reasons):
    assert outcome(*checks) == (status, reasons)


@pytest.mark.parametrize("check", ["failed", "inconclusive"])
def test_where_nothing_was_asked_the_checks_decide(check):
    assert outcome(check, left_out=("s", "o", "c0", "c1"))[1] == ["check 1: text 1"]


def test_a_control_that_is_proven_voids_the_test():
    """Even beside an own model that shows nothing: the answers are not secret."""
    status, (reason,) = outcome("NOT ATTESTED", c1=verdict("proven"), o=verdict())
    assert status == "does not hold"
    assert reason.startswith("c1 was to be independent, and gives the secret answers too")
    both = outcome(c0=verdict("proven"), c1=verdict("proven"))[1]
    assert both[0].startswith("c0, c1 was to be")


def test_a_control_that_is_not_inconclusive_leaves_the_case_open():
    assert outcome(c0=verdict("evidence")) == ("inconclusive", ["c0, a control, is not inconclusive"])


def test_the_owners_own_model_has_to_show_the_mark():
    for state in ("evidence", "inconclusive"):
        assert outcome(o=verdict(state, -90.0)) == (
            "inconclusive",
            ["the owner's own model does not show the watermark"],
        )


@pytest.mark.parametrize(("bits", "holds"), [(39.9, False), (40, False), (40.1, True)])
def test_the_suspect_has_to_be_below_the_fixed_strength(bits, holds):
    p = CASE.threshold * bits / 40
    status, reasons = outcome(s=verdict("proven", p))
    assert (status == "holds") is holds
    if not holds:
        assert reasons == [
            f"the suspect's log10 p = {p:.1f} is not below -12.0; that never means that it is not a copy"
        ]


def test_what_nothing_binds_leaves_the_case_open():
    loose = Choice(what="preprocess", bound=None)
    bound = Choice(what="rows", bound="drawn")
    status, (reason,) = outcome("NOT ATTESTED", s=verdict("proven", BELOW, (bound, loose)))
    assert status == "inconclusive"
    assert reason.endswith("by the suspect's answers: preprocess NOT COMMITTED")
    assert outcome(s=verdict("proven", BELOW, (bound,))) == ("holds", [])
    # What the owner chose for his own model harms nobody.
    assert outcome(o=verdict("proven", -90.0, (loose,))) == ("holds", [])


def test_all_reasons_are_given():
    loose = (Choice(what="rows", bound=None),)
    status, reasons = outcome("NOT ATTESTED", s=verdict(choices=loose), o=verdict(), c0=verdict("evidence"))
    assert status == "inconclusive"
    assert [reason.split()[0] for reason in reasons] == ["c0,", "the", "nothing", "the"]


def test_ordinary_inputs_are_counted_where_they_were_asked():
    def asked(triggers):
        return _ordinary(SimpleNamespace(triggers=triggers))

    assert asked(SimpleNamespace(plan=SimpleNamespace(pattern=SimpleNamespace(rows=range(7))))) == 7
    assert asked(SimpleNamespace(plan=SimpleNamespace(pattern=None))) == 0
    assert asked(None) == 0  # a check failed


def test_a_result_is_signed_as_it_is_written(tmp_path):
    signer, result = Signer(bytes(32)), {"b": [1, "\u00e9"], "a": None}
    sign(signer, tmp_path / "result.json", result)
    document = json.loads((tmp_path / "result.json").read_text())
    assert document["result"] == result
    assert document["signature"]["keyid"] == signer.keyid
    assert document["signature"]["sig"] == signer.sign(rfc8785.dumps(result), RESULT_TYPE).hex()
    assert (tmp_path / "result.json").read_bytes().endswith(b"}\n")
    with pytest.raises(rfc8785.FloatDomainError):
        sign(signer, tmp_path / "result.json", {"p": float("nan")})
