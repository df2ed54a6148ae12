"""What answers: anything that turns a list of inputs into labels or scores."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Suspect(Protocol):
    """Anything that can be asked."""

    description: str

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Labels (n,) or scores (n, classes) for n inputs, given as the owner gave the carriers."""
