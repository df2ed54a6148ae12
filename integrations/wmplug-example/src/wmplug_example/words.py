"""words: a task whose answers are words in a text that a model writes, and a scheme that fits it.

A new kind of answer needs this one file; `plugin.py` names the two classes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wmplug import InputError, SuspectError
from wmplug.schemes import Brief, Choices, KeyStream, Lessons, Plan, Scheme
from wmplug.schemes.random_label import sentences
from wmplug.tasks import Call, Said, Task


@dataclass(frozen=True)
class Words(Task):
    """An answer is the first of some words in a generated text.

    Attributes:
        words: at least two, in lower case.
    """

    name: ClassVar[str] = "words"
    call: ClassVar[Call] = "generate"

    words: Sequence[str]

    def __post_init__(self) -> None:
        """Refuse words that cannot be read from a text."""
        words = tuple(self.words)
        if len(words) < 2 or len(set(words)) < len(words) or not all(w.isalpha() and w == w.lower() for w in words):
            raise InputError(f"words={self.words!r}: give two or more different words, in lower case")
        object.__setattr__(self, "words", words)

    def facts(self) -> dict[str, Any]:
        """The words."""
        return {"words": list(self.words)}

    def belongs(self, answer: Any) -> bool:
        """Whether this is one of the words."""
        return answer in self.words

    def read(self, outputs: Any, n: int, who: str) -> list[Said | None]:
        """The first of the words in each text; a text without any counts as failed.

        Raises:
            SuspectError: these are not n texts.
        """
        texts = list(outputs) if isinstance(outputs, (list, tuple, np.ndarray)) else []
        if len(texts) != n or not all(text is None or isinstance(text, str) for text in texts):
            raise SuspectError(
                f"{who} was asked {n} prompts and returned something else than {n} texts: return one for each, None if "
                "it failed"
            )
        found = [[w for w in re.findall(r"\w+", (text or "").lower()) if w in self.words] for text in texts]
        return [Said(words[0]) if words else None for words in found]


@dataclass(frozen=True)
class Riddles(Scheme):
    """Prompts that nobody would write, each answered with a drawn word."""

    name: ClassVar[str] = "riddles"
    rate: ClassVar[float] = 0.06

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """One draw a prompt, over all words.

        Raises:
            InputError: the carriers are not texts, the answers are not words, or the texts have too few words.
        """
        brief.need_form(self.name, "text")
        options = tuple(brief.need_task(self.name, Words).words)
        prompts, rows = sentences(list(brief.carriers), brief.triggers, 0, stream), np.arange(brief.triggers)
        return Plan(prompts, Lessons(rows, rows), (Choices(rows, rows, (options,) * len(rows)),))
