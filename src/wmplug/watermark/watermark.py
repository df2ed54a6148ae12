"""A watermark: a scheme's triggers, the answers the key drew, and what may be published of them."""

import dataclasses
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rfc8785

from wmplug import plugins
from wmplug.errors import InputError, KeyFileError, NewerVersionError
from wmplug.keys.owner import (
    Owner,
    Purpose,
    Seal,
    Subkeys,
    of_kind,
    open_sealed,
    passphrase_or_environment,
    read_header,
    write_new,
)
from wmplug.schemes import Scheme, Task
from wmplug.statistics.draws import DrawResult
from wmplug.watermark.plan import TriggerPlan, TriggerSet, digest, draw_symbols, read_carriers, read_labels, read_whole

Preprocess = Callable[[Any, int], Any]
AGAINST = {"theft": "random-label", "theft+cloning": "combined"}
GENERATOR = 1  # raised whenever the same key, scheme version and task would give other triggers


@dataclass(frozen=True, eq=False)
class Watermark:
    """What the owner puts into a model and later asks for; made by `create` or `load`.

    Attributes:
        id: public, 32 hex digits; the digest of scheme, parameters and carriers.
        scheme: how triggers touch training.
        triggers: inputs and answers; secret.
        classes: number of classes of the task.
        public: what may be published; the first line of the saved file.
        preprocess: `preprocess(input, answer) -> example` as the dataset yields them; not saved.
        register: folder of the register that its runs are recorded in, if any.
    """

    id: str
    scheme: Scheme
    triggers: TriggerSet = field(repr=False)
    classes: int
    public: dict[str, Any] = field(repr=False)
    preprocess: Preprocess | None = field(repr=False)
    subkeys: Subkeys = field(repr=False)
    _seal: Seal = field(repr=False)
    register: Path | None = field(repr=False, default=None)
    _signing_seed: bytes = field(repr=False, default=b"")

    def lessons(self) -> list[tuple[Any, int]]:
        """What is taught: (input, label) pairs, triggers and negatives alike."""
        answers = self.triggers.answers
        return [(self.triggers.row(i), int(answers[i])) for i in self.triggers.plan.taught]

    def score(self, start: int, answers: Sequence[Sequence[int | None]]) -> list[DrawResult]:
        """Answers to the draws from number `start` on, against the key's."""
        groups = self.triggers.groups[start : start + len(answers)]
        return [self.triggers.count(group, given) for group, given in zip(groups, answers, strict=True)]

    def with_queries(self, queries: Any, *, carriers: Any, labels: Any, pool: Any = None) -> "Watermark":
        """The same watermark, asking other ordinary inputs: best those that one's API was asked.

        A clone gives itself away most on the inputs it was trained on, and these passed through the API that it was
        cloned from. Of all that is given, the inputs that unmarked references find most ambiguous are asked. The
        p-value stays exact if what is given was not chosen by the suspect's answers and the key: give a whole log, and
        as pool= only models that were chosen before, of which the result's public line has a digest.
        The result is for verifying; it is not saved, and a notary asks the committed questions.

        Args:
            queries: natural inputs like the carriers, some thousand or more; nothing is asked of their labels.
            carriers: the same as when the watermark was made, which the references learn from.
            labels: of the carriers, the same.
            pool: unmarked references in place of trained ones, as in the scheme.

        Raises:
            InputError: other carriers or labels than the watermark's, or the scheme asks no ordinary inputs.
        """
        inputs, form = read_carriers(carriers)
        natural = read_labels(labels, len(inputs), self.classes)
        for what, given in (("carriers", inputs), ("labels", natural)):
            if given is None or digest(given) != self.public[what]:
                raise InputError(f"{what}= are others than the watermark was made from: references learn from the same")
        task = Task(inputs, form, natural, self.classes, self.public["triggers"], self.preprocess)
        plan = self.scheme.asking(self.triggers.plan, task, queries, pool)
        heard = [digest(plan.material[name]) for name in ("votes", "scores") if name in plan.material]
        public = {**self.public, "queries": digest(read_carriers(queries, "queries=")[0]), "references": digest(heard)}
        return dataclasses.replace(self, triggers=dataclasses.replace(self.triggers, plan=plan), public=public)

    def signing_seed(self) -> bytes:
        """32 secret bytes of the Ed25519 key that signs what is recorded of its runs; empty without a register."""
        return self._signing_seed

    def save(self, path: str | Path) -> Path:
        """Write the watermark: a public line, then everything secret, sealed with the owner's passphrase.

        Raises:
            InputError: the file holds something else, which would be lost; or the questions are not the watermark's.
        """
        if "queries" in self.public:
            raise InputError("a watermark with other queries is not saved: save the one that it was made from")
        path = Path(path)
        if path.exists() and _id_of(path) != self.id:
            raise InputError(f"{path} is there and is not this watermark: choose another path, or remove the file")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, self._seal.close(self.public, _pack(self)), 0o600)
        return path

    def __deepcopy__(self, memo: Any) -> "Watermark":
        # Immutable; frameworks copy callbacks, and a second copy of the key helps nobody.
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a watermark is not pickled, it holds the key: save it (mark.save) and load it where needed")


