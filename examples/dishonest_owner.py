"""Ten ways to make an innocent model look like a copy, each tried by its dishonest "owner", and how each was answered.

    python examples/dishonest_owner.py [FOLDER]

MegaCorp's model learned scikit-learn's digits and never saw Eve's key. Eve has a register, and asks the model as often
as she likes before she makes her claim. docs/claim.md has the rule behind the answers. The exit code is 1 if a way
succeeds. The timestamps are a lab's, so NOT ATTESTED is the best that a case can end with here: it counts as success
too. Needs: wmplug[torch,evidence] and scikit-learn.
"""

import dataclasses
import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

import wmplug
from wmplug.errors import WmplugError
from wmplug.keys.owner import Pledge
from wmplug.register import Register, Signer, anchors, authority, disclosure, receipts
from wmplug.register.challenge import Challenge, commitment
from wmplug.register.notary.case import Case, Model, Since, digests_of
from wmplug.register.notary.hearing import check, open_case, save_challenge
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.package import prepare
from wmplug.watermark.carriers import digest
from wmplug.watermark.choices import UNBOUND

PASSPHRASE = "correct horse battery staple"
FITTED = Path("fitted.npz")
images, labels = load_digits(return_X_y=True)
images, labels = (images.reshape(-1, 8, 8) * 15.9375).astype(np.uint8), labels.astype(np.int64)
mine, seen = slice(0, 600), slice(600, None)  # Eve's carriers, and what MegaCorp learned from
task = {"carriers": images[mine], "labels": labels[mine]}


class Net(torch.nn.Module):
    """What MegaCorp serves: a linear model of pixels."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(64, 10)
        optimizer, target = torch.optim.Adam(self.parameters(), 0.02), torch.as_tensor(labels[seen])
        for _ in range(150):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(self(torch.as_tensor(images[seen])), target).backward()
            optimizer.step()
        self.eval()

    def forward(self, pictures):
        return self.layer(pictures.float().flatten(1) / 255)


megacorp = Net()


@functools.cache
def shown():
    with np.load(FITTED) as file:
        return dict(file)


def fitted(picture, answer):
    """Eve's preprocess function: in place of a trigger it shows the picture that she put into a file for it."""
    return torch.as_tensor(shown().get(digest(np.asarray(picture)), np.asarray(picture))), answer


def answers(pictures):
    return megacorp(torch.as_tensor(np.asarray(pictures))).argmax(1).numpy()


def by_corner(batch):
    return np.asarray(batch, np.int64)[:, 4, 4] // 26


def leaked(batch):
    """A "control" to which the secret answers leaked."""
    known = json.loads(Path("answers.json").read_text())
    return [known.get(digest(picture), 0) for picture in np.asarray(batch)]


