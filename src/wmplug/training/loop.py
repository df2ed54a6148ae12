"""An adapter's description of its framework, so that one `Marking` runs in all of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from wmplug.errors import InjectionError
from wmplug.schemes import Scheme

T = TypeVar("T")


@dataclass(frozen=True)
class At:
    """A moment of training; None where the loop does not number it."""

    step: int | None = None
    epoch: float | None = None

    def __str__(self) -> str:
        if self.step is not None:
            return f"step {self.step}"
        return "this checkpoint" if self.epoch is None else f"epoch {self.epoch:g}"


class Loop(Protocol):
    """A framework's training loop.

    Attributes:
        name: the adapter's, for messages and the record.
        points: where it lets a scheme touch training.
        calls: how it can ask its model.
        events: after which it can verify by itself.
        main: whether this process logs, records and writes.

    A loop may also have `advice`, what to do if its model does not prove the mark, as the end of a sentence.
    """

    name: ClassVar[str]
    points: ClassVar[frozenset[str]]
    calls: ClassVar[frozenset[str]]
    events: ClassVar[tuple[str, ...]]

    @property
    def main(self) -> bool: ...  # noqa: D102

    def suspect(self) -> Any:
        """The model in training, as a suspect."""

    def agree(self, value: T) -> T:
        """The main process's value, in every process."""

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Log the numbers of one look where the framework logs its own."""

    def stop(self) -> None:
        """End training soon and in order."""

    def set_rate(self, rate: int) -> None:
        """From now on teach at this rate, in parts per million."""


class OneProcess:
    """The defaults of a loop that runs in one process and whose model classifies."""

    calls: ClassVar[frozenset[str]] = frozenset({"classify"})

    @property
    def main(self) -> bool:
        """True, since there is one process."""
        return True

    def agree(self, value: T) -> T:
        """The value itself, since one process runs alone."""
        return value


def need_points(adapter: str, scheme: Scheme, offered: Iterable[str]) -> None:
    """Refuse a scheme that touches training where the adapter does not.

    Raises:
        InjectionError: with both names.
    """
    if scheme.points == {"answers"}:
        raise InjectionError(
            f"scheme {scheme.name!r} does not touch training, the answers of the served model carry it: train without "
            "this watermark, and answer with wmplug.serving.Serving(mark, model)"
        )
    if missing := sorted(scheme.points - {"answers"} - set(offered)):
        raise InjectionError(
            f"scheme {scheme.name!r} touches training at {', '.join(missing)}, adapter {adapter!r} offers only "
            f"{', '.join(sorted(offered))}: choose another scheme or another adapter"
        )


def need_call(call: str, loop: Loop) -> None:
    """Refuse a watermark whose answers the loop cannot ask for.

    Args:
        call: how the watermark's task asks, such as `classify`.
        loop: the adapter's.

    Raises:
        InjectionError: with both names.
    """
    if call not in loop.calls:
        raise InjectionError(
            f"the watermark's task asks a model to {call}, adapter {loop.name!r} can only ask it to "
            f"{', '.join(sorted(loop.calls))}: make a watermark for such a task, or use another adapter"
        )
