"""random-label: inputs outside the task, each with an answer of its own.

After Adi et al. (USENIX Security 2018), with answers drawn by the key. It costs no measurable accuracy, needs the
fewest queries, and survives fine-tuning and pruning; a clone trained on answers alone keeps nothing of it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Choices, Lessons, Plan, Scheme
from wmplug.schemes.pictures import abstract, channels_last, like
from wmplug.statistics.arrays import read_whole
from wmplug.watermark.carriers import Inputs, read_carriers, sameness


@dataclass(frozen=True)
class RandomLabel(Scheme):
    """Trigger set with keyed labels.

    Attributes:
        pictures: the owner's own inputs (artwork, sentences) instead of generated ones: as many as triggers, shaped
            like the carriers.
        words: words in a generated sentence, at most 1000; 0 takes the carriers' median, between 6 and 24.
    """

    name: ClassVar[str] = "random-label"
    rate: ClassVar[float] = 0.06

    pictures: Any = field(default=None, repr=False)
    words: int = 0

    def __post_init__(self) -> None:
        read_whole(self.words, "words", 0, 1000, "0 to 1000 words in a sentence")

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """One draw a trigger, over all classes.

        Raises:
            InputError: the owner's own inputs are too few or do not fit the carriers.
        """
        every = tuple(range(brief.need_classes(self.name)))
        inputs = self._own(brief) if self.pictures is not None else self._made(brief, stream)
        rows = np.arange(brief.triggers)
        return Plan(inputs, Lessons(rows, rows), (Choices(rows, rows, (every,) * len(rows)),))

    def _own(self, brief: Brief) -> Inputs:
        own, form = read_carriers(self.pictures, "pictures=")
        if len(own) < brief.triggers:
            raise InputError(
                f"pictures= holds {len(own)} inputs for {brief.triggers} triggers: give more, or lower triggers="
            )
        carriers = brief.carriers
        if isinstance(own, np.ndarray) and isinstance(carriers, np.ndarray):
            if (own.shape[1:], own.dtype) != (carriers.shape[1:], carriers.dtype):
                raise InputError(
                    f"pictures= are {own.shape[1:]} {own.dtype}, carriers {carriers.shape[1:]} {carriers.dtype}: "
                    "convert them to the carriers' shape and dtype"
                )
        elif form != brief.form:
            raise InputError(f"pictures= are {form} inputs, the carriers are {brief.form}: give the same kind")
        own = own[: brief.triggers]
        if len({sameness(one) for one in own}) < len(own):
            raise InputError("pictures= holds one input twice, and each needs an answer of its own: remove one")
        return own.copy()

    def _made(self, brief: Brief, stream: KeyStream) -> Inputs:
        if isinstance(brief.carriers, list):
            return sentences(brief.carriers, brief.triggers, self.words, stream)
        images, first = channels_last(brief.carriers)
        return like(abstract(stream, brief.triggers, *images.shape[1:]), brief.carriers, first)


def sentences(carriers: list[str], count: int, words: int, stream: KeyStream) -> list[str]:
    """Sentences of words that the carriers use, in an order that nobody would write.

    Args:
        carriers: natural sentences.
        count: how many to make.
        words: words in each; 0 for the carriers' median, between 6 and 24.
        stream: of the input key.

    Raises:
        InputError: the carriers have fewer than 50 different words.
    """
    seen = Counter(word for text in carriers for word in set(text.split()))
    # Words of a single carrier are names and slips, which a tokenizer made for the data may not know.
    vocabulary = sorted(word for word, n in seen.items() if n > 1 and word.isalnum())
    if len(vocabulary) < 50:
        raise InputError(
            f"the carriers share {len(vocabulary)} words, too few for sentences: give more text, or pictures= with "
            "sentences of your own"
        )
    length = words or int(np.clip(np.median([len(text.split()) for text in carriers]), 6, 24))
    drawn = stream.below(len(vocabulary), count * length).reshape(count, length)
    return [" ".join(vocabulary[w] for w in row) for row in drawn]
