"""The owner key: 32 secret bytes, sealed at rest, from which everything else is derived.

Derivation is HKDF-SHA256 (RFC 5869), sealing is scrypt (RFC 7914) with AES-256-GCM (NIST SP 800-38D).
Input and label subkeys are independent, so the null hypothesis of every verdict (the suspect is independent of the
label key) can be tried with other label keys without another query.
"""

import hashlib
import json
import os
import tempfile
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from wmplug.errors import InputError, KeyFileError, NewerVersionError, WrongPassphraseError

Purpose = Literal["input", "label", "schedule", "disclosure"]
SECRET_BYTES = 32
SCRYPT_N = 2**17  # 128 MiB and some 0.3 s an attempt; the file says which n it was sealed with
FORMAT = 1


def derive(secret: bytes, info: str, length: int = 32) -> bytes:
    """HKDF-SHA256 without salt: independent bytes for each `info`."""
    return HKDF(hashes.SHA256(), length, None, info.encode()).derive(secret)


class KeyStream:
    """Uniform numbers from a subkey: the AES-256-CTR key stream, read in order.

    Not NumPy's generators: theirs may change between releases, while a trigger set must be derived again years later.
    """

    def __init__(self, key: bytes) -> None:
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def bytes(self, count: int) -> bytes:
        """The next `count` bytes."""
        return self._encryptor.update(bytes(count))

    def below(self, bound: int, count: int) -> npt.NDArray[np.int64]:
        """Integers (count,) uniform over range(bound), by rejection and never by modulo of an uneven range."""
        if not 1 <= bound <= 2**31:
            raise InputError(f"cannot draw below {bound}: the bound must lie between 1 and 2**31")
        limit = 2**32 - 2**32 % bound
        drawn = np.empty(0, np.int64)
        while len(drawn) < count:
            words = np.frombuffer(self.bytes(4 * (count - len(drawn))), "<u4").astype(np.int64)
            drawn = np.concatenate([drawn, words[words < limit] % bound])
        return drawn

    def uniform(self, *shape: int) -> npt.NDArray[np.float64]:
        """Floats of `shape`, uniform over [0, 1) in steps of 2**-53."""
        words = np.frombuffer(self.bytes(8 * int(np.prod(shape))), "<u8")
        uniform: npt.NDArray[np.float64] = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return uniform.reshape(shape)

    def permutation(self, length: int) -> npt.NDArray[np.int64]:
        """A uniform permutation of range(length), by sorting 64-bit words (a tie: below length**2 / 2**65)."""
        return np.argsort(np.frombuffer(self.bytes(8 * length), "<u8"), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class Subkeys:
    """The four independent subkeys of one watermark; never printed."""

    _keys: dict[Purpose, bytes] = field(repr=False)

    @classmethod
    def derive(cls, key: bytes, watermark: str) -> "Subkeys":
        """Subkeys of the key of the watermark whose public id is `watermark`."""
        purposes: tuple[Purpose, ...] = ("input", "label", "schedule", "disclosure")
        return cls({p: derive(key, f"wmplug/1/{p}/{watermark}") for p in purposes})

    def key(self, purpose: Purpose) -> bytes:
        """The 32 bytes for one purpose."""
        return self._keys[purpose]

    def stream(self, purpose: Purpose, name: str = "") -> KeyStream:
        """A fresh stream for one purpose; another `name` gives an independent one."""
        return KeyStream(derive(self._keys[purpose], f"stream/{name}"))

    def __reduce__(self) -> Any:
        raise TypeError("subkeys are not pickled: save the watermark instead (mark.save)")


@dataclass(frozen=True)
class Pledge:
    """What one watermark's key is derived from, and the commitment that may be timestamped before it is.

    First the secret is committed to, then a salt comes that nobody could foresee (of a timestamp token), then the key
    follows with no freedom left: whoever tries many keys until one fits a model has to show every try.
    """

    watermark: str
    secret: bytes = field(repr=False)
    blind: bytes = field(repr=False)

    @property
    def commitment(self) -> str:
        """SHA-256 over a domain tag, secret and blind, in hex."""
        return hashlib.sha256(b"wmplug/secret/1\x00" + self.secret + self.blind).hexdigest()

    def subkeys(self, salt: bytes | None) -> Subkeys:
        """The subkeys; `salt` is 32 bytes of a token, None where there is none."""
        info = f"wmplug/1/key/{self.watermark}".encode()
        return Subkeys.derive(HKDF(hashes.SHA256(), 32, salt, info).derive(self.secret), self.watermark)

    def __reduce__(self) -> Any:
        raise TypeError("a pledge is not pickled, it holds a secret")


@dataclass(frozen=True)
class Seal:
    """A key made from a passphrase, and what is needed to make it again."""

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
            raise InputError(f"scrypt_n={n!r}: a power of two from 2**10 to 2**20 is needed, {SCRYPT_N} is usual")
        salt = os.urandom(16) if salt is None else salt
        # One keyboard writes an accent as one code point and another as two. What the environment holds may be no
        # UTF-8, and the error of a strict encoder would quote it.
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
        # Tells a wrong passphrase from a damaged file; costs an attacker the same scrypt as the ciphertext does.
        return derive(self._key, "wmplug/1/check", 8).hex()

    def __reduce__(self) -> Any:
        raise TypeError("a seal is not pickled: it is a key")


def _check_text(passphrase: Any) -> None:
    if not isinstance(passphrase, str):  # it is not quoted: this may be the right one, as bytes
        raise InputError(f"the passphrase is given as {type(passphrase).__name__}: give a str")


def _is_cost(n: Any) -> bool:
    # An edited n could ask for any amount of memory and time.
    return type(n) is int and 2**10 <= n <= 2**20 and n & (n - 1) == 0


def read_header(blob: bytes, where: str) -> dict[str, Any]:
    """The public line of a sealed file.

    Raises:
        KeyFileError: it is not such a file, or it is damaged.
        NewerVersionError: a newer wmplug wrote it.
    """
    try:
        header = json.loads(blob.split(b"\n", 1)[0])
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
            f"{where} has format {version}, this wmplug reads up to {FORMAT}: install a newer wmplug to open it"
        )
    return dict(header)