def _id_of(path: Path) -> Any:
    try:
        return read_public(path).get("id")
    except KeyFileError:
        return None


def create(
    owner: Owner,
    *,
    scheme: str | Scheme | None = None,
    against: Literal["theft", "theft+cloning"] | None = None,
    carriers: Any,
    labels: Any = None,
    classes: int,
    triggers: int = 100,
    preprocess: Preprocess | None = None,
    **parameters: Any,
) -> Watermark:
    """Make a watermark. The same owner, scheme, parameters and carriers give the same one again.

    Where the owner has a register, the secret is committed there (and timestamped, where its policy names an
    authority) before the key follows from it, and the triggers' Merkle root after.

    Args:
        owner: whose key draws inputs and answers.
        scheme: a name (`wmplug schemes` lists them) or a Scheme.
        against: in place of a scheme, what the watermark is for: "theft" of weights (a trigger set; costs nothing that
            could be measured, and is at chance against a clone trained on answers) or "theft+cloning" (trigger set and
            tilt; costs up to a point of accuracy, see docs/benchmarks.md).
        carriers: natural inputs: (n, H, W) or (n, H, W, C) images, uint8 or float; PIL pictures; strings. Torch
            tensors are taken as arrays.
        labels: (n,) integer classes of the carriers, where the scheme needs them.
        classes: number of classes of the task, at least 2.
        triggers: number of queries to make.
        preprocess: turns (input, answer) into what the dataset yields; the framework's own by default.
        **parameters: of the scheme.

    Raises:
        InputError: something does not fit; the message says what.
        PluginError: no such scheme.
        RegisterError: the register cannot be written.
    """
    if not hasattr(owner, "pledges"):
        raise InputError(f"owner={owner!r} is a {type(owner).__name__}: open the owner first, Owner.open(folder)")
    _check_preprocess(preprocess)
    classes = read_whole(classes, "classes", 2, 2**31, "a classifier of at least 2 classes is needed")
    triggers = read_whole(triggers, "triggers", 1, 10**6, "at least one is needed, 100 is usual")
    chosen = _scheme(wanted(scheme, against), parameters)
    inputs, form = read_carriers(carriers)
    natural = read_labels(labels, len(inputs), classes)
    task = Task(inputs, form, natural, classes, triggers, preprocess)
    chosen = chosen.prepared(task)
    facts: dict[str, Any] = {
        "owner": {"name": owner.name, "commitment": owner.commitment},
        "generator": GENERATOR,
        "scheme": chosen.name,
        "scheme_version": chosen.version,
        "parameters": chosen.parameters(),
        "classes": classes,
        "triggers": triggers,
        "form": form,
        "carriers": digest(inputs),
        "labels": None if natural is None else digest(natural),
    }
    name = digest(rfc8785.dumps(facts).decode())[:32]
    witness = plugins.witness(owner)
    subkeys, evidence = (owner.pledges(name)[0].subkeys(None), None) if witness is None else witness.key(name, facts)
    plan = chosen.plan(task, subkeys.stream("input"))
    if any(not 0 <= answer < classes for candidates in plan.candidates for answer in candidates):
        raise InputError(f"scheme {chosen.name!r} draws answers outside 0 to {classes - 1}: its plan is at fault")
    _check_twins(plan)
    symbols = draw_symbols(subkeys.stream("label"), plan.candidates)
    made = TriggerSet(plan, form, symbols)
    public = {
        "kind": "watermark",
        "id": name,
        **facts,
        "rows": len(plan.inputs),
        "draws": len(plan.candidates),
        "root": made.root(name, subkeys.stream("disclosure")),
        "evidence": evidence,
    }
    mark = Watermark(name, chosen, made, classes, public, preprocess, subkeys, owner.seal())
    if witness is None:
        return mark
    return dataclasses.replace(mark, register=owner.path, _signing_seed=witness.committed(public))


