"""The entries that a training run makes in the register by itself.

    training begins     dataset.committed  parameters.committed  architecture.committed  training.started
    an epoch, a look    watermark.inserted  (system.committed)  training.checkpoint
    training ends       watermark.inserted   system.committed   training.finished

A key of the watermark's own signs the entries, so that a training machine holds no key of the owner.
"""

import functools
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from wmplug.claim.verdict import Verdict
from wmplug.errors import EvidenceWarning, RegisterError
from wmplug.register import Entry, Register, Signer, assets
from wmplug.register.checking import check
from wmplug.watermark.watermark import Watermark

_T = TypeVar("_T")
_FRAMEWORKS = (
    "torch",
    "transformers",
    "accelerate",
    "keras",
    "jax",
    "tensorflow",
    "sklearn",
    "xgboost",
    "lightgbm",
    "numpy",
)


class Run:
    """Records one training run of a watermark.

    If something cannot be recorded, one loud warning follows, and the rest of the run is not evidenced; with `require`
    the run ends instead.

    Args:
        mark: the watermark, whose `register` takes the entries.
        adapter: name of the adapter.
        require: end a run that cannot be recorded.
        main: whether this is the process that writes; the others record nothing.

    Raises:
        RegisterError: with `require`: the watermark has no register.
    """

    def __init__(self, mark: Watermark, adapter: str, *, require: bool = False, main: bool = True) -> None:
        self.mark, self.adapter, self.require = mark, adapter, require
        self.id = os.urandom(16).hex()
        self._inserted = 0
        self._register: Register | None = None
        if require and mark.register is None:
            raise RegisterError(
                "require_evidence=True, but this watermark was made without a register: make it with an owner who has "
                "one (Owner.create, or `wmplug init`)"
            )
        if main and mark.register is not None:
            folder, seed = mark.register, mark.signing_seed()
            self._register = self._attempt(lambda: Register(folder, Signer(seed)))
            if require and not (report := check(folder)).ok:
                refused = next(finding for finding in report.findings if finding.level == "refused")
                self._miss(f"the register does not hold ({refused.text}): run `wmplug register check`")

    def start(self, *, data: Any, arguments: Any, model: Any) -> None:
        """Record the data, the arguments and the model, before the first step.

        Args:
            data: the training set as the loop reads it; one that can only be read once is not read here.
            arguments: the framework's own object, or a mapping.
            model: the model in training.

        Raises:
            RegisterError: it cannot be recorded, and evidence is required.
        """
        if self._register is None:
            return
        body: dict[str, Any] = {"adapter": self.adapter, "versions": versions()}
        for what, of in (("dataset", data), ("parameters", arguments), ("architecture", model)):
            body[what] = self._commit(f"{what}.committed", functools.partial(_asset, what, of))
        self._append("training.started", body)

    def inserted(self, total: int | None, *, step: int | None, epoch: float | None) -> None:
        """Record how many triggers reached the model so far.

        Args:
            total: since the run began, in this process; None if only a compiled graph knows.
            step: of training.
            epoch: the same.

        Raises:
            RegisterError: as in `start`.
        """
        since = None if total is None else total - self._inserted
        if since == 0:
            return
        self._inserted = total or 0
        self._append("watermark.inserted", {"step": step, "epoch": epoch, "triggers": since, "total": total})

    def checkpoint(
        self,
        verdict: Verdict | None,
        *,
        step: int | None,
        epoch: float | None,
        system: Any = None,
        trouble: str | None = None,
    ) -> None:
        """Record a verdict at a checkpoint, and the system that was checked.

        Args:
            verdict: of the look, or None.
            step: of training.
            epoch: the same.
            system: path of the files just written, or the live model; None to commit to neither.
            trouble: kind of error by which something could not be done, or None.

        Raises:
            RegisterError: as in `start`.
        """
        self._looked("training.checkpoint", verdict, step, epoch, system, **_named(trouble))

    def finish(
        self,
        verdict: Verdict | None,
        *,
        step: int | None,
        epoch: float | None,
        system: Any,
        total: int | None,
        trouble: str | None = None,
    ) -> None:
        """Record the end of training; `wmplug register anchor` timestamps it.

        Raises:
            RegisterError: as in `start`.
        """
        self.inserted(total, step=step, epoch=epoch)
        self._looked("training.finished", verdict, step, epoch, system, triggers=total, **_named(trouble))

    def _looked(
        self, kind: str, verdict: Verdict | None, step: int | None, epoch: float | None, system: Any, **more: Any
    ) -> None:
        if self._register is None:
            return
        committed = None if system is None else self._commit("system.committed", lambda: assets.system(system), step)
        written = None if verdict is None else json.loads(verdict.to_json())
        self._append(kind, {"step": step, "epoch": epoch, "verdict": written, "system": committed, **more})

    def _commit(self, kind: str, asset: Callable[[], Mapping[str, Any]], step: int | None = None) -> int | None:
        """Number of the entry that commits to an asset, or None if it could not be read."""
        try:
            body = asset()
        # The user's dataset or model may raise anything when it is read, also where training itself succeeds.
        except Exception as error:
            self._miss(f"{kind.partition('.')[0]} cannot be read ({type(error).__name__}: {error})")
            return None
        entry = self._append(kind, {**body, **({} if step is None else {"step": step})})
        return None if entry is None else entry.seq

    def _append(self, kind: str, body: Mapping[str, Any]) -> Entry | None:
        register, about = self._register, {"watermark": self.mark.id, "run": self.id}
        return None if register is None else self._attempt(lambda: register.append(kind, {**about, **body}))

    def _attempt(self, record: Callable[[], _T]) -> _T | None:
        try:
            return record()
        except RegisterError as error:
            self._register = None
            self._miss(f"from here on this run is NOT EVIDENCED: {error}")
            return None

    def _miss(self, why: str) -> None:
        if self.require:
            raise RegisterError(f"require_evidence: {why}")
        warnings.warn(f"wmplug: {why}", EvidenceWarning, stacklevel=5)


def versions() -> dict[str, str]:
    """The versions of Python, wmplug and the loaded frameworks."""
    loaded = {name: sys.modules[name] for name in ("wmplug", *_FRAMEWORKS) if name in sys.modules}
    frameworks = {name: str(getattr(module, "__version__", "unknown")) for name, module in loaded.items()}
    return {"python": platform.python_version(), **frameworks}


def weights_of(folder: Path) -> Path:
    """The part of a checkpoint folder to commit to: its one file of weights, else the whole folder."""
    files = [file for pattern in ("*.safetensors", "*.bin") for file in folder.glob(pattern)]
    weights = [file for file in files if file.name not in ("training_args.bin", "scheduler.bin", "optimizer.bin")]
    return weights[0] if len(weights) == 1 else folder


def _named(trouble: str | None) -> dict[str, str]:
    return {} if trouble is None else {"trouble": trouble}


def _asset(what: str, of: Any) -> Mapping[str, Any]:
    if what == "dataset" and not (hasattr(of, "__len__") and hasattr(of, "__getitem__")) and not _is_path(of):
        return {"kind": "dataset", "status": "stream", "class": assets.class_name(of), "root": None, "count": None}
    body: Mapping[str, Any] = getattr(assets, what)(of)
    return body


def _is_path(of: Any) -> bool:
    return isinstance(of, (str, os.PathLike))
