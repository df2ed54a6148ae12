"""The smallest tilt that a clone would still show: rehearsed on the references, under a key of the rehearsal's own.

What unmarked references say of the carriers stands for the posterior. It is tilted, its best class is what an API would
answer, a network is trained on these answers, and asked the questions. No key of the owner takes part.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wmplug.errors import AmbiguityWarning, InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Task
from wmplug.schemes.tilt import references
from wmplug.statistics.signs import weighted_log10_p, weights_of
from wmplug.watermark.carriers import take
from wmplug.watermark.plan import TriggerSet, draw_symbols

if TYPE_CHECKING:
    from wmplug.schemes.tilt import Tilt

DELTAS: Sequence[float] = (0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)
TARGET = -6.0  # log10 p of the rehearsed clone's bare answers


def smallest_delta(scheme: "Tilt", task: Task) -> float:
    """The first of DELTAS at which a rehearsed clone is found; the largest, with a warning, if it never is.

    Args:
        scheme: with its references.
        task: carriers and labels.

    Raises:
        InputError: neither torch nor scikit-learn is installed, or the references are the labels, which never doubt.
    """
    pool = np.asarray(scheme.pool)
    if np.isin(pool[0], (0.0, 1.0)).all():
        raise InputError(
            'delta="auto" rehearses on references that doubt, and pool=() has none: give a pool or a delta'
        )
    posterior = np.log(np.maximum(pool[0][: len(task.carriers)], 1e-4))
    found = 0.0
    for delta in DELTAS:
        found = _rehearsed(replace(scheme, delta=delta, blends=1), task, posterior)
        if found <= TARGET:
            return delta
    warnings.warn(
        f'delta="auto": a rehearsed clone reaches log10 p = {found:.1f} at delta={DELTAS[-1]:g}, the target is '
        f"{TARGET:g}: the task leaves little freedom, or there are too few carriers and questions",
        AmbiguityWarning,
        stacklevel=2,
    )
    return DELTAS[-1]


def _rehearsed(scheme: "Tilt", task: Task, posterior: np.ndarray) -> float:
    """log10 p of a clone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmbiguityWarning)  # whether there is room is what is being tried
        plan = scheme.plan(task, _stream("input"))
    triggers = TriggerSet(plan, task.form, draw_symbols(_stream("label"), plan.candidates))
    taught = (posterior + scheme.tilts(triggers, task.carriers, len(posterior))).argmax(axis=1)
    answers = references.clone(task.carriers, taught, take(plan.inputs, plan.weighed), task.classes)
    return weighted_log10_p(weights_of(scheme.weigh(plan, answers, None)), triggers.signs)


def _stream(name: str) -> KeyStream:
    return KeyStream(hashlib.sha256(f"wmplug/rehearsal/{name}".encode()).digest())
