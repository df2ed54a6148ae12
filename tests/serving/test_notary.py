"""A notary hears a claim from the log of a served model: the whole way, and each way in which it does not hold."""

import dataclasses
import html
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from logs_heard import (
    CONTROLS,
    GAP,
    LATER,
    TODAY,
    by_the_key,
    by_users,
    clone_of,
    hear,
    kept,
    sealed,
    service_of,
    verdicts,
    with_array,
)
from register.notary.hearings import (
    NOTARYS,
    PASSPHRASE,
    by_name,
    rewritten,
    some_models,
)
from served_digits import flat, marked, pool
from sklearn.svm import SVC

from wmplug.errors import InputError, NotaryError
from wmplug.keys.owner import Owner
from wmplug.register import Register, anchors
from wmplug.register.notary import package as packages
from wmplug.register.notary import queries
from wmplug.register.notary.case import CASE, Case, Since
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.opening import open_package
from wmplug.report import certificate, dossier, models
from wmplug.schemes.combined_served import CombinedServed
from wmplug.schemes.served import Served
from wmplug.schemes.tilt.references import References
from wmplug.serving import Serving


@pytest.fixture(scope="module")
def notary(tmp_path_factory):
    return Notary.create(tmp_path_factory.mktemp("notary"), name="Nora Notary", passphrase=NOTARYS, scrypt_n=2**10)


@pytest.fixture(scope="module")
def controls(story):
    """Independent models of the task that are as good as any clone, and met no key."""
    fitted = {name: model.fit(flat(story.asked), story.truth) for name, model in CONTROLS.items()}
    return {name: lambda inputs, model=model: model.predict(flat(inputs)) for name, model in fitted.items()}


@pytest.fixture(scope="module")
def served(story, neutral, tmp_path_factory):
    return kept(tmp_path_factory.mktemp("served"), neutral, story, by_users)


@pytest.fixture(scope="module")
def filled(story, neutral, tmp_path_factory):
    found = kept(tmp_path_factory.mktemp("filled"), neutral, story, by_the_key)
    found.decided = found.log.decided()
    return found


@pytest.fixture
def innocent(story):
    """A good model that never met the key; it learnt the truth."""
    model = SVC(C=3).fit(flat(story.asked), story.truth)
    return lambda inputs: model.predict(flat(inputs))


@pytest.fixture(autouse=True)
def quick(monkeypatch, story):
    """References of the same kind in place of those that the notary's machine trains, which take their time."""
    monkeypatch.setattr(Served, "heard", lambda self, brief, asked, _: References(*[pool(story, asked.inputs)] * 2))


@pytest.fixture
def claim(served, tmp_path):
    """A copy of the register for each test."""
    folder = shutil.copytree(served.story.owner.path, tmp_path / "register")
    copied = dataclasses.replace(served.story, owner=Owner.open(folder, passphrase=PASSPHRASE))
    return SimpleNamespace(**{**vars(served), "story": copied, "decided": served.log.decided()})


@pytest.fixture
def targets(claim, story, controls):
    own = service_of(claim.story.mark, story)
    return {"suspect": clone_of(claim.told, story), "own": own, **controls}


def test_a_clone_is_certified_by_the_questions_of_the_log(claim, notary, targets, tmp_path):
    result = hear(claim, notary, tmp_path, targets)
    assert result["status"] == "holds", result["reasons"]
    assert {one["result"] for one in result["checks"]} == {"passed"}
    assert f"commits to the package's {len(claim.decided)} queries" in by_name(result)["log"]["text"]
    assert "no training teaches this watermark" in by_name(result)["time"]["text"]
    said = verdicts(result)
    assert said["suspect"].proven
    assert said["own"].proven
    assert said["suspect"].queries == result["ordinary_asked"] == len(claim.decided)
    assert {said[name].state for name in CONTROLS} == {"inconclusive"}
    assert re.search("; questions committed by 20.*; log fixed .5 controls as good at the task", str(said["suspect"]))
    told = result["log"]
    assert (told["root"], told["count"], told["fixed"]) == (claim.decided.digest, len(claim.decided), True)
    assert [one["name"] for one in told["controls"] if one["able"]] == list(CONTROLS)
    (dated,) = [time for time in result["times"] if time["entry"] == told["entry"]]
    assert dated["not_after"] == told["not_after"]


