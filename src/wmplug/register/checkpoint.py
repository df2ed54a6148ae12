"""A checkpoint: the bytes of a log that somebody has checked, signed with their own key, so that they check less later.

Whether a line decodes, and whether its signature fits the key that it names, follows from its bytes alone, because a
key's id is its digest. So the same bytes need neither again. All other rules are applied to every entry.
"""

import base64
import contextlib
import dataclasses
import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wmplug import __version__
from wmplug.errors import KeyFileError, RegisterError
from wmplug.keys.files import write_new
from wmplug.register.statements import Signer, pre_authentication

PAYLOAD_TYPE = "application/vnd.wmplug.checkpoint+json"
_MOST = 4096  # bytes of a checkpoint
_SEED = 32


@dataclass(frozen=True)
class Checkpoint:
    """The beginning of a log that was checked.

    Attributes:
        register: id of the register.
        length: number of bytes, whole lines.
        sha256: SHA-256 over these bytes, in hex.
        entries: number of entries in them.
        head: entry hash of the last of these, in hex.
        checked: when their signatures were verified at the latest (UTC, by the checker's clock).
        version: the wmplug that checked; another one may refuse more.
    """

    register: str
    length: int
    sha256: str
    entries: int
    head: str
    checked: str
    version: str = __version__

    def covers(self, log: Path) -> bool:
        """Whether the log begins with these bytes; one that cannot be read does not."""
        digest, left = hashlib.sha256(), self.length
        with contextlib.suppress(OSError), log.open("rb") as file:
            while left and (piece := file.read(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
        return digest.hexdigest() == self.sha256


class Prefix:
    """What a reader has read of a log: length and SHA-256 of its whole lines.

    Args:
        known: number of bytes that a checkpoint covers.

    Attributes:
        sha256_known: SHA-256 of those bytes as read, in hex; None until they are.
    """

    def __init__(self, known: int = 0) -> None:
        self.known, self.length = known, 0
        self.sha256_known: str | None = None
        self._digest = hashlib.sha256()

    def add(self, line: bytes) -> bool:
        """Add a line; returns whether a checkpoint covers it."""
        self._digest.update(line)
        self.length += len(line)
        if self.length == self.known:
            self.sha256_known = self._digest.hexdigest()
        return self.length <= self.known

    @property
    def sha256(self) -> str:
        """SHA-256 of all lines so far, in hex."""
        return self._digest.hexdigest()


def own_signer() -> Signer:
    """The key that signs your checkpoints, made at first use: `checker.key` in WMPLUG_STATE or ~/.local/state/wmplug.

    It never lies beside a checkpoint: whoever hands you a register and a checkpoint could hand you the key too.

    Raises:
        KeyFileError: others may have read or written the file, or it does not hold a key.
    """
    folder = Path(os.environ.get("WMPLUG_STATE") or Path.home() / ".local" / "state" / "wmplug")
    file = folder / "checker.key"
    try:
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_new(file, os.urandom(_SEED), 0o600)
        state = file.stat()
        seed = file.read_bytes() if stat.S_ISREG(state.st_mode) and state.st_size == _SEED else b""
    except OSError as error:
        raise KeyFileError(
            f"{file} cannot be used ({error.strerror}): your checkpoints are signed with it; give access, or name "
            "another folder in WMPLUG_STATE"
        ) from error
    if len(seed) != _SEED or state.st_mode & 0o077 or state.st_uid != os.geteuid():
        raise KeyFileError(
            f"{file} is not a key of {_SEED} bytes that you alone can read: whoever knows it can sign checkpoints in "
            "your name; remove it and your checkpoints, and the next check makes new ones"
        )
    return Signer(seed)


def load(path: Path, signer: Signer, register: str) -> Checkpoint | None:
    """Your checkpoint of a register, or None if there is none yet.

    Args:
        path: its file.
        signer: your key.
        register: id of the register that is checked.

    Raises:
        RegisterError: the file is not a checkpoint that you made of this register.
    """
    if not path.exists():
        return None
    again = "remove it or name another file, and a full check makes a new one"
    try:
        if not path.is_file() or path.stat().st_size > _MOST:
            raise ValueError
        document = json.loads(path.read_bytes())
        checkpoint, keyid = Checkpoint(**document["checkpoint"]), document["keyid"]
        signature = base64.b64decode(document["sig"], validate=True)
        signed = pre_authentication(_payload(checkpoint), PAYLOAD_TYPE)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, rfc8785.CanonicalizationError):
        raise RegisterError(f"{path} is not a checkpoint that wmplug wrote: {again}") from None
    if keyid != signer.keyid:
        raise RegisterError(
            f"{path} was signed with another key than yours ({signer.keyid[:16]}), so it says nothing of what you have "
            f"checked: {again}"
        )
    try:
        Ed25519PublicKey.from_public_bytes(signer.public).verify(signature, signed)
    except InvalidSignature:
        raise RegisterError(f"{path} was edited since you signed it: {again}") from None
    if checkpoint.register != register:
        raise RegisterError(
            f"{path} is of register {checkpoint.register[:16]}, and this is {register[:16]}: name another file for "
            "each register"
        )
    return checkpoint


def save(path: Path, checkpoint: Checkpoint, signer: Signer) -> None:
    """Sign a checkpoint and write it, for its owner alone to read.

    Raises:
        RegisterError: the file cannot be written.
    """
    sig = base64.b64encode(signer.sign(_payload(checkpoint), PAYLOAD_TYPE)).decode()
    document = {"checkpoint": dataclasses.asdict(checkpoint), "keyid": signer.keyid, "sig": sig}
    try:
        write_new(path, (json.dumps(document, indent=1) + "\n").encode(), 0o600)
    except OSError as error:
        raise RegisterError(
            f"{path} could not be written ({error.strerror}): the register holds, and no checkpoint says so; give "
            "write access or name another file"
        ) from error


def _payload(checkpoint: Checkpoint) -> bytes:
    document: dict[str, Any] = dataclasses.asdict(checkpoint)
    return rfc8785.dumps(document)