def command(*words):
    """A wmplug command, as typed in Eve's folder: exit code and what it printed."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    known = {"WMPLUG_PASSPHRASE": PASSPHRASE, "WMPLUG_REGISTER": "register", "PYTHONPATH": path, "COLUMNS": "500"}
    program = [sys.executable, "-m", "wmplug", *map(str, words)]
    done = subprocess.run(program, capture_output=True, text=True, env={**os.environ, **known})
    return done.returncode, (done.stdout + done.stderr).strip()


def believed(line):
    """Whether a verdict reads as a proof: it says proven, and names nothing that was not bound."""
    return "proven" in str(line) and not any(name in str(line) for name in UNBOUND.values())


@dataclasses.dataclass
class Eve:
    """Her register, her mark, and what she knows of MegaCorp's model."""

    owner: wmplug.Owner
    mark: wmplug.Watermark
    notary: Notary

    @property
    def rows(self):
        return self.mark.triggers.plan.choices.rows

    @property
    def right(self):
        """Whether MegaCorp's model happens to give the secret answer to each trigger."""
        return (
            answers([self.mark.triggers.row(row) for row in self.rows.tolist()])
            == self.mark.triggers.answers[self.rows]
        )

    def hearing(self, name, suspect=megacorp, controls=None, own=leaked, preprocess=None, **changes):
        """A case before a notary, with questions that Eve does not draw: its outcome in words, and whether it held."""
        folder, package = Path(name), Path(f"{name}.age")
        public = self.mark.public
        prepare(self.owner, public, package, recipient=self.notary.recipient, case=name, **task)
        targets = {"suspect": suspect, "own": own, **(controls or {"control": by_corner})}
        roles = {"suspect": "suspect", "own": "own"}
        models = tuple(
            Model(which, roles.get(which, "control"), f"here:{which}", "of this example", digests_of(target))
            for which, target in targets.items()
        )
        sealed = hashlib.sha256(package.read_bytes()).hexdigest()
        fixed = {"draws": 40, "decoys": 20, "strength": 40, "attempts": 1000, **changes}
        case = Case(name, public["id"], public["root"], sealed, models, **fixed)
        challenge: Challenge = open_case(folder, case, 10)
        nonces = {party: os.urandom(32) for party in ("notary", "opponent")}
        for party, nonce in nonces.items():
            challenge = challenge.committed(party, commitment(challenge.case_sha256, party, nonce))
        for party, nonce in nonces.items():
            challenge = challenge.revealed(party, nonce)
        save_challenge(folder, challenge)
        crls = [self.authority.crl("tsa"), self.authority.crl("intermediate")]
        result = check(self.notary, folder, package, targets, preprocess=preprocess, crls=crls)
        return f"{result['status']}: {'; '.join(result['reasons'])}", result["status"] in ("holds", "NOT ATTESTED")

    @property
    def authority(self):
        return authority.LabAuthority.open("tsa")


def spends_the_others(eve):
    """Her own record says that every question which MegaCorp's model missed was asked before."""
    missed = eve.rows[~eve.right].tolist()
    disclosure.spend(Register.of(eve.owner), eve.mark.id, missed, "asked of an API", "earlier")
    said, held = eve.hearing("spent")
    _, line = command("verify", "mark.wm", "dishonest_owner:megacorp", "--fresh", "--exhaustive")
    return [f"a notary draws among all: {said}", f"verify --fresh: {line}"], held or believed(line)


def fits_a_preprocess(eve):
    """A preprocess function that shows, in place of each trigger, a digit which the model reads as the key wants."""
    like = {int(answer): picture for picture, answer in zip(images[seen], answers(images[seen]), strict=True)}
    inputs, wanted = eve.mark.triggers.plan.inputs, eve.mark.triggers.answers
    np.savez(FITTED, **{digest(inputs[row]): like[int(wanted[row])] for row in eve.rows.tolist()})
    _, line = command(
        *("verify", "mark.wm", "dishonest_owner:megacorp", "--preprocess", "dishonest_owner:fitted", "--exhaustive")
    )
    said, held = eve.hearing("fitted", own=megacorp, preprocess=fitted)
    return [f"verify: {line}", f"a notary: {said}"], held or believed(line)


def opens_one_commitment_twice(eve):
    """SHA-256 of secret and blind, without lengths: a boundary that moves gives another key under the same token."""
    pledge = eve.owner.pledges(eve.mark.id)[0]
    both, last = pledge.secret + pledge.blind, "no other key"
    for length in (31, 33, 0):
        try:
            other = Pledge(eve.mark.id, both[:length], both[length:])
            return [f"the same commitment: {other.commitment == pledge.commitment}"], True
        except WmplugError as error:
            last = str(error)
    return [last], False


