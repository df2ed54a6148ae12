"""A watermark: a scheme's triggers, the answers that the key drew, and their public facts."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wmplug.errors import InputError
from wmplug.keys.files import write_new
from wmplug.keys.sealing import Seal
from wmplug.keys.streams import Subkeys
from wmplug.tasks.base import Task, listed
from wmplug.watermark.brief import Brief
from wmplug.watermark.carriers import digest, read_carriers
from wmplug.watermark.choices import Choice, Record
from wmplug.watermark.columns import columns
from wmplug.watermark.decided import Decided
from wmplug.watermark.file import id_of, pack
from wmplug.watermark.plan import TriggerSet
from wmplug.watermark.scheme import Asks, Scheme
from wmplug.watermark.sizes import sized

Preprocess = Callable[[Any, Any], Any]


@dataclass(frozen=True, eq=False)
class Watermark:
    """A watermark, which the owner puts into a model and later asks for; `create` and `load` return it.

    Attributes:
        id: public, 32 hex digits; the digest of scheme, parameters and carriers.
        scheme: the scheme that made it.
        triggers: inputs and answers; secret.
        public: facts that may be published; the first line of the saved file.
        preprocess: `preprocess(input, answer) -> example` as the dataset yields them; not saved.
        register: folder of the register that records its runs, or None.
        record: that register, as far as a verdict depends on it.
        choices: what was chosen since the watermark was made, such as other queries.
    """

    id: str
    scheme: Scheme
    triggers: TriggerSet = field(repr=False)
    public: dict[str, Any] = field(repr=False)
    preprocess: Preprocess | None = field(repr=False)
    subkeys: Subkeys = field(repr=False)
    _seal: Seal = field(repr=False)
    register: Path | None = field(repr=False, default=None)
    _signing_seed: bytes = field(repr=False, default=b"")
    record: Record | None = field(repr=False, default=None)
    choices: tuple[Choice, ...] = ()

    @property
    def task(self) -> Task:
        """The answer space."""
        return self.triggers.task

    def lessons(self) -> list[tuple[Any, Any]]:
        """The (input, answer) pairs to teach, triggers and negatives alike."""
        answers = listed(self.triggers.answers)
        return [(self.triggers.row(row), answers[row]) for row in self.triggers.plan.lessons.rows.tolist()]

    def with_queries(self, queries: Any, *, carriers: Any, labels: Any, pool: Any = None) -> "Watermark":
        """The same watermark, asking other ordinary inputs: best those that your API received.

        A clone reveals the mark most clearly on the inputs it was trained on, and these passed through the API that it
        was cloned from. The new watermark asks those queries that unmarked references find most ambiguous. The p-value
        is exact if the queries were not chosen by the suspect's answers and the key: give a whole log that the register
        committed to before (`wmplug register commit queries`). The verdict names other queries, any pool=, and what the
        scheme's features= make of the queries, as not committed; it holds their digests.
        Use the result to verify; it cannot be saved. A notary asks the committed questions, or a served model's log.

        Args:
            queries: natural inputs like the carriers, some thousand or more; without labels. The scheme `served` takes
                what its log holds, `log.decided()`.
            carriers: the carriers that the watermark was made from; the references are trained on them.
            labels: the labels of these carriers.
            pool: unmarked references in place of trained ones, as in the scheme.

        Raises:
            InputError: carriers or labels differ from the watermark's, or the scheme asks no ordinary inputs.
        """
        brief = self.brief(carriers, labels)
        if not isinstance(self.scheme, Asks):
            raise InputError(f"scheme {self.scheme.name!r} asks its own triggers and nothing else: leave queries= out")
        if not isinstance(queries, Decided):
            queries = sized(queries, self.public)
        plan = self.scheme.asking(self.triggers.plan, brief, queries, pool)
        heard = [digest(plan.material[name]) for name in ("votes", "scores") if name in plan.material]
        asked = queries.digest if isinstance(queries, Decided) else digest(read_carriers(queries, "queries=")[0])
        public = {**self.public, "queries": asked, "references": digest(heard)}
        # References that are trained follow from carriers and queries.
        chosen = self.asked(asked, None if pool is None else public["references"])
        if "own" in plan.material:  # the key follows from what features= make of the carriers, and of nothing else
            chosen.append(Choice(what="features", bound=None, sha256=digest(plan.material["z"])))
        return dataclasses.replace(
            self,
            triggers=dataclasses.replace(self.triggers, plan=plan),
            public=public,
            choices=(*self.choices, *chosen),
        )

    def brief(self, carriers: Any, labels: Any) -> Brief:
        """What the watermark was made from.

        Raises:
            InputError: carriers or labels differ from the watermark's.
        """
        carriers, labels = columns(carriers, labels)
        inputs, form = read_carriers(sized(carriers, self.public))
        natural = self.task.labels(labels, len(inputs))
        brief = Brief(inputs, form, self.task, natural, self.public["triggers"], self.preprocess)
        for what, given in brief.digests().items():
            if given is None:
                raise InputError(
                    f"{what}= (--{what}) are missing: pass those the watermark was made with, the reference models are "
                    "trained on them"
                )
            if given != self.public[what]:
                raise InputError(
                    f"{what}= (--{what}) differ from those the watermark was made with: pass the originals, the "
                    "reference models are trained on them"
                )
        return brief

    def asked(self, queries: str, references: str | None = None) -> list[Choice]:
        """What was chosen with other queries: whether the register binds them, and whose word the log is.

        Args:
            queries: their digest.
            references: digest of the answers of references that the owner brought; None if they were trained.
        """
        none = Choice(what="questions", bound=None, sha256=queries)
        chosen = [none if self.record is None else self.record.logged(queries)]
        if chosen[0].bound is not None:
            # A commitment binds a log against the suspect. Whoever keeps the log holds the key as well: it could be
            # filled with queries whose true class the key drew, and any good model gives the true class.
            chosen.append(Choice(what="log", bound=None))
        if references is not None:
            chosen.append(Choice(what="references", bound=None, sha256=references))
        return chosen

    def signing_seed(self) -> bytes:
        """32 secret bytes of the Ed25519 key that signs the record of its runs; empty without a register."""
        return self._signing_seed

    def save(self, path: str | Path) -> Path:
        """Write the watermark: a public line, then everything secret, sealed with the owner's passphrase.

        Raises:
            InputError: the file holds something else, which would be lost; or the watermark has other queries.
        """
        if "queries" in self.public:
            raise InputError("a watermark with other queries cannot be saved: save the one that it was made from")
        path = Path(path)
        if path.exists() and id_of(path) != self.id:
            raise InputError(f"{path} exists and is not this watermark: choose another path, or remove the file")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new(path, self._seal.close(self.public, pack(self.triggers, self.subkeys, self._record())), 0o600)
        return path

    def _record(self) -> dict[str, str]:
        if self.register is None:
            return {}
        return {"register": str(self.register.absolute()), "seed": self.signing_seed().hex()}

    def __deepcopy__(self, memo: Any) -> "Watermark":
        # Immutable; frameworks copy callbacks, and a second copy of the key helps nobody.
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a watermark holds the key and is not pickled: save it (mark.save) and load it where needed")
