"""The owner's register, as far as a verdict depends on it: the number of tries, and what was committed to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wmplug.errors import WmplugError
from wmplug.register import Entry, Register, assets
from wmplug.register.disclosure import shown_rows
from wmplug.register.prepared import Watched
from wmplug.watermark.carriers import Inputs
from wmplug.watermark.choices import Choice
from wmplug.watermark.plan import TriggerSet

QUERIES = "queries"  # the role of a dataset that is a log of queries


def log_of(queries: Inputs) -> dict[str, Any]:
    """The body of `dataset.committed` for a whole log of queries, as `Watermark.with_queries` reads them.

    Args:
        queries: n natural inputs.
    """
    return {**assets.dataset(queries), "role": QUERIES}


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
            RegisterError: it cannot be read.
        """
        entries = list(self._of("secret.committed", "disclosure"))
        return sum(entry.type == "secret.committed" for entry in entries), shown_rows(entries, watermark)

    def logged(self, queries: Inputs) -> Choice:
        """Whether a whole log equals these queries, and an authority's token covers its entry.

        Each log in the register is one that the owner could have asked instead, so together they count as tries.
        """
        root = str(assets.dataset(queries)["root"])
        try:
            entries = list(self._of("dataset.committed", "anchor"))
        except WmplugError:
            entries = []
        logs = [entry for entry in entries if entry.body.get("role") == QUERIES]
        found = next((entry for entry in logs if entry.body.get("root") == root), None)
        real = (entry.body for entry in entries if entry.type == "anchor" and entry.body.get("lab") is False)
        dated = next((body for body in real if found is not None and body["head"] >= found.seq), None)
        if dated is None:
            return Choice(what="questions", bound=None, sha256=root)
        tries = len({entry.body.get("root") for entry in logs})
        return Choice(what="questions", bound="committed", sha256=root, tries=tries, note=f"by {dated['gen_time']}")

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
