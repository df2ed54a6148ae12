"""The owner's register, as far as a verdict depends on it: the number of tries, and what was committed to."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from wmplug.errors import RegisterError, WmplugError
from wmplug.register import Entry, Register, assets, checking
from wmplug.register.disclosure import shown_rows
from wmplug.register.prepared import Watched
from wmplug.watermark.carriers import digest, read_carriers
from wmplug.watermark.choices import Choice
from wmplug.watermark.plan import TriggerSet

QUERIES = "queries"  # the role of a dataset that is a log of queries


def log_of(queries: Any) -> dict[str, Any]:
    """The body of `dataset.committed` for a whole log of queries, as `Watermark.with_queries` reads them.

    A set's root holds in any order. Among queries that are equally ambiguous the first are asked, so the order counts.

    Args:
        queries: n natural inputs, in any form of carriers.

    Raises:
        InputError: they are no carriers.
    """
    inputs = read_carriers(queries, "queries")[0]
    return {**assets.dataset(inputs), "role": QUERIES, "in_order": digest(inputs)}


def logs_of(entries: Iterable[Entry], watermark: str | None = None) -> list[Entry]:
    """The commitments to logs of queries; with a watermark's id, those to logs of what it decided."""
    logs = (entry for entry in entries if entry.type == "dataset.committed" and entry.body.get("role") == QUERIES)
    return [entry for entry in logs if watermark in (None, entry.body.get("watermark"))]


def tries_of(logs: Iterable[Entry]) -> int:
    """As how many tries they count: the owner could have asked each of them instead."""
    return len({entry.body.get("in_order") for entry in logs})


def _none_of(logs: Sequence[Entry]) -> str:
    """Why questions are not committed, where none of these logs has their digest."""
    if not logs:
        return "the register holds no log of questions"
    last = logs[-1].body.get("count")
    return f"they are none of the register's logs, {len(logs)} in number; the last holds {last} questions"


class History:
    """Reads one register; implements `choices.Record`.

    Args:
        folder: the register's folder. It may be missing: each method then acts as documented.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _of(self, *kinds: str) -> Iterator[Entry]:
        return (entry for entry in Register(self.folder).entries() if entry.type in kinds)

    def past(self, watermark: str) -> tuple[int, frozenset[int]]:
        """Number of secrets that the register commits to, and the rows of a watermark that it shows to everybody.

        Raises:
            RegisterError: it cannot be read, or lacks the watermark's own secret: then others are missing too.
        """
        entries = list(self._of("secret.committed", "disclosure"))
        secrets = [entry.body.get("watermark") for entry in entries if entry.type == "secret.committed"]
        if watermark not in secrets:
            raise RegisterError(f"{self.folder} holds no commitment to {watermark}: restore the whole register")
        return len(secrets), shown_rows(entries, watermark)

    def logged(self, queries: str) -> Choice:
        """Whether a whole log has the digest of these queries, and a token that holds covers its entry.

        Each log in the register is one that the owner could have asked instead, so together they count as tries. The
        note says by when it was committed, or why nothing binds it.
        """
        try:
            logs = logs_of(Register(self.folder).entries())
            found = next((entry.seq for entry in logs if entry.body.get("in_order") == queries), None)
            dated = _none_of(logs) if found is None else self._dated(found)
        except WmplugError:
            dated = "the register cannot be read"
        if isinstance(dated, str):
            return Choice(what="questions", bound=None, sha256=queries, note=f"({dated})")
        time = f"by {dated:%Y-%m-%dT%H:%M:%SZ}"
        return Choice(what="questions", bound="committed", sha256=queries, tries=tries_of(logs), note=time)

    def _dated(self, seq: int) -> datetime | str:
        """By when an entry was there, by an authority and not by the log's own words; or why nothing says that."""
        report = checking.check(self.folder)
        if not report.ok:
            return "the register fails `wmplug register check`"
        covering = [stamp for stamp in report.stamps if stamp.head >= seq]
        times = [stamp.gen_time for stamp in covering if not stamp.lab]
        if times:
            return min(times)
        if covering:
            return "dated by a lab's own authority alone, which attests nothing"
        return "committed, and no timestamp covers that yet: `wmplug register anchor`"

    def watch(self, watermark: str, triggers: TriggerSet, preprocess: Callable[[Any, Any], Any]) -> Watched:
        """A watch over a preprocess function, by the root in the watermark's `secret.committed`."""
        committed, rows = None, len(triggers.plan.inputs)
        try:
            for entry in self._of("secret.committed", "triggers.committed"):
                if entry.body.get("watermark") == watermark:
                    committed = entry.body.get("prepared", committed)
                    rows = entry.body.get("rows", rows)
        except WmplugError:
            committed = None
        return Watched(preprocess, triggers, min(rows, len(triggers.plan.inputs)), committed)
