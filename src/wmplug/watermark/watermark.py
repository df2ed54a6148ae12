"""A watermark: a scheme's triggers, the answers the key drew, and what may be published of them."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wmplug.errors import InputError
from wmplug.keys.files import write_new
from wmplug.keys.sealing import Seal
from wmplug.keys.streams import Subkeys
from wmplug.schemes import Scheme, Task
from wmplug.statistics.draws import DrawResult
from wmplug.watermark.carriers import digest, read_carriers, read_labels
from wmplug.watermark.file import id_of, pack
from wmplug.watermark.plan import TriggerSet

Preprocess = Callable[[Any, int], Any]


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
        if path.exists() and id_of(path) != self.id:
            raise InputError(f"{path} is there and is not this watermark: choose another path, or remove the file")
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
        raise TypeError("a watermark is not pickled, it holds the key: save it (mark.save) and load it where needed")
