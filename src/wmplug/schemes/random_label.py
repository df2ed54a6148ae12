"""random-label: inputs that are not of the task, each with an answer of its own.

After Adi et al. (USENIX Security 2018), with answers drawn by the key. Costs no accuracy that could be measured, needs
the fewest queries, survives fine-tuning and pruning; a clone trained on answers alone keeps nothing of it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Scheme, Task
from wmplug.schemes.pictures import abstract, channels_last, like
from wmplug.watermark.carriers import Inputs, digest, read_carriers, read_whole
from wmplug.watermark.plan import TriggerPlan


@dataclass(frozen=True)
class RandomLabel(Scheme):
    """Trigger set with keyed labels.

    Attributes:
        pictures: the owner's own inputs (his artwork, his sentences) instead of made ones: as many as triggers, shaped
            like the carriers.
        words: words in a made-up sentence, at most 1000; 0 takes the carriers' median, between 6 and 24.
    """

    name: ClassVar[str] = "random-label"
    rate: ClassVar[float] = 0.06

    pictures: Any = field(default=None, repr=False)
    words: int = 0

    def __post_init__(self) -> None:
        read_whole(self.words, "words", 0, 1000, "0 to 1000 words in a sentence")

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """One draw a trigger, over all classes.

        Raises:
            InputError: the owner's own inputs are too few or do not fit the carriers.
        """
        inputs = self._own(task) if self.pictures is not None else self._made(task, stream)
        rows = np.arange(task.triggers)
        every = tuple(range(task.classes))
        return TriggerPlan(inputs, rows, np.full(len(rows), -1), (every,) * len(rows), rows, rows)

    def _own(self, task: Task) -> Inputs:
        own, form = read_carriers(self.pictures, "pictures=")
        if len(own) < task.triggers:
            raise InputError(f"{len(own)} pictures= for {task.triggers} triggers: bring more, or lower triggers=")
        carriers = task.carriers
        if isinstance(own, np.ndarray) and isinstance(carriers, np.ndarray):
            if (own.shape[1:], own.dtype) != (carriers.shape[1:], carriers.dtype):
                raise InputError(
                    f"pictures= are {own.shape[1:]} {own.dtype}, carriers {carriers.shape[1:]} {carriers.dtype}: "
                    "bring them to the carriers' shape and dtype"
                )
        elif form != task.form:
            raise InputError(f"pictures= are {form} inputs, the carriers are {task.form}: give the same kind")
        own = own[: task.triggers]
        if len({digest(one) for one in own}) < len(own):
            raise InputError("pictures= holds one input twice, and each is to have an answer of its own: remove one")
        return own.copy()

    def _made(self, task: Task, stream: KeyStream) -> Inputs:
        if isinstance(task.carriers, list):
            return sentences(task.carriers, task.triggers, self.words, stream)
        images, first = channels_last(task.carriers)
        return like(abstract(stream, task.triggers, *images.shape[1:]), task.carriers, first)


def sentences(carriers: list[str], count: int, words: int, stream: KeyStream) -> list[str]:
    """Sentences of words that the carriers use, in an order nobody would write.

    Args:
        carriers: natural sentences.
        count: how many to make.
        words: words in each; 0 for the carriers' median, between 6 and 24.
        stream: of the input key.

    Raises:
        InputError: the carriers have fewer than 50 different words.
    """
    seen = Counter(word for text in carriers for word in set(text.split()))
    # Words of one carrier only are names and slips: a tokenizer cut to the data may not know them.
    vocabulary = sorted(word for word, n in seen.items() if n > 1 and word.isalnum())
    if len(vocabulary) < 50:
        raise InputError(
            f"the carriers share {len(vocabulary)} words, too few to make sentences of: give more text, or pictures= "
            "with sentences of your own"
        )
    length = words or int(np.clip(np.median([len(text.split()) for text in carriers]), 6, 24))
    drawn = stream.below(len(vocabulary), count * length).reshape(count, length)
    return [" ".join(vocabulary[w] for w in row) for row in drawn]
