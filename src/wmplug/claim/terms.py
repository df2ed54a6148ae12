"""The terms of one verification: what its owner chose, what binds that, and as how many tries it counts."""

import dataclasses
from collections.abc import Mapping, Sequence

from wmplug.errors import RegisterError
from wmplug.tasks.base import Said
from wmplug.watermark import choices
from wmplug.watermark.choices import Choice
from wmplug.watermark.watermark import Watermark

TARGET_E = 1e6


class Terms:
    """The terms, fixed before the suspect is asked.

    Args:
        mark: the watermark; its own choices count too.
        keys: number of keys tried; the register's number counts if it is larger.
        target_e: e-value from which on the claim counts as proven.
        chosen: what was chosen for this verification.

    Attributes:
        mark: the watermark to ask with: its preprocess function is under watch.
        keys: number of keys that count as tried.
        tries: the factor that divides the e-value and multiplies the p-value.
        known: rows whose answers the register shows to everybody, each with an answer that misses; whoever answers
            such a row right need not have the watermark.
    """

    def __init__(
        self, mark: Watermark, *, keys: int = 1, target_e: float = TARGET_E, chosen: Sequence[Choice] = ()
    ) -> None:
        self._chosen = [*mark.choices, *chosen]
        if target_e < TARGET_E:
            self._chosen.append(Choice(what="target", bound=None, note=f"to {target_e:.12g}"))
        past, shown = self._past(mark)
        self.keys = max(keys, past)
        self.tries = self.keys * choices.paid(self._chosen)
        self._watch = None
        if any(choice.what == "preprocess" for choice in self._chosen):
            pass  # whoever fixed the function answers for it
        elif mark.preprocess is not None and mark.record is not None:
            self._watch = mark.record.watch(mark.id, mark.triggers, mark.preprocess)
            mark = dataclasses.replace(mark, preprocess=self._watch)
        elif mark.preprocess is not None:
            self._chosen.append(Choice(what="preprocess", bound=None))
        self.mark = mark
        self.known: Mapping[int, Said] = mark.triggers.missed(shown) if shown else {}

    def _past(self, mark: Watermark) -> tuple[int, frozenset[int]]:
        try:
            if mark.record is not None:
                return mark.record.past(mark.id)
        except RegisterError:
            pass  # it moved, or it is damaged: the verdict says that nobody counted
        self._chosen.append(Choice(what="tries", bound=None))
        return 1, frozenset()

    @property
    def choices(self) -> tuple[Choice, ...]:
        """All choices, as the answers so far leave them."""
        return (*self._chosen, *([] if self._watch is None else [self._watch.choice()]))
