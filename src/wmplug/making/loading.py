"""Open a saved watermark."""

import json
import os
from pathlib import Path
from typing import Any

from wmplug import plugins
from wmplug.errors import InputError, NewerVersionError
from wmplug.keys.sealing import of_kind, open_sealed, passphrase_or_environment
from wmplug.making.creation import GENERATOR, check_preprocess
from wmplug.watermark.file import blob_of, unpack
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
        path: of the file.
        passphrase: the owner's when it was saved; WMPLUG_PASSPHRASE by default.
        preprocess: as in `create`; functions are not saved.
        register: folder to record runs in, WMPLUG_REGISTER by default, else where it was when the mark was made.

    Raises:
        InputError: that folder is another owner's, or none.
        KeyFileError: not there, truncated or edited; with NewerVersionError and WrongPassphraseError below it.
        PluginError: its scheme is not installed.
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
    triggers, subkeys, record = unpack(body, public["form"])
    scheme = kind.restore(public["parameters"])
    facts = {name: value for name, value in public.items() if name not in ("wmplug", "scrypt", "check", "nonce")}
    folder = _register_of(facts, register or os.environ.get("WMPLUG_REGISTER"), record.get("register"))
    seed = bytes.fromhex(record.get("seed", ""))
    return Watermark(public["id"], scheme, triggers, public["classes"], facts, preprocess, subkeys, seal, folder, seed)


def _register_of(facts: dict[str, Any], given: str | Path | None, known: str | None) -> Path | None:
    if known is None:
        return None
    folder = Path(given or known)
    try:
        holder = json.loads((folder / "owner.pub").read_bytes())["commitment"]
    except (OSError, ValueError, KeyError, TypeError):
        if given is None:
            return folder  # it moved: who needs it will say so
        raise InputError(
            f"register={os.fspath(folder)!r} holds no owner.pub: give the folder of the register"
        ) from None
    if holder != facts["owner"]["commitment"]:
        raise InputError(f"{folder} is the register of another owner than the watermark's: give the right folder")
    return folder