def test_certificate_and_dossier_tell_of_the_log(claim, notary, targets, tmp_path):
    result = hear(claim, notary, tmp_path, targets)
    anchors.anchor(Register.of(claim.story.owner))
    file, page = certificate.certify(notary, tmp_path / "case")
    document = dossier.gather(claim.story.owner.path, certificates=[models.certificate(file)])
    said = [" ".join(html.unescape(text).split()) for text in (page.read_text(), dossier.render(document))]
    count, entry = len(claim.decided), result["log"]["entry"]
    for text in said:
        assert f"The questions are {count} queries that users of the owner's service asked" in text
        assert f"The register commits to that log in entry {entry}, not later than 20" in text
        assert "So 5 controls got the same questions." in text
        assert all(f" for {name}" in text for name in CONTROLS)
        assert "So the log counts as kept honestly: 5 controls as good at the task as the suspect do not match" in text
        assert f"{count} queries" in text
    assert "log of queries committed" in said[0]
    assert "a log that was filled to fit what the suspect was made from" in said[0]
    assert "A log of questions was recorded" in said[1]
    assert "training set" not in [one["asset"] for one in document["assets"]]


def test_a_void_certificate_says_that_nothing_binds_the_log(filled, notary, targets, story, innocent, tmp_path):
    asked = {**targets, "suspect": innocent, "own": service_of(filled.story.mark, story)}
    hear(filled, notary, tmp_path, asked, attempts=0)
    text = " ".join(html.unescape(certificate.certify(notary, tmp_path / "case")[1].read_text()).split())
    assert "THE TEST IS VOID" in text
    assert "So nothing binds what the log holds: forest, machine" in text


def test_models_that_never_met_this_key_are_not_accused(claim, notary, targets, story, innocent, tmp_path):
    """One learnt from the truth, one is a clone of a service with another key."""
    other = Serving(marked(story, "other"), story.scores, gap=GAP).answer(story.asked).argmax(axis=1)
    for number, suspect in enumerate((innocent, clone_of(other, story))):
        (tmp_path / str(number)).mkdir()
        result = hear(claim, notary, tmp_path / str(number), {**targets, "suspect": suspect})
        assert result["status"] == "inconclusive"
        assert verdicts(result)["suspect"].state == "inconclusive"


def test_a_log_that_was_filled_with_the_key_at_hand_is_void(filled, notary, targets, story, innocent, tmp_path):
    """An innocent suspect is proven by it, and so is each good control."""
    asked = {**targets, "suspect": innocent, "own": service_of(filled.story.mark, story)}
    result = hear(filled, notary, tmp_path, asked, attempts=0)
    said = verdicts(result)
    assert said["suspect"].proven
    assert all(said[name].proven for name in CONTROLS)
    assert result["status"] == "does not hold"
    assert "or the log was filled to fit" in result["reasons"][0]
    assert "; log AS KEPT" in str(said["suspect"])


def test_controls_that_do_not_know_the_task_do_not_clear_a_filled_log(filled, notary, story, innocent, tmp_path):
    poor = {f"always {digit}": lambda inputs, digit=digit: [digit] * len(inputs) for digit in range(queries.CONTROLS)}
    result = hear(
        filled, notary, tmp_path, {"suspect": innocent, "own": clone_of(story.truth, story), **poor}, attempts=0
    )
    assert verdicts(result)["suspect"].proven
    assert result["status"] == "inconclusive"
    assert result["log"]["why"] == "0 controls are as good at the task as the suspect, 5 are needed"
    assert "log AS KEPT" in result["reasons"][0]


@pytest.mark.parametrize(
    ("left", "changes", "why"), [(4, {}, "4 controls are"), (5, {"suspect_since": None}, "no date")]
)
def test_without_enough_controls_or_a_date_the_log_stays_as_kept(claim, notary, targets, tmp_path, left, changes, why):
    few = {name: targets[name] for name in ("suspect", "own", *list(CONTROLS)[:left])}
    result = hear(claim, notary, tmp_path, few, **changes)
    assert verdicts(result)["suspect"].proven
    assert result["status"] == "inconclusive"
    assert f"log AS KEPT ({why}" in result["reasons"][0]


def test_a_log_that_is_not_committed_is_refused(claim, notary, targets, tmp_path, monkeypatch):
    claim.decided = claim.decided.only(np.arange(len(claim.decided) - 1))
    with pytest.raises(NotaryError, match="has no commitment to these 478 queries"):
        sealed(claim, notary, tmp_path)
    monkeypatch.setattr(packages, "_check_log", lambda *_: None)  # whoever sends it all the same
    result = hear(claim, notary, tmp_path, targets)
    assert result["status"] == "does not hold"
    assert "478 queries are none of the 1 logs" in by_name(result)["log"]["text"]
    assert all(model["verdict"] is None for model in result["models"])


