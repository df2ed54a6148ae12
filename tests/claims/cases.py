"""What a dishonest owner can do to an innocent model, by public calls and commands alone; one method for each way.

A way returns what was said about the innocent, as (verdict, names of the choices that it made after it had seen the
innocent's answers). The state line must name each of these.
"""

import contextlib
import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import hearings
import innocents
import numpy as np
from typer.testing import CliRunner

import wmplug
from wmplug.claim.questions import Answers
from wmplug.claim.verification import fresh, only
from wmplug.cli import app
from wmplug.errors import WmplugError
from wmplug.register import Register, anchors, disclosure
from wmplug.register.challenge import Challenge
from wmplug.register.history import QUERIES, log_of
from wmplug.register.notary.case import Since
from wmplug.register.notary.hearing import check
from wmplug.register.notary.identity import Notary
from wmplug.tasks import Said
from wmplug.watermark.carriers import digest

PASSPHRASE = "correct horse battery staple"
CARRIERS, TRIGGERS, CLASSES = 200, 100, 10
KINDS = ("plain", "fitted", "tilted")


def uniform(rows):
    """References that tell nothing: every question is as ambiguous as every other."""
    return np.full((2, rows, CLASSES), 1 / CLASSES, np.float32)


@dataclasses.dataclass
class World:
    """What is there before any owner cheats: pictures, an authority, a notary, and registers to copy.

    Attributes:
        folder: for whatever is written.
        trust: a timestamp authority.
        notary: whom cases go to.
        rogue: another notary, whom nobody accepts.
        pictures: (n, 8, 8) uint8, and their labels; the first are carriers.
    """

    folder: Path
    trust: object
    notary: Notary
    rogue: Notary
    pictures: np.ndarray
    labels: np.ndarray
    templates: list = dataclasses.field(default_factory=list)
    numbers: object = dataclasses.field(default_factory=itertools.count)

    @property
    def task(self):
        return {"carriers": self.pictures[:CARRIERS], "labels": self.labels[:CARRIERS], "classes": CLASSES}

    def prepare(self, count):
        """Registers of as many owners, each with a mark of each kind in training."""
        for number in range(count):
            folder = self.folder / f"owner-{number}"
            owner = wmplug.Owner.create(folder, name="Eve", passphrase=PASSPHRASE, scrypt_n=2**10)
            anchors.trust(folder, self.trust)
            innocents.like.clear()
            makers = {
                "plain": {"scheme": "random-label", "triggers": TRIGGERS},
                "fitted": {"scheme": "random-label", "triggers": TRIGGERS - 1, "preprocess": innocents.fitted},
                "tilted": {"scheme": "tilt", "delta": 1.0, "directions": 8, "blends": 10, "pool": uniform(CARRIERS)},
            }
            for name, options in makers.items():
                mark = wmplug.create(owner, **self.task, **options)
                hearings.trained(owner, mark)
                mark.save(folder / f"{name}.wm")
            self.templates.append(folder)


