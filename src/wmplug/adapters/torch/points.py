"""Injection points `logits` and `loss` in a torch model.

    model(batch)                 <- pre-hook: remembers the input (and the labels, if the model gets them)
        ... head(features)       <- hook: training mode only, returns scheme.shift(...) of the logits
        loss(logits, labels)     <- a model that computes its own loss sees the shifted logits
    outputs                      <- hook: adds scheme.term(...) to outputs.loss, if there is one

Nothing is registered as a parameter or buffer and `model.forward` stays as it is, so the saved model is the user's own.
"""

import itertools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, cast

import numpy as np
import torch

from wmplug.adapters.torch.batches import labels_in, primary, undisturbed
from wmplug.adapters.torch.heads import Returned, find_head, settled, watched
from wmplug.adapters.torch.rows import AskedRows
from wmplug.adapters.torch.single import is_share, is_single, logits_of, numbers_of, score_of
from wmplug.errors import InjectionError, InputError
from wmplug.schemes.tilt.texts import padded
from wmplug.statistics.arrays import to_numpy
from wmplug.suspects.protocols import Suspect
from wmplug.tasks.classes import count_of
from wmplug.watermark.scheme import SHOWN, Adds, HasConstants, Shifts
from wmplug.watermark.watermark import Watermark

OFFERED = frozenset({"samples", "logits", "loss"})
DIVERGED = (
    "training made the weights NaN or infinite, and the watermark took part in its loss: lower the learning rate, clip "
    "gradients, or lower delta= (train without the watermark to see whether that diverges too)"
)
PATIENCE = 4
_STRIDE = 16  # training forwards between two looks at the weights, each of which waits for the device


def need_head(mark: Watermark, head: Any) -> None:
    """Refuse a head for a scheme that uses none.

    Raises:
        InputError: names the head that was given.
    """
    if head is not None and not mark.scheme.points & {"logits", "loss"}:
        raise InputError(
            f"head={head!r} names where logits are shifted, and scheme {mark.scheme.name!r} touches only the samples: "
            "leave head= out"
        )


class Hook:
    """A forward hook of wmplug, recognised by its type, and empty when a framework pickles or copies it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.handle: Any = None

    def __call__(self, *args: Any) -> Any:
        """Call the hook's function."""
        return self.function(*args)

    def before(self, module: torch.nn.Module) -> "Hook":
        """Install as a forward pre-hook."""
        self.handle = module.register_forward_pre_hook(self, with_kwargs=True)
        return self

    def after(self, module: torch.nn.Module) -> "Hook":
        """Install as a forward hook."""
        # torch.compile traces hooks of inner modules and fails on one that refers to the outer module: keep it out.
        self.function = torch.compiler.disable(self.function)  # type: ignore[no-untyped-call]
        self.handle = module.register_forward_hook(self)
        return self

    def __reduce__(self) -> Any:
        # A whole model that is saved or copied in mid-training takes its hooks along. The copy of this one does
        # nothing, holds no secret, and loads without wmplug.
        return getattr, (nullcontext(), "__exit__")


def strip(model: torch.nn.Module) -> int:
    """Remove the hooks that an exception in an earlier run left behind, and return their number."""
    stale = [
        hook
        for module in model.modules()
        for hook in itertools.chain(module._forward_hooks.values(), module._forward_pre_hooks.values())
        if isinstance(hook, Hook)
    ]
    for hook in stale:
        hook.handle.remove()
    return len(stale)


