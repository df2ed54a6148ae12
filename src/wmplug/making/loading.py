"""Open a saved watermark."""

import os
import warnings
from pathlib import Path
from typing import Any

from wmplug import plugins
from wmplug.errors import EvidenceWarning, InputError, NewerVersionError
from wmplug.keys.files import read_json
from wmplug.keys.sealing import of_kind, open_sealed, passphrase_or_environment
from wmplug.making.creation import check_preprocess
from wmplug.register.history import History
from wmplug.tasks import public as tasks
from wmplug.watermark.file import blob_of, unpack
from wmplug.watermark.plan import GENERATOR
from wmplug.watermark.watermark import Preprocess, Watermark


def load(
    path: str | Path,
    *,
    passphrase: str | None = None,
    preprocess: Preprocess | None = None,
    register: str | Path | None = None,
) -> Watermark:
    """Open a saved watermark.

    Args:
        path: the file.
        passphrase: the owner's passphrase when the mark was saved; WMPLUG_PASSPHRASE by default.
        preprocess: as in `create`; the file does not hold functions.
        register: folder to record runs in; by default WMPLUG_REGISTER, else its place when the mark was made.

    Raises:
        InputError: that folder belongs to another owner, or is not a register.
        KeyFileError: the file does not exist, or was truncated or edited.
        NewerVersionError: a newer wmplug wrote the file.
        WrongPassphraseError: the passphrase does not fit.
        PluginError: its scheme or task is not installed.
    """
    check_preprocess(preprocess)
    path = Path(path)
    public, body, seal = open_sealed(blob_of(path), passphrase_or_environment(passphrase), str(path))
    of_kind(public, "watermark", path)
    kind = plugins.registry().scheme(public["scheme"])
    if public["generator"] > GENERATOR:
        raise NewerVersionError(
            f"{path} was made by generator {public['generator']} of wmplug, the one installed has {GENERATOR}: install "
            "a newer wmplug to use it"
        )
    if public["scheme_version"] > kind.version:
        raise NewerVersionError(
            f"{path} was made by version {public['scheme_version']} of scheme {public['scheme']!r}, installed is "
            f"{kind.version}: install a newer wmplug (or the plugin that brings the scheme) to use it"
        )
    triggers, subkeys, record = unpack(body, public["form"], tasks.read(public))
    scheme = kind.restore(public["parameters"])
    facts = {name: value for name, value in public.items() if name not in ("wmplug", "scrypt", "check", "nonce")}
    folder = _register_of(facts, register or os.environ.get("WMPLUG_REGISTER"), record.get("register"))
    seed = bytes.fromhex(record.get("seed", ""))
    history = None if folder is None else History(folder)
    return Watermark(public["id"], scheme, triggers, facts, preprocess, subkeys, seal, folder, seed, history)


def opened(mark: Any) -> Any:
    """A watermark, loaded if it is given as a path; anything else as it is.

    Raises:
        InputError: the watermark was made with preprocess=, which a file does not hold.
        KeyFileError, NewerVersionError, WrongPassphraseError, PluginError: as in `load`.
    """
    if not isinstance(mark, (str, os.PathLike)):
        return mark
    found = load(Path(mark))
    if (found.public.get("evidence") or {}).get("prepared"):
        raise InputError(
            f"{os.fspath(mark)} was made with preprocess=, a function, which is not saved: give the watermark itself, "
            f"wmplug.load({os.fspath(mark)!r}, preprocess=...)"
        )
    return found


def _register_of(facts: dict[str, Any], given: str | Path | None, known: str | None) -> Path | None:
    if known is None:
        return None
    folder = Path(given or known)
    try:
        holder = read_json(folder / "owner.pub")["commitment"]
    except (OSError, ValueError, KeyError, TypeError):
        if given is None:
            return folder  # it moved: an error follows if a run needs it
        raise InputError(
            f"register={os.fspath(folder)!r} holds no owner.pub: give the folder of the register"
        ) from None
    if holder != facts["owner"]["commitment"] and given is None:
        warnings.warn(
            f"{folder}, where the watermark was made, is the register of another owner now: nothing is recorded, and "
            "tries are not counted; give the right folder (register=, WMPLUG_REGISTER)",
            EvidenceWarning,
            stacklevel=3,
        )
        return None
    if holder != facts["owner"]["commitment"]:
        raise InputError(f"{folder} is the register of another owner than the watermark's: give the right folder")
    return folder
