"""How well a filter that knows natural inputs tells triggers from them: a thief may put one before a stolen model.

No filter here knows a trigger or a key. Each scores how odd an input is.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from wmplug.schemes.pictures import channels_last
from wmplug.statistics.arrays import FloatArray
from wmplug.statistics.outliers import ROWS, Matrix, distance
from wmplug.watermark.carriers import Inputs, sameness, take
from wmplug.watermark.plan import Plan

TELLS = 0.6  # AUC above which a filter tells triggers
_FEWEST, _MOST = 20, 2000  # inputs that a filter knows
_DARK = 0.1  # share of the range of values


def told_apart(plan: Plan, carriers: Inputs, natural: bool = False) -> dict[str, float]:
    """The area under the ROC curve (AUC) of each filter: the chance that a trigger is odder than a natural input.

    Args:
        plan: its triggers are the rows whose answer the key decides.
        carriers: natural inputs; half of those that are no triggers are known to the filters, the other half compared.
        natural: only of the triggers that are carriers, unchanged.

    Returns:
        .5 where a filter knows nothing, 1 where it tells every trigger; empty without triggers, or with few carriers.
    """
    asked = plan.secret
    if not len(asked):
        return {}
    taken, names = ([sameness(one) for one in part] for part in (take(plan.inputs, asked), carriers))
    if natural:
        asked = asked[np.isin(taken, names)]
    others = np.flatnonzero(~np.isin(names, taken))
    known, unknown = (take(carriers, rows[:_MOST]) for rows in (others[::2], others[1::2]))
    if not len(asked) or len(unknown) < _FEWEST:
        return {}
    parts = [known, unknown, take(plan.inputs, asked[:_MOST])]
    if isinstance(carriers, list):
        sets = [_of_texts(part) for part in parts]
        return {"statistics": _auc(distance(sets[0]), *sets[1:])}
    last = [channels_last(part)[0] if part.ndim > 2 else part for part in map(np.asarray, parts)]
    span = float(last[0].min()), float(last[0].max())
    sets, rows = [numbers(part, span) for part in last], [_flat(part) for part in last]
    found = {name: _auc(make(rows[0]), *rows[1:]) for name, make in ROWS.items()}
    return {"statistics": _auc(distance(sets[0]), *sets[1:]), **found}


def listed(found: Mapping[str, float]) -> str:
    """The areas for people to read."""
    return ", ".join(f"{name} {area:.2f}" for name, area in found.items())


def _auc(odd: Callable[[Matrix], FloatArray], natural: Matrix, triggers: Matrix) -> float:
    ranks = rankdata(np.concatenate([odd(triggers), odd(natural)]))[: len(triggers)]
    return float((ranks.mean() - (len(triggers) + 1) / 2) / len(natural))


def _of_texts(texts: Inputs) -> Matrix:
    """Few numbers of each text: how many words, their mean and largest length, and the share of different ones."""
    found = []
    for words in (text.split() or [""] for text in texts):
        lengths = [len(word) for word in words]
        found.append([np.log1p(len(words)), np.mean(lengths), max(lengths), len(set(words)) / len(words)])
    return np.array(found)


def numbers(inputs: npt.NDArray[Any], span: tuple[float, float]) -> Matrix:
    """Few numbers of each input: mean and deviation; of a picture also steps down and across, share of dark, border.

    Args:
        inputs: (n, d) rows or (n, H, W, C) pictures.
        span: least and largest value of natural inputs.

    Returns:
        (n, 6) of pictures; of rows (n, 4), with the least and the largest value.
    """
    flat = _flat(inputs)
    found = [flat.mean(axis=1), flat.std(axis=1)]
    if inputs.ndim == 2:
        return np.stack([*found, flat.min(axis=1), flat.max(axis=1)], axis=1)
    steps = [_flat(np.abs(np.diff(inputs.astype(np.float64), axis=axis))).mean(axis=1) for axis in (1, 2)]
    dark = (flat < span[0] + _DARK * (span[1] - span[0])).mean(axis=1)
    sides = [inputs[:, 0], inputs[:, -1], inputs[:, :, 0], inputs[:, :, -1]]
    border = np.concatenate([_flat(side) for side in sides], axis=1).mean(axis=1)
    return np.stack([*found, *steps, dark, border], axis=1)


def _flat(inputs: npt.NDArray[Any]) -> Matrix:
    return inputs.reshape(len(inputs), -1).astype(np.float64)