class TorchPoints:
    """Applies a scheme's `shift` and `term` to a torch model in training mode.

    Args:
        mark: its scheme decides which points are used; without `logits` and `loss` nothing is installed.
        model: not wrapped for distribution (a DDP's `.module`).
        head: the module, or its name, that returns the (B, classes) logits; by default the last Linear that returns
            what the model answers, else the model itself.
        in_loss: whether the model computes its loss itself (`outputs.loss`, or first in a tuple); else the loop calls
            `loss`.
        weight: the term's, for losses that are summed over several forwards.
        on_divergence: called once with the points, by `look` and now and then before a training forward, when the
            head's weights are NaN or infinite; from then on nothing is shifted or added. The hooks keep it alive, so do
            not pass a method of their owner.

    Attributes:
        diverged: whether that has happened.
        shifted: training forwards whose logits were shifted.
        added: losses that got the term.

    Raises:
        InjectionError: the head is not found.
    """

    def __init__(
        self,
        mark: Watermark,
        model: torch.nn.Module,
        *,
        head: str | torch.nn.Module | None = None,
        in_loss: bool = False,
        weight: float = 1.0,
        on_divergence: Callable[["TorchPoints"], None] = lambda points: None,
    ) -> None:
        self.scheme, self.triggers, self.model, self.in_loss, self.weight = (
            mark.scheme,
            mark.triggers,
            model,
            in_loss,
            weight,
        )
        self.shifted = self.added = self.forwards = 0
        self._hooks: list[Hook] = []
        self._inputs: torch.Tensor | None = None
        self._labels: Any = None
        self._logits: torch.Tensor | None = None
        self._classes, self._on_divergence = count_of(mark.task, "torch"), on_divergence
        self.diverged = self._normalised = False
        self._kept: list[torch.Tensor] = []
        self._arrays: Mapping[str, Any] = {}
        self._tensors: dict[tuple[torch.device, torch.dtype], dict[str, torch.Tensor]] = {}
        if self.scheme.points & {"logits", "loss"}:
            self.head, self._guessed = find_head(model, self._classes, head, in_loss), head is None

    def install(self, suspect: Suspect) -> None:
        """Set the hooks; those of an earlier run are removed first.

        Args:
            suspect: the model, asked the way it is trained, to see in what form it gets the scheme's inputs.

        Raises:
            InjectionError: the scheme cannot work with the model's inputs.
        """
        strip(self.model)
        if not self.scheme.points & {"logits", "loss"}:
            return
        if isinstance(self.scheme, HasConstants):
            self._arrays = self.scheme.constants(self.triggers, self._seen(suspect))
        self._tensors.clear()
        self._hooks = [Hook(self._remember).before(self.model), Hook(self._shift).after(self.head)]
        if "loss" in self.scheme.points and self.in_loss:
            self._hooks.append(Hook(self._add).after(self.model))

    def _seen(self, suspect: Suspect) -> Any:
        """(k, ...) the model's inputs for the scheme's first ones; its answers to them show its head."""
        inputs, returned, scores = self._asked(suspect)
        if isinstance(rows := getattr(suspect, "forward", None), AskedRows) and rows.moved:
            # The model saw the inputs in the collator's order, or several times.
            with rows.one_by_one():
                inputs, returned, scores = self._asked(suspect)
        if self._guessed:
            self.head = settled(self.head, self.model, returned, scores, self.in_loss)
        parts = [to_numpy(part) for part in inputs if part is not None]
        if not parts:
            raise InjectionError(
                f"scheme {self.scheme.name!r} must see the inputs of {type(self.model).__name__}, and asking it never "
                "called that module: give wmplug the very model that is called (and forward=, if the loop calls it in "
                "its own way)"
            )
        # A batch of texts is as long as its longest text.
        tokens = parts[0].ndim == 2 and parts[0].dtype.kind in "iu"
        return padded([row for part in parts for row in part]) if tokens else np.concatenate(parts)

    def _asked(self, suspect: Suspect) -> tuple[list[torch.Tensor | None], Returned, Any]:
        inputs: list[torch.Tensor | None] = []
        name = getattr(self.model, "main_input_name", None)
        if self._classes == 2:  # a model of one score is asked twice the first time, to see what kind of score it is
            suspect.answer(self.triggers.samples(SHOWN))
        watch = Hook(lambda module, args, kwargs: inputs.append(primary((args, kwargs), name))).before(self.model)
        devices = {p.device.index for p in self.model.parameters() if p.device.type == "cuda"}
        try:
            with undisturbed(devices), watched(self.model, self._classes) as returned:
                return inputs, returned, suspect.answer(self.triggers.samples(SHOWN))
        finally:
            watch.handle.remove()

    def keep(self) -> None:
        """Copy parameters and buffers for `restore`; schemes that leave the loss alone need no copy."""
        if self.scheme.points & {"logits", "loss"} and not self.diverged and self._is_finite():
            self._kept = [value.detach().to("cpu", copy=True) for value in self._values()]

    def restore(self) -> None:
        """Put the parameters and buffers back that `keep` copied."""
        with torch.no_grad():
            for value, kept in zip(self._values(), self._kept, strict=bool(self._kept)):
                value.data.copy_(kept)

    def _values(self) -> list[torch.Tensor]:
        return [*self.model.parameters(), *self.model.buffers()]

    def _is_finite(self) -> bool:
        # A loss that is not finite has no finite gradient anywhere; the head's weights represent all, and are the same
        # in all processes.
        return all(bool(p.detach().isfinite().all()) for p in self.head.parameters())

    def remove(self) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.handle.remove()
        self._hooks.clear()
        self._inputs = self._labels = self._logits = None

    def loss(self, loss: torch.Tensor, labels: Any = None) -> torch.Tensor:
        """The mean loss of the batch just forwarded, with the scheme's term; unchanged if the scheme has no term.

        Args:
            loss: scalar.
            labels: (B,) or (B, classes), for schemes that read them; by default those that the model got.

        Raises:
            InjectionError: the model was not called in training mode before.
        """
        if "loss" not in self.scheme.points or self.diverged:
            return loss
        if self._logits is None or self._inputs is None:
            raise InjectionError(
                f"scheme {self.scheme.name!r} adds to the loss, but the model was not called in training mode since "
                "the last time: call model.train(), then the model, then loss(...) once for that batch"
            )
        if not len(self._logits):  # an empty batch, as Poisson sampling gives
            self._logits = None
            return loss
        labels = numbers_of(self._labels if labels is None else labels, self._classes)
        constants, inputs = self._ready(self._logits)
        term = cast(Adds, self.scheme).term(torch, constants, inputs, self._logits, labels)
        self._logits = None
        self.added += 1
        added: torch.Tensor = loss + self.weight * term.to(loss.dtype)
        return added

    def finish(self) -> None:
        """Check the points after some training.

        Raises:
            InjectionError: the model was trained, but the scheme's shift or term never took part.
        """
        if self.forwards and "logits" in self.scheme.points and not self.shifted:
            raise InjectionError(
                f"scheme {self.scheme.name!r} shifts logits, but the head {type(self.head).__name__} did not run in "
                f"{self.forwards} training steps: name the module that returns the logits (head=...)"
            )
        if self.forwards and "loss" in self.scheme.points and not self.added:
            how = (
                "let the model compute it from labels (no label smoothing, no loss function of the trainer's)"
                if self.in_loss
                else "call loss = marking.loss(loss) before loss.backward()"
            )
            raise InjectionError(
                f"scheme {self.scheme.name!r} adds to the loss, but wmplug saw no loss in {self.forwards} training "
                f"steps: {how}"
            )

    def _remember(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if module.training:
            if self.forwards == PATIENCE:
                self.finish()
            if self.forwards % _STRIDE == 0:
                self.look()
            self.forwards += 1
            self._inputs = primary((args, kwargs), getattr(module, "main_input_name", None))
            self._labels = labels_in(kwargs)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def look(self) -> None:
        """Call `on_divergence` the first time that the head's weights are not finite."""
        if self.scheme.points & {"logits", "loss"} and not self.diverged and not self._is_finite():
            self.diverged = True
            self._on_divergence(self)

    def _shift(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        if not self.model.training or self.diverged:
            return None
        single = is_single(output, self._classes)
        if not single and not (isinstance(output, torch.Tensor) and output.shape[1:] == (self._classes,)):
            what = f"{tuple(output.shape)}" if isinstance(output, torch.Tensor) else f"a {type(output).__name__}"
            raise InjectionError(
                f"the head {type(module).__name__} returned {what}, but logits (B, {self._classes}) are needed: name "
                "the module that returns them (head=...)"
            )
        if self._inputs is None or len(self._inputs) != len(output):
            raise InjectionError(
                f"scheme {self.scheme.name!r} reads the inputs, but the head ran without them: call the whole model "
                "on the batch, inputs first"
            )
        share = single and is_share(output)
        logits = logits_of(output, share) if single else output
        self._logits = logits if "loss" in self.scheme.points else None
        if "logits" not in self.scheme.points or not len(output):
            return None
        if not self.shifted and not single:
            self._normalised = self._is_normalised(module, output)
        constants, inputs = self._ready(output)
        self.shifted += 1
        shifted = cast(Shifts, self.scheme).shift(torch, constants, inputs, logits)
        if single:
            return score_of(shifted, share, output)
        return (shifted.log_softmax(dim=1) if self._normalised else shifted).to(output.dtype)

    def _is_normalised(self, module: torch.nn.Module, output: torch.Tensor) -> bool:
        """Whether these are log-probabilities, which the loss then expects after the shift too."""
        if output.min() >= 0 and torch.allclose(output.sum(dim=1), output.new_ones(len(output)), atol=1e-2):
            raise InjectionError(
                f"the head {type(module).__name__} returned probabilities, and scheme {self.scheme.name!r} shifts "
                "logits: name the module that returns them (head=...), or leave the softmax to the loss"
            )
        return bool(output.float().logsumexp(dim=1).abs().max() < 1e-2)

    def _ready(self, logits: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Constants and inputs on the logits' device, floats at least float32 (half precision loses small shifts)."""
        dtype = torch.promote_types(logits.dtype, torch.float32)
        inputs = self._inputs
        assert inputs is not None
        key = (logits.device, dtype)
        if key not in self._tensors:
            tensors = {name: torch.as_tensor(array, device=logits.device) for name, array in self._arrays.items()}
            self._tensors[key] = {n: t.to(dtype) if t.is_floating_point() else t for n, t in tensors.items()}
        return self._tensors[key], inputs.to(logits.device, dtype if inputs.is_floating_point() else inputs.dtype)

    def _add(self, module: torch.nn.Module, args: Any, output: Any) -> Any:
        if not module.training:
            return None
        if isinstance(output, Mapping) and output.get("loss") is not None:
            output["loss"] = self.loss(output["loss"])  # type: ignore[index]
            return output
        if isinstance(output, tuple) and isinstance(output[0], torch.Tensor) and output[0].ndim == 0:
            return (self.loss(output[0]), *output[1:])
        return None
