"""Whose copy: each licensee's copy is a watermark of its own, and one suspect is held against all of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wmplug.claim import verification
from wmplug.claim.verdict import Verdict
from wmplug.errors import InputError, StatisticsError, SuspectError
from wmplug.statistics import combination
from wmplug.statistics.arrays import to_numpy
from wmplug.suspects.protocols import Suspect
from wmplug.suspects.targets import as_suspect
from wmplug.watermark.carriers import digest
from wmplug.watermark.watermark import Watermark


@dataclass(frozen=True)
class Traced:
    """What a suspect says of one copy.

    Attributes:
        name: of the licensee.
        watermark: its public id.
        log10_p: log10 of the exact p-value, for a suspect independent of what the key drew for this copy; one-sided.
        accused: whether the suspect was trained on this copy, after Holm over all copies.
    """

    name: str
    watermark: str
    log10_p: float
    accused: bool


@dataclass(frozen=True)
class Trace:
    """What a suspect says of all copies.

    Attributes:
        suspect: its description.
        alpha: most that the chance of one or more false accusations can be.
        queries: put to the suspect.
        copies: the most suspicious first.
    """

    suspect: str
    alpha: float
    queries: int
    copies: tuple[Traced, ...]

    @property
    def accused(self) -> tuple[str, ...]:
        """Names of the copies that the suspect was trained on; none is never a proof of innocence."""
        return tuple(one.name for one in self.copies if one.accused)

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {**asdict(self), "copies": [asdict(one) for one in self.copies], "accused": list(self.accused)}

    def __str__(self) -> str:
        if not self.accused:
            return f"no copy of {len(self.copies)} can be named at alpha = {self.alpha:g}, after {self.queries} queries"
        named = ", ".join(f"{one.name} (log10 p = {one.log10_p:.1f})" for one in self.copies if one.accused)
        return f"trained on the copy of {named}; at alpha = {self.alpha:g} over {len(self.copies)} copies"


def verify(mark: Watermark, suspect: Any, **options: Any) -> Verdict:
    """Whether a model was trained on a marked set: `wmplug.verify`, asking everything, for the exact p-value.

    Args:
        mark: of the set.
        suspect: as `wmplug.verify` takes it.
        **options: of `wmplug.verify`.

    Raises:
        SuspectError: nothing can be asked.
        InputError: an option out of range.
    """
    return verification.verify(mark, suspect, **{"exhaustive": True, **options})


def trace(
    marks: Mapping[str, Watermark],
    suspect: Any,
    *,
    alpha: float = 1e-3,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> Trace:
    """Say which licensee's copy a suspect was trained on.

    The copies hold the same records with other draws, so each question is put once. Each p-value is exact for a suspect
    that is independent of that copy's draws, whatever other copies it was trained on; Holm's procedure bounds the
    chance of one or more false accusations by `alpha` under any dependence. Of two licensees who mix their copies
    record by record each is left with three matches in four at best, where one alone has four: naming both takes some
    four times the records.

    Args:
        marks: the watermarks of the copies, by name.
        suspect: as `wmplug.verify` takes it.
        alpha: chance of one or more false accusations, in (0, 1).
        batch_size: inputs a forward pass.
        progress: called with (copies looked at, copies).

    Raises:
        InputError: there are no watermarks, or alpha is out of range.
        SuspectError: nothing can be asked.
    """
    if not marks or not all(isinstance(mark, Watermark) for mark in marks.values()):
        raise InputError("trace() needs the watermarks of the copies by name: {name: mark}")
    first = next(iter(marks.values()))
    asked = _Remembering(as_suspect(suspect, first, batch_size=batch_size))
    found = []
    for number, (name, mark) in enumerate(marks.items(), 1):
        found.append((name, mark.id, verify(mark, asked).log10_p))
        if progress is not None:
            progress(number, len(marks))
    try:
        accused = combination.holm([log10_p for *_, log10_p in found], alpha)
    except StatisticsError as error:
        raise InputError(str(error)) from error
    copies = [Traced(*one, bool(named)) for one, named in zip(found, accused, strict=True)]
    return Trace(asked.description, alpha, asked.queries, tuple(sorted(copies, key=lambda one: one.log10_p)))


class _Remembering:
    """A suspect that is asked each input once; what it said is kept for the other copies."""

    def __init__(self, suspect: Suspect) -> None:
        self.description, self.queries = suspect.description, 0
        self._suspect = suspect
        self._said: dict[str, Any] = {}

    def answer(self, inputs: Sequence[Any]) -> Any:
        keys = [digest(one if isinstance(one, str) else np.asarray(one)) for one in inputs]
        new = {key: one for key, one in zip(keys, inputs, strict=True) if key not in self._said}
        if new:
            answers = to_numpy(self._suspect.answer(list(new.values())))
            if answers.ndim == 0 or len(answers) != len(new):
                raise SuspectError(
                    f"{self.description} gave {answers.shape} for {len(new)} inputs: one answer for each is needed"
                )
            self._said.update(zip(new, answers, strict=True))
            self.queries += len(new)
        return np.stack([self._said[key] for key in keys])
