"""Loops of plain JAX, Flax NNX, Optax or grain: whatever reads batches from an iterator.

with Watermarking(mark, predict, batches) as marking:
    for epoch in range(epochs):
        for x, y in marking.batches:                    <- triggers are in the batch; its shape is the same in each step
            params, state = step(params, state, x, y)
        marking.checkpoint(params, epoch=epoch)         <- verifies, logs, adjusts rate="auto"
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from wmplug.adapters.jax.batches import Injector, Parts, fit, refuse_several
from wmplug.adapters.jax.suspects import JaxSuspect, is_module, stacked
from wmplug.claim.terms import TARGET_E
from wmplug.claim.verdict import Verdict
from wmplug.errors import InjectionError, InputError
from wmplug.tasks import Classes
from wmplug.training import sidecar
from wmplug.training.labels import other_label
from wmplug.training.loop import At, OneProcess
from wmplug.training.marking import Marking, Results
from wmplug.training.options import Failure, Options, Rate
from wmplug.training.placement import PPM, Mode
from wmplug.training.record import weights_of
from wmplug.watermark.watermark import Watermark

Event = Literal["train_end"]
EVENTS: tuple[Event, ...] = ("train_end",)


class JaxLoop(OneProcess):
    """A loop of JAX: one process, which calls `checkpoint` by itself.

    Args:
        of: the with-block around it.
    """

    name: ClassVar[str] = "jax"
    points: ClassVar[frozenset[str]] = frozenset({"samples"})
    calls: ClassVar[frozenset[str]] = frozenset({"classify", "predict"})
    events: ClassVar[tuple[str, ...]] = EVENTS

    def __init__(self, of: "Watermarking") -> None:
        self.of = of
        self.rate = 0
        self.params: Any = None  # of the checkpoint that is under way, and no longer: a step may donate them

    def suspect(self) -> JaxSuspect:
        """The model, with the parameters of this checkpoint."""
        return self.of.suspect(self.params)

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Call the user's own function, with numbers only."""
        if self.of.log is not None:
            moment = {name: value for name, value in (("step", at.step), ("epoch", at.epoch)) if value is not None}
            self.of.log({**moment, **numbers})

    def stop(self) -> None:
        """Set `stopped`, which the loop should read."""
        self.of.stopped = True

    def set_rate(self, rate: int) -> None:
        """Set the rate of the next batches."""
        self.rate = rate


