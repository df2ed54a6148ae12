"""The owner: 32 secret bytes, sealed at rest, the root of every other key; and their public commitment."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wmplug.errors import InputError, KeyFileError
from wmplug.keys.files import read_bytes, write_new
from wmplug.keys.sealing import SCRYPT_N, Seal, of_kind, open_sealed, passphrase_or_environment
from wmplug.keys.streams import SECRET_BYTES, Subkeys, derive


@dataclass(frozen=True)
class Pledge:
    """The origin of one watermark's key, and a commitment to it that can be timestamped first.

    First the owner commits to the secret. Then comes a salt that nobody could foresee, from a timestamp token. The key
    then follows without any freedom: anybody who tries many keys until one fits a model has to show every try.
    """

    watermark: str
    secret: bytes = field(repr=False)
    blind: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if any(len(part) != SECRET_BYTES for part in (self.secret, self.blind)):
            raise InputError(
                f"a watermark's secret and blind have {len(self.secret)} and {len(self.blind)} bytes, and each must "
                f"have {SECRET_BYTES}: with other lengths one commitment opens to many keys, so refuse them"
            )

    @property
    def commitment(self) -> str:
        """SHA-256 over a domain tag, secret and blind, in hex."""
        return hashlib.sha256(b"wmplug/secret/1\x00" + self.secret + self.blind).hexdigest()

    def subkeys(self, salt: bytes | None) -> Subkeys:
        """The subkeys; `salt` is 32 bytes from a token, None without a token.

        Raises:
            InputError: the salt has another length.
        """
        if salt is not None and len(salt) != SECRET_BYTES:
            raise InputError(f"a token's salt has {SECRET_BYTES} bytes, this one has {len(salt)}: refuse it")
        info = f"wmplug/1/key/{self.watermark}".encode()
        return Subkeys.derive(HKDF(hashes.SHA256(), 32, salt, info).derive(self.secret), self.watermark)

    def subkeys_of(self, evidence: Mapping[str, Any] | None) -> Subkeys:
        """The subkeys by the record of the key's origin, as a watermark's public line holds it.

        If prepared inputs were committed to with the secret, the inputs follow from the secret alone.

        Raises:
            InputError: the salt has another length.
        """
        salt = (evidence or {}).get("salt")
        salted = self.subkeys(None if salt is None else bytes.fromhex(salt))
        return salted.with_inputs_of(self.subkeys(None)) if (evidence or {}).get("prepared") else salted

    def __reduce__(self) -> Any:
        raise TypeError("a pledge holds a secret and is not pickled: open the owner where it is needed (Owner.open)")


@dataclass(frozen=True)
class Owner:
    """The person or firm that claims a model: a name, a public commitment, and the secret behind it.

    Attributes:
        name: the owner's name; public.
        commitment: commitment to the first secret and its signing key, in hex (`commitment_of`); names the register,
            and may be published at once.
        path: the register's folder.
    """

    name: str
    commitment: str
    path: Path
    _roots: tuple[bytes, ...] = field(repr=False)  # the newest first; older ones open older watermarks
    _seal: Seal = field(repr=False)

    @classmethod
    def create(cls, path: str | Path, *, name: str, passphrase: str, scrypt_n: int = SCRYPT_N) -> "Owner":
        """Make a new owner in the folder `path`: `owner.pub` (JSON, public) and `secret/owner.enc` (sealed).

        Args:
            path: folder of the register; created if it does not exist.
            name: the owner's name; public.
            passphrase: opens the secret; nobody can recover it.
            scrypt_n: cost of one guess, a power of two from 2**10 to 2**20.

        Raises:
            InputError: the folder holds an owner already, name or passphrase is empty, or scrypt_n is out of range.
        """
        path = Path(path)
        if not (isinstance(name, str) and name.strip()):
            raise InputError(f"the owner's name is {name!r}: give the name that a dossier should show")
        if any("\ud800" <= character <= "\udfff" for character in name):  # bytes of an argument that are no text
            raise InputError(f"the owner's name is {name!a}, which is not UTF-8: give it as text")
        if (path / "owner.pub").exists() or (path / "secret" / "owner.enc").exists():
            raise InputError(f"{path} holds an owner already: open it (Owner.open) or choose another folder")
        seal, root = Seal.make(passphrase, n=scrypt_n), os.urandom(SECRET_BYTES)
        owner = cls(name, commitment_of(root), path, (root,), seal)
        public = owner.store()
        write_new(path / "owner.pub", (json.dumps(public, indent=1) + "\n").encode(), 0o644)
        return owner

    @classmethod
    def open(cls, path: str | Path, *, passphrase: str | None = None) -> "Owner":
        """Open the owner in the folder `path`.

        Args:
            path: folder of the register.
            passphrase: defaults to the environment's WMPLUG_PASSPHRASE.

        Raises:
            KeyFileError: the folder does not hold an owner, or the file is damaged.
            WrongPassphraseError: the passphrase does not fit.
        """
        file = Path(path) / "secret" / "owner.enc"
        if not file.is_file():
            raise KeyFileError(f"{file} is not there: make an owner with `wmplug init --register {path} --name NAME`")
        header, plain, seal = open_sealed(read_bytes(file), passphrase_or_environment(passphrase), str(file))
        of_kind(header, "owner", file)
        roots = tuple(plain[i : i + SECRET_BYTES] for i in range(0, len(plain), SECRET_BYTES))
        return cls(header["name"], header["commitment"], Path(path), roots, seal)

    def store(self) -> dict[str, Any]:
        """Write `secret/owner.enc`, sealed; returns its public line."""
        sealed = datetime.now(timezone.utc).isoformat(timespec="seconds")
        public = {"kind": "owner", "name": self.name, "commitment": self.commitment, "claimed_time": sealed}
        (self.path / "secret").mkdir(parents=True, exist_ok=True, mode=0o700)
        write_new(self.path / "secret" / "owner.enc", self._seal.close(public, b"".join(self._roots)), 0o600)
        return public

    def roots(self) -> tuple[bytes, ...]:
        """The secrets themselves, 32 bytes each, the newest first; to store or split them."""
        return self._roots

    def pledges(self, watermark: str) -> list[Pledge]:
        """The pledges for one watermark, by its public id: one for each root, the newest first."""
        what = (f"wmplug/1/secret/{watermark}", f"wmplug/1/blind/{watermark}")
        return [Pledge(watermark, *(derive(root, info) for info in what)) for root in self._roots]

    def signing_seed(self, watermark: str | None = None) -> bytes:
        """32 secret bytes of an Ed25519 key: the owner's, or the one that signs for a watermark in training."""
        return self.signing_seeds(watermark)[0]

    def signing_seeds(self, watermark: str | None = None) -> list[bytes]:
        """The same as `signing_seed` for each root, the newest first."""
        info = "wmplug/1/sign" if watermark is None else f"wmplug/1/sign/{watermark}"
        return [derive(root, info) for root in self._roots]

    def seal(self) -> Seal:
        """The seal that closes this owner's files under the same passphrase."""
        return self._seal

    def __reduce__(self) -> Any:
        raise TypeError("an owner holds a secret and is not pickled: open it where it is needed (Owner.open)")


def commitment_of(root: bytes) -> str:
    """The public commitment to a root's secret and its signing key, in hex."""
    public = Ed25519PrivateKey.from_private_bytes(derive(root, "wmplug/1/sign")).public_key().public_bytes_raw()
    return binding(opening_of(root), public.hex())


def opening_of(root: bytes) -> str:
    """SHA-256 over a domain tag, the owner's secret and a blind, in hex; both come from the root. Public."""
    secret, blind = derive(root, "wmplug/1/owner"), derive(root, "wmplug/1/blind")
    return hashlib.sha256(b"wmplug/opening/1\x00" + secret + blind).hexdigest()


def binding(opening: str, public: str) -> str:
    """The commitment that opens to these, in hex: nobody else can begin a log under it with another key.

    Raises:
        ValueError: one of the two is not 32 bytes in hex.
    """
    parts = bytes.fromhex(opening), bytes.fromhex(public)
    if any(len(part) != SECRET_BYTES for part in parts):
        raise ValueError(f"opening and public key have {len(parts[0])} and {len(parts[1])} bytes, not 32 each")
    return hashlib.sha256(b"wmplug/owner/1\x00" + b"".join(parts)).hexdigest()