class Case:
    """One dishonest owner with a register of its own, and the innocent to accuse."""

    def __init__(self, world, template, innocent):
        self.world, self.innocent = world, innocent
        self.base = world.folder / f"run-{next(world.numbers)}"
        self.folder = shutil.copytree(world.templates[template], self.base / "register")
        self.numbers, self.spent, self.done = itertools.count(), False, set()
        innocents.like.clear()
        innocents.suspect = innocent

    def close(self):
        innocents.like.clear()
        shutil.rmtree(self.base)

    def load(self, kind, **options):
        return wmplug.load(self.folder / f"{kind}.wm", passphrase=PASSPHRASE, register=self.folder, **options)

    def owner(self):
        return wmplug.Owner.open(self.folder, passphrase=PASSPHRASE)

    def answers(self, mark):
        """The innocent's answers to all triggers, and the rows that it hits by luck."""
        rows = mark.triggers.plan.choices.rows
        said = np.array(self.innocent(np.stack([mark.triggers.row(row) for row in rows.tolist()])))
        return said, rows[said == mark.triggers.answers[rows]].tolist()

    # Around the key

    def another_key(self):
        wmplug.create(self.owner(), scheme="random-label", triggers=10 + next(self.numbers), **self.world.task)

    def fails(self):
        """A key that cannot be made leaves no secret behind, which would weaken or hide a later claim."""
        before = self.secrets()
        with contextlib.suppress(WmplugError):
            wmplug.create(self.owner(), scheme="random-label", triggers=300, carriers=np.zeros((5, 8, 8)), classes=1)
            raise AssertionError("a task of one class was accepted")
        assert self.secrets() == before

    def secrets(self):
        return sum(entry.type == "secret.committed" for entry in Register(self.folder).entries())

    def cut(self, lines):
        """Remove the last entries, and the tokens that would show it.

        What the innocent read there it forgets. Whoever still knew it would know answers that no record discloses: it
        was taught the watermark, and no test of its answers can tell by whom.
        """
        log = self.folder / "log.jsonl"
        kept = log.read_bytes().splitlines(keepends=True)[: -lines or None]
        log.write_bytes(b"".join(kept))
        for file in (self.folder / "anchors").iterdir():
            if int(file.name[:6]) >= len(kept) - 1:
                file.unlink()
        self.innocent.reads(Register(self.folder))

    # Questions

    def asks(self, **options):
        """Verification as it should be; what is lowered or limited must be named."""
        mark = self.load("plain")
        few, target = options.get("max_queries"), options.get("target_e", 1e6)
        names = {"limit"} if options.get("exhaustive") and few is not None and few < TRIGGERS else set()
        return wmplug.verify(mark, self.innocent, **options), names | ({"target"} if target < 1e6 else set())

    def spends_what_missed(self, certificate=False):
        mark = self.load("plain")
        missed = sorted(set(mark.triggers.plan.choices.rows.tolist()) - set(self.answers(mark)[1]))
        signed = hearings.certified(self.world.rogue, mark, missed) if certificate else None
        case = f"case {next(self.numbers)}"
        disclosure.spend(Register.of(self.owner()), mark.id, missed, "asked of an API", case, signed)
        self.spent = True

    def asks_fresh(self):
        mark = self.load("plain")
        rows = fresh(mark, disclosure.spent(Register(self.folder), mark.id))
        return wmplug.verify(mark, self.innocent, rows=rows, exhaustive=True), self.loose(mark, rows)

    def loose(self, mark, rows):
        """Rows are paid for where they are the last in order, and loose otherwise."""
        return {choice.what for choice in only(mark, rows).choices if choice.bound is None}

    def discloses(self, leaves):
        """Shows leaves to everybody; the owner plays both parties of the challenge."""
        mark = self.load("plain")
        challenge = hearings.both(Challenge(f"shown {next(self.numbers)}", "ab" * 32, mark.public["root"]))
        disclosure.reveal(Register.of(self.owner()), mark, challenge, leaves)
        self.innocent.reads(Register(self.folder))

    def chooses_rows(self):
        mark = self.load("plain")
        hit = self.answers(mark)[1]
        return wmplug.verify(mark, self.innocent, rows=hit, exhaustive=True), self.loose(mark, hit)

    def begins_where_it_hits(self):
        """The last rows from the best place on are paid for: one try for each place to begin at."""
        mark = self.load("plain")
        rows, hit = mark.triggers.plan.choices.rows.tolist(), set(self.answers(mark)[1])
        best = max(range(len(rows)), key=lambda first: sum(8.7 if row in hit else -1 for row in rows[first:]))
        verdict = wmplug.verify(mark, self.innocent, rows=rows[best:], exhaustive=True)
        assert best == 0 or verdict.tries >= len(rows)
        return verdict, set()

    # Ordinary inputs

    def chooses_queries(self, logged=False):
        """Questions on which the innocent's answers agree with the signs, and references that disagree."""
        mark, world = self.load("tilted"), self.world
        every = world.pictures[CARRIERS:]
        neutral = mark.with_queries(every, **self.task, pool=uniform(CARRIERS + len(every)))
        gain = neutral.triggers.plan.material["z"] @ neutral.triggers.signs.reshape(CLASSES, -1).T
        said = np.array(self.innocent(every))
        good = gain[np.arange(len(said)), said] - gain.min(axis=1)
        chosen = np.argsort(-good, kind="stable")[: len(every) // 2]
        pool = uniform(CARRIERS + len(chosen))
        pool[1, CARRIERS:] = 0.02 + 0.8 * np.eye(CLASSES, dtype=np.float32)[gain[chosen].argmin(axis=1)]
        queries = every[chosen]
        if logged:
            register = Register.of(self.owner())
            register.append("dataset.committed", log_of(queries))
            anchors.anchor(register)
        verdict = wmplug.verify(mark.with_queries(queries, **self.task, pool=pool), self.innocent, exhaustive=True)
        # A log that is committed to is named by its date, which says nothing of what the owner asked before.
        assert "questions NOT COMMITTED" in str(verdict) or "questions committed by 20" in str(verdict)
        any_log = any(entry.body.get("role") == QUERIES for entry in Register(self.folder).entries())
        return verdict, {"references"} | (set() if any_log else {"questions"})

    # Answers

    def writes_answers(self):
        mark = self.load("plain")
        rows = mark.triggers.plan.choices.rows
        said = tuple(Said(int(answer)) for answer in mark.triggers.answers[rows])
        return wmplug.claim.judge(mark, Answers("MegaCorp", mark.task, rows, said)), {"answers"}

    def judges_what_hit(self):
        mark = self.load("plain")
        hit = np.array(self.answers(mark)[1], np.int64)
        said = tuple(Said(int(answer)) for answer in mark.triggers.answers[hit])
        return wmplug.claim.judge(mark, Answers("MegaCorp", mark.task, hit, said)), {"answers", "rows"}

    # What the model is given

    def fits(self, mark):
        """Shows the innocent, for each trigger, a natural picture that it answers as the key did."""
        natural = self.world.pictures[CARRIERS:]
        by_answer = dict(zip(self.innocent(natural), natural, strict=True))
        for row in () if mark.triggers.plan.choices is None else mark.triggers.plan.choices.rows.tolist():
            if (picture := by_answer.get(int(mark.triggers.answers[row]))) is not None:
                innocents.like[digest(mark.triggers.row(row))] = picture

    def prepares(self, kind):
        """A preprocess function that was never committed to, or not as it is now."""
        mark = self.load(kind, preprocess=innocents.fitted)
        self.fits(mark)
        return wmplug.verify(mark, self.innocent, exhaustive=True), {"preprocess"}

    def rewrites(self):
        """A preprocess function that changes its examples between the look at them and the question."""
        mark = self.load("fitted", preprocess=innocents.rewriting)
        self.fits(mark)
        return wmplug.verify(mark, self.innocent, exhaustive=True)

    def scans(self, prepared=False):
        marks = {"one": self.load("plain", preprocess=innocents.fitted if prepared else None)}
        if prepared:
            self.fits(marks["one"])
        found = wmplug.claim.scan(marks, {"innocent": self.innocent})
        return found.verdicts["innocent"]["one"], {"answers", "preprocess"} if prepared else set()

    def hides_the_register(self):
        mark = wmplug.load(self.folder / "plain.wm", passphrase=PASSPHRASE, register=self.folder)
        away = self.folder.rename(self.base / "away")
        try:
            return wmplug.verify(mark, self.innocent, exhaustive=True), {"tries"}
        finally:
            away.rename(self.folder)

    # Commands

    def commands(self, *words):
        """A command of wmplug: its exit code, and what it printed."""
        result = CliRunner(env={"WMPLUG_PASSPHRASE": PASSPHRASE, "WMPLUG_REGISTER": str(self.folder)}).invoke(
            app, [str(word) for word in words]
        )
        assert result.exit_code in (0, 1, 2), result.output + repr(result.exception)
        return result

    def verifies(self, kind, *, exhaustive, use_fresh, few, aim, prepared):
        """`wmplug verify` with any options together."""
        mark, names = self.load(kind), set()
        words = ["verify", self.folder / f"{kind}.wm", "innocents:suspect", "--json"]
        if exhaustive:
            words.append("--exhaustive")
        left = len(mark.triggers)
        if use_fresh:
            words.append("--fresh")
            rows = fresh(mark, disclosure.spent(Register(self.folder), mark.id))
            names |= self.loose(mark, rows) if rows else set()
            left = len(rows)
        if few:
            words += ["--max-queries", few]
            names |= {"limit"} if exhaustive and few < left else set()
        if aim:
            words += ["--target-e", aim]
            names |= {"target"} if aim < 1e6 else set()
        if prepared:
            words += ["--preprocess", "innocents:fitted"]
            self.fits(mark)
            names.add("preprocess")
        result = self.commands(*words)
        if result.exit_code == 2:
            return None
        verdict = wmplug.Verdict.from_json(result.stdout)
        assert result.exit_code == (0 if verdict.proven else 1)
        return verdict, names

    def reports(self, how):
        """`wmplug report` of a verdict that was edited, invented, or signed into the register.

        Returns:
            Exit code, and the models that the dossier tells of.
        """
        mark = self.load("plain")
        verdict = wmplug.verify(mark, self.innocent, exhaustive=True)
        if how == "edited numbers":
            verdict = dataclasses.replace(verdict, state="proven", log10_e=99.0, log10_p=-99.0, suspect="MegaCorp")
        elif how == "edited matches":
            verdict = dataclasses.replace(verdict, matches=verdict.in_set)
        else:
            verdict = dataclasses.replace(self.writes_answers()[0], choices=())
        file, facts = self.base / "verdict.json", self.base / "dossier.json"
        facts.unlink(missing_ok=True)
        file.write_text(verdict.to_json())
        words = ["report", "--out", self.base / "dossier.html", "--json-out", facts]
        if how == "signed":
            body = {"watermark": mark.id, "suspect": "MegaCorp", "rows": [], "verdict": json.loads(verdict.to_json())}
            Register.of(self.owner()).append("suspect.verified", {**body, "system": None})
        else:
            words += ["--control" if how == "control" else "--verdict", file]
        code = self.commands(*words).exit_code
        return code, json.loads(facts.read_text())["suspects"] if facts.exists() else []

    # A notary

    def story(self, kind, **options):
        return hearings.Story(self.owner(), self.load(kind, **options), self.task, self.world.trust)

    @property
    def task(self):
        return {name: self.world.task[name] for name in ("carriers", "labels")}

    def hearing(self, kind, *, since=None, own_map=False):
        """A case before a notary, with whatever was spent, shown, cut and fitted before: its result."""
        folder = self.base / f"case {next(self.numbers)}"
        folder.mkdir()
        function = innocents.fitted if own_map else None
        story = self.story(kind, preprocess=function)
        if own_map:
            self.fits(story.mark)
        own = self.innocent if own_map else hearings.copy_of(story.mark)
        controls = {name: one for name, one in hearings.CONTROLS.items() if not own_map or name != "control 1"}
        changes = {} if since is None else {"suspect_since": Since(since, "a release page")}
        case = hearings.fixed(story, self.world.notary, folder, self.innocent, controls, own, **changes)
        return check(self.world.notary, *case, preprocess=function)

    @staticmethod
    def accused(result):
        """The verdict on the suspect of a hearing, if it was asked."""
        verdict = result["models"][0]["verdict"]
        return None if verdict is None else wmplug.Verdict.from_json(json.dumps(verdict))
