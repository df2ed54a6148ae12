"""The case: models, statistic and strength, fixed in writing before any question is asked."""

import hashlib
import inspect
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from wmplug.errors import InputError, NotaryError
from wmplug.keys.files import JSON, file_digest, read_bytes
from wmplug.register.assets.system import system

Role = Literal["suspect", "own", "control"]
SCHEMA = "wmplug/case/1"
STRENGTH = 80  # bits: a claim asks for p < 2**-80 after the discount for keys tried
STATISTIC = (
    "number of answers that equal the secret one, over the drawn draws; exact in-set test (exact group test where a "
    "draw has several questions), one-sided, times the number of keys"
)
WITH_PATTERN = (
    f"{STATISTIC}; and the sum of what the answers to all ordinary inputs of the pattern speak for the drawn signs, "
    "exact tail over fair signs, one-sided, times the number of keys; where there are both, twice the smaller p"
)
CASE, CHALLENGE, ANSWERS, RESULT = "case.json", "challenge.json", "answers.json", "result.json"  # of its folder
_LATER = ("suspect_since", "preprocess", "notaries", "log")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")


@dataclass(frozen=True)
class Model:
    """One model of the case.

    Attributes:
        name: unique in the case.
        role: the suspect, the owner's own, or an independent control.
        reference: its place: a path, a URL, module:name.
        how: how it was acquired, and for a control, why it is independent.
        digests: SHA-256 of its parts by name (files, tensors, source); empty where only its answers are known.
    """

    name: str
    role: Role
    reference: str
    how: str
    digests: Mapping[str, str]


def digests_of(target: Any) -> dict[str, str]:
    """The digests that identify a model: of its files and tensors, or of a function's source file; else none."""
    if isinstance(target, str) and not os.path.exists(target):
        return {}  # a target for a plugin, such as a URL
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
class Adapter:
    """A function of the notary's own, which turns an input into what the models take.

    Attributes:
        reference: module:name.
        how: who wrote it, and what it does.
        sha256: SHA-256 of its source file, hex.
    """

    reference: str
    how: str
    sha256: str


@dataclass(frozen=True)
class Since:
    """Since when the suspect is known.

    Attributes:
        date: YYYY-MM-DD, UTC.
        source: the reason to believe it.
    """

    date: str
    source: str

    def __post_init__(self) -> None:
        if not (_is_date(self.date) and self.source.strip()):
            raise NotaryError(
                f"the suspect is known since {self.date!r}, by the source {self.source!r}: give a date as YYYY-MM-DD, "
                "and where it comes from"
            )

    @property
    def instant(self) -> datetime:
        """The beginning of that day."""
        return datetime.fromisoformat(self.date).replace(tzinfo=timezone.utc)


