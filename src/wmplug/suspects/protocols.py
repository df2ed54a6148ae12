"""The suspect protocol: anything that turns a list of inputs into labels or scores."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Suspect(Protocol):
    """Anything that answers inputs.

    A suspect may also have `names`, the names of its scores (n, classes) in their order: if they are the names of the
    watermark's classes in another order, wmplug reads the scores by name.
    """

    description: str

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Labels (n,) or scores (n, classes) for n inputs, in the form in which the owner gave the carriers.

        Of two classes one score each will do, (n,) or (n, 1): the probability of class 1.
        """