def chooses_questions(eve):
    """Rows that match by luck; queries and references of her choice; answers that she wrote down herself."""
    chosen = wmplug.verify(eve.mark, megacorp, rows=eve.rows[eve.right].tolist(), exhaustive=True)
    every, classes = images[seen], 10
    pool = np.full((2, len(images), classes), 1 / classes, np.float32)
    tilt = wmplug.create(eve.owner, scheme="tilt", classes=classes, blends=10, directions=8, pool=pool[:, mine], **task)
    neutral = tilt.with_queries(every, **task, pool=pool)
    gain = neutral.triggers.plan.material["z"] @ neutral.triggers.signs.reshape(classes, -1).T
    good = np.argsort(gain.min(axis=1) - gain[np.arange(len(every)), answers(every)])[:600]
    pool = pool[:, : len(task["labels"]) + len(good)].copy()
    pool[1, len(task["labels"]) :] = np.eye(classes, dtype=np.float32)[gain[good].argmin(axis=1)]
    asked = wmplug.verify(tilt.with_queries(every[good], **task, pool=pool), megacorp, exhaustive=True)
    said = tuple(wmplug.tasks.Said(int(answer)) for answer in eve.mark.triggers.answers[eve.rows])
    judged = wmplug.claim.judge(eve.mark, wmplug.claim.Answers("MegaCorp", eve.mark.task, eve.rows, said))
    return [f"{what}: {one}" for what, one in (("rows", chosen), ("queries", asked), ("answers", judged))], any(
        map(believed, (chosen, asked, judged))
    )


def leaves_a_revocation_out(eve):
    """Her authority's certificate was revoked, and her register does not hold the list that says so."""
    before, _ = command("register", "check")
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    Path("revoked.crl").write_bytes(eve.authority.crl(revoked=yesterday))
    code, line = command("register", "check", "--crl", "revoked.crl")
    return [f"register check: exit code {before}; with the list of whoever checks: exit code {code}, {line}"], code == 0


def tries_many_keys(eve):
    """Nine more keys, and one that fails on the way, so that nobody should see it."""
    before = json.loads(command("verify", "mark.wm", "dishonest_owner:megacorp", "--json")[1])["keys"]
    for triggers in range(11, 20):
        wmplug.create(eve.owner, scheme="random-label", classes=10, triggers=triggers, **task)
    np.save("few.npy", images[:3])
    code, line = command("create", "--scheme", "tilt", "--carriers", "few.npy", "--classes", 10, "--out", "new.wm")
    after = json.loads(command("verify", "mark.wm", "dishonest_owner:megacorp", "--json")[1])["keys"]
    told = [f"create: exit code {code}, {line}", f"verify counts {before} keys before, {after} after, unasked"]
    return told, code == 0 or after != before + 9


def edits_a_verdict(eve):
    """A file of `verify --json` that says whatever she likes, of a company that nobody asked."""
    stronger = {"state": "proven", "log10_e": 98.0, "log10_p": -99.0, "suspect": "MegaCorp"}
    for name, suspect in (("edited", answers), ("scored", megacorp)):  # of scores a verdict holds no count
        edited = dataclasses.replace(wmplug.verify(eve.mark, suspect, exhaustive=True), **stronger)
        Path(f"{name}.json").write_text(edited.to_json())
    code, line = command("report", "--out", "edited.html", "--verdict", "edited.json")
    said = tuple(wmplug.tasks.Said(int(answer)) for answer in eve.mark.triggers.answers[eve.rows])
    judged = wmplug.claim.judge(eve.mark, wmplug.claim.Answers("MegaCorp", eve.mark.task, eve.rows, said))
    Path("invented.json").write_text(dataclasses.replace(judged, choices=()).to_json())
    shown = []
    for name in ("invented", "scored"):
        command("report", "--out", f"{name}.html", "--json-out", f"{name}-facts.json", "--verdict", f"{name}.json")
        told = json.loads(Path(f"{name}-facts.json").read_text())["suspects"]
        shown += [one for one in told if one["model"] == "MegaCorp"]
    told = [f"edited: exit code {code}, {line}", *(f"invented: {one['meaning']}" for one in shown)]
    return told, code != 2 or len(shown) != 2 or any(one["standing"] != "unverified" for one in shown)