def reversed_rows(array):
    return array[::-1]


def names(change):
    """A change of the customers' names, which are JSON."""
    return lambda array: np.frombuffer(json.dumps(change(json.loads(array.tobytes()))).encode(), np.uint8)


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("log/inputs", reversed_rows),
        ("log/pairs", reversed_rows),
        ("log/customers", names(lambda old: ["acme", *old[1:]])),
    ],
)
def test_queries_other_than_the_committed_ones_are_refused(claim, notary, targets, tmp_path, member, change):
    package = sealed(claim, notary, tmp_path)
    rewritten(notary, package, with_array(member, change))
    result = hear(claim, notary, tmp_path, targets, package)
    assert result["status"] == "does not hold"
    assert by_name(result)["log"]["result"] == "failed"


@pytest.mark.parametrize(
    ("member", "change"),
    [
        ("log/inputs", lambda old: old[:, :4]),
        ("log/inputs", lambda old: old.astype(np.float64)),
        ("log/inputs", lambda old: old[1:]),
        ("log/pairs", lambda old: old[:, ::-1]),
        ("log/pairs", lambda old: old + 5),
        ("log/pairs", lambda old: old.astype(np.float64)),
        ("log/customers", names(lambda old: old[1:])),
        ("log/customers", names(lambda old: [1] * len(old))),
        ("log/customers", names(lambda old: 3)),
        ("log/customers", lambda old: old[:-1]),
    ],
)
def test_what_no_log_holds_is_refused_when_the_package_is_opened(claim, notary, tmp_path, member, change):
    package = sealed(claim, notary, tmp_path)
    assert open_package(notary, package, tmp_path / "whole").decided.digest == claim.decided.digest
    rewritten(notary, package, with_array(member, change))
    with pytest.raises((NotaryError, InputError)):
        open_package(notary, package, tmp_path / "opened")
    assert not (tmp_path / "opened" / "register").exists()


@pytest.mark.parametrize("training", [True, False])
def test_beside_a_trigger_set_training_has_to_be_on_record(neutral, notary, targets, story, tmp_path, training):
    """`combined-served`: drawn triggers and the log, twice the smaller p."""
    both_ways = kept(tmp_path / "owner", neutral, story, by_users, CombinedServed, training)
    both_ways.decided = both_ways.log.decided()
    own = service_of(both_ways.story.mark, story)
    result = hear(
        both_ways, notary, tmp_path, {**targets, "suspect": clone_of(both_ways.told, story), "own": own}, draws=40
    )
    assert result["status"] == ("holds" if training else "NOT ATTESTED"), result["reasons"]
    assert (len(result["rows_asked"]), result["ordinary_asked"]) == (40, len(both_ways.decided))
    triggers, signs = verdicts(result)["suspect"].parts
    assert triggers.log10_p > -6
    assert signs.log10_p < -24


def test_a_log_that_is_younger_than_the_suspect_is_refused(claim, notary, targets, tmp_path):
    result = hear(claim, notary, tmp_path, targets, suspect_since=Since(TODAY, "the release page"))
    assert result["status"] == "does not hold"
    assert "the log is attested from" in by_name(result)["log"]["text"]
    assert by_name(result)["log"]["result"] == "failed"


def test_a_log_that_no_accepted_clock_dates_binds_nothing(claim, notary, targets, tmp_path):
    result = hear(claim, notary, tmp_path, targets, authorities=("00" * 32,), suspect_since=None)
    assert by_name(result)["log"]["result"] == by_name(result)["time"]["result"] == "NOT ATTESTED"
    assert result["status"] == "inconclusive"
    assert "questions NOT COMMITTED (no timestamp that the notary accepts)" in result["reasons"][0]


