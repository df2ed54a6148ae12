"""The smallest tilt that a clone would still show, rehearsed on the references under a key of the rehearsal's own.

The references' scores for the carriers represent the posterior. It is tilted, its best class is the answer of an API,
and a network that is trained on these answers is asked the questions. No key of the owner takes part.
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wmplug.errors import AmbiguityWarning, InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief
from wmplug.schemes.tilt import references
from wmplug.statistics.signs import weighted_log10_p, weights_of
from wmplug.watermark.carriers import take
from wmplug.watermark.plan import TriggerSet, draw_symbols

if TYPE_CHECKING:
    from wmplug.schemes.tilt import Tilt

DELTAS: Sequence[float] = (0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0, 1.5)
TARGET = -6.0  # log10 p of the rehearsed clone's bare answers


def smallest_delta(scheme: "Tilt", brief: Brief) -> float:
    """The first of DELTAS at which a rehearsed clone is detected; the largest, with a warning, if none is.

    Args:
        scheme: with its references.
        brief: carriers and labels.

    Raises:
        InputError: neither torch nor scikit-learn is installed, or labels stand in for the references.
    """
    pool = np.asarray(scheme.pool)
    if np.isin(pool[0], (0.0, 1.0)).all():
        raise InputError(
            'delta="auto" rehearses on references, and pool=() leaves none: give a pool or a number for delta='
        )
    posterior = np.log(np.maximum(pool[0][: len(brief.carriers)], 1e-4))
    log10_p = 0.0
    for delta in DELTAS:
        log10_p = _rehearsed(replace(scheme, delta=delta, blends=1), brief, posterior)
        if log10_p <= TARGET:
            return delta
    warnings.warn(
        f'delta="auto": a rehearsed clone reaches log10 p = {log10_p:.1f} at delta={DELTAS[-1]:g}, the target is '
        f"{TARGET:g}: the task leaves little freedom, or carriers and questions are too few: give more of them",
        AmbiguityWarning,
        stacklevel=2,
    )
    return DELTAS[-1]


def _rehearsed(scheme: "Tilt", brief: Brief, posterior: np.ndarray) -> float:
    """log10 p of a rehearsed clone's bare answers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AmbiguityWarning)  # the rehearsal itself tests whether there is room
        plan = scheme.plan(brief, _stream("input"))
    triggers = TriggerSet(plan, brief.form, brief.task, draw_symbols(_stream("label"), plan.options))
    taught = (posterior + scheme.tilts(triggers, brief.carriers, len(posterior))).argmax(axis=1)
    asked = take(plan.inputs, plan.tests[0].rows)
    answers = references.clone(brief.carriers, taught, asked, brief.need_classes(scheme.name))
    return weighted_log10_p(weights_of(scheme.weigh(plan, answers, None)), triggers.signs)


def _stream(name: str) -> KeyStream:
    return KeyStream(hashlib.sha256(f"wmplug/rehearsal/{name}".encode()).digest())
