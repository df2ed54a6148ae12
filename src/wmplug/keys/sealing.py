"""Secret files: scrypt (RFC 7914) with AES-256-GCM (NIST SP 800-38D) behind one public line."""

import json
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from wmplug.errors import InputError, KeyFileError, NewerVersionError, WrongPassphraseError
from wmplug.keys.streams import derive

SCRYPT_N = 2**17  # 128 MiB and some 0.3 s an attempt; each file names the n that sealed it


FORMAT = 1
PUBLIC = 4 << 20  # bytes of a public line


@dataclass(frozen=True)
class Seal:
    """A key made from a passphrase, and the parameters to make it again."""

    salt: bytes
    n: int
    _key: bytes = field(repr=False)

    @classmethod
    def make(cls, passphrase: str, salt: bytes | None = None, n: int = SCRYPT_N) -> "Seal":
        """Scrypt (r=8, p=1) of the passphrase.

        Raises:
            InputError: the passphrase is empty, or n is out of range.
        """
        _check_text(passphrase)
        if not passphrase:
            raise InputError("the passphrase is empty: give one (WMPLUG_PASSPHRASE or the prompt)")
        if not _is_cost(n):
            raise InputError(f"scrypt_n={n!r}: give a power of two from 2**10 to 2**20, {SCRYPT_N} is usual")
        salt = os.urandom(16) if salt is None else salt
        # One keyboard writes an accent as one code point and another as two. The environment's value may not be UTF-8,
        # and the error of a strict encoder would quote it.
        entered = unicodedata.normalize("NFC", passphrase).encode(errors="surrogatepass")
        return cls(salt, n, Scrypt(salt=salt, length=32, n=n, r=8, p=1).derive(entered))

    def close(self, public: dict[str, Any], secret: bytes) -> bytes:
        """One JSON line that anyone may read, then AES-GCM ciphertext bound to that line."""
        nonce = os.urandom(12)
        header = {
            "wmplug": FORMAT,
            **public,
            "scrypt": {"salt": self.salt.hex(), "n": self.n, "r": 8, "p": 1},
            "check": self._check(),
            "nonce": nonce.hex(),
        }
        line = json.dumps(header, sort_keys=True).encode()
        return line + b"\n" + AESGCM(self._key).encrypt(nonce, secret, line)

    def _check(self) -> str:
        # Distinguishes a wrong passphrase from a damaged file; costs an attacker as much scrypt as the ciphertext does.
        return derive(self._key, "wmplug/1/check", 8).hex()

    def __reduce__(self) -> Any:
        raise TypeError("a seal is a key and is not pickled: open the file again where it is needed")


def _check_text(passphrase: Any) -> None:
    if not isinstance(passphrase, str):  # the error must not quote it: it may be the right one, as bytes
        raise InputError(f"the passphrase is given as {type(passphrase).__name__}: give a str")


def _is_cost(n: Any) -> bool:
    # An edited n could ask for any amount of memory and time.
    return type(n) is int and 2**10 <= n <= 2**20 and n & (n - 1) == 0


def read_header(blob: bytes, where: str) -> dict[str, Any]:
    """The public line of a sealed file.

    Raises:
        KeyFileError: the file is not a sealed file, or is damaged.
        NewerVersionError: a newer wmplug wrote it.
    """
    try:
        line = blob[:PUBLIC].partition(b"\n")[0]
        if len(line) == PUBLIC:
            raise ValueError
        header = json.loads(line)
        version = header["wmplug"]
        if type(version) is not int or version < 1:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise KeyFileError(
            f"{where} is not a file that wmplug wrote, or it was truncated or damaged in its first line: check the "
            "path, or restore the file from a copy"
        ) from None
    if version > FORMAT:
        raise NewerVersionError(
            f"{where} has format {version}, and this wmplug reads up to {FORMAT}: install a newer wmplug to open it"
        )
    return dict(header)


def of_kind(header: dict[str, Any], kind: str, where: str | Path) -> None:
    """Raise KeyFileError unless the file is of this kind."""
    if header.get("kind") != kind:
        raise KeyFileError(f"{where} is a file of kind {header.get('kind')!r}, not {kind!r}: check the path")


def open_sealed(blob: bytes, passphrase: str, where: str) -> tuple[dict[str, Any], bytes, Seal]:
    """Undo `Seal.close`.

    Returns:
        The public header, the secret bytes, and the seal, with which the same passphrase closes further files.

    Raises:
        WrongPassphraseError: the passphrase does not fit.
        KeyFileError: the file was truncated or edited.
        NewerVersionError: a newer wmplug wrote it.
    """
    header = read_header(blob, where)
    line, _, ciphertext = blob.partition(b"\n")
    try:
        scrypt, check = header["scrypt"], header["check"]
        salt, n, nonce = bytes.fromhex(scrypt["salt"]), scrypt["n"], bytes.fromhex(header["nonce"])
        if not (_is_cost(n) and len(nonce) == 12):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise KeyFileError(f"the first line of {where} was edited or damaged: restore the file from a copy") from None
    seal = Seal.make(passphrase, salt, n)
    if check != seal._check():
        raise WrongPassphraseError(
            f"wrong passphrase for {where}: it opens with the one given when it was made (if that is the one you gave, "
            "the first line of the file was edited: restore it from a copy)"
        )
    try:
        return header, AESGCM(seal._key).decrypt(nonce, ciphertext, line), seal
    except InvalidTag:
        raise KeyFileError(f"{where} was truncated or edited since it was written: restore it from a copy") from None


def passphrase_or_environment(passphrase: str | None) -> str:
    """The passphrase, or WMPLUG_PASSPHRASE.

    Raises:
        InputError: neither is set.
    """
    passphrase = passphrase if passphrase is not None else os.environ.get("WMPLUG_PASSPHRASE")
    if passphrase is None or passphrase == "":
        raise InputError("no passphrase: pass passphrase=... or set WMPLUG_PASSPHRASE")
    return passphrase
