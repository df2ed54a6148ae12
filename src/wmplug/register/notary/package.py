"""What the owner seals to the notary: the secret of one watermark, its task, and the public parts of the register.

The owner's own key is not in it, nor that of any other watermark.
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
from wmplug.making.creation import GENERATOR
from wmplug.register import Register
from wmplug.register.notary import sealing
from wmplug.register.notary.case import check_name
from wmplug.register.notary.identity import Notary
from wmplug.schemes import Scheme, Task
from wmplug.watermark.carriers import Inputs, digest, read_carriers, read_labels
from wmplug.watermark.plan import TriggerSet, draw_symbols

SCHEMA = "wmplug/package/1"
# What a watermark's id is the digest of.
FACTS = (
    *("owner", "generator", "scheme", "scheme_version", "parameters", "classes", "triggers", "form"),
    *("carriers", "labels"),
)
_PARTS = ("owner.pub", "policy.json", "log.jsonl")
_FOLDERS = ("anchors", "trust", "commit")
_MEMBER = re.compile(r"register/(?:(?:anchors|trust|commit)/)?[A-Za-z0-9_-][A-Za-z0-9._-]*")
_MOST = 1 << 34  # bytes that a package may unpack to


@dataclass(frozen=True, eq=False)
class Package:
    """An opened package; secret.

    Attributes:
        case: its id.
        public: line of the watermark.
        pledge: what its key follows from.
        salt: of the timestamp token, 32 bytes; None where there was none.
        scheme: with the owner's own material.
        task: carriers and labels.
        references: what the owner says where to find: name -> text.
        sha256: of the sealed file, hex.
    """

    case: str
    public: Mapping[str, Any]
    pledge: Pledge = field(repr=False)
    salt: bytes | None = field(repr=False)
    scheme: Scheme = field(repr=False)
    task: Task = field(repr=False)
    references: Mapping[str, str]
    sha256: str

    @property
    def subkeys(self) -> Subkeys:
        """The subkeys of the watermark."""
        return self.pledge.subkeys(self.salt)

    def check_facts(self) -> None:
        """See that carriers, labels and the scheme's material are those that the watermark's id is the digest of.

        Raises:
            NotaryError: they are not, or another version of the scheme is installed.
        """
        public, task = self.public, self.task
        if (public["generator"], public["scheme_version"]) != (GENERATOR, self.scheme.version):
            raise NotaryError(
                f"the watermark was made by generator {public['generator']} and version {public['scheme_version']} of "
                f"scheme {self.scheme.name!r}, installed are {GENERATOR} and {self.scheme.version}: install that wmplug"
            )
        labels = None if task.labels is None else digest(task.labels)
        given = {"carriers": digest(task.carriers), "labels": labels, "parameters": self.scheme.parameters()}
        if wrong := [name for name, value in given.items() if public[name] != value]:
            raise NotaryError(
                f"the {' and the '.join(wrong)} given are not those the watermark was made from: their digests differ "
                "(give the same inputs, in the same order, of the same dtype)"
            )
        if id_of(public) != public["id"]:
            raise NotaryError("the watermark's id is not the digest of what it says: its public line was edited")

    def derive(self) -> TriggerSet:
        """Make all triggers and answers anew, from secret and salt.

        Raises:
            NotaryError: what is given is not what the watermark was made from, or its root differs: the triggers that
                were committed to do not follow from the key, so they, or their answers, were picked.
        """
        self.check_facts()
        subkeys, name = self.subkeys, self.public["id"]
        try:
            plan = self.scheme.plan(self.task, subkeys.stream("input"))
        except WmplugError as error:
            raise NotaryError(f"no triggers follow from what was given: {error}") from error
        made = TriggerSet(plan, self.task.form, draw_symbols(subkeys.stream("label"), plan.candidates))
        if made.root(name, subkeys.stream("disclosure")) != self.public["root"]:
            raise NotaryError(
                f"the triggers that follow from secret and salt have another root than {self.public['root'][:16]}..., "
                "which was committed to: inputs or answers were picked by hand, or the key is another"
            )
        return made

    def __reduce__(self) -> Any:
        raise TypeError("a package is not pickled, it holds a secret")


def id_of(public: Mapping[str, Any]) -> str:
    """The id that belongs to a watermark's facts: their digest, 32 hex digits."""
    return digest(rfc8785.dumps({name: public[name] for name in FACTS}).decode())[:32]


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
    """Seal what a notary needs to check a claim; the register notes it first (`disclosure`).

    Args:
        owner: of the watermark.
        public: its public line (`mark.public`, or `commit/<id>.json` of the register).
        file: to write.
        recipient: the notary's public key, age1...
        case: its id, agreed with the notary.
        carriers: as given to `create`.
        labels: as given to `create`.
        references: where suspect and own model are, for the notary: name -> text.
        **material: of the scheme, as given to `create` where only a digest was published (logo=, pictures=, phrases=).

    Returns:
        The file.

    Raises:
        NotaryError: it is not what the watermark was made from, or there is no record of the watermark.
        RegisterError: the register cannot be written.
    """
    file, register = Path(file), Register.of(owner)
    if file.exists():
        raise NotaryError(f"{file} is there already: choose another path, or remove it")
    public = {name: public[name] for name in ("kind", "id", *FACTS, "rows", "draws", "root", "evidence")}
    pledge = _pledge(owner, register, public["id"])
    inputs, form = read_carriers(carriers)
    task = Task(
        inputs, form, read_labels(labels, len(inputs), public["classes"]), public["classes"], public["triggers"]
    )
    salt = (public["evidence"] or {}).get("salt")
    scheme = _scheme(public, material)
    package = Package(
        check_name(case),
        public,
        pledge,
        None if salt is None else bytes.fromhex(salt),
        scheme,
        task,
        dict(references or {}),
        "",
    )
    rows = list(range(len(package.derive().answers)))
    sealing.seal(b"", recipient)  # a mistyped key is refused before anything is recorded
    body = {"watermark": public["id"], "case": case, "to": recipient, "rows": rows, "revealed": None}
    register.append("disclosure", body, event_id=f"disclosure/{public['id']}/{case}/{recipient}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_new(file, sealing.seal(_pack(package, register.path), recipient), 0o600)
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
    arrays: dict[str, Any] = {"carriers": _array(package.task.carriers)}
    if package.task.labels is not None:
        arrays["labels"] = package.task.labels
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


def _array(inputs: Inputs) -> Any:
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
    """Open a sealed package, and lay the register's parts out in `folder`/register.

    Args:
        notary: to whom it was sealed.
        file: the package.
        folder: to unpack to; what an earlier opening left there is replaced.
        sha256: that the sealed file must have, hex; else nothing is unpacked.

    Raises:
        NotaryError: it was sealed to another key, or is another one, or holds something else.
    """
    file = Path(file)
    try:
        sealed = file.read_bytes()
    except OSError as error:
        raise NotaryError(f"{file} cannot be read ({error.strerror}): check the path") from None
    found = hashlib.sha256(sealed).hexdigest()
    if sha256 not in (None, found):
        raise NotaryError(
            f"{file} is not the package that the case was fixed for: its SHA-256 is {found}, that of the case "
            f"{sha256}; give that one"
        )
    plain = io.BytesIO(notary.unseal(sealed, str(file)))
    if not zipfile.is_zipfile(plain):
        raise NotaryError(f"{file} is no package, though it was sealed to this notary: ask the owner for it again")
    with zipfile.ZipFile(plain) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MOST:
            raise NotaryError(f"{file} unpacks to more than {_MOST >> 30} GiB: that is no package")
        try:
            told = json.loads(archive.read("package.json"))
            with np.load(io.BytesIO(archive.read("task.npz")), allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            package = _unpack(told, arrays, found)
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, zipfile.BadZipFile) as error:
            raise NotaryError(f"{file} is no package ({type(error).__name__}: {error}): ask for it again") from None
        _lay_out(archive, Path(folder))
    return package


def _unpack(told: Mapping[str, Any], arrays: Mapping[str, Any], sha256: str) -> Package:
    public, salt = told["public"], told["salt"]
    if told["schema"] != SCHEMA:
        raise ValueError(f"schema {told['schema']!r}")
    form, parameters = public["form"], public["parameters"]
    carriers = json.loads(arrays["carriers"].tobytes()) if form == "text" else arrays["carriers"]
    material = {
        name: _material(arrays[f"material/{name}"], value)
        for name, value in parameters.items()
        if str(value).startswith("sha256:")
    }
    labels = arrays.get("labels")
    return Package(
        check_name(told["case"]),
        public,
        Pledge(public["id"], bytes.fromhex(told["secret"]), bytes.fromhex(told["blind"])),
        None if salt is None else bytes.fromhex(salt),
        _scheme(public, material),
        Task(carriers, form, labels, public["classes"], public["triggers"]),
        told["references"],
        sha256,
    )


def _material(array: Any, published: str) -> Any:
    """An array as it is; texts, which were packed as JSON bytes, where those are what has the published digest."""
    return array if f"sha256:{digest(array)}" == published else json.loads(array.tobytes())


def _lay_out(archive: zipfile.ZipFile, folder: Path) -> None:
    target = folder / "register"
    for old in sorted(target.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    for member in archive.namelist():
        if not member.startswith("register/"):
            continue
        # Whoever packed it chose the names.
        if not _MEMBER.fullmatch(member):
            raise NotaryError(f"the package holds {member!r}, which has no place in a register: refuse it")
        path = folder / member
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, archive.read(member), 0o644)
