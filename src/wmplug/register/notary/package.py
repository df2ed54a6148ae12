"""The package that the owner seals to the notary: one watermark's secret, its task, the register's public parts.

It holds neither the owner's own key nor the key of any other watermark. The log of a served model may come along.
"""

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
from wmplug.errors import NotaryError, WmplugError
from wmplug.keys.files import read_bytes, write_new
from wmplug.keys.owner import Owner, Pledge
from wmplug.keys.streams import Subkeys
from wmplug.register import Register
from wmplug.register.history import logs_of
from wmplug.register.notary import age
from wmplug.register.notary.case import check_name
from wmplug.schemes.served import Served
from wmplug.tasks import public as tasks
from wmplug.tasks.base import encoded
from wmplug.watermark.brief import Brief
from wmplug.watermark.carriers import Inputs, digest, read_carriers
from wmplug.watermark.columns import columns
from wmplug.watermark.decided import Decided
from wmplug.watermark.plan import GENERATOR, TriggerSet, draw_symbols
from wmplug.watermark.scheme import Scheme, check_published
from wmplug.watermark.sizes import sized

SCHEMA = "wmplug/package/1"
# A watermark's id is the digest of these facts, as far as it has them: those of one task, and pictures= if one size is.
FACTS = (
    *("owner", "generator", "scheme", "scheme_version", "parameters", *tasks.KEYS, "triggers", "form"),
    *("carriers", "labels", "pictures"),
)
PARTS = ("owner.pub", "policy.json", "log.jsonl")
FOLDERS = ("anchors", "trust", "commit")
MEMBER = re.compile(
    r"register/(?:owner\.pub|policy\.json|log\.jsonl|(?:anchors|trust|commit)/[A-Za-z0-9_-][A-Za-z0-9._-]{0,199})"
)
SEALED = 1 << 34  # bytes of a package


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
        decided: the queries of a served model's log, in its order; None without one.
    """

    case: str
    public: Mapping[str, Any]
    pledge: Pledge = field(repr=False)
    salt: bytes | None = field(repr=False)
    scheme: Scheme = field(repr=False)
    brief: Brief = field(repr=False)
    references: Mapping[str, str]
    sha256: str
    decided: Decided | None = field(repr=False, default=None)

    @property
    def log(self) -> str:
        """The Merkle root over the log's queries, hex; empty without a log."""
        return "" if self.decided is None else self.decided.digest

    @property
    def subkeys(self) -> Subkeys:
        """The subkeys of the watermark."""
        salt = None if self.salt is None else self.salt.hex()
        return self.pledge.subkeys_of({**(self.public["evidence"] or {}), "salt": salt})

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
    decided: Decided | None = None,
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
        decided: the queries of a served model's log as its last commitment holds them (`log.decided()`); the notary
            asks them in place of the carriers.
        **material: the scheme's material that is published as a digest alone (logo=, pictures=, phrases=), as given to
            `create`.

    Returns:
        The file.

    Raises:
        NotaryError: the carriers, labels or material are not those the watermark was made from, or the register does
            not record it, or lacks a commitment to the log.
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
        scheme_of(public, material),
        _brief(public, carriers, labels),
        dict(references or {}),
        "",
        decided,
    )
    _check_log(package, register)
    triggers = package.derive()
    _check_common(package, triggers)
    rows = list(range(len(triggers.answers)))
    age.seal(b"", recipient)  # a mistyped key is refused before anything is recorded
    body = {"watermark": public["id"], "case": case, "to": recipient, "rows": rows, "revealed": None}
    register.append("disclosure", body, event_id=f"disclosure/{public['id']}/{case}/{recipient}")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_new(file, age.seal(_pack(package, register.path), recipient), 0o600)
    return file


def _check_log(package: Package, register: Register) -> None:
    """Refuse a log that a notary would refuse."""
    if package.decided is None:
        return
    if not isinstance(package.decided, Decided):
        raise NotaryError(f"decided= is a {type(package.decided).__name__}: give what a log holds, log.decided()")
    if not isinstance(package.scheme, Served):
        raise NotaryError(f"scheme {package.scheme.name!r} is not served, so no log holds its decisions: leave it out")
    package.decided.check(package.brief.need_classes(package.scheme.name))
    if package.log not in [entry.body.get("root") for entry in logs_of(register.entries(), package.public["id"])]:
        raise NotaryError(
            f"{register.path} has no commitment to these {len(package.decided)} queries of watermark "
            f"{package.public['id']}: commit to the log (`wmplug serving commit`), anchor the register, and give what "
            "the log holds then"
        )


def _check_common(package: Package, triggers: TriggerSet) -> None:
    """Refuse a log that leaves a notary nothing to ask."""
    if package.decided is None or not isinstance(package.scheme, Served):
        return
    if package.scheme.is_personal(triggers.plan, package.decided).all():
        raise NotaryError(
            f"all {len(package.decided)} decided queries of the log fell to coins of a customer's own, which only "
            "trace a clone: wait for more, commit again, and prepare then"
        )


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
    carriers, labels = columns(carriers, labels)
    inputs, form = read_carriers(sized(carriers, public))
    task = tasks.read(public)
    return Brief(inputs, form, task, task.labels(labels, len(inputs)), public["triggers"])


def scheme_of(public: Mapping[str, Any], material: Mapping[str, Any]) -> Scheme:
    """The scheme with its published parameters, and the owner's own in place of their digests.

    Raises:
        NotaryError: the material has other names than the published digests.
    """
    kind = plugins.registry().scheme(public["scheme"])
    check_published(kind, public["parameters"])
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
    if package.decided is not None:
        arrays["log/inputs"] = _array(package.decided.inputs)
        arrays["log/pairs"] = np.asarray(package.decided.pairs, np.int64)
        arrays["log/customers"] = _array(list(package.decided.customers))
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
            archive.writestr(f"register/{name}", _read(part))
    return packed.getvalue()


def _inputs(value: Any) -> Inputs:
    return value if isinstance(value, np.ndarray) else read_carriers(value, "a scheme's inputs")[0]


def _array(inputs: Inputs | list[Any]) -> Any:
    return np.frombuffer(json.dumps(inputs).encode(), np.uint8) if isinstance(inputs, list) else inputs


def _read(part: Path) -> bytes:
    try:
        return read_bytes(part, SEALED)
    except OSError as error:
        raise NotaryError(f"{part} cannot be sealed ({error.strerror}): restore it, or remove it") from None


def _public_parts(folder: Path) -> Iterator[tuple[str, Path]]:
    for name in PARTS:
        if (folder / name).exists():
            yield name, folder / name
    for name in FOLDERS:
        for file in sorted((folder / name).glob("*")):
            if MEMBER.fullmatch(f"register/{name}/{file.name}"):
                yield f"{name}/{file.name}", file