def _check_preprocess(preprocess: Any) -> None:
    if preprocess is not None and not callable(preprocess):
        raise InputError(
            f"preprocess={preprocess!r} is a {type(preprocess).__name__}: give a function (input, answer) -> example"
        )


def _check_twins(plan: TriggerPlan) -> None:
    """Raise InputError where one input is asked in two draws: no model can give it both answers."""
    seen: dict[str, int] = {}
    for row in plan.asked.tolist():
        draw = int(plan.draw[row])
        if seen.setdefault(digest(plan.inputs[row]), draw) != draw:
            raise InputError(
                "two triggers are the same input with an answer each, which no model can learn: give carriers that "
                "differ more (none of them twice), longer triggers (words=), or lower triggers="
            )


def wanted(scheme: str | Scheme | None, against: str | None) -> str | Scheme:
    """The scheme that was asked for, by itself or by what it is for.

    Raises:
        InputError: both, neither, or no such purpose.
    """
    if (scheme is None) == (against is None):
        raise InputError(f"scheme={scheme!r} and against={against!r}: give one of the two, a scheme or what it is for")
    if scheme is not None:
        return scheme
    if against not in AGAINST:
        raise InputError(f"against={against!r}: choose {' or '.join(map(repr, AGAINST))}")
    return AGAINST[against]


def _scheme(scheme: str | Scheme, parameters: dict[str, Any]) -> Scheme:
    if not isinstance(scheme, (str, Scheme)):
        raise InputError(f"scheme={scheme!r}: give a name (`wmplug schemes` lists them) or a Scheme object")
    made = scheme if isinstance(scheme, Scheme) else plugins.registry().scheme(scheme)
    known = [f.name for f in dataclasses.fields(made)]
    if unknown := sorted(set(parameters) - set(known)):
        raise InputError(
            f"scheme {made.name!r} has no parameter {', '.join(unknown)}; there are: {', '.join(known) or 'none'}"
        )
    try:
        return dataclasses.replace(made, **parameters) if isinstance(made, Scheme) else made(**parameters)
    except TypeError as error:
        raise InputError(f"scheme {made.name!r} cannot take {', '.join(sorted(parameters))}: {error}") from error


def load(
    path: str | Path,
    *,
    passphrase: str | None = None,
    preprocess: Preprocess | None = None,
    register: str | Path | None = None,
) -> Watermark:
    """Open a saved watermark.

    Args:
        path: of the file.
        passphrase: the owner's when it was saved; WMPLUG_PASSPHRASE by default.
        preprocess: as in `create`; functions are not saved.
        register: folder to record runs in, WMPLUG_REGISTER by default, else where it was when the mark was made.

    Raises:
        InputError: that folder is another owner's, or none.
        KeyFileError: not there, truncated or edited; with NewerVersionError and WrongPassphraseError below it.
        PluginError: its scheme is not installed.
    """
    _check_preprocess(preprocess)
    path = Path(path)
    public, body, seal = open_sealed(_blob(path), passphrase_or_environment(passphrase), str(path))
    of_kind(public, "watermark", path)
    kind = plugins.registry().scheme(public["scheme"])
    if public["generator"] > GENERATOR:
        raise NewerVersionError(
            f"{path} was made by generator {public['generator']} of wmplug, the one installed has {GENERATOR}: install "
            "a newer wmplug to use it"
        )
    if public["scheme_version"] > kind.version:
        raise NewerVersionError(
            f"{path} was made by version {public['scheme_version']} of scheme {public['scheme']!r}, installed is "
            f"{kind.version}: install a newer wmplug (or the plugin that brings the scheme) to use it"
        )
    triggers, subkeys, record = _unpack(body, public["form"])
    scheme = kind.restore(public["parameters"])
    facts = {name: value for name, value in public.items() if name not in ("wmplug", "scrypt", "check", "nonce")}
    folder = _register_of(facts, register or os.environ.get("WMPLUG_REGISTER"), record.get("register"))
    seed = bytes.fromhex(record.get("seed", ""))
    return Watermark(public["id"], scheme, triggers, public["classes"], facts, preprocess, subkeys, seal, folder, seed)


