"""What is fixed in writing before anybody is asked anything."""

import hashlib
import inspect
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from wmplug.errors import InputError, NotaryError
from wmplug.keys.files import file_digest
from wmplug.register.assets.system import system

Role = Literal["suspect", "own", "control"]
SCHEMA = "wmplug/case/1"
STRENGTH = 80  # bits: a claim asks for p < 2**-80 after the discount for keys tried
STATISTIC = (
    "number of answers that equal the secret one, over the drawn draws; exact in-set test (exact group test where a "
    "draw has several questions), one-sided, times the number of keys"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


@dataclass(frozen=True)
class Model:
    """One model that is asked.

    Attributes:
        name: unique in the case.
        role: the suspect, the owner's own, or an independent control.
        reference: where it is: a path, a URL, module:name.
        how: it was acquired, and for a control, why it is independent.
        digests: SHA-256 by what it is of; empty where only its answers are known.
    """

    name: str
    role: Role
    reference: str
    how: str
    digests: Mapping[str, str]


def digests_of(target: Any) -> dict[str, str]:
    """What identifies a model: files and tensors where it has them, the source file of a function, else nothing."""
    if isinstance(target, str) and "://" in target:
        return {}
    if inspect.isroutine(target) or isinstance(target, type):
        return {"source": file_digest(Path(inspect.getsourcefile(target) or ""))[0]} if _has_source(target) else {}
    try:
        found = system(target)
    except InputError:
        if isinstance(target, (str, os.PathLike)):
            raise
        return digests_of(type(target)) if type(target).__module__ != "builtins" else {}
    parts = {"files": (found["files"] or {}).get("root"), "tensors": (found["tensors"] or {}).get("sha256")}
    return {name: digest for name, digest in parts.items() if digest}


def _has_source(target: Any) -> bool:
    try:
        return os.path.isfile(inspect.getsourcefile(target) or "")
    except TypeError:
        return False


@dataclass(frozen=True)
class Case:
    """A case as it was fixed.

    Attributes:
        case: its id.
        watermark: public id.
        root: Merkle root that the owner committed to, hex.
        package: SHA-256 of the sealed package, hex.
        models: one suspect, the owner's own, one control or more.
        draws: how many are asked.
        decoys: natural inputs that are mixed in.
        attempts: keys to deduct beside those in the register (of other registers that are known).
        strength: bits; the suspect's p has to be below 2**-strength.
        authorities: SHA-256 (hex) of the root certificates of timestamp authorities that the notary accepts.

    Raises:
        NotaryError: a case that cannot prove anything.
    """

    case: str
    watermark: str
    root: str
    package: str
    models: tuple[Model, ...]
    draws: int
    decoys: int
    attempts: int = 0
    strength: int = STRENGTH
    authorities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name(self.case)
        roles = [model.role for model in self.models]
        if (roles.count("suspect"), roles.count("own")) != (1, 1) or roles.count("control") < 1:
            raise NotaryError(
                f"the case has {roles.count('suspect')} suspects, {roles.count('own')} models of the owner's own and "
                f"{roles.count('control')} controls: one, one, and one or more independent controls (3 are usual) are "
                "needed"
            )
        names = [model.name for model in self.models]
        if len(set(names)) < len(names) or not all(_NAME.fullmatch(name) for name in names):
            raise NotaryError(f"the models are called {', '.join(names)}: give each a short name of its own")
        suspect, own = (next(m.reference for m in self.models if m.role == role) for role in ("suspect", "own"))
        if os.path.realpath(suspect) == os.path.realpath(own):
            raise NotaryError(
                f"suspect and own model are both {own}: one model asked twice says nothing of another; give the "
                "suspect as it was acquired"
            )
        if vague := [model.name for model in self.models if not model.how.strip()]:
            raise NotaryError(f"nothing says how {', '.join(vague)} was acquired: write it down")
        if self.draws < 1 or self.decoys < 0 or self.attempts < 0 or self.strength < 1:
            raise NotaryError("draws and strength are counted from 1, decoys and attempts from 0")
        if bad := [one for one in self.authorities if not re.fullmatch("[0-9a-f]{64}", one)]:
            raise NotaryError(f"{', '.join(bad)} is no SHA-256 of a root certificate: 64 hex digits are needed")

    @property
    def threshold(self) -> float:
        """log10 of the p-value that the suspect's has to be below."""
        return -self.strength * math.log10(2)

    def check_reach(self, classes: int) -> None:
        """See that the strength can be had at all.

        Raises:
            NotaryError: not even if all answers matched.
        """
        needed = math.floor(-self.threshold / math.log10(classes)) + 1
        if self.draws < needed:
            raise NotaryError(
                f"{self.draws} draws from {classes} classes cannot reach 2^-{self.strength} even if all match: at "
                f"least {needed} are needed"
            )

    def write(self, file: Path) -> str:
        """Write the case, once.

        Returns:
            SHA-256 of the file, hex: what both nonces are bound to.

        Raises:
            NotaryError: there is a case already.
        """
        document = {"schema": SCHEMA, "statistic": STATISTIC, **asdict(self)}
        data = (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
        try:
            with file.open("xb") as stream:
                stream.write(data)
        except FileExistsError:
            raise NotaryError(f"{file} is there already, and a case is fixed once: choose another folder") from None
        return hashlib.sha256(data).hexdigest()

    @classmethod
    def read(cls, file: Path, sha256: str | None = None) -> "Case":
        """Read a case.

        Args:
            file: that `write` wrote.
            sha256: that it must have.

        Raises:
            NotaryError: it is missing, was edited since, or is none.
        """
        try:
            data = file.read_bytes()
        except OSError as error:
            raise NotaryError(
                f"{file} cannot be read ({error.strerror}): nothing is asked before a case is fixed in writing "
                "(`wmplug notary challenge --open`)"
            ) from None
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise NotaryError(f"{file} was edited since the challenge was made for it: restore it, or open a new case")
        try:
            document = json.loads(data)
            if document.pop("schema") != SCHEMA or document.pop("statistic") != STATISTIC:
                raise ValueError("another schema or statistic")
            models = tuple(Model(**model) for model in document.pop("models"))
            return cls(**{**document, "models": models, "authorities": tuple(document["authorities"])})
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise NotaryError(f"{file} is no case ({type(error).__name__}: {error}): open a new one") from None


def check_name(case: Any) -> str:
    """The id of a case.

    Raises:
        NotaryError: it is none.
    """
    if not (isinstance(case, str) and _NAME.fullmatch(case)):
        raise NotaryError(f"case {case!r}: give a short id of letters, digits, blanks, and . _ -")
    return case


def names_of(models: Sequence[Model], role: Role) -> list[str]:
    """The names of the models in one role."""
    return [model.name for model in models if model.role == role]
