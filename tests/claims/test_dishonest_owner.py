"""A dishonest owner at work on an innocent model: whatever he does, no verdict on it passes for proof.

The rule: where a verdict on an innocent says "proven", its state line names a choice that nothing bound, and it names
every such choice that was made, whatever the state. A case before a notary never holds.

**Chance.** Keys and tokens differ in every run. What is left unnamed is a test with a p-value, so an innocent is proven
there with probability at most 1e-6 a verdict (Ville 1939). The runs make about 3,000 verdicts of the kind, so by luck
this test fails once in 300 rounds at most; three keys in a register make that 900. A hearing asks for 2^-80.
"""

import contextlib
import dataclasses
from collections import Counter

import innocents
import pytest
from cases import KINDS, Case
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from wmplug.claim import verdict as verdicts
from wmplug.errors import WmplugError
from wmplug.register import prepared
from wmplug.register.notary import outcome
from wmplug.report import words
from wmplug.watermark.choices import UNBOUND

RUNS = 2000
SETTINGS = settings(
    max_examples=RUNS,
    stateful_step_count=8,
    derandomize=True,
    deadline=None,
    database=None,
    phases=(Phase.generate,),  # with keys that differ, a shorter run fails otherwise or not at all
    suppress_health_check=list(HealthCheck),
)
REPORTED = ("edited numbers", "edited matches", "invented", "signed", "control")
# Ways that make a verdict say "proven" of an innocent: each must have done so, or it was not tried in earnest.
DECEIVE = (
    *("rows", "fresh", "queries", "logged queries", "written answers", "chosen answers", "preprocess: plain"),
    *("preprocess: fitted", "scan: fitted", "target", "command", "hearing: map"),
    *("report: invented", "report: signed", "report: control"),
)
# Ways that only cost, or are named and come to nothing.
IN_VAIN = (
    *("asked", "limit", "tail", "scan", "spent", "spent by a rogue", "disclosed", "cut", "another key"),
    *("failed create", "hearing", "hearing: since", "report: edited numbers", "report: edited matches"),
)


class Tally:
    """What the runs tried, and what became of it."""

    def __init__(self):
        self.runs, self.tried, self.proven, self.refused = 0, Counter(), Counter(), Counter()

    def hears(self, way, verdict, names):
        """A verdict on an innocent: whether its line says what it must."""
        line = str(verdict)
        assert not [name for name in names if UNBOUND[name] not in line], f"{way}: {sorted(names)} not in {line!r}"
        assert not verdict.proven or any(name in line for name in UNBOUND.values()), f"{way}: {line}"
        assert verdicts.Verdict.from_json(verdict.to_json()) == verdict
        self.tried[way] += 1
        self.proven[way] += verdict.proven

    def decides(self, way, result):
        """The result of a hearing against an innocent."""
        assert result["status"] != "holds", f"{way}: {result}"
        self.tried[way] += 1
        if (verdict := Case.accused(result)) is not None:
            self.hears(way, verdict, ())

    def reads(self, way, code, models):
        """A dossier: a claim is refused, or shown as somebody's word."""
        assert code == 2 or "edited" not in way, f"{way}: {models}"
        assert code == 1 or "control" not in way, f"{way}: {models}"
        told = [model for model in models if model["state"] == "proven"]
        words_of = {"unverified": words.UNVERIFIED, "recorded": words.OWNERS}
        assert all(words_of[model["standing"]] in model["meaning"] for model in told), f"{way}: {told}"
        self.tried[way] += 1
        self.proven[way] += bool(told)


