"""A model of digits that is served, users who ask it, and clones trained on what they were told."""

from types import SimpleNamespace

import numpy as np
from sklearn.linear_model import LogisticRegression

from wmplug import create
from wmplug.schemes.served import Served
from wmplug.testing.schemes import fixed_owner

OWN, HELD = 400, 300


def flat(images):
    return np.asarray(images).reshape(len(images), -1) / 255.0


def told_by(digits):
    """A model that is often unsure, because it learnt little; carriers held out; and others' pictures to ask it."""
    images, labels = digits[0], digits[1].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    own, held, others = (order[:OWN], order[OWN : OWN + HELD], order[OWN + HELD :])
    model = LogisticRegression(C=0.1, max_iter=500).fit(flat(images[own]), labels[own])
    # In place of references, which take their time: models of half of the held-out pictures each.
    halves = [held[::2], held[1::2]]
    twins = [LogisticRegression(C=0.1, max_iter=500).fit(flat(images[half]), labels[half]) for half in halves]
    return SimpleNamespace(
        scores=lambda inputs: model.predict_proba(flat(inputs)),
        carriers=images[held],
        labels=labels[held],
        asked=images[others],
        truth=labels[others],
        references=lambda inputs: np.mean([twin.predict_proba(flat(inputs)) for twin in twins], axis=0),
    )


def pool(story, inputs):
    return story.references(inputs).astype(np.float32)


def marked(story, name="served", **changes):
    given = {"cells": 40, "personal": 0.0, **changes}
    return create(
        fixed_owner(name),
        scheme=Served(pool=pool(story, story.carriers), **given),
        carriers=story.carriers,
        labels=story.labels,
        classes=10,
    )
