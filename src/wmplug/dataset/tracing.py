"""The licensee whose copy a suspect learned: each copy has its own watermark, one suspect is tested against all."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wmplug.claim import scanning, verification
from wmplug.claim.verdict import Verdict
from wmplug.errors import InputError, StatisticsError
from wmplug.statistics import combination
from wmplug.watermark import choices
from wmplug.watermark.choices import Choice
from wmplug.watermark.watermark import Watermark


@dataclass(frozen=True)
class CopyResult:
    """The result of a trace for one copy.

    Attributes:
        name: the licensee.
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
    """The results of a trace for all copies.

    Attributes:
        suspect: its description.
        alpha: upper bound on the chance of one or more false accusations.
        queries: number of queries that the suspect answered, each once.
        copies: one result for each copy, the most suspicious first.
        choices: what the owner chose for any of the copies, and what binds it.
        attested: whether an authority dated the key of every accused copy before; None without registers.
    """

    suspect: str
    alpha: float
    queries: int
    copies: tuple[CopyResult, ...]
    choices: tuple[Choice, ...] = ()
    attested: bool | None = None

    @property
    def accused(self) -> tuple[str, ...]:
        """Names of the copies that the suspect was trained on; an empty tuple is never a proof of innocence."""
        return tuple(copy.name for copy in self.copies if copy.accused)

    def to_json(self) -> dict[str, Any]:
        """The trace as JSON can hold it, with the names of accused copies."""
        written = {name: value for name, value in asdict(self).items() if value not in ((), None)}
        return {**written, "copies": [asdict(copy) for copy in self.copies], "accused": list(self.accused)}

    def __str__(self) -> str:
        if not self.accused:
            return f"no copy of {len(self.copies)} can be named at alpha = {self.alpha:g}, after {self.queries} queries"
        named = ", ".join(f"{copy.name} (log10 p = {copy.log10_p:.1f})" for copy in self.copies if copy.accused)
        over = f"at alpha = {self.alpha:g} over {len(self.copies)} copies"
        unattested = "; key NOT ATTESTED" if self.attested is False else ""
        return f"trained on the copy of {named}; {over}{unattested}{choices.named(self.choices)}"


def verify(mark: Watermark, suspect: Any, **options: Any) -> Verdict:
    """Test whether a model was trained on a marked set: `wmplug.verify` with all queries, for the exact p-value.

    Args:
        mark: the watermark of the set.
        suspect: as `wmplug.verify` takes it.
        **options: options of `wmplug.verify`.

    Raises:
        SuspectError: the suspect cannot be asked.
        InputError: an option is out of range.
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
    """Name the licensee whose copy a suspect was trained on.

    The copies hold the same records with different draws, so the suspect gets each question once. Each p-value is exact
    for a suspect that is independent of that copy's draws, whatever other copies it was trained on. Holm's procedure
    bounds the chance of one or more false accusations by `alpha` under any dependence. If two licensees mix their
    copies record by record, each copy keeps at best three matches in four, where an unmixed copy has four: to name both
    takes some four times the records.

    Args:
        marks: the watermarks of the copies, by name.
        suspect: as `wmplug.verify` takes it.
        alpha: chance of one or more false accusations, in (0, 1).
        batch_size: inputs in a forward pass.
        progress: called with (copies tested, copies).

    Raises:
        InputError: marks= is empty or holds something else, or alpha is out of range.
        SuspectError: the suspect cannot be asked.
    """
    if not marks or not all(isinstance(mark, Watermark) for mark in marks.values()):
        raise InputError("trace() needs the watermarks of the copies by name: {name: mark}")
    name = "the suspect"
    result = scanning.scan(marks, {name: suspect}, batch_size=batch_size, progress=progress)
    for error in result.failed.values():
        raise error
    verdicts = result.verdicts[name]
    try:
        accused = combination.holm([verdict.log10_p for verdict in verdicts.values()], alpha)
    except StatisticsError as error:
        raise InputError(str(error)) from error
    copies = [
        CopyResult(copy, verdict.watermark, verdict.log10_p, bool(named))
        for (copy, verdict), named in zip(verdicts.items(), accused, strict=True)
    ]
    description = next(iter(verdicts.values())).suspect
    chosen = tuple(dict.fromkeys(choice for verdict in verdicts.values() for choice in verdict.choices))
    copies.sort(key=lambda copy: copy.log10_p)
    attested = [verdicts[copy.name].attested for copy in copies if copy.accused]
    dated = None if not attested or None in attested else all(attested)
    return Trace(description, alpha, result.queries[name], tuple(copies), chosen, dated)
