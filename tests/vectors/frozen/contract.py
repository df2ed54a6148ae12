"""What holds of every frozen watermark, of whatever scheme."""

import dataclasses
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from vectors.frozen import acts, cases, facts

import wmplug

FROZEN = Path(__file__).parent
SCORES, TWICE = " with scores", math.log10(2) + 1e-9
RELEASES = sorted(folder.name for folder in FROZEN.iterdir() if folder.is_dir() and folder.name[0].isdigit())


@dataclass(frozen=True)
class Frozen:
    """One watermark that a release wrote: its folder, its name, what is known of it, and what it was made of."""

    folder: Path
    name: str
    kept: dict
    case: cases.Case

    @property
    def path(self):
        return self.folder / f"{self.name}.wm"

    def load(self):
        return wmplug.load(self.path, passphrase=cases.PASSPHRASE, register=self.folder / "register")

    def alone(self):
        """The watermark without the register, whose other keys would count as tries."""
        return dataclasses.replace(self.load(), register=None, record=None)

    def owner(self):
        return wmplug.Owner.open(self.folder / "register", passphrase=cases.PASSPHRASE)


def kept_of(release, part):
    return json.loads((FROZEN / release / part / "facts.json").read_text())


def names(part, having="facts"):
    """All watermarks of all releases, as (release, name); those of which something is known."""
    marks = [(release, name, kept) for release in RELEASES for name, kept in kept_of(release, part)["marks"].items()]
    return [(release, name) for release, name, kept in marks if having in kept]


def copied(release, part, name, made_of, to):
    """A copy of one of them, to be used up by a test."""
    folder = shutil.copytree(FROZEN / release / part, to / part)
    return Frozen(folder, name, kept_of(release, part)["marks"][name], made_of[name])


def assert_alike(found, frozen, where="it"):
    """The same but for the last digits of floats, which a libm or BLAS decides."""
    assert type(found) is type(frozen), where
    if isinstance(frozen, dict):
        assert list(found) == list(frozen), where
        for name in frozen:
            assert_alike(found[name], frozen[name], f"{where}/{name}")
    elif isinstance(frozen, list):
        assert len(found) == len(frozen), where
        for i, (one, other) in enumerate(zip(found, frozen, strict=True)):
            assert_alike(one, other, f"{where}/{i}")
    elif isinstance(frozen, float):
        assert math.isclose(found, frozen, rel_tol=1e-6, abs_tol=1e-6), where
    else:
        assert found == frozen, where


def assert_verdict(found, frozen):
    """Verdicts as JSON but for the choices, which the first release did not name; and those are read and written."""
    now, then = json.loads(found), json.loads(frozen)
    for verdict in (now, then):
        verdict.pop("choices", None)
    scored = SCORES in now["test"]
    if scored:  # scores of triggers, which the first release did not weigh, count half: they can take no more away
        assert now["log10_p"] <= then["log10_p"] + TWICE
        assert now["log10_e"] >= then["log10_e"] - TWICE
    assert_alike(*(counted(verdict) if scored else verdict for verdict in (now, then)))
    assert wmplug.Verdict.from_json(frozen).to_json() == frozen


def counted(verdict):
    """A verdict, or a part of it, without what scores of triggers bear on."""
    numbers = ("log10_e", "log10_p", "state", "enough")
    kept = {name: value for name, value in verdict.items() if name not in numbers}
    parts = {"parts": [counted(part) for part in verdict["parts"]]} if "parts" in verdict else {}
    return {**kept, "test": verdict["test"].replace(SCORES, ""), **parts}


class MarkContract:
    """Of fixtures `frozen`, and `judged` where verdicts are known."""

    def test_its_file_holds_what_it_held(self, frozen):
        assert facts.sealed(frozen.path, cases.PASSPHRASE) == frozen.kept["contents"]

    def test_it_opens_as_it_was(self, frozen):
        found = facts.facts(frozen.load())
        assert found == frozen.kept["facts"]
        assert found["root"] == found["public"]["root"]

    def test_saved_again_its_file_holds_the_same(self, frozen, tmp_path):
        again = wmplug.load(frozen.path, passphrase=cases.PASSPHRASE).save(tmp_path / "again.wm")
        assert facts.contents(again, cases.PASSPHRASE) == facts.contents(frozen.path, cases.PASSPHRASE)

    def test_made_again_it_is_the_same(self, frozen):
        again = facts.facts(mark := wmplug.create(frozen.owner(), allow_weak=True, **frozen.case.options))
        alike = facts.made_alike(again, frozen.case), facts.made_alike(frozen.kept["facts"], frozen.case)
        assert alike[0] == alike[1]
        if frozen.case.same_id and not frozen.case.exact:
            made, loaded = (np.asarray(facts.inputs_of(one), np.float64) for one in (mark, frozen.load()))
            assert np.abs(made - loaded).mean() <= frozen.case.near

    def test_a_suspect_gets_the_same_verdict(self, judged):
        found = acts.verdicts(judged.alone())
        assert list(found) == list(judged.kept["verdicts"])
        for name, verdict in judged.kept["verdicts"].items():
            assert_verdict(found[name], verdict)