def of_kind(header: dict[str, Any], kind: str, where: str | Path) -> None:
    """Raise KeyFileError unless the file is of this kind."""
    if header.get("kind") != kind:
        raise KeyFileError(f"{where} is a file of kind {header.get('kind')!r}, {kind!r} is needed: check the path")


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


@dataclass(frozen=True)
class Owner:
    """Who claims a model: a name, a public commitment, and the secret behind it.

    Attributes:
        name: as given; public.
        commitment: to the first secret and its signing key, in hex (`commitment_of`); names the register, and may be
            published at once.
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
            path: folder of the register; made if it is not there.
            name: how the owner is called; public.
            passphrase: opens the secret; it cannot be recovered.
            scrypt_n: cost of one guess, a power of two from 2**10 to 2**20.

        Raises:
            InputError: there is an owner already, name or passphrase is empty, or scrypt_n is out of range.
        """
        path = Path(path)
        if not (isinstance(name, str) and name.strip()):
            raise InputError(f"the owner's name is {name!r}: give the name that a dossier should show")
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
            KeyFileError: there is none, or it is damaged.
            WrongPassphraseError: the passphrase does not fit.
        """
        file = Path(path) / "secret" / "owner.enc"
        if not file.is_file():
            raise KeyFileError(f"{file} is not there: make an owner with `wmplug init --register {path} --name NAME`")
        header, plain, seal = open_sealed(file.read_bytes(), passphrase_or_environment(passphrase), str(file))
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
        """The secrets themselves, 32 bytes each, the newest first; for what keeps or splits them."""
        return self._roots

    def pledges(self, watermark: str) -> list[Pledge]:
        """What the key of one watermark, by its public id, is derived from: of every root, the newest first."""
        what = (f"wmplug/1/secret/{watermark}", f"wmplug/1/blind/{watermark}")
        return [Pledge(watermark, *(derive(root, info) for info in what)) for root in self._roots]

    def signing_seed(self, watermark: str | None = None) -> bytes:
        """32 secret bytes of an Ed25519 key: the owner's, or the one that signs for a watermark in training."""
        return self.signing_seeds(watermark)[0]

    def signing_seeds(self, watermark: str | None = None) -> list[bytes]:
        """As `signing_seed`, of every root, the newest first."""
        info = "wmplug/1/sign" if watermark is None else f"wmplug/1/sign/{watermark}"
        return [derive(root, info) for root in self._roots]

    def seal(self) -> Seal:
        """What closes this owner's files under the same passphrase."""
        return self._seal

    def __reduce__(self) -> Any:
        raise TypeError("an owner is not pickled: open it where it is needed (Owner.open)")


def commitment_of(root: bytes) -> str:
    """What an owner publishes of a root, in hex: it commits to its secret and to its signing key."""
    public = Ed25519PrivateKey.from_private_bytes(derive(root, "wmplug/1/sign")).public_key().public_bytes_raw()
    return binding(opening_of(root), public.hex())


def opening_of(root: bytes) -> str:
    """SHA-256 over a domain tag, the owner's secret and a blind, in hex; both come from the root. Public."""
    secret, blind = derive(root, "wmplug/1/owner"), derive(root, "wmplug/1/blind")
    return hashlib.sha256(b"wmplug/opening/1\x00" + secret + blind).hexdigest()


def binding(opening: str, public: str) -> str:
    """The commitment that opens to these, in hex: nobody else can begin a log under it with a key of his own."""
    return hashlib.sha256(b"wmplug/owner/1\x00" + bytes.fromhex(opening) + bytes.fromhex(public)).hexdigest()


def passphrase_or_environment(passphrase: str | None) -> str:
    """The passphrase, or WMPLUG_PASSPHRASE.

    Raises:
        InputError: neither is there.
    """
    passphrase = passphrase if passphrase is not None else os.environ.get("WMPLUG_PASSPHRASE")
    if passphrase is None or passphrase == "":
        raise InputError("no passphrase: pass passphrase=... or set WMPLUG_PASSPHRASE")
    return passphrase


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all: a temporary neighbour that nobody else can read, fsync, rename."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
