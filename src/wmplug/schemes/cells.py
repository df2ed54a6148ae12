"""Cells: coarse regions of inputs, each around a natural input that the input key chose. Near copies share one.

Pictures are averaged over a grid, columns of a table are brought to one scale, texts are words weighed by rarity.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes.tilt.features import of_carriers
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import Inputs, take

_WORDS = 2**12  # hashed; a collision merges two words, and no cell depends on one alone
_AT_ONCE = 512


def around(carriers: Inputs, count: int, stream: KeyStream) -> dict[str, npt.NDArray[Any]]:
    """The cells around `count` of the carriers, fewer where there are fewer, as `of` takes them."""
    centres = take(carriers, stream.permutation(len(carriers))[:count])
    if isinstance(carriers, list):
        used = (_words(carriers) > 0).sum(axis=0)
        scale = np.log((1 + len(carriers)) / (1 + np.asarray(used).ravel())) + 1
    else:
        deviation = of_carriers(carriers).std(axis=0) if carriers.ndim == 2 else np.ones(1)
        scale = 1 / np.where(deviation > 0, deviation, 1)
    scale = scale.astype(np.float32)
    return {"centres": _features(centres, scale), "scale": scale}


def of(inputs: Inputs, cells: Mapping[str, npt.NDArray[Any]]) -> IntArray:
    """(n,) the cell of each input: that of the nearest centre."""
    centres = cells["centres"]
    squares = np.square(centres).sum(axis=1)
    found = [np.zeros(0, np.int64)]
    for first in range(0, len(inputs), _AT_ONCE):
        values = features(inputs[first : first + _AT_ONCE], cells)
        found.append((squares - 2 * values @ centres.T).argmin(axis=1))
    return np.concatenate(found)


def features(inputs: Inputs, cells: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """(n, d) by which an input is near to a centre, or to another input."""
    return _features(inputs, cells["scale"])


def _features(inputs: Inputs, scale: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if not isinstance(inputs, list):
        return np.asarray(of_carriers(inputs) * scale, np.float32)
    weighed = _words(inputs).multiply(scale).toarray()
    length = np.linalg.norm(weighed, axis=1, keepdims=True)
    return np.asarray(weighed / np.maximum(length, 1e-12), np.float32)


def _words(texts: list[str]) -> Any:
    """(n, words) sparse: 1 + log of the number of times that a text holds each word."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError as error:
        raise InputError(
            "cells of texts need scikit-learn, which is not installed: pip install 'wmplug[clones]'"
        ) from error
    counts = HashingVectorizer(n_features=_WORDS, alternate_sign=False, norm=None, dtype=np.float32).transform(texts)
    counts.data = 1 + np.log(counts.data)
    return counts
