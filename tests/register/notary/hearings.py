"""A case as its parties bring it: an owner with a mark in training, a package, models, a challenge, and its hearing."""

import dataclasses
import hashlib
import io
import itertools
import zipfile

import numpy as np
import pytest
import rfc8785

import wmplug
from wmplug.keys.owner import Owner
from wmplug.register import Register, anchors
from wmplug.register.challenge import Challenge, commitment
from wmplug.register.notary import age, certificates
from wmplug.register.notary.case import Case, Model, digests_of
from wmplug.register.notary.hearing import check, open_case, save_challenge
from wmplug.register.notary.package import prepare
from wmplug.watermark.carriers import digest

PASSPHRASE = "correct horse battery staple"
NOTARYS = "another passphrase altogether"
CLASSES = 10
NONCES = {"notary": bytes(range(16)), "opponent": bytes(range(50, 82))}


def natural(batch):
    """An honest model: it knows digits by their pixels, and nothing of any key."""
    return (np.asarray(batch, np.int64).reshape(len(batch), -1).sum(1) // 7) % CLASSES


def constant(batch):
    return [3] * len(batch)


def by_corner(batch):
    return np.asarray(batch, np.int64)[:, 4, 4] // 26


def copy_of(mark):
    """A stolen copy: it knows the answers."""
    triggers = mark.triggers
    known = {digest(x): int(y) for x, y in zip(triggers.plan.inputs, triggers.answers, strict=True)}

    def stolen(batch):
        return [known.get(digest(x), int(n)) for x, n in zip(batch, natural(batch), strict=True)]

    return stolen


def owner_at(folder, trust=None, name="Ada"):
    calls = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.urandom", lambda n: hashlib.shake_256(f"{name}/{next(calls)}".encode()).digest(n))
        owner = Owner.create(folder, name=name, passphrase=PASSPHRASE, scrypt_n=2**10)
    if trust is not None:
        anchors.trust(folder, trust)
    return owner


def trained(owner, mark):
    started = {"watermark": mark.id, "run": "0" * 32, "adapter": "none", "versions": {}, "dataset": None}
    Register.of(owner).append("training.started", {**started, "parameters": 0, "architecture": 0})


@dataclasses.dataclass
class Story:
    """An owner with a mark in training, before a notary is asked."""

    owner: Owner
    mark: wmplug.Watermark
    task: dict
    trust: object

    @property
    def root_pin(self):
        return tuple(hashlib.sha256(root).hexdigest() for root in self.trust.roots) if self.trust else ()


def tell(folder, trust, digits, scheme="random-label", **options):
    owner = owner_at(folder, trust)
    task = {"carriers": digits[0][:400], "labels": digits[1][:400]}
    mark = wmplug.create(owner, scheme=scheme, classes=CLASSES, **task, **options)
    trained(owner, mark)
    return Story(owner, mark, task, trust)


CONTROLS = {"control 1": natural, "control 2": constant, "control 3": by_corner}


def models(targets):
    roles = {"suspect": "suspect", "own": "own"}
    return tuple(
        Model(name, roles.get(name, "control"), f"here:{name}", "made for this test", digests_of(target))
        for name, target in targets.items()
    )


def case_for(story, package, targets, **changes):
    public = story.mark.public
    fixed = {
        "case": "2026-17",
        "watermark": public["id"],
        "root": public["root"],
        "package": hashlib.sha256(package.read_bytes()).hexdigest(),
        "models": models(targets),
        "draws": 60,
        "decoys": 60,
        # Deducted so that what chance gives a control, with a salt that differs in every run, is never evidence.
        "attempts": 10**6,
        "authorities": story.root_pin,
    }
    return Case(**{**fixed, **changes})


def both(challenge, nonces=NONCES):
    for party, nonce in nonces.items():
        challenge = challenge.committed(party, commitment(challenge.case_sha256, party, nonce))
    for party, nonce in nonces.items():
        challenge = challenge.revealed(party, nonce)
    return challenge


def sealed_for(story, notary, folder, **material):
    options = {"recipient": notary.recipient, "case": "2026-17", **story.task, **material}
    return prepare(story.owner, story.mark.public, folder / "claim.age", **options)


def fixed(story, notary, folder, suspect=None, controls=CONTROLS, own=None, material=None, **changes):
    """A case whose questions are drawn: folder, package and targets, as `check` takes them."""
    sealed = sealed_for(story, notary, folder, **(material or {}))
    own = own or copy_of(story.mark)
    targets = {"suspect": suspect or own, "own": own, **controls}
    case = case_for(story, sealed, targets, **changes)
    save_challenge(folder / "case", both(open_case(folder / "case", case, CLASSES)))
    return folder / "case", sealed, targets


def hear(story, notary, folder, *options, **changes):
    return check(notary, *fixed(story, notary, folder, *options, **changes))


def certified(notary, mark, rows, case="2025-1"):
    """A certificate that names these rows as asked."""
    result = {"watermark": {"id": mark.id}, "case": case, "rows_asked": [int(row) for row in rows]}
    document = {"schema": certificates.SCHEMA, "result": result}
    signer = notary.signer()
    signature = signer.sign(rfc8785.dumps(document), certificates.TYPE).hex()
    return {"certificate": document, "signature": {"keyid": signer.keyid, "sig": signature}}


def by_name(result):
    return {one["name"]: one for one in result["checks"]}


def rewritten(notary, sealed, edit):
    """A package with its members edited, sealed again."""
    with zipfile.ZipFile(io.BytesIO(notary.unseal(sealed.read_bytes(), ""))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    edit(members)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    sealed.write_bytes(age.seal(packed.getvalue(), notary.recipient))


def some_models(controls=1, **changes):
    made = [Model(n, r, f"{n}.dat", "found", {}) for n, r in (("s", "suspect"), ("o", "own"))]
    made += [Model(f"c{i}", "control", "x", "made by others", {}) for i in range(controls)]
    return tuple(dataclasses.replace(one, **changes) for one in made)


CHALLENGED = Challenge("c", "ab" * 32, "cd" * 32)