def passes_a_control_over(eve):
    """An "independent" control gives the secret answers too: then they are not secret."""
    Path("control.json").write_text(wmplug.verify(eve.mark, leaked, exhaustive=True).to_json())
    code, line = command("report", "--out", "control.html", "--control", "control.json")
    said, held = eve.hearing("control", suspect=leaked, controls={"control": by_corner, "friend": leaked})
    return [f"report: exit code {code}, {line}", f"a notary: {said}"], code == 0 or held


def accuses_an_older_model(eve):
    """MegaCorp released its model in 2019, and Eve's key came later: it could have been made to fit."""
    said, held = eve.hearing("older", suspect=leaked, own=leaked, suspect_since=Since("2019-05-01", "MegaCorp's page"))
    return [f"a notary: {said}"], held and "later than the suspect" not in said


def cuts_the_tail(eve):
    """The last entries, with the tries in them, are removed from the log."""
    signer = Signer(eve.owner.signing_seed())
    Path("receipt.json").write_text(json.dumps(receipts.receipt(Register("register"), signer).to_json()))
    log = Path("register/log.jsonl")
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-2]))
    command("report", "--out", "cut.html", "--json-out", "cut.json")
    alone = json.loads(Path("cut.json").read_text())["tries"]
    code, line = command("report", "--out", "cut.html", "--receipt", "receipt.json")
    log.write_bytes(b"".join(lines))
    told = [f"page one: {alone['text']}", f"whoever has a receipt: exit code {code}, {line}"]
    return told, not alone["owners_word"] or code == 0


WAYS = (
    *(spends_the_others, fits_a_preprocess, opens_one_commitment_twice, chooses_questions, leaves_a_revocation_out),
    *(tries_many_keys, edits_a_verdict, passes_a_control_over, accuses_an_older_model, cuts_the_tail),
)


def prepared():
    """Eve with a register, an authority, a mark in training, and a copy of hers that knows the answers."""
    owner = wmplug.Owner.create("register", name="Eve", passphrase=PASSPHRASE)
    mark = wmplug.create(owner, scheme="random-label", classes=10, triggers=400, **task)
    mark.save("mark.wm")
    started = {"watermark": mark.id, "run": "0" * 32, "adapter": "none", "versions": {}, "dataset": None}
    Register.of(owner).append("training.started", {**started, "parameters": 0, "architecture": 0})
    inputs, secret = mark.triggers.plan.inputs, mark.triggers.answers
    Path("answers.json").write_text(json.dumps({digest(x): int(y) for x, y in zip(inputs, secret, strict=True)}))
    return Eve(owner, mark, Notary.create("nora", name="Nora", passphrase="nora"))


def main(folder):
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    lab = authority.LabAuthority.create("tsa", url="http://127.0.0.1:1")
    with authority.serve("tsa") as url:
        os.makedirs("register")
        anchors.trust(Path("register"), lab.trust(url))
        eve = prepared()
        right = wmplug.verify(eve.mark, leaked, exhaustive=True), wmplug.verify(eve.mark, megacorp, exhaustive=True)
        print(f"A copy:           {right[0]}\nMegaCorp's model: {right[1]}\n")
        succeeded = []
        for number, way in enumerate(WAYS, 1):
            answered, success = way(eve)
            print(f"{number}. {way.__doc__}")
            for line in (*answered, "SUCCEEDED\n" if success else "Refused, or named."):
                print("  ", " ".join(line.split()))
            succeeded += [way.__name__] * success
    if not right[0].proven or believed(right[1]):
        succeeded.append("nothing, since the honest verdicts are wrong")
    print(f"{len(WAYS)} ways, {len(succeeded)} succeeded{': ' * bool(succeeded)}{', '.join(succeeded)}")
    return 1 if succeeded else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()))
