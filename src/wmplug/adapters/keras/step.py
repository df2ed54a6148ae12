"""One Keras training step that sees triggers: methods of the model *instance* are shadowed while `fit` runs.

    make_train_function()                           <- `fit` begins: remains of an interrupted one are removed
    train_function(iterator)                        <- guard, first call only; with NNX triggers join the batch here
        train_step(data)                            <- triggers join the batch, in-graph, placed by optimizer.iterations
            y_pred = self(x, training=True)
            loss = compute_loss(x, y, y_pred)       <- logits shifted, term added, if the scheme uses them
            apply gradients
            compute_metrics(x, y, y_pred)           <- only the user's rows

Evaluation calls the same methods outside of a training step, where they act as the model's own. Nothing here is a Keras
variable or part of a config, so nothing is saved; nothing here holds a key.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import keras
import numpy as np
import numpy.typing as npt
from keras import ops, tree

from wmplug.adapters.keras.batches import (
    as_array,
    fit,
    host,
    leaf,
    named,
    only,
    primary,
    rebuild,
    refuse_misfit,
    refuse_misshapen,
    refuse_several,
)
from wmplug.adapters.keras.single import from_logits, is_single, logits_of, numbers_of, output_of, squashes
from wmplug.errors import InjectionError, InputError
from wmplug.schemes import Scheme
from wmplug.training.placement import PPM, Placement, lap, place
from wmplug.watermark.scheme import SHOWN, Adds, Shifts

SHADOWED = ("make_train_function", "train_step", "train_function", "compute_loss", "compute_metrics")


class TriggerStep:
    """Shadows the training methods of a model.

    Args:
        examples: the pool of taught rows as (x, y), prepared; x an array or a mapping of arrays, y an integer class.
        placement: which of them go where.
        rate: share of triggers in what the model sees, in parts per million; read when a graph is traced.
        scheme: which points are used.
        constants: makes the scheme's constants from some inputs in the form in which the model gets them.
        classes: width of the model's output.
        heed: told the labels of the first batch, where their values are known.

    Attributes:
        reached: points of training that were reached so far.
        whole_metrics: the metrics of a custom train_step that does not call compute_metrics include triggers.
    """

    def __init__(
        self,
        examples: Sequence[tuple[Any, int]],
        placement: Placement,
        rate: int,
        scheme: Scheme,
        constants: Callable[[npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]],
        classes: int,
        heed: Callable[[Any], None] = lambda labels: None,
    ) -> None:
        self.heed = heed
        self.placement, self.rate, self.scheme, self.classes = placement, rate, scheme, classes
        self.reached: set[str] = set()
        self.whole_metrics = True
        self._examples, self._constants = examples, constants
        self._order = _kept(placement.order, "int32")
        self._thresholds = _kept(placement.thresholds, "int32")
        self._pools: dict[Any, Any] = {}
        self._rows: int | None = None  # of the batch with its triggers, where that is known
        self._added: Any = None  # trigger rows of the batch in a training step; None outside of one
        self._slot = self._first = 0
        self._batch: int | None = None

    def attach(self, model: keras.Model) -> None:
        """Shadow the model's methods and let it trace them anew.

        Raises:
            InputError: another TriggerStep shadows the model in this `fit`.
        """
        if any(hasattr(vars(model).get(name), "wmplug_own") for name in SHADOWED):
            raise InputError(
                "this fit has two WatermarkCallbacks, and a model is taught one watermark at a time: keep one, and use "
                "the other in a fit of its own"
            )
        _shadow(model, "make_train_function", self._ended(model))
        _shadow(model, "compute_loss", functools.partial(self._compute_loss, model))
        _shadow(model, "compute_metrics", self._compute_metrics)
        self.count_from(model)
        self._first = self._slot
        self.retrace(model)

    def retrace(self, model: keras.Model) -> None:
        """Build the train function again, as after a change of rate."""
        strip(model, "train_step")
        if _bypasses_instance(model):
            model.make_train_function(force=True)
            _shadow(model, "train_function", self._joined_outside(model))
        else:
            # A new function each time: jax remembers the graph of one that it has seen.
            _shadow(model, "train_step", self._train_step(model))
            model.make_train_function(force=True)
            _shadow(model, "train_function", self._guarded(model))

    def count_from(self, model: keras.Model) -> None:
        """Take the number of the next step from the optimizer; read only if triggers join outside the graph."""
        self._slot = int(model.optimizer.iterations)

    def triggers(self, steps: int) -> int | None:
        """The number of triggers until this step of the optimizer; None if only the graph knows the batch size."""
        if self._batch is None:
            return None
        first, now = (self.placement.before(slot, self._batch, self.rate) for slot in (self._first, steps))
        return now - first

    def check(self) -> None:
        """Check a finished training step.

        Raises:
            InjectionError: the step went around a point that the scheme needs.
        """
        if missing := sorted(self.scheme.points - self.reached):
            raise InjectionError(
                f"training went around wmplug at {', '.join(missing)}, so the watermark would not be learnt: the "
                "model's make_train_function must call self.train_step, and train_step self.compute_loss, as in Keras, "
                "and no callback may call the fit or train_on_batch of a model in training"
            )

    def _ended(self, model: keras.Model) -> Callable[..., Any]:
        # Keras notifies no callback of an exception in fit; the next fit makes its train function before any callback.
        def make(inner: Callable[..., Any]) -> Callable[..., Any]:
            def make_train_function(force: bool = False) -> Any:
                if force:  # from retrace, or a callback that has compiled the model anew
                    return inner(force)
                self.reached.clear()
                strip(model)
                return model.make_train_function()

            return make_train_function

        return make

    def _guarded(self, model: keras.Model) -> Callable[..., Any]:
        def make(inner: Callable[..., Any]) -> Callable[..., Any]:
            def first(*args: Any) -> Any:
                with _kept_on_failure(model, *args[:-1]):
                    result = inner(*args[:-1], self._looked_at(args[-1]))
                with _kept_on_failure(model, *result[1:] if len(args) > 1 else ()):
                    self.check()
                model.train_function = inner
                return result

            return first

        return make

    def _joined_outside(self, model: keras.Model) -> Callable[..., Any]:
        # Keras traces type(model).train_step with NNX, past the instance: the batch is joined before it gets there.
        def make(inner: Callable[..., Any]) -> Callable[..., Any]:
            def train_function(state: Any, iterator: Iterator[Any]) -> Any:
                try:
                    with _kept_on_failure(model, state):
                        result = inner(state, map(self._next, iterator))
                    with _kept_on_failure(model, result[1]):
                        self.check()
                finally:
                    self._added = None
                return result

            return train_function

        return make

    def _next(self, data: Any) -> Any:
        joined = self.join(self._checked(data), self._slot)
        self._slot += 1
        return joined

    def _looked_at(self, batches: Any) -> Any:
        """The first call's batches, refused if their labels name no class; tensorflow hides them in a graph."""
        if keras.backend.backend() == "tensorflow":
            return batches
        return [self._checked(data) for data in batches] if isinstance(batches, list) else map(self._checked, batches)

    def _checked(self, data: Any) -> Any:
        if "samples" in self.scheme.points and "samples" not in self.reached:
            _, y, _ = keras.utils.unpack_x_y_sample_weight(data)
            for labels in tree.flatten(y)[:1]:
                refuse_several(labels, self.classes)
                self.heed(labels)
        return data

    def _train_step(self, model: keras.Model) -> Callable[..., Any]:
        def make(inner: Callable[..., Any]) -> Callable[..., Any]:
            def train_step(*args: Any) -> Any:  # (data), on jax (state, data)
                try:
                    return inner(*args[:-1], self.join(args[-1], _iterations(model.optimizer, *args[:-1])))
                finally:
                    self._added = None

            return train_step

        return make

    def join(self, data: Any, slot: Any) -> Any:
        """A batch with the triggers of its slot at the end, as `Placement.place` chooses them.

        Shapes do not depend on the slot: where a fractional rate gives the slot one trigger less than the most, the
        last row is the user's last (in `append` a second time).

        Args:
            data: (x, y) or (x, y, sample_weight).
            slot: number of the step, an integer or a tensor.

        Raises:
            InputError: triggers do not fit the batch, or it has no labels of one class a row.
        """
        self._added, self._rows = 0, None
        if "samples" not in self.scheme.points:
            return data
        x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
        labels = ops.convert_to_tensor(only(y, "the labels of a batch are"))
        refuse_misshapen(labels, self.classes)
        if labels.shape[0] == 0:
            return data  # as a generator may yield, or Poisson sampling
        taught, rows = self._place(slot, ops.shape(labels)[0])
        joined = rebuild(
            x, {name: self._extend(own, self._pool(name, own, x), taught, rows) for name, own in named(x).items()}
        )
        answers = self._extend(labels, self._answers(labels), taught, rows)
        self._rows = answers.shape[0]
        y = tree.map_structure(lambda _: answers, y)
        if weight is not None:
            weight = tree.map_structure(lambda w: self._extend(w, None, taught, rows), weight)
        self.reached.add("samples")
        return keras.utils.pack_x_y_sample_weight(joined, y, weight)

    def _place(self, slot: Any, batch: Any) -> tuple[Any, Any]:
        """A mask (width,) of the added rows that are triggers, and their positions in the pool (width,)."""
        if isinstance(batch, int):
            self._batch = max(batch, self._batch or 0)
            whole, rest = self.placement.share(batch, self.rate)
            self._refuse_nothing(self._batch)
            width, passed = whole + (rest > 0), self._lap(rest)
        else:  # tensorflow knows the size of a batch only in the graph
            whole, rest = (ops.cast(n, "int32") for n in self.placement.share(ops.cast(batch, "int64"), self.rate))
            width, passed = whole + ops.cast(rest > 0, "int32"), lap(ops, ops.convert_to_tensor(self._thresholds), rest)
        cycle = len(self.placement.order)
        first, count = place(ops.cast(slot, "int32"), whole, passed, cycle)
        numbers = ops.arange(width, dtype="int32")
        self._added = width
        return numbers < count, ops.take(ops.convert_to_tensor(self._order), (first + numbers) % cycle)

    def _lap(self, rest: int) -> Any:
        key = ("lap", rest)
        if key not in self._pools:
            self._pools[key] = _kept(np.array(self.placement.lap(rest)), "int32")
        return ops.convert_to_tensor(self._pools[key])

    def _refuse_nothing(self, batch: int) -> None:
        # By the largest batch so far: the last of an epoch may be too small for a trigger.
        whole, rest = self.placement.share(batch, self.rate)
        if not whole and rest <= int(self.placement.thresholds.min()):
            raise InputError(
                f"at a rate of {self.rate / PPM:g} a batch of {batch} never contains a trigger: give the callback a "
                "higher rate=, or fit() a larger batch_size="
            )

    def _extend(self, own: Any, pool: Any, taught: Any, rows: Any) -> Any:
        """`own` (B, ...) with rows of the pool, or with ones, at the end."""
        own = ops.convert_to_tensor(own)
        last, width = own[-1:], ops.shape(taught)[0]
        extra = ops.ones_like(last) if pool is None else ops.take(pool, rows, axis=0)
        mask = ops.reshape(taught, (-1, *(1,) * (len(own.shape) - 1)))
        kept = own if self.placement.mode == "append" else own[: ops.shape(own)[0] - width]
        return ops.concatenate([kept, ops.where(mask, extra, last)], axis=0)

    def _pool(self, name: Any, own: Any, x: Any) -> Any:
        own = ops.convert_to_tensor(own)
        shape, dtype = tuple(own.shape[1:]), keras.backend.standardize_dtype(own.dtype)
        key = (name, shape, dtype)
        if key not in self._pools:
            parts = [leaf(example, name, x) for example, _ in self._examples]
            self._pools[key] = _kept(fit(parts, shape, dtype, "" if name is None else f"[{name!r}]"), dtype)
        return ops.convert_to_tensor(self._pools[key], dtype)

    def _answers(self, labels: Any) -> Any:
        shape, dtype = tuple(labels.shape[1:]), keras.backend.standardize_dtype(labels.dtype)
        key = ("answers", shape, dtype)
        if key not in self._pools:
            answers = np.array([y for _, y in self._examples])
            answers = np.eye(self.classes)[answers] if shape == (self.classes,) else answers.reshape(-1, *shape)
            self._pools[key] = _kept(answers, dtype)
        return ops.convert_to_tensor(self._pools[key], dtype)

    def _tables(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """The scheme's constants for inputs of this shape, computed once."""
        key = ("constants", shape)
        if key not in self._pools:
            inputs = np.stack([as_array(primary(example)) for example, _ in self._examples[:SHOWN]])
            # tensorflow may know a length only in the graph
            tables = self._constants(inputs if None in shape else inputs.reshape(-1, *shape))
            self._pools[key] = {name: _kept(array, array.dtype.name) for name, array in tables.items()}
        return {name: ops.convert_to_tensor(array) for name, array in self._pools[key].items()}

    def _compute_loss(self, model: keras.Model, inner: Callable[..., Any]) -> Callable[..., Any]:
        def compute_loss(
            x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, *args: Any, **kwargs: Any
        ) -> Any:
            if self._added is None:
                return inner(x, y, y_pred, sample_weight, *args, **kwargs)
            self.reached |= {"logits", "loss"}
            output = only(y_pred, "the model's outputs are")
            refuse_misfit(output, self.classes)
            if not self.scheme.points & {"logits", "loss"}:
                return inner(x, y, y_pred, sample_weight, *args, **kwargs)
            single, squashed = is_single(output, self.classes), squashes(model)
            raw = from_logits(getattr(model, "loss", None)) or (single and squashed is False)
            kind = {"raw": raw, "squashed": single or bool(squashed), "single": single}
            logits = logits_of(output, **kind)
            inputs = ops.convert_to_tensor(primary(x))
            constants = self._tables(tuple(inputs.shape[1:]))
            if "logits" in self.scheme.points:
                seen = cast(Shifts, self.scheme).shift(ops, constants, inputs, logits)
                seen = output_of(seen, output, **kind)
                y_pred = tree.map_structure(lambda _: seen, y_pred)
            loss = inner(x, y, y_pred, sample_weight, *args, **kwargs)
            if "loss" in self.scheme.points:
                labels = numbers_of(only(y, "the labels of a batch are"), self.classes)
                term = cast(Adds, self.scheme).term(ops, constants, inputs, logits, labels)
                loss = loss + ops.cast(term, loss.dtype)
            return loss

        return compute_loss

    def _compute_metrics(self, inner: Callable[..., Any]) -> Callable[..., Any]:
        def compute_metrics(*args: Any, **kwargs: Any) -> Any:
            if self._added is not None:
                self.whole_metrics = False
                args, kwargs = tree.map_structure(self._users, (args, kwargs))
            return inner(*args, **kwargs)

        return compute_metrics

    def _users(self, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(self._rows, int) and isinstance(value.shape[0], int) and value.shape[0] != self._rows:
            self.whole_metrics = True  # a train_step that drops or repeats rows: their places say nothing
            return value
        # A batch that was replaced as a whole is measured as it is, since nothing else is left to measure.
        kept = ops.shape(value)[0] - self._added
        return value[: kept or None] if isinstance(kept, int) else value[:kept]


def strip(model: keras.Model, *names: str) -> None:
    """Give a model its own methods back (all, or those named), also after an exception in an earlier `fit`."""
    stripped = False
    for name in names or SHADOWED:
        method = vars(model).get(name)
        if hasattr(method, "wmplug_own"):
            stripped = True
            delattr(model, name)
            if method.wmplug_own is not None:
                setattr(model, name, method.wmplug_own)
    if stripped:
        model.train_function = None


def _kept(array: npt.NDArray[Any], dtype: str) -> Any:
    # torch runs a step eagerly and would copy to the device each time; in a graph an array is a constant.
    if keras.backend.backend() == "torch":
        return ops.convert_to_tensor(array, dtype)
    return array.astype(host(dtype))


def _shadow(model: keras.Model, name: str, make: Callable[[Callable[..., Any]], Any]) -> None:
    own = vars(model).get(name)
    method = make(getattr(model, name))
    method.wmplug_own = own
    setattr(model, name, method)


def _bypasses_instance(model: keras.Model) -> bool:
    enabled = getattr(keras.config, "is_nnx_enabled", None)
    compiled = model.jit_compile and not model.run_eagerly
    return bool(enabled and enabled() and keras.backend.backend() == "jax" and compiled)


@contextmanager
def _kept_on_failure(model: keras.Model, state: Any = None) -> Iterator[None]:
    # jax takes the variables out of the model while it trains; an error in the first step would lose them.
    try:
        yield
    except BaseException:  # Ctrl-C as well
        if state is not None:
            kinds = ("trainable", "non_trainable", "optimizer", "metrics")
            model._jax_state = {f"{kind}_variables": part for kind, part in zip(kinds, state, strict=True)}
        raise


def _iterations(optimizer: Any, state: Any = None) -> Any:
    """The step's number; on jax it is part of the step's state."""
    with _in_state(optimizer, state):
        return ops.convert_to_tensor(optimizer.iterations)


@contextmanager
def _in_state(optimizer: Any, state: Any) -> Iterator[None]:
    if state is None:
        yield
        return
    with keras.StatelessScope(state_mapping=list(zip(optimizer.variables, state[2], strict=True))):
        yield
