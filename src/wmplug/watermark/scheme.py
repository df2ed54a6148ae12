"""What a scheme is: how triggers are made, how training is touched, how answers are scored.

A scheme is a frozen dataclass of its parameters. `plan` is a pure function of (input key, task, parameters); it never
sees the label key. Which points of training a scheme touches is said by `points`:

    samples   triggers join the user's batches                  every adapter
    logits    the logits that the training loss sees are shifted, in training mode only; the model is served unmodified
    loss      a term is added to the training loss

For `logits` and `loss` the scheme is given `xp`, the array functions of the framework at hand (`torch` or `keras.ops`:
use names both have, such as matmul, clip, reshape, sum, exp), and its own `constants` as tensors of that framework.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.brief import Task
from wmplug.watermark.carriers import digest, read_carriers
from wmplug.watermark.plan import TriggerPlan, TriggerSet

SHOWN = 64
Point = Literal["samples", "logits", "loss"]
S = TypeVar("S", bound="Scheme")


@dataclass(frozen=True)
class Scheme:
    """Base of every scheme; its dataclass fields are its parameters.

    Attributes:
        name: as it is asked for.
        version: raised whenever the same key and task would give other triggers.
        points: where it touches training.
        rate: default share of trigger samples in what the model sees.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    points: ClassVar[frozenset[Point]] = frozenset({"samples"})
    rate: ClassVar[float] = 0.06

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """Make the triggers from the input key's stream.

        Raises:
            InputError: the task does not fit the scheme.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no plan")

    def prepared(self, task: Task) -> "Scheme":
        """This scheme with whatever it has to work out from the task without a key, such as unmarked references.

        Raises:
            InputError: the task does not fit the scheme.
        """
        return self

    def asking(self, plan: TriggerPlan, task: Task, queries: Any, pool: Any) -> TriggerPlan:
        """The plan with questions chosen among `queries` in place of the ordinary inputs it has, by no key.

        Raises:
            InputError: the scheme asks no ordinary inputs, or these do not fit.
        """
        raise InputError(f"scheme {self.name!r} asks its own triggers and nothing else: queries= do not fit it")

    def weigh(
        self, plan: TriggerPlan, answers: IntArray, scores: npt.NDArray[np.float64] | None
    ) -> npt.NDArray[np.float64]:
        """(signs,) weights: how much the answers speak for plus rather than minus, for every sign of the plan.

        Args:
            plan: knows nothing of the signs themselves, so that no weight can depend on them.
            answers: (n,) classes, -1 for a query that failed, to the first n of the rows that are weighed.
            scores: (n, classes) log probabilities, not below log 1e-4, NaN for a query that failed; None where the
                suspect tells only classes.
        """
        raise NotImplementedError(f"{type(self).__name__} plans signs and defines no weigh")

    def constants(self, triggers: TriggerSet, seen: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
        """Secret arrays for `shift` and `term`; they reach the training process and nothing it saves.

        Args:
            triggers: of the watermark.
            seen: (k, ...) its first `samples` as the model is given them: the same inputs, prepared and collated.

        Raises:
            InjectionError: `seen` is not what the scheme can work with.
        """
        return {}

    def shift(self, xp: Any, constants: Mapping[str, Any], inputs: Any, logits: Any) -> Any:
        """Point `logits`: the (B, classes) logits that the training loss is to see; inputs and logits are tensors."""
        return logits

    def term(self, xp: Any, constants: Mapping[str, Any], inputs: Any, logits: Any, labels: Any) -> Any:
        """Point `loss`: a scalar tensor to add to the mean loss of a batch."""
        return xp.sum(logits) * 0.0

    def parameters(self) -> dict[str, Any]:
        """Public parameters as JSON; the owner's own material appears as its digest."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: _public(value) for name, value in values.items()}

    @classmethod
    def restore(cls: type[S], parameters: Mapping[str, Any]) -> S:
        """The scheme of a saved watermark; material stays behind, its triggers are made already."""
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{n: None if _is_digest(v) else v for n, v in parameters.items() if n in known})


def _public(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        value, _ = read_carriers(value, "a scheme's inputs")
        return f"sha256:{digest(value)}"
    if isinstance(value, np.ndarray):
        return f"sha256:{digest(value)}"
    if isinstance(known := getattr(value, "digest", None), str):
        return f"sha256:{known}"
    raise InputError(f"a scheme's parameter is a {type(value).__name__}: numbers, strings and arrays can be recorded")


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("sha256:")
