"""The notary's keys: one that owners seal packages to, one that signs certificates."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wmplug.errors import InputError, KeyFileError
from wmplug.keys.files import read_bytes, write_new
from wmplug.keys.sealing import SCRYPT_N, Seal, of_kind, open_sealed, passphrase_or_environment
from wmplug.keys.streams import derive
from wmplug.register.notary import age
from wmplug.register.statements import Signer

_SEED = 32


@dataclass(frozen=True)
class Notary:
    """A notary, with the secrets.

    Attributes:
        name: public.
        recipient: age1..., the public key that owners seal packages to.
        path: folder of `notary.pub` and `notary.enc`.
        seal: closes files under the notary's passphrase.
    """

    name: str
    recipient: str
    path: Path
    seal: Seal = field(repr=False)
    _identity: str = field(repr=False)
    _seed: bytes = field(repr=False)

    @classmethod
    def create(cls, path: str | Path, *, name: str, passphrase: str, scrypt_n: int = SCRYPT_N) -> "Notary":
        """Make the keys in the folder `path`: `notary.pub` (JSON, public) and `notary.enc` (sealed).

        Args:
            path: the folder; created if it does not exist.
            name: the name on certificates.
            passphrase: opens the secrets; nobody can recover it.
            scrypt_n: cost of one guess, a power of two.

        Raises:
            InputError: the folder holds keys already, or the name is empty.
        """
        path = Path(path)
        if not (isinstance(name, str) and name.strip()):
            raise InputError(f"the notary's name is {name!r}: give the name that a certificate should show")
        if (path / "notary.pub").exists() or (path / "notary.enc").exists():
            raise InputError(f"{path} holds a notary's keys already: use them, or choose another folder")
        closing, seed = Seal.make(passphrase, n=scrypt_n), os.urandom(_SEED)
        identity, recipient = age.new_identity()
        notary = cls(name, recipient, path, closing, identity, seed)
        public = {"kind": "notary", "name": name, "recipient": recipient, "public": notary.signer().public.hex()}
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_new(path / "notary.enc", closing.close(public, seed + identity.encode()), 0o600)
        write_new(path / "notary.pub", (json.dumps(public, indent=1) + "\n").encode(), 0o644)
        return notary

    @classmethod
    def open(cls, path: str | Path, *, passphrase: str | None = None) -> "Notary":
        """Open the keys in the folder `path`.

        Raises:
            KeyFileError: the keys are missing or damaged.
            WrongPassphraseError: the passphrase does not fit.
        """
        file = Path(path) / "notary.enc"
        if not file.is_file():
            raise KeyFileError(f"{file} is not there: make the keys with `wmplug notary key --keys {path} --name NAME`")
        header, plain, closing = open_sealed(read_bytes(file), passphrase_or_environment(passphrase), str(file))
        of_kind(header, "notary", file)
        return cls(header["name"], header["recipient"], Path(path), closing, plain[_SEED:].decode(), plain[:_SEED])

    def signer(self) -> Signer:
        """The Ed25519 key that signs results and certificates."""
        return Signer(derive(self._seed, "wmplug/1/notary/sign"))

    def unseal(self, data: bytes, where: str) -> bytes:
        """Open data sealed to `recipient`.

        Raises:
            NotaryError: the data were sealed to another key, or were truncated or edited.
        """
        return age.unseal(data, self._identity, where)

    def order_key(self, what: str) -> bytes:
        """32 secret bytes for the order of questions to one model; a known order would reveal the decoys."""
        return derive(self._seed, f"wmplug/1/notary/order/{what}")

    def __reduce__(self) -> Any:
        raise TypeError("a notary holds secrets and is not pickled: open it where it is needed (Notary.open)")
