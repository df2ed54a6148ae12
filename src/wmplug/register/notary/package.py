"""The package that the owner seals to the notary: one watermark's secret, its task, the register's public parts.

It holds neither the owner's own key nor the key of any other watermark.
"""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rfc8785

from wmplug import plugins
from wmplug.errors import InputError, NotaryError, WmplugError
from wmplug.keys.files import write_new
from wmplug.keys.owner import Owner, Pledge
from wmplug.keys.streams import Subkeys
from wmplug.register import Register
from wmplug.register.notary import age
from wmplug.register.notary.case import check_name
from wmplug.register.notary.identity import Notary
from wmplug.tasks import public as tasks
from wmplug.tasks.base import decoded, encoded
from wmplug.watermark.brief import Brief
from wmplug.watermark.carriers import Inputs, digest, read_carriers
from wmplug.watermark.plan import GENERATOR, TriggerSet, draw_symbols
from wmplug.watermark.scheme import Scheme

SCHEMA = "wmplug/package/1"
# A watermark's id is the digest of these facts; exactly one of the task's keys is among them.
FACTS = (
    *("owner", "generator", "scheme", "scheme_version", "parameters", *tasks.KEYS, "triggers", "form"),
    *("carriers", "labels"),
)
_PARTS = ("owner.pub", "policy.json", "log.jsonl")
_FOLDERS = ("anchors", "trust", "commit")
_MEMBER = re.compile(r"register/(?:(?:anchors|trust|commit)/)?[A-Za-z0-9_-][A-Za-z0-9._-]*")
_MOST = 1 << 34  # bytes of an unpacked package


@dataclass(frozen=True, eq=False)
class Package:
    """An opened package; secret.

    Attributes:
        case: id of the case.
        public: public line of the watermark.
        pledge: origin of the watermark's key.
        salt: salt of the timestamp token, 32 bytes; None without a token.
        scheme: the scheme with the owner's own material.
        brief: carriers, labels and task.
        references: places of the models, as the owner states them: name -> text.
        sha256: digest of the sealed file, hex.
    """

    case: str
    public: Mapping[str, Any]
    pledge: Pledge = field(repr=False)
    salt: bytes | None = field(repr=False)
    scheme: Scheme = field(repr=False)
    brief: Brief = field(repr=False)
    references: Mapping[str, str]
    sha256: str

    @property
    def subkeys(self) -> Subkeys:
        """The subkeys of the watermark."""
        return self.pledge.subkeys(self.salt)

    def check_facts(self) -> None:
        """Check carriers, labels and the scheme's material against the watermark's id, which is their digest.

        Raises:
            NotaryError: they differ, or another version of the scheme is installed.
        """
        public = self.public
        if (public["generator"], public["scheme_version"]) != (GENERATOR, self.scheme.version):
            raise NotaryError(
                f"the watermark was made by generator {public['generator']} and version {public['scheme_version']} of "
                f"scheme {self.scheme.name!r}, installed are {GENERATOR} and {self.scheme.version}: install that wmplug"
            )
        facts = {**self.brief.digests(), "parameters": self.scheme.parameters()}
        if wrong := [name for name, value in facts.items() if public[name] != value]:
            raise NotaryError(
                f"the {' and the '.join(wrong)} given are not those the watermark was made from: their digests differ "
                "(give the same inputs, in the same order, of the same dtype)"
            )
        if id_of(public) != public["id"]:
            raise NotaryError("the watermark's id is not the digest of its facts: its public line was edited")

    def derive(self) -> TriggerSet:
        """Make all triggers and answers anew, from secret and salt.

        Raises:
            NotaryError: the facts are not those the watermark was made from, or the root differs: the committed
                triggers do not follow from the key, so somebody picked them or their answers.
        """
        self.check_facts()
        subkeys, name = self.subkeys, self.public["id"]
        try:
            plan = self.scheme.plan(self.brief, subkeys.stream("input"))
        except WmplugError as error:
            raise NotaryError(f"no triggers follow from what was given: {error}") from error
        symbols = draw_symbols(subkeys.stream("label"), plan.options)
        triggers = TriggerSet(plan, self.brief.form, self.brief.task, symbols)
        if triggers.root(name, subkeys.stream("disclosure")) != self.public["root"]:
            raise NotaryError(
                f"the triggers that follow from secret and salt have another root than {self.public['root'][:16]}..., "
                "which was committed to: inputs or answers were picked by hand, or the key is another"
            )
        return triggers

    def __reduce__(self) -> Any:
        raise TypeError("a package holds a secret and is not pickled: open it where it is needed (open_package)")