class Watermarking(Results):
    """Watermarks a model while a loop of JAX trains it; a context manager around that loop.

    Args:
        mark: the watermark; its `preprocess`, where given, makes examples as one row of a batch.
        predict: the model as you call it for inference: an `nnx.Module`, asked in evaluation mode, or a function
            `predict(params, x)`. It returns scores (n, classes), labels, or for a watermark of numbers one number each.
            Of a batch (x, y) it gets x, of a mapping all but the labels, or the entry that is left.
        batches: what the loop reads, such as a grain loader: an iterable of pytrees of arrays (B, ...), of NumPy or
            JAX. None if you call `marked` on each epoch's iterator yourself.
        rate: share of triggers in what the model sees; the scheme's by default, "auto" to let verdicts adjust it, which
            in `append` mode may change the number of rows after a checkpoint.
        mode: `append` triggers to each batch, always the same number of rows, or `replace` rows of its own.
        verify_on: when to verify besides `checkpoint`: at the end of the with-block (`train_end`; an `nnx.Module`
            alone), or never.
        on_failure: when a mark that was proven is lost (`Monitor.lost`), or is not proven at the end: `warn`, `raise`,
            or `stop` (warns and sets `stopped`, for the loop to read).
        target_e: e-value from which on the watermark counts as proven.
        batch_size: inputs in one forward pass of a verification.
        training_set: the training set to commit to in the register; by default `batches`.
        require_evidence: end a run that cannot be recorded in the mark's register, instead of warning.
        params: the parameters at the start; a checkpoint is then tried before the first step.
        label: key or position of a batch's labels, or a tuple of these; by default `label`, `labels`, `y`, `target` or
            `targets`, and the second part of a tuple.
        log: called with the numbers of each look, step and epoch among them.
        parameters: of the run, to be recorded too: argparse's namespace, a dataclass, a mapping.

    Attributes:
        verdict: the last one, or None.
        verdicts: of all looks in this run.
        history: one dict for each look: step, epoch, and watermark/log10_p, log10_e, matches, rate and state
            (0 inconclusive, 1 evidence, 2 proven).
        stopped: whether the loop should end (`on_failure="stop"`).

    Arrays stay what they are, and where they are. A batch on several devices needs `mode="replace"`, and a
    NamedSharding. Which triggers a batch gets follows from its number, which `state_dict` holds.

    Raises:
        InjectionError: the scheme needs a point of training that the adapter does not offer; on entering, there are
            several processes; on leaving, no trigger reached a batch.
        InputError: an option out of range; with the first batch, triggers that do not fit it, or a model that cannot be
            asked.
    """

    def __init__(
        self,
        mark: Watermark | str | Path,
        predict: Any,
        batches: Iterable[Any] | None,
        *,
        rate: Rate = None,
        mode: Mode = "append",
        verify_on: Sequence[Event] = (),
        on_failure: Failure = "warn",
        target_e: float = TARGET_E,
        batch_size: int = 64,
        training_set: Any = None,
        require_evidence: bool = False,
        params: Any = None,
        label: Any = None,
        log: Callable[[dict[str, Any]], None] | None = None,
        parameters: Any = None,
    ) -> None:
        options = Options(
            rate=rate,
            mode=mode,
            verify_on=verify_on,
            on_failure=on_failure,
            target_e=target_e,
            batch_size=batch_size,
            training_set=training_set,
            require_evidence=require_evidence,
        )
        self._loop = JaxLoop(self)
        self._marking = Marking(mark, self._loop, options)
        if not callable(predict):
            raise InputError(
                f"predict is a {type(predict).__name__}: give an nnx.Module, or a function predict(params, x)"
            )
        if verify_on and not is_module(predict):
            raise InputError(
                f"verify_on={tuple(verify_on)!r}: only you know the newest parameters of a function, so call "
                "checkpoint(params) after the last step, or give an nnx.Module"
            )
        self.mark, self.predict, self.log, self.stopped = self._marking.mark, predict, log, False
        self._given, self._label, self._parameters, self._params = batches, label, parameters, params
        self._slot = self._next = self._injected = 0
        self._parts: Parts | None = None
        self._injector: Injector | None = None

    def __enter__(self) -> "Watermarking":
        if jax.process_count() > 1:
            raise InjectionError(
                f"adapter 'jax' marks batches in one process, and {jax.process_count()} are running: train in one"
            )
        self._marking.begin()
        examples = [(self._example(value, answer), answer) for value, answer in self.mark.lessons()]
        self._injector = Injector(examples, self._marking.placement, self.mark.task, self._label)
        self._slot, self._next, self._injected, self._parts = self._next, 0, 0, None
        own = {"rate": self._marking.rate / PPM, "mode": self._marking.options.mode}
        self._marking.start(data=self._given, arguments={"wmplug": own, "given": self._parameters}, model=self.predict)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self._injector = None
        if kind is not None:
            return
        if not self._injected:
            raise InjectionError(
                "no trigger reached a batch, so the watermark was not learnt: iterate `marking.batches`, or what "
                "`marking.marked(iterator)` returns, inside the with-block, and train on what they yield"
                if self._parts is None
                else f"the {self._slot} batches of the run held no trigger: give a higher rate=, or train longer"
            )
        verify = "train_end" in self._marking.options.verify_on
        system = named(self.predict) if is_module(self.predict) else None
        last = At(self.history[-1]["step"], self.history[-1]["epoch"]) if self.verdicts else At(self._slot)
        self._marking.end(last, verify=verify, again=True, system=system, total=self._injected)

    @property
    def batches(self) -> "Batches":
        """What the loop reads, with triggers; iterate it once an epoch.

        Raises:
            InputError: `batches` was None.
        """
        if self._given is None:
            raise InputError("batches=None: iterate what marking.marked(iterator) returns, or give the batches")
        return Batches(self, self._given)

    def marked(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches of any iterator, with triggers.

        Raises:
            InjectionError: the call is outside the with-block.
        """
        self._active("marked()")
        return self._marked(batches)

    def _marked(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            injector = self._active("a marked iterator")
            joined, added = injector.join(batch, self._slot, self._loop.rate)
            if self._parts is None:
                self._begin_with(Parts(batch, self._label))
            self._slot += 1
            self._injected += added
            yield joined

    def _begin_with(self, parts: Parts) -> None:
        """Look at the labels of the first batch, and try a checkpoint before the first step."""
        if not parts.size:
            return
        refuse_several(parts.labels, self.mark.task)
        if isinstance(self.mark.task, Classes):
            self._marking.heed(other_label(parts.labels, self.mark.task.count))
        self._parts = Parts(jax.tree.map(_shape, parts.structure.unflatten(parts.arrays)), self._label)
        if is_module(self.predict) or self._params is not None:
            self._marking.rehearse(
                self.suspect(self._params),
                "predict must take what your loop gives the model, without labels; the watermark's classes= must be "
                "the number of scores that the model gives",
            )
        self._params = None

    def suspect(self, params: Any = None) -> JaxSuspect:
        """The model as a suspect that is asked with inputs in the form of the loop's batches.

        Args:
            params: parameters of the function, or another `nnx.Module` than the one in training; None for that one.

        Raises:
            InputError: the model is a function, and parameters are missing.
        """
        predict = params if is_module(self.predict) and params is not None else self.predict
        if params is None and not is_module(predict):
            raise InputError("the model is a function of its parameters, and params are missing: pass them")
        size = self._marking.options.batch_size
        return JaxSuspect(predict, params, prepare=self._prepare, batch_size=size)

    def _prepare(self, inputs: Sequence[Any]) -> Any:
        examples = [self._example(value, 0) for value in inputs]
        if (parts := self._parts) is None:
            return stacked(examples)
        rows = parts.rows(examples)
        arrays = [
            np.zeros((len(inputs), *own.shape[1:]), own.dtype)
            if place == parts.label
            else fit(rows[place], own.shape[1:], own.dtype, ".".join(map(str, parts.paths[place])))
            for place, own in enumerate(parts.arrays)
        ]
        return parts.asked(arrays)

    def _example(self, value: Any, answer: Any) -> Any:
        return (value, answer) if self.mark.preprocess is None else self.mark.preprocess(value, answer)

    def checkpoint(
        self,
        params: Any = None,
        *,
        step: int | None = None,
        epoch: float | None = None,
        path: str | Path | None = None,
    ) -> Verdict | None:
        """Verify the model with all triggers; log it, adjust rate="auto", and report a lost mark.

        Args:
            params: the newest parameters; None for an `nnx.Module`, which has them. They are not kept.
            step: of training, for the record; by default the number of batches so far.
            epoch: the same.
            path: of a checkpoint just written, a file or a folder; `wmplug.json` (public part and verdict, nothing
                secret) is written next to the file or into the folder, which is made if it is missing.

        Returns:
            The verdict; None, with a warning, if the model could not be asked: training goes on.

        Raises:
            InjectionError: the call is outside the with-block.
            InputError: the model is a function, and parameters are missing.
            VerificationError: the mark was proven before and is lost, or something could not be done, and on_failure is
                `raise`.
        """
        self._active("checkpoint()")
        self.suspect(params)
        at = At(self._slot if step is None else step, epoch)
        beside = None if path is None else self._place(Path(path))
        written = None if path is None else Path(path) if Path(path).is_file() else weights_of(Path(path))
        live = self.predict if params is None else params
        system = written if written is not None and written.exists() else named(live)
        self._marking.inserted(self._injected, at)
        self._loop.params = params
        try:
            return self._marking.checkpoint(at, again=True, system=system, beside=beside)
        finally:
            self._loop.params = None

    def _place(self, path: Path) -> Path | None:
        try:
            return sidecar.place(path)
        except OSError as error:
            self._marking.cannot(f"{sidecar.NAME} has no place at {path} ({error})", error)
            return None

    def _active(self, what: str) -> Injector:
        if self._injector is None:
            raise InjectionError(
                f"{what} was used outside the with-block, where nothing is watermarked: use it inside `with "
                "Watermarking(...) as marking:`; afterwards wmplug.verify(mark, marking.suspect(params)) asks the "
                "model"
            )
        return self._injector

    def state_dict(self) -> dict[str, Any]:
        """The rate, the looks and the number of batches from which a resumed run continues, as JSON without secrets."""
        return {**super().state_dict(), "batches": self._slot}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict` in the next with-block; the state of another watermark is ignored."""
        super().load_state_dict(state)
        if state.get("root") == self.mark.public["root"]:
            self._next = int(state["batches"])


class Batches:
    """An iterable of batches, with triggers each time it is iterated.

    Args:
        of: the with-block.
        given: the batches without triggers.
    """

    def __init__(self, of: Watermarking, given: Iterable[Any]) -> None:
        self._of, self._given = of, given

    def __iter__(self) -> Iterator[Any]:
        return self._of.marked(self._given)

    def __len__(self) -> int:
        return len(self._given)  # type: ignore[arg-type]  # a TypeError of a stream's own


def named(params: Any) -> dict[str, Any] | None:
    """The arrays of parameters, or of an `nnx.Module`, by their paths; keys of random numbers are left out."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0] if not is_module(params) else _state(params)
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in leaves if hasattr(leaf, "dtype")}
    return {name: leaf for name, leaf in arrays.items() if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)} or None


def _state(module: Any) -> Any:
    from flax import nnx

    return jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(nnx.state(module)))[0]


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)
