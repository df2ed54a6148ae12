"""Key-free features of an input, computed alike on carriers in NumPy and inside a training step.

`xp` is the framework's array functions; what is called here exists by the same name in NumPy, torch and keras.ops.
Pictures are averaged over a 7 x 7 grid, rows of a table are taken as they are. The model sees carriers scaled,
normalised or resized: how, is found out from a few that it was shown. Or a function of the owner's reads what the model
is given.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wmplug.errors import InjectionError, InputError
from wmplug.schemes.tilt import texts
from wmplug.statistics.arrays import FloatArray, to_numpy
from wmplug.watermark.carriers import Inputs, digest

GRID = 7
_CHANNELS = (1, 3, 4)
_AT_ONCE = 256
_ALIKE = 0.5  # correlation of features of what the model sees with the carriers' own, below which it sees others


@dataclass(frozen=True)
class Own:
    """Features of the owner's own.

    Attributes:
        function: from a batch of inputs as the model is given them, (B, ...), to (B, d).
        found: (n, d) float32 of all carriers and queries.
        lengths: (n,) of what the model is given for each, the number of tokens of a text.
        digest: of what was found; the key follows from it.
    """

    function: Callable[[Any], Any]
    found: npt.NDArray[np.float32] = field(repr=False)
    lengths: tuple[int, ...] = field(repr=False)
    digest: str

    @classmethod
    def of(cls, function: Any, inputs: Inputs, prepare: Callable[[Any, int], Any] | None) -> "Own":
        """Of all inputs, prepared for the model.

        Raises:
            InputError: it is no function, or gives no features; or texts come without what prepares them.
        """
        if not callable(function):
            raise InputError(
                f"features= is a {type(function).__name__}: give a function from a batch of inputs, as the model is "
                "given them, to (B, d)"
            )
        if prepare is None:
            if isinstance(inputs, list):
                raise InputError("features= read texts as the model is given them: give preprocess= too")
            given = list(inputs)
        else:
            given = [to_numpy(texts.given(prepare(x, 0))) for x in inputs]
        alike = len({one.shape for one in given}) == 1  # texts have a length each, and padding is for the model
        size = _AT_ONCE if alike else 1
        parts = [np.stack(given[i : i + size]) for i in range(0, len(given), size)]
        found = np.concatenate([read(function, part) for part in parts]).astype(np.float32)
        return cls(function, found, tuple(len(one) if one.ndim else 1 for one in given), digest(found))


def read(function: Callable[[Any], Any], inputs: npt.NDArray[Any]) -> FloatArray:
    """(B, d) what the owner's function says of a batch of arrays.

    Raises:
        InputError: something else.
    """
    found = to_numpy(function(inputs))
    if found.ndim != 2 or len(found) != len(inputs) or found.dtype.kind not in "iuf" or not np.isfinite(found).all():
        raise InputError(
            f"features= gave {found.shape} {found.dtype} for a batch {inputs.shape}: finite numbers "
            f"({len(inputs)}, d) are needed"
        )
    return found.astype(np.float64)


def of_carriers(carriers: Inputs) -> FloatArray:
    """(n, d) features of n carriers, pictures (n, H, W[, C]) or rows (n, d)."""
    array = np.asarray(carriers)
    tables = _tables(array.shape[1:], array.shape[1:])
    parts = np.array_split(array, max(1, len(array) // 4096))
    return np.concatenate([np.asarray(_pooled(np, part.astype(np.float64), tables)) for part in parts])


def constants(carriers: Inputs, seen: npt.NDArray[Any]) -> dict[str, npt.NDArray[np.float32]]:
    """What `of_inputs` needs to give what `of_carriers` gives.

    Args:
        carriers: k of them.
        seen: (k, ...) the same as the model is given them.

    Raises:
        InjectionError: these are not pictures or rows like the carriers.
    """
    own = np.asarray(carriers)
    tables = _tables(own.shape[1:], seen.shape[1:])
    wanted = of_carriers(own)
    given = np.asarray(_pooled(np, seen.astype(np.float64), tables))
    if given.shape != wanted.shape:
        raise _misfit(own.shape[1:], seen.shape[1:])
    # One scale and offset for a channel of a picture, or for a column of a table.
    parts = given.shape[1] // (GRID * GRID if "rows" in tables else 1)
    a, b = (features.reshape(len(own), parts, -1).swapaxes(1, 2).reshape(-1, parts) for features in (given, wanted))
    spread, common = a.var(axis=0), ((a - a.mean(axis=0)) * (b - b.mean(axis=0))).mean(axis=0)
    alike = np.abs(common) / np.sqrt(np.maximum(spread * b.var(axis=0), 1e-30))
    if alike.max(initial=0.0) < _ALIKE:
        raise InjectionError(
            f"what the model is given is no scaled picture of the carriers (features correlate at {alike.max():.2f}): "
            "let preprocess= turn a carrier into the input that the model sees for it"
        )
    scale = np.where(alike >= _ALIKE, common / np.maximum(spread, 1e-30), 0.0)
    offset = b.mean(axis=0) - scale * a.mean(axis=0)
    repeat = given.shape[1] // parts
    return {
        **tables,
        "scale": np.repeat(scale, repeat).astype(np.float32),
        "offset": np.repeat(offset, repeat).astype(np.float32),
    }


def of_inputs(xp: Any, inputs: Any, tables: Mapping[str, Any]) -> Any:
    """(B, d) features of a batch (B, ...), with the tables of `constants` as tensors."""
    return _pooled(xp, inputs, tables) * tables["scale"] + tables["offset"]


def _tables(carrier: tuple[int, ...], shape: tuple[int, ...]) -> dict[str, npt.NDArray[np.float32]]:
    one = np.ones(1, np.float32)
    if len(carrier) == 1:
        if shape != carrier:
            raise _misfit(carrier, shape)
        return {"unit": one}
    if len(shape) not in (2, 3):
        raise _misfit(carrier, shape)
    sides = shape if len(shape) == 2 else shape[1:] if _first(shape) else shape[:2]
    height, width = (_averages(side) for side in sides)
    tables = {"unit": one, "rows": height, "columns": width.T}
    if len(carrier) == 2 or carrier[0] == 1 or carrier[-1] == 1:
        tables["grey"] = one
    return tables


def _pooled(xp: Any, inputs: Any, tables: Mapping[str, Any]) -> Any:
    inputs = inputs * tables["unit"]  # whole numbers become floats in every framework
    if "rows" not in tables:
        return inputs
    shape = tuple(inputs.shape[1:])
    if len(shape) == 2:
        pictures = xp.reshape(inputs, (-1, 1, *shape))
    else:
        pictures = inputs if _first(shape) else xp.moveaxis(inputs, -1, 1)
    if "grey" in tables:  # a grey picture may be shown to the model as three channels
        pictures = xp.mean(pictures, axis=1, keepdims=True)
    pooled = xp.matmul(xp.matmul(tables["rows"], pictures), tables["columns"])
    return xp.reshape(pooled, (-1, pooled.shape[1] * GRID * GRID))


def _first(shape: tuple[int, ...]) -> bool:
    return shape[0] in _CHANNELS and shape[-1] not in _CHANNELS


def _averages(side: int) -> npt.NDArray[np.float32]:
    """(GRID, side) weights that average over equal parts of a side, pixels shared in proportion."""
    edges = np.linspace(0, side, GRID + 1)[:, None]
    pixels = np.arange(side)
    shared = np.minimum(edges[1:], pixels + 1) - np.maximum(edges[:-1], pixels)
    return np.asarray(np.clip(shared, 0, None) * GRID / side, np.float32)


def _misfit(carrier: tuple[int, ...], shape: tuple[int, ...]) -> InjectionError:
    return InjectionError(
        f"the model sees inputs of shape {shape}, the carriers have {carrier}: their features cannot be computed "
        "alike; give carriers as the model sees them (pictures, or rows with the same columns)"
    )