def id_of(public: Mapping[str, Any]) -> str:
    """The id that belongs to a watermark's facts: their digest, 32 hex digits."""
    return digest(rfc8785.dumps({name: public[name] for name in FACTS if name in public}).decode())[:32]


def prepare(
    owner: Owner,
    public: Mapping[str, Any],
    file: str | Path,
    *,
    recipient: str,
    case: str,
    carriers: Any,
    labels: Any = None,
    references: Mapping[str, str] | None = None,
    **material: Any,
) -> Path:
    """Seal everything that a notary needs to check a claim; the register records it first (`disclosure`).

    Args:
        owner: owner of the watermark.
        public: its public line (`mark.public`, or `commit/<id>.json` of the register).
        file: the package to write.
        recipient: the notary's public key, age1...
        case: id of the case, agreed with the notary.
        carriers: as given to `create`.
        labels: as given to `create`.
        references: places of the suspect and the own model, for the notary: name -> text.
        **material: the scheme's material that is published as a digest alone (logo=, pictures=, phrases=), as given to
            `create`.

    Returns:
        The file.

    Raises:
        NotaryError: the carriers, labels or material are not those the watermark was made from, or the register does
            not record it.
        RegisterError: the register cannot be written.
    """
    file, register = Path(file), Register.of(owner)
    if file.exists():
        raise NotaryError(f"{file} already exists: choose another path, or remove it")
    kept = ("kind", "id", *FACTS, "rows", "draws", "root", "evidence")
    public = {name: public[name] for name in kept if name in public}
    pledge = _pledge(owner, register, public["id"])
    salt = (public["evidence"] or {}).get("salt")
    package = Package(
        check_name(case),
        public,
        pledge,
        None if salt is None else bytes.fromhex(salt),
        _scheme(public, material),
        _brief(public, carriers, labels),
        dict(references or {}),
        "",
    )
    rows = list(range(len(package.derive().answers)))
    age.seal(b"", recipient)  # a mistyped key is refused before anything is recorded
    body = {"watermark": public["id"], "case": case, "to": recipient, "rows": rows, "revealed": None}
    register.append("disclosure", body, event_id=f"disclosure/{public['id']}/{case}/{recipient}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_new(file, age.seal(_pack(package, register.path), recipient), 0o600)
    return file


def _pledge(owner: Owner, register: Register, watermark: str) -> Pledge:
    entries = register.entries()
    committed = next(
        (e for e in entries if e.type == "secret.committed" and e.body.get("watermark") == watermark), None
    )
    if committed is None:
        raise NotaryError(
            f"{register.path} has no commitment for watermark {watermark}: a notary can only check what was recorded "
            "when it was made"
        )
    for pledge in owner.pledges(watermark):
        if pledge.commitment == committed.body["commitment"]:
            return pledge
    raise NotaryError(f"entry {committed.seq} commits watermark {watermark} to a secret that this owner does not hold")


def _brief(public: Mapping[str, Any], carriers: Any, labels: Any) -> Brief:
    inputs, form = read_carriers(carriers)
    task = tasks.read(public)
    return Brief(inputs, form, task, task.labels(labels, len(inputs)), public["triggers"])


def _scheme(public: Mapping[str, Any], material: Mapping[str, Any]) -> Scheme:
    """The scheme with its published parameters, and the owner's own in place of their digests."""
    kind = plugins.registry().scheme(public["scheme"])
    hidden = {name for name, value in public["parameters"].items() if str(value).startswith("sha256:")}
    if hidden != set(material):
        raise NotaryError(
            f"scheme {public['scheme']!r} was given {', '.join(sorted(hidden)) or 'nothing'} of the owner's own, here "
            f"{', '.join(sorted(material)) or 'nothing'} is: give the same"
        )
    return kind(**{**public["parameters"], **material})


def _pack(package: Package, folder: Path) -> bytes:
    brief = package.brief
    arrays: dict[str, Any] = {"carriers": _array(brief.carriers)}
    if brief.labels is not None:
        whole = brief.labels.dtype.kind == "i"
        arrays["labels"] = brief.labels if whole else _array(encoded(brief.task, brief.labels))
    for name, value in package.public["parameters"].items():
        if str(value).startswith("sha256:"):
            arrays[f"material/{name}"] = _array(_inputs(getattr(package.scheme, name)))
    told = {
        "schema": SCHEMA,
        "case": package.case,
        "public": dict(package.public),
        "secret": package.pledge.secret.hex(),
        "blind": package.pledge.blind.hex(),
        "salt": None if package.salt is None else package.salt.hex(),
        "references": dict(package.references),
    }
    packed, task = io.BytesIO(), io.BytesIO()
    np.savez(task, **arrays)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("package.json", json.dumps(told, indent=1))
        archive.writestr("task.npz", task.getvalue())
        for name, part in _public_parts(folder):
            archive.writestr(f"register/{name}", part.read_bytes())
    return packed.getvalue()


def _inputs(value: Any) -> Inputs:
    return value if isinstance(value, np.ndarray) else read_carriers(value, "a scheme's inputs")[0]


def _array(inputs: Inputs | list[Any]) -> Any:
    return np.frombuffer(json.dumps(inputs).encode(), np.uint8) if isinstance(inputs, list) else inputs


def _public_parts(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in _PARTS:
        if (folder / name).is_file():
            yield name, folder / name
    for name in _FOLDERS:
        for file in sorted((folder / name).glob("*")):
            if file.is_file() and _MEMBER.fullmatch(f"register/{name}/{file.name}"):
                yield f"{name}/{file.name}", file


def open_package(notary: Notary, file: str | Path, folder: str | Path, *, sha256: str | None = None) -> Package:
    """Open a sealed package, and unpack the register's parts into `folder`/register.

    Args:
        notary: the notary that it was sealed to.
        file: the package.
        folder: folder to unpack to; replaces the files of an earlier opening.
        sha256: expected digest of the sealed file, hex; if it differs, nothing is unpacked.

    Raises:
        NotaryError: the package was sealed to another key, is another one, or holds something else.
    """
    file = Path(file)
    try:
        sealed = file.read_bytes()
    except OSError as error:
        raise NotaryError(f"{file} cannot be read ({error.strerror}): check the path") from None
    actual = hashlib.sha256(sealed).hexdigest()
    if sha256 not in (None, actual):
        raise NotaryError(
            f"{file} is not the package that the case was fixed for: its SHA-256 is {actual}, and the case names "
            f"{sha256}; give that one"
        )
    plain = io.BytesIO(notary.unseal(sealed, str(file)))
    if not zipfile.is_zipfile(plain):
        raise NotaryError(f"{file} is not a package, though it was sealed to this notary: ask the owner for it again")
    with zipfile.ZipFile(plain) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MOST:
            raise NotaryError(f"{file} unpacks to more than {_MOST >> 30} GiB, so it is not a package: refuse it")
        try:
            facts = json.loads(archive.read("package.json"))
            with np.load(io.BytesIO(archive.read("task.npz")), allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            package = _unpack(facts, arrays, actual)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
            raise NotaryError(f"{file} is not a package ({type(error).__name__}: {error}): ask for it again") from None
        _lay_out(archive, Path(folder))
    return package


def _unpack(facts: Mapping[str, Any], arrays: Mapping[str, Any], sha256: str) -> Package:
    public, salt = facts["public"], facts["salt"]
    if facts["schema"] != SCHEMA:
        raise ValueError(f"schema {facts['schema']!r}")
    form, parameters = public["form"], public["parameters"]
    carriers = json.loads(arrays["carriers"].tobytes()) if form == "text" else arrays["carriers"]
    material = {
        name: _material(arrays[f"material/{name}"], value)
        for name, value in parameters.items()
        if str(value).startswith("sha256:")
    }
    labels, task = arrays.get("labels"), tasks.read(public)
    if labels is not None and labels.dtype == np.uint8:
        labels = decoded(task, json.loads(labels.tobytes()))
    return Package(
        check_name(facts["case"]),
        public,
        Pledge(public["id"], bytes.fromhex(facts["secret"]), bytes.fromhex(facts["blind"])),
        None if salt is None else bytes.fromhex(salt),
        _scheme(public, material),
        Brief(carriers, form, task, labels, public["triggers"]),
        facts["references"],
        sha256,
    )


def _material(array: Any, published: str) -> Any:
    """An array as it is; or texts, packed as JSON bytes, if the texts have the published digest."""
    return array if f"sha256:{digest(array)}" == published else json.loads(array.tobytes())


def _lay_out(archive: zipfile.ZipFile, folder: Path) -> None:
    target = folder / "register"
    for old in sorted(target.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    for member in archive.namelist():
        if not member.startswith("register/"):
            continue
        # The sender chose the names.
        if not _MEMBER.fullmatch(member):
            raise NotaryError(f"the package holds {member!r}, which has no place in a register: refuse it")
        path = folder / member
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, archive.read(member), 0o644)
