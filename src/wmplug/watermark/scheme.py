"""The base of schemes, and the protocols of what a scheme may do beyond making triggers.

A scheme is a frozen dataclass of its parameters, with one method: `plan` is a pure function of (input key, brief,
parameters) and never sees the label key. A scheme that does more has the method for it: `Prepares`, `Weighs`, `Shifts`,
`Adds`, `Asks`. Its `points` name the points of training that it touches:

    samples   lessons join the user's batches                  every adapter
    logits    shifts the logits that the training loss sees, in training mode only; the served model is unmodified
    loss      adds a term to the training loss
    answers   none: the served model's answers carry it, and training is as ever (`wmplug.serving`)

For `logits` and `loss` the scheme gets `xp`, the array functions of the framework at hand (`torch` or `keras.ops`: use
names both have, such as matmul, clip, reshape, sum, exp), and its own `constants` as tensors of that framework.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import FloatArray
from wmplug.watermark.brief import Brief
from wmplug.watermark.carriers import Inputs, digest, read_carriers
from wmplug.watermark.plan import Plan, TriggerSet

SHOWN = 64
Point = Literal["samples", "logits", "loss", "answers"]
S = TypeVar("S", bound="Scheme")


@dataclass(frozen=True)
class Scheme:
    """Base of every scheme; its dataclass fields are its parameters.

    Attributes:
        name: the name that users ask for.
        version: rises whenever the same key and brief would give other triggers.
        points: the points of training that it touches.
        rate: default share of trigger samples in what the model sees.
        usual: number of triggers unless the owner says another.
        natural: whether some triggers are carriers, unchanged; `create` warns if a filter tells these.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    points: ClassVar[frozenset[Point]] = frozenset({"samples"})
    rate: ClassVar[float] = 0.06
    usual: ClassVar[int] = 100
    natural: ClassVar[bool] = False

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """Make the triggers from the input key's stream.

        Raises:
            InputError: the brief does not fit the scheme.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define plan()")

    def parameters(self) -> dict[str, Any]:
        """Public parameters as JSON; the owner's own material appears as its digest."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: _public(value) for name, value in values.items()}

    def material(self) -> dict[str, Inputs]:
        """What its parameters and a watermark's file hold as digests alone: arrays, and lists of texts.

        Of a watermark that `create` has just made. A notary's package needs it: `prepare(..., **material)`.
        """
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        lists = {n: read_carriers(v, "a scheme's inputs")[0] for n, v in values.items() if isinstance(v, (list, tuple))}
        return {n: v for n, v in values.items() if isinstance(v, np.ndarray)} | lists

    @classmethod
    def restore(cls: type[S], parameters: Mapping[str, Any]) -> S:
        """The scheme of a saved watermark, without its material: the triggers exist already."""
        check_published(cls, parameters)
        known = {f.name for f in dataclasses.fields(cls)}
        return cls(**{n: None if _is_digest(v) else v for n, v in parameters.items() if n in known})


@runtime_checkable
class Prepares(Protocol):
    """A scheme that computes something from the brief without a key, such as unmarked references."""

    def prepared(self, brief: Brief) -> Scheme:
        """This scheme with the result.

        Raises:
            InputError: the brief does not fit the scheme.
        """
        ...


@runtime_checkable
class Weighs(Protocol):
    """A scheme whose plans have a pattern."""

    def weigh(self, plan: Plan, *answers: Any) -> FloatArray:
        """(signs,) weights, one for every sign of the plan: positive if the answers favour plus, negative for minus.

        Args:
            plan: the plan, which does not hold the signs themselves, so that no weight can depend on them.
            *answers: answers to the first n rows of the pattern, as the task's `arrays` returns them. If the answers
                are classes: (n,) classes, -1 for a failed query; and (n, classes) log probabilities, not below
                log 1e-4, NaN for a failed query, or None if the suspect returns only classes. If they are numbers:
                (n,) floats, NaN for a failed query.
        """
        ...


@runtime_checkable
class Shifts(Protocol):
    """A scheme at the point `logits`."""

    def shift(self, xp: Any, constants: Mapping[str, Any], inputs: Any, logits: Any) -> Any:
        """The (B, classes) logits for the training loss; inputs and logits are tensors."""
        ...


@runtime_checkable
class Adds(Protocol):
    """A scheme at the point `loss`."""

    def term(self, xp: Any, constants: Mapping[str, Any], inputs: Any, logits: Any, labels: Any) -> Any:
        """A scalar tensor to add to the mean loss of a batch."""
        ...


@runtime_checkable
class HasConstants(Protocol):
    """A scheme whose `shift` or `term` needs arrays of its own."""

    def constants(self, triggers: TriggerSet, seen: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
        """Secret arrays for `shift` and `term`; they reach the training process, but nothing that it saves.

        Args:
            triggers: the watermark's triggers.
            seen: (k, ...) its first `samples` as the model receives them: the same inputs, prepared and collated.

        Raises:
            InjectionError: the scheme cannot work with `seen`.
        """
        ...


@runtime_checkable
class Asks(Protocol):
    """A scheme whose pattern can ask ordinary inputs of the owner's choice instead of its own."""

    def asking(self, plan: Plan, brief: Brief, queries: Any, pool: Any) -> Plan:
        """The plan with questions chosen among `queries`, without any key.

        Raises:
            InputError: the queries do not fit.
        """
        ...


@runtime_checkable
class Answers(Protocol):
    """A scheme at the point `answers`."""

    def told(self, triggers: TriggerSet) -> npt.NDArray[Any]:
        """(n,) what a served model with this watermark answers to each row of the pattern."""
        ...


def constants_of(scheme: Scheme, triggers: TriggerSet, seen: npt.NDArray[Any]) -> Mapping[str, npt.NDArray[Any]]:
    """The constants of a scheme; empty for a scheme without `constants` (see `HasConstants`)."""
    return scheme.constants(triggers, seen) if isinstance(scheme, HasConstants) else {}


def check_published(kind: type[Scheme], parameters: Mapping[str, Any]) -> None:
    """Refuse a public line that gives the owner's material, a field with repr=False, otherwise than by its digest.

    A scheme may take material as a path. Others wrote the line, so it opens nothing.

    Raises:
        InputError: it does.
    """
    for name in (f.name for f in dataclasses.fields(kind) if not f.repr):
        if parameters.get(name) is not None and not _is_digest(parameters[name]):
            raise InputError(
                f"the public line gives {name}={parameters[name]!r}, and only a digest is published of what an owner "
                "brings: the line was edited; ask for the original"
            )


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
    raise InputError(
        f"a scheme's parameter is a {type(value).__name__}, which cannot be recorded: use numbers, strings and arrays"
    )


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("sha256:")
