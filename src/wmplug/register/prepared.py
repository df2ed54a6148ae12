"""What a model is given for each row: the outputs of `preprocess=`, committed to before any secret answer is drawn.

The inputs of a watermark with a preprocess function follow from its secret alone, its answers from the secret and the
salt of a later token. So the Merkle root over all prepared inputs stands in `secret.committed`, and whatever the
function does, it cannot depend on an answer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.register.assets.encoding import encode, own
from wmplug.register.assets.randomness import kept_random_states
from wmplug.watermark.carriers import digest
from wmplug.watermark.choices import Choice
from wmplug.watermark.plan import TriggerSet

Preprocess = Callable[[Any, Any], Any]
ANSWER = 0  # what a model's adapter passes as the answer: a suspect is never given the secret one


def leaves(preprocess: Preprocess, triggers: TriggerSet, count: int) -> list[bytes]:
    """The leaf hash (32 bytes) of what a model is given for each of the first `count` rows.

    Raises:
        ValueError: the function draws at random, so that it gives something else each time.
        Exception: whatever the function raises, or InputError if an example has no canonical encoding.
    """
    with kept_random_states() as drawn:
        found = [_leaf(preprocess(triggers.row(row), ANSWER)) for row in range(count)]
        if drawn():
            raise ValueError("it draws at random")
    return found


def root(preprocess: Preprocess, triggers: TriggerSet, count: int) -> str:
    """The Merkle root over `leaves`, in hex; errors as there."""
    return merkle.root(leaves(preprocess, triggers, count)).hex()


def _leaf(example: Any) -> bytes:
    return merkle.leaf_hash(encode(example))


class Watched:
    """A preprocess function that must give a suspect what was committed to.

    Args:
        preprocess: the function.
        triggers: the triggers, with all rows that were committed to and perhaps others.
        count: number of rows that were committed to.
        committed: the root in the register, hex; None without a commitment.
    """

    def __init__(self, preprocess: Preprocess, triggers: TriggerSet, count: int, committed: str | None) -> None:
        self._preprocess, self._kept, self._root = preprocess, False, ""
        self._leaves: dict[str, bytes] = {}
        try:
            found = leaves(preprocess, triggers, count)
        except Exception:
            return  # the suspect's adapter calls it next, and reports what is wrong
        self._root = merkle.root(found).hex()
        asked = max(int(test.rows.max()) for test in triggers.plan.tests)
        self._kept = self._root == committed and asked < count
        if self._kept:
            self._leaves = {digest(triggers.plan.inputs[row]): leaf for row, leaf in enumerate(found)}

    def __call__(self, value: Any, answer: Any) -> Any:
        """The function's example; a later call may not give another one than was committed to."""
        if not self._kept:
            return self._preprocess(value, answer)
        value = own(value)  # the function may write into what it is given
        known = self._leaves.get(digest(value if isinstance(value, str) else np.asarray(value)))
        example = self._preprocess(value, answer)
        if known is None:
            return example
        try:
            copy = own(example)  # and into what it gave, when it is called again
        except InputError:
            self._kept = False
            return example
        self._kept = known == _leaf(copy)
        return copy

    def choice(self) -> Choice:
        """`committed`, if every example so far is the one that was committed to."""
        return Choice(what="preprocess", bound="committed" if self._kept else None, sha256=self._root)
