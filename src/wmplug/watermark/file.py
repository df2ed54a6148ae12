"""The file of a watermark: a public line, then everything secret, sealed with the owner's passphrase."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wmplug.errors import KeyFileError
from wmplug.keys.sealing import read_header
from wmplug.keys.streams import Purpose, Subkeys
from wmplug.watermark.plan import TriggerPlan, TriggerSet


def id_of(path: Path) -> Any:
    """The id of the watermark in a file, None where there is none."""
    try:
        return read_public(path).get("id")
    except KeyFileError:
        return None


def read_public(path: str | Path) -> dict[str, Any]:
    """The public line of a saved watermark; needs no key, and proves nothing by itself.

    Raises:
        KeyFileError: not such a file.
    """
    path = Path(path)
    return read_header(blob_of(path), str(path))


def blob_of(path: Path) -> bytes:
    """The file's bytes; KeyFileError where there is none."""
    if not path.is_file():
        raise KeyFileError(f"{path} is not there: give the file that `wmplug create` or mark.save(path) wrote")
    return path.read_bytes()


_MATERIAL = "material/"


_PURPOSES: tuple[Purpose, ...] = ("input", "label", "schedule", "disclosure")


def pack(triggers: TriggerSet, subkeys: Subkeys, record: Mapping[str, str]) -> bytes:
    """The secret part; `record` says where its runs are recorded, and the seed that signs them."""
    plan = triggers.plan
    inputs = plan.inputs if isinstance(plan.inputs, np.ndarray) else _bytes(json.dumps(plan.inputs).encode())
    arrays: dict[str, Any] = {
        "inputs": inputs,
        "draw": plan.draw,
        "labels": plan.labels,
        "asked": plan.asked,
        "taught": plan.taught,
        "symbols": triggers.symbols,
        "candidates": np.concatenate([np.asarray(c, np.int64) for c in plan.candidates]),
        "candidate_counts": np.array([len(c) for c in plan.candidates]),
        "weighed": plan.weighed,
        "signs": np.array(plan.signs),
        "keys": _bytes(b"".join(subkeys.key(p) for p in _PURPOSES)),
        "record": _bytes(json.dumps(dict(record)).encode()),
        **{_MATERIAL + name: array for name, array in plan.material.items()},
    }
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def unpack(body: bytes, form: Any) -> tuple[TriggerSet, Subkeys, dict[str, str]]:
    """What `pack` wrote."""
    with np.load(io.BytesIO(body), allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    inputs = json.loads(arrays["inputs"].tobytes()) if form == "text" else arrays["inputs"]
    split = np.split(arrays["candidates"], np.cumsum(arrays["candidate_counts"])[:-1])
    candidates = tuple(tuple(int(c) for c in part) for part in split)
    plan = TriggerPlan(
        inputs,
        arrays["draw"],
        arrays["labels"],
        candidates,
        arrays["asked"],
        arrays["taught"],
        weighed=arrays.get("weighed", np.zeros(0, np.int64)),  # 0.1 wrote none
        signs=int(arrays.get("signs", 0)),
        material={name.removeprefix(_MATERIAL): a for name, a in arrays.items() if name.startswith(_MATERIAL)},
    )
    keys = arrays["keys"].tobytes()
    subkeys = Subkeys({p: keys[32 * i : 32 * i + 32] for i, p in enumerate(_PURPOSES)})
    return TriggerSet(plan, form, arrays["symbols"]), subkeys, json.loads(arrays["record"].tobytes())


def _bytes(data: bytes) -> Any:
    return np.frombuffer(data, np.uint8)
