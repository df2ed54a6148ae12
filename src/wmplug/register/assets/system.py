"""The finished system, committed: by its files, and by its tensors whatever file they lie in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.keys.files import file_digest, files_of, shown
from wmplug.register.assets import tensors
from wmplug.register.assets.documents import class_name
from wmplug.register.assets.encoding import encode
from wmplug.register.assets.randomness import kept_random_states

_TREE = "rfc9162-sha256 over [path, sha256], in ascending order of paths"


def system(target: Any) -> dict[str, Any]:
    """Commit to a finished system.

    Files: the root is that of RFC 9162 over leaves SHA-256(0x00 || encoding of [path, SHA-256 of the file]; see
    `encoding`; both are bytes), in ascending order of the paths; a path is relative and POSIX, and "." for a single
    file, whose name does not matter.
    Tensors: see `tensors.tensor_digest`; a change of format keeps the digest, a flipped bit, a cast or another name
    does not. Transformers drops one of two tied names when it saves: commit to what is released, the files.

    Args:
        target: path of a file or folder, or a torch module, a Keras model, or a state dict.

    Returns:
        The body of `system.committed`: kind, class (of a live model), files (root, count, bytes, digests by path) or
        None, tensors (sha256, contents, count, elements, bytes) or None, and unreadable: why there are no tensors.

    Raises:
        InputError: there is nothing at the path, or it is nothing that has files or tensors.
    """
    if isinstance(target, (str, os.PathLike)):
        path = Path(target)
        return {"kind": "system", "class": None, "files": _files(path), **_stored(path)}
    named = tensors.tensors_of(target)
    if named is None:
        raise InputError(
            f"the system is a {class_name(target)}: give a path, a torch module, a Keras model or a state dict"
        )
    digest = tensors.tensor_digest(named)
    return {"kind": "system", "class": class_name(target), "files": None, "tensors": digest, "unreadable": None}


def compare_system(a: Mapping[str, Any], b: Mapping[str, Any]) -> Literal["files", "tensors", "different"]:
    """What two commitments of `system` have in common.

    Returns:
        "files": byte for byte the same. "tensors": the same tensors under the same names, in other files. "different":
        neither, or nothing that both hold can be compared.
    """
    if a["files"] and b["files"] and a["files"]["root"] == b["files"]["root"]:
        return "files"
    if a["tensors"] and b["tensors"] and a["tensors"]["sha256"] == b["tensors"]["sha256"]:
        return "tensors"
    return "different"


def _files(path: Path) -> dict[str, Any]:
    found = sorted((os.fsencode(name), *file_digest(file)) for name, file in files_of(path))
    if not found:
        raise InputError(f"{path} holds no files: give the folder or file of the finished system")
    leaves = [merkle.leaf_hash(encode([name, bytes.fromhex(digest)])) for name, digest, _ in found]
    return {
        "root": merkle.root(leaves).hex(),
        "count": len(found),
        "bytes": sum(length for _, _, length in found),
        "digests": {shown(os.fsdecode(name)): digest for name, digest, _ in found},
        "tree": _TREE,
    }


def _stored(path: Path) -> dict[str, Any]:
    try:
        # Keras draws initial values for a model before it loads those that were saved.
        with kept_random_states(), tensors.tensors_in(path) as named:
            return {"tensors": tensors.tensor_digest(named), "unreadable": None}
    except Exception as error:  # a damaged file, a missing framework: the files are committed all the same
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__} while the tensors were read"
        return {"tensors": None, "unreadable": reason}
