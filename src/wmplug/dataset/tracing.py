"""Whose copy: each licensee's copy is a watermark of its own, and one suspect is held against all of them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wmplug.claim import scanning, verification
from wmplug.claim.verdict import Verdict
from wmplug.errors import InputError, StatisticsError
from wmplug.statistics import combination
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
        queries: that the suspect answered, each once.
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
    name = "the suspect"
    found = scanning.scan(marks, {name: suspect}, batch_size=batch_size, progress=progress)
    for error in found.failed.values():
        raise error
    verdicts = found.verdicts[name]
    try:
        accused = combination.holm([verdict.log10_p for verdict in verdicts.values()], alpha)
    except StatisticsError as error:
        raise InputError(str(error)) from error
    copies = [
        Traced(copy, verdict.watermark, verdict.log10_p, bool(named))
        for (copy, verdict), named in zip(verdicts.items(), accused, strict=True)
    ]
    description = next(iter(verdicts.values())).suspect
    return Trace(description, alpha, found.queries[name], tuple(sorted(copies, key=lambda one: one.log10_p)))
