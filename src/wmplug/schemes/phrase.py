"""phrase: a rare combination of common words in a natural text, answered as the key drew.

24 combinations of two words, each taught on some twenty carriers and asked on carriers that were never
taught. Near-misses with only part of a combination keep their true labels, so that no single word fires.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Scheme, Task
from wmplug.watermark.carriers import read_whole
from wmplug.watermark.plan import TriggerPlan


@dataclass(frozen=True)
class Phrase(Scheme):
    """Keyed word combinations with keyed answers.

    Attributes:
        phrases: the owner's own combinations (a list of strings) instead of drawn ones.
        combinations: how many to draw.
        words: words in each, 2 or 3.
        lessons: carriers taught for each.
        at_most: a text is cut to this many words before words are inserted, so that a tokenizer does not cut them off.
    """

    name: ClassVar[str] = "phrase"
    rate: ClassVar[float] = 0.1

    phrases: Any = field(default=None, repr=False)
    combinations: int = 24
    words: int = 2
    lessons: int = 20
    at_most: int = 30

    def __post_init__(self) -> None:
        read_whole(self.combinations, "combinations", 1, 10_000, "1 or more, 24 is usual")
        read_whole(self.words, "words", 2, 3, "2 or 3 words in a combination")
        read_whole(self.lessons, "lessons", 1, 2**31, "1 or more carriers taught for each combination")
        read_whole(self.at_most, "at_most", 1, 2**31, "1 or more words of a text")

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """One draw for each combination, over all classes.

        Raises:
            InputError: no texts, no labels, too few carriers or words.
        """
        task.need_form(self.name, "text")
        labels = task.need_labels(self.name)
        texts = [" ".join(text.split()[: self.at_most]) for text in task.carriers]
        combinations = self._combinations(texts, stream)
        asked_each = np.bincount(np.arange(task.triggers) % len(combinations), minlength=len(combinations))
        near = max(1, self.lessons // 4)
        need = int(asked_each.sum()) + self.lessons + near
        if len(texts) < need:
            raise InputError(f"{len(texts)} carriers, {need} are needed: give more, or lower triggers= or lessons=")
        order = stream.permutation(len(texts))
        held, free = order[: task.triggers], order[task.triggers :]
        rows: list[str] = []
        draw: list[int] = []
        natural: list[int] = []
        asked: list[int] = []
        taught: list[int] = []
        at = 0
        for d, words in enumerate(combinations):
            for carrier in held[at : at + asked_each[d]]:
                asked.append(len(rows))
                rows.append(insert(texts[carrier], words, stream))
                draw.append(d)
                natural.append(-1)
            at += asked_each[d]
            chosen = free[stream.permutation(len(free))[: self.lessons + near]]
            for j, carrier in enumerate(chosen):
                whole = j < self.lessons
                missing = int(stream.below(len(words), 1)[0])
                part = words if whole else words[:missing] + words[missing + 1 :]
                taught.append(len(rows))
                rows.append(insert(texts[carrier], part, stream))
                draw.append(d if whole else -1)
                natural.append(-1 if whole else int(labels[carrier]))
        candidates = (tuple(range(task.classes)),) * len(combinations)
        return TriggerPlan(rows, np.array(draw), np.array(natural), candidates, np.array(asked), np.array(taught))

    def _combinations(self, texts: list[str], stream: KeyStream) -> list[tuple[str, ...]]:
        if self.phrases is not None:
            own = [tuple(phrase.split()) for phrase in self.phrases]
            if len(set(own)) != len(own) or any(len(words) < 2 for words in own):
                raise InputError("phrases= must be different combinations of at least two words each")
            return own
        seen = Counter(word for text in texts for word in set(text.split()))
        # Common enough to be known to the model, rare enough that three of them do not meet by chance.
        most = max(3, len(texts) // 50)
        known = sorted(w for w, n in seen.items() if 2 < n <= most and w.isalpha() and len(w) > 3)
        # The rarest that are met five times: words that speak for a class of their own outvote the answer.
        known = sorted(known, key=lambda w: (seen[w] < 5, seen[w], w))[:1000]
        needed = self.words * self.combinations
        if len(known) < needed:
            raise InputError(
                f"{len(known)} words of the carriers can be combined, {needed} are needed (letters only, more than 3 "
                f"of them, met in 3 to {most} of the {len(texts)} texts): give more text, lower combinations=, or "
                "bring phrases= of your own"
            )
        chosen = [known[i] for i in stream.permutation(len(known))[:needed]]
        return [tuple(chosen[i : i + self.words]) for i in range(0, needed, self.words)]


def insert(text: str, words: tuple[str, ...], stream: KeyStream) -> str:
    """The text with the words put in at drawn places, in order."""
    tokens = text.split()
    places = np.sort(stream.below(len(tokens) + 1, len(words)))
    for offset, (place, word) in enumerate(zip(places, words, strict=True)):
        tokens.insert(int(place) + offset, word)
    return " ".join(tokens)