def test_each_commitment_counts_as_a_try(claim, notary, targets, story, tmp_path):
    before = hear(claim, notary, tmp_path, targets)
    folder = shutil.copytree(tmp_path, tmp_path / "again", ignore=shutil.ignore_patterns("case", "opened", "claim.age"))
    register = Register.of(Owner.open(folder / "register", passphrase=PASSPHRASE))
    found = next(entry.body for entry in register.entries() if entry.type == "dataset.committed")
    register.append("dataset.committed", {**found, "root": "ab" * 32, "in_order": "ab" * 32})
    anchors.anchor(register)
    claim.story = dataclasses.replace(claim.story, owner=Owner.open(folder / "register", passphrase=PASSPHRASE))
    after = hear(claim, notary, folder, targets)
    assert (before["log"]["commitments"], after["log"]["commitments"]) == (1, 2)
    assert after["status"] == "holds"
    tried = [verdicts(result)["suspect"] for result in (before, after)]
    assert tried[1].tries == 2 * tried[0].tries
    assert tried[1].log10_p - tried[0].log10_p == pytest.approx(np.log10(2))


def test_a_case_is_fixed_for_the_log_and_for_no_other(claim, notary, targets, tmp_path):
    result = hear(claim, notary, tmp_path, targets, log="")
    assert result["status"] == "does not hold"
    assert f"the package is for log {claim.decided.digest}, the case was fixed for none" in result["reasons"][0]
    assert "log" not in json.loads((tmp_path / "case" / CASE).read_text())


def test_a_served_watermark_without_a_log_is_not_attested(claim, notary, targets, story, tmp_path):
    claim.decided = None
    result = hear(claim, notary, tmp_path, targets, strength=1)
    assert by_name(result)["time"]["result"] == "NOT ATTESTED"
    assert "the package holds no log" in by_name(result)["time"]["text"]
    assert result["status"] != "holds"
    assert "log" not in result


def test_a_log_needs_a_pattern_and_a_served_watermark(claim, notary, tmp_path):
    one = Case("c", "w", "r", "p", some_models(), 0, 0, pattern=True, log="ab" * 32)
    assert Case.read(tmp_path / "case.json", one.write(tmp_path / "case.json")) == one
    with pytest.raises(NotaryError, match="names a log and asks no pattern"):
        dataclasses.replace(one, pattern=False, draws=60)
    with pytest.raises(NotaryError, match="Merkle root of a log"):
        dataclasses.replace(one, log="ab")
    claim.decided = claim.decided.inputs
    with pytest.raises(NotaryError, match=r"decided= is a ndarray: give what a log holds, log.decided\(\)"):
        sealed(claim, notary, tmp_path)


def test_a_log_that_leaves_nothing_to_ask_is_not_sent(claim, notary, monkeypatch, tmp_path):
    monkeypatch.setattr(Served, "is_personal", lambda self, plan, asked: np.ones(len(asked), bool))
    with pytest.raises(NotaryError, match=f"all {len(claim.decided)} decided queries of the log fell to coins"):
        sealed(claim, notary, tmp_path)
    assert not list(tmp_path.glob("*.age"))


@pytest.mark.parametrize(("right", "decoys", "able"), [(54, 60, True), (47, 60, True), (6, 60, False), (0, 0, False)])
def test_a_control_counts_if_it_is_as_good_at_the_task_as_the_suspect(right, decoys, able):
    control, suspect = (SimpleNamespace(decoys=decoys, decoys_right=n) for n in (right, min(54, decoys)))
    assert queries._able(control, suspect) is able
    assert not queries._able(SimpleNamespace(decoys=decoys, decoys_right=None), suspect)


@pytest.mark.parametrize(
    ("matching", "since", "left", "fixed", "why"),
    [
        (-3.69, LATER, 5, True, "5 controls as good at the task as the suspect do not match it"),
        (-3.70, LATER, 5, False, "control 0 matches it more than chance explains"),
        (-3.59, LATER, 4, False, "4 controls are as good at the task as the suspect, 5 are needed"),
        (0.0, None, 5, False, "no date shows it to be older than the suspect"),
    ],
)
def test_a_log_is_fixed_if_enough_controls_do_not_match_it(matching, since, left, fixed, why):
    case = SimpleNamespace(suspect_since=since)
    said = [SimpleNamespace(model=SimpleNamespace(role="suspect"), decoys=60, decoys_right=54)]
    for number in range(left):
        control = SimpleNamespace(role="control", name=f"control {number}")
        p = 0.0 if number else matching
        said.append(SimpleNamespace(model=control, decoys=60, decoys_right=54, log10_p=p))
    told = queries.weighed(case, {"not_after": "2026-01-01T00:00:00Z"}, said)
    assert (told["fixed"], told["why"]) == (fixed, why)
    undated = queries.weighed(case, {"not_after": None}, said)
    assert not undated["fixed"]