def owner_in(world, tally):
    """The state machine of a dishonest owner."""

    class DishonestOwner(RuleBasedStateMachine):
        @initialize(
            template=st.integers(0, len(world.templates) - 1),
            kind=st.sampled_from(innocents.KINDS),
            seed=st.integers(0, 99),
        )
        def accuses(self, template, kind, seed):
            self.case = Case(world, template, innocents.Innocent(kind, seed))
            tally.runs += 1

        def teardown(self):
            if hasattr(self, "case"):
                self.case.close()

        def once(self, way):
            """What is slow happens once in a run."""
            return way not in self.case.done

        def says(self, way, method, *arguments, **options):
            """One way that ends with a verdict; an error instead of one is an answer too."""
            with self.refusable(way):
                if (said := method(*arguments, **options)) is not None:
                    tally.hears(way, *said)

        @contextlib.contextmanager
        def refusable(self, way):
            try:
                yield
            except WmplugError:
                tally.refused[way] += 1

        def does(self, way, method, *arguments, **options):
            with self.refusable(way):
                method(*arguments, **options)
                tally.tried[way] += 1

        @rule(exhaustive=st.booleans(), few=st.none() | st.integers(1, 99))
        def asks(self, exhaustive, few):
            self.says("limit" if few else "asked", self.case.asks, exhaustive=exhaustive, max_queries=few)

        @rule(aim=st.sampled_from((1.5, 20.0, 1e5)), exhaustive=st.booleans())
        def lowers_the_target(self, aim, exhaustive):
            self.says("target", self.case.asks, target_e=aim, exhaustive=exhaustive)

        @precondition(lambda self: self.once("key"))
        @rule()
        def makes_another_key(self):
            self.case.done.add("key")
            self.does("another key", self.case.another_key)

        @rule()
        def fails_to_make_one(self):
            self.does("failed create", self.case.fails)

        @rule(certificate=st.booleans())
        def spends_what_missed(self, certificate):
            self.does("spent by a rogue" if certificate else "spent", self.case.spends_what_missed, certificate)

        @precondition(lambda self: self.case.spent)
        @rule()
        def asks_fresh(self):
            self.says("fresh", self.case.asks_fresh)

        @rule(leaves=st.sampled_from((5, 40)))
        def discloses(self, leaves):
            self.does("disclosed", self.case.discloses, leaves)

        @rule()
        def chooses_rows(self):
            self.says("rows", self.case.chooses_rows)

        @rule()
        def begins_where_it_hits(self):
            self.says("tail", self.case.begins_where_it_hits)

        @precondition(lambda self: self.once("queries"))
        @rule(logged=st.booleans())
        def chooses_queries(self, logged):
            self.case.done.add("queries")
            self.says("logged queries" if logged else "queries", self.case.chooses_queries, logged)

        @rule()
        def writes_answers(self):
            self.says("written answers", self.case.writes_answers)

        @rule()
        def judges_what_hit(self):
            self.says("chosen answers", self.case.judges_what_hit)

        @rule(kind=st.sampled_from(("plain", "fitted")))
        def fits_a_map(self, kind):
            self.says(f"preprocess: {kind}", self.case.prepares, kind)

        @rule(prepared=st.booleans())
        def scans(self, prepared):
            self.says("scan: fitted" if prepared else "scan", self.case.scans, prepared)

        @rule()
        def hides_the_register(self):
            self.says("no register", self.case.hides_the_register)

        @rule(lines=st.integers(1, 12))
        def cuts_the_log(self, lines):
            self.does("cut", self.case.cut, lines)

        @rule(
            kind=st.sampled_from(KINDS),
            exhaustive=st.booleans(),
            use_fresh=st.booleans(),
            few=st.none() | st.integers(1, 120),
            aim=st.none() | st.sampled_from((2.0, 1e6, 1e9)),
            prepared=st.booleans(),
        )
        def types_a_command(self, **options):
            self.says("command", self.case.verifies, **options)

        @precondition(lambda self: self.once("report"))
        @rule(how=st.sampled_from(REPORTED))
        def goes_to_a_report(self, how):
            self.case.done.add("report")
            with self.refusable(f"report: {how}"):
                tally.reads(f"report: {how}", *self.case.reports(how))

        @precondition(lambda self: self.once("hearing"))
        @rule(
            kind=st.sampled_from(("plain", "fitted")),
            since=st.none() | st.sampled_from(("2019-01-01", "2999-01-01")),
            own_map=st.booleans(),
        )
        def goes_to_a_notary(self, kind, since, own_map):
            self.case.done.add("hearing")
            way = "hearing: map" if own_map else "hearing" if since is None else "hearing: since"
            with self.refusable(way):
                tally.decides(way, self.case.hearing(kind, since=since, own_map=own_map))

    return DishonestOwner


def test_no_innocent_is_proven_unless_the_line_says_what_was_not_bound(world):
    tally = Tally()
    run_state_machine_as_test(owner_in(world, tally), settings=SETTINGS)
    print(f"{tally.runs} runs; tried {dict(tally.tried)}; proven {dict(tally.proven)}; refused {dict(tally.refused)}")
    assert tally.runs >= RUNS
    assert not [way for way in (*DECEIVE, *IN_VAIN, "no register") if not tally.tried[way]]
    assert not [way for way in DECEIVE if not tally.proven[way]]
    assert not [way for way in IN_VAIN if tally.proven[way]]


# The rule itself must be able to fail: without the names, what the ways above do would pass for proof.


@pytest.fixture
def case(world):
    made = Case(world, 0, innocents.Innocent("trained", 0))
    yield made
    made.close()


NAMED = {
    "rows": Case.chooses_rows,
    "queries": Case.chooses_queries,
    "written answers": Case.writes_answers,
    "a map that was never committed": lambda case: case.prepares("plain"),
    "a map that changed": lambda case: case.prepares("fitted"),
    "scan": lambda case: case.scans(prepared=True),
    "limit": lambda case: case.asks(exhaustive=True, max_queries=30),
    "target": lambda case: case.asks(target_e=1.5),
    "tries": Case.hides_the_register,
}


@pytest.mark.parametrize("way", NAMED)
def test_a_choice_that_is_not_named_is_noticed(case, way, monkeypatch):
    verdict, names = NAMED[way](case)
    Tally().hears(way, verdict, names)
    monkeypatch.setattr(verdicts, "named", lambda choices: "")
    with pytest.raises(AssertionError, match=way):
        Tally().hears(way, verdict, names)


def test_a_proof_that_nothing_qualifies_is_noticed(case):
    verdict, _ = case.writes_answers()
    with pytest.raises(AssertionError, match="forged"):
        Tally().hears("forged", dataclasses.replace(verdict, choices=()), ())


def test_a_case_that_holds_is_noticed(case, monkeypatch):
    result = case.hearing("fitted", own_map=True)
    Tally().decides("map", result)
    monkeypatch.setattr(outcome, "unbound", lambda choices: [])
    with pytest.raises(AssertionError, match="holds"):
        Tally().decides("map", case.hearing("fitted", own_map=True))


def test_a_dossier_that_believes_a_file_is_noticed(case, monkeypatch):
    Tally().reads("report: invented", *case.reports("invented"))
    monkeypatch.setattr(words, "UNVERIFIED", "")
    code, models = case.reports("invented")
    monkeypatch.undo()
    with pytest.raises(AssertionError, match="invented"):
        Tally().reads("report: invented", code, models)


def test_a_map_that_rewrites_its_examples_reaches_no_suspect(case, monkeypatch):
    verdict = case.rewrites()
    assert not verdict.proven
    assert [(choice.what, choice.bound) for choice in verdict.choices] == [("preprocess", "committed")]
    monkeypatch.setattr(prepared, "own", lambda example: example)  # as if models got the function's own object
    assert case.rewrites().proven
