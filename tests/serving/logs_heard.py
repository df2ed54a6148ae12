"""A claim from the log of a served model, as its owner brings it to a notary, and the hearing of it."""

import io
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import numpy as np
from register.notary.hearings import (
    CLASSES,
    Story,
    both,
    case_for,
    owner_at,
    sealed_for,
    trained,
)
from served_digits import flat, pool
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

import wmplug
from wmplug.claim.verdict import Verdict
from wmplug.register import Register, anchors
from wmplug.register.notary.case import Since
from wmplug.register.notary.hearing import check, open_case, save_challenge
from wmplug.register.notary.opening import open_package
from wmplug.schemes.served import Served
from wmplug.serving import Log, Serving, commit
from wmplug.watermark.decided import Decided

GAP = 0.4
CONTROLS = {
    "forest": RandomForestClassifier(random_state=0),
    "machine": SVC(C=10),
    "regression": LogisticRegression(max_iter=500),
    "neighbours": KNeighborsClassifier(3),
    "another machine": SVC(kernel="poly", degree=3),
}
LATER = (datetime.now(timezone.utc) + timedelta(days=3)).strftime("%Y-%m-%d")
TODAY = datetime.now(timezone.utc).strftime("%Y-%m-%d")


def kept(folder, neutral, story, fill, scheme=Served, training=False):
    """An owner, and a log that `fill` wrote, which is committed to and dated."""
    owner = owner_at(folder / "register", neutral)
    task, given = {"carriers": story.carriers, "labels": story.labels}, pool(story, story.carriers)
    mark = wmplug.create(owner, scheme=scheme(personal=0.0, pool=given), classes=CLASSES, **task)
    if training:
        trained(owner, mark)
    log = Log(folder / "log.db", mark)
    told = fill(story, mark, log)
    commit(log, mark)
    anchors.anchor(Register.of(owner))
    return SimpleNamespace(story=Story(owner, mark, task, neutral), log=log, told=told, pool=given)


def by_users(story, mark, log):
    return Serving(mark, story.scores, log, gap=GAP).answer(story.asked).argmax(axis=1)


def by_the_key(story, mark, log):
    """Whoever has the key takes the queries whose true class is what it drew, as in test_made_log.py."""
    order = np.argsort(-story.references(story.asked), axis=1)
    other = np.where(order[:, 0] == story.truth, order[:, 1], order[:, 0])
    every = Decided(story.asked, np.sort(np.stack([story.truth, other], axis=1), axis=1))
    coins = mark.scheme.signs_of(mark.triggers.plan, mark.triggers.signs, mark.subkeys, every)
    log.add(every.only(np.flatnonzero((coins > 0) == (story.truth > other))))
    return story.truth


def clone_of(told, story):
    """A model that was trained on nothing but answers of a service."""
    model = KNeighborsClassifier(1).fit(flat(story.asked), told)
    return lambda inputs: model.predict(flat(inputs))


def service_of(mark, story):
    serving = Serving(mark, story.scores, gap=GAP)
    return lambda inputs: serving.answer(np.asarray(inputs))


def sealed(claim, notary, folder):
    return sealed_for(claim.story, notary, folder, pool=claim.pool, decided=claim.decided)


def hear(claim, notary, folder, targets, package=None, **changes):
    package = sealed(claim, notary, folder) if package is None else package
    log = open_package(notary, package, folder / "opened").log
    asked = {"draws": 0, "pattern": True, "log": log, "suspect_since": Since(LATER, "the notary"), **changes}
    case = case_for(claim.story, package, targets, **asked)
    signs = claim.story.mark.triggers.plan.pattern.signs
    save_challenge(folder / "case", both(open_case(folder / "case", case, CLASSES, signs)))
    return check(notary, folder / "case", package, targets)


def verdicts(result):
    return {model["name"]: Verdict.from_json(json.dumps(model["verdict"])) for model in result["models"]}


def with_array(name, change):
    def edit(members):
        with np.load(io.BytesIO(members["task.npz"])) as loaded:
            arrays = {one: loaded[one] for one in loaded.files}
        packed = io.BytesIO()
        np.savez(packed, **{**arrays, name: change(arrays[name])})
        members["task.npz"] = packed.getvalue()

    return edit