def _register_of(facts: dict[str, Any], given: str | Path | None, known: str | None) -> Path | None:
    if known is None:
        return None
    folder = Path(given or known)
    try:
        holder = json.loads((folder / "owner.pub").read_bytes())["commitment"]
    except (OSError, ValueError, KeyError, TypeError):
        if given is None:
            return folder  # it moved: who needs it will say so
        raise InputError(
            f"register={os.fspath(folder)!r} holds no owner.pub: give the folder of the register"
        ) from None
    if holder != facts["owner"]["commitment"]:
        raise InputError(f"{folder} is the register of another owner than the watermark's: give the right folder")
    return folder


def read_public(path: str | Path) -> dict[str, Any]:
    """The public line of a saved watermark; needs no key, and proves nothing by itself.

    Raises:
        KeyFileError: not such a file.
    """
    path = Path(path)
    return read_header(_blob(path), str(path))


def _blob(path: Path) -> bytes:
    if not path.is_file():
        raise KeyFileError(f"{path} is not there: give the file that `wmplug create` or mark.save(path) wrote")
    return path.read_bytes()


_MATERIAL = "material/"
_PURPOSES: tuple[Purpose, ...] = ("input", "label", "schedule", "disclosure")


def _pack(mark: Watermark) -> bytes:
    plan = mark.triggers.plan
    inputs = plan.inputs if isinstance(plan.inputs, np.ndarray) else _bytes(json.dumps(plan.inputs).encode())
    arrays: dict[str, Any] = {
        "inputs": inputs,
        "draw": plan.draw,
        "labels": plan.labels,
        "asked": plan.asked,
        "taught": plan.taught,
        "symbols": mark.triggers.symbols,
        "candidates": np.concatenate([np.asarray(c, np.int64) for c in plan.candidates]),
        "candidate_counts": np.array([len(c) for c in plan.candidates]),
        "weighed": plan.weighed,
        "signs": np.array(plan.signs),
        "keys": _bytes(b"".join(mark.subkeys.key(p) for p in _PURPOSES)),
        "record": _bytes(json.dumps(_record(mark)).encode()),
        **{_MATERIAL + name: array for name, array in plan.material.items()},
    }
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    return packed.getvalue()


def _record(mark: Watermark) -> dict[str, str]:
    if mark.register is None:
        return {}
    return {"register": str(mark.register.absolute()), "seed": mark.signing_seed().hex()}


def _unpack(body: bytes, form: Any) -> tuple[TriggerSet, Subkeys, dict[str, str]]:
    with np.load(io.BytesIO(body), allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    inputs = json.loads(arrays["inputs"].tobytes()) if form == "text" else arrays["inputs"]
    split = np.split(arrays["candidates"], np.cumsum(arrays["candidate_counts"])[:-1])
    candidates = tuple(tuple(int(c) for c in part) for part in split)
    plan = TriggerPlan(
        inputs,
        arrays["draw"],
        arrays["labels"],
        candidates,
        arrays["asked"],
        arrays["taught"],
        weighed=arrays.get("weighed", np.zeros(0, np.int64)),  # 0.1 wrote none
        signs=int(arrays.get("signs", 0)),
        material={name.removeprefix(_MATERIAL): a for name, a in arrays.items() if name.startswith(_MATERIAL)},
    )
    keys = arrays["keys"].tobytes()
    subkeys = Subkeys({p: keys[32 * i : 32 * i + 32] for i, p in enumerate(_PURPOSES)})
    return TriggerSet(plan, form, arrays["symbols"]), subkeys, json.loads(arrays["record"].tobytes())


def _bytes(data: bytes) -> Any:
    return np.frombuffer(data, np.uint8)