def _is_date(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text)) and bool(datetime.fromisoformat(text))
    except ValueError:
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
        draws: number of draws to ask.
        decoys: number of natural inputs to mix in.
        attempts: keys to deduct in addition to those in the register (from other known registers).
        strength: bits; the suspect's p must be below 2**-strength.
        authorities: SHA-256 (hex) of the root certificates of timestamp authorities that the notary accepts.
        pattern: whether to ask the ordinary inputs of the watermark's pattern too, which reveal no secret.
        suspect_since: since when the suspect is known; None if nobody stated it.
        preprocess: a function of the notary's own in place of the owner's; None without one.
        notaries: Ed25519 keys (hex) of other notaries whose certificates the notary accepts as spending rows.
        log: Merkle root (hex) over the queries of a served model's log, which are the pattern's ordinary inputs then;
            empty without a log.

    Raises:
        NotaryError: the case cannot prove anything.
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
    pattern: bool = False
    suspect_since: Since | None = None
    preprocess: Adapter | None = None
    notaries: tuple[str, ...] = ()
    log: str = ""

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
            raise NotaryError(f"the models have the names {', '.join(names)}: give each a short name of its own")
        suspect, own = (next(m.reference for m in self.models if m.role == role) for role in ("suspect", "own"))
        if os.path.realpath(suspect) == os.path.realpath(own):
            raise NotaryError(
                f"suspect and own model are both {own}: the copy and the original cannot be one file; give the "
                "suspect as it was acquired"
            )
        if vague := [model.name for model in self.models if not model.how.strip()]:
            raise NotaryError(f"the case does not say how {', '.join(vague)} was acquired: write it down")
        if self.draws < (0 if self.pattern else 1) or self.decoys < 0 or self.attempts < 0 or self.strength < 1:
            raise NotaryError("draws and strength are counted from 1, decoys and attempts from 0")
        if self.log and not self.pattern:
            raise NotaryError("the case names a log and asks no pattern: its queries are asked as the pattern's inputs")
        root = (self.log,) if self.log else ()
        for what, given in (
            ("SHA-256 of a root certificate", self.authorities),
            ("notary's key", self.notaries),
            ("Merkle root of a log", root),
        ):
            if bad := [one for one in given if not re.fullmatch("[0-9a-f]{64}", one)]:
                raise NotaryError(f"{', '.join(bad)} is not the {what}: give 64 hex digits")

    @property
    def threshold(self) -> float:
        """Upper bound (log10) for the suspect's p-value."""
        return -self.strength * math.log10(2)

    @property
    def statistic(self) -> str:
        """The statistic over the answers, in words."""
        return WITH_PATTERN if self.pattern else STATISTIC

    def check_reach(self, classes: int, signs: int = 0) -> None:
        """Check that the strength can be reached at all.

        Args:
            classes: number of candidates of a draw.
            signs: number of signs of the watermark's pattern.

        Raises:
            NotaryError: the case misses the strength even if all answers, or all signs, match.
        """
        both = math.log10(2) if self.pattern and self.draws else 0.0  # two tests: twice the smaller p counts
        if self.pattern and signs * math.log10(2) > both - self.threshold:
            return
        needed = math.floor((both - self.threshold) / math.log10(classes)) + 1
        if self.draws < needed:
            signed = f", nor can its {signs} signs" if self.pattern else ""
            raise NotaryError(
                f"{self.draws} draws from {classes} classes cannot reach 2^-{self.strength} even if all match{signed}: "
                f"at least {needed} are needed"
            )

    def write(self, file: Path) -> str:
        """Write the case, once.

        Returns:
            SHA-256 of the file, hex; both nonces are bound to it.

        Raises:
            NotaryError: there is a case already.
        """
        document = {"schema": SCHEMA, "statistic": self.statistic, **asdict(self)}
        del document["pattern"]  # the statistic says so
        for name in _LATER:
            if not document[name]:
                del document[name]  # as in the first cases
        data = (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
        try:
            with file.open("xb") as stream:
                stream.write(data)
        except FileExistsError:
            raise NotaryError(f"{file} already exists, and a case is fixed once: choose another folder") from None
        return hashlib.sha256(data).hexdigest()

    @classmethod
    def read(cls, file: Path, sha256: str | None = None) -> "Case":
        """Read a case.

        Args:
            file: a file that `write` wrote.
            sha256: expected digest of the file, hex.

        Raises:
            NotaryError: the file is missing, was edited since, or is not a case.
        """
        try:
            data = read_bytes(file, JSON)
        except OSError as error:
            raise NotaryError(
                f"{file} cannot be read ({error.strerror}): nothing is asked before a case is fixed in writing "
                "(`wmplug notary challenge --open`)"
            ) from None
        if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
            raise NotaryError(f"{file} was edited since the challenge was made for it: restore it, or open a new case")
        try:
            document = json.loads(data)
            schema, statistic = document.pop("schema"), document.pop("statistic")
            if schema != SCHEMA or statistic not in (STATISTIC, WITH_PATTERN):
                raise ValueError("another schema or statistic")
            document["pattern"] = statistic == WITH_PATTERN
            document["models"] = tuple(Model(**model) for model in document["models"])
            for name, kind in (("suspect_since", Since), ("preprocess", Adapter)):
                if name in document:
                    document[name] = kind(**document[name])
            for name in ("authorities", "notaries"):
                document[name] = tuple(document.get(name, ()))
            return cls(**document)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise NotaryError(f"{file} is not a case ({type(error).__name__}: {error}): open a new one") from None


def check_name(case: Any) -> str:
    """Return the id of a case.

    Raises:
        NotaryError: `case` is not an id.
    """
    if not (isinstance(case, str) and _NAME.fullmatch(case)):
        raise NotaryError(f"case {case!r}: give a short id of letters, digits, blanks, and . _ -")
    return case


def names_of(models: Sequence[Model], role: Role) -> list[str]:
    """The names of the models in one role."""
    return [model.name for model in models if model.role == role]
