"""A torch module as a suspect, asked in eval mode and left as it was."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch.utils.data import default_collate

from wmplug.adapters.torch.single import answers_shares
from wmplug.errors import InputError, SuspectError
from wmplug.schemes.networks import like_parameters
from wmplug.schemes.tilt.texts import LABELS
from wmplug.suspects.protocols import Suspect
from wmplug.tasks.base import Task
from wmplug.tasks.classes import is_share, is_single
from wmplug.watermark.watermark import Preprocess

_PARALLEL = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
_ASKED = 4  # inputs that show whether a sigmoid makes a model's scores


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every submodule's own mode is restored, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
    except NotImplementedError:  # torch.export fixed the mode of a part when it exported it
        for module, _ in modes:
            module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


class ModuleSuspect:
    """A torch module that maps a batch of inputs to logits, or to one score each if it tells two classes apart.

    Args:
        model: asked unchanged, in eval mode.
        preprocess: `preprocess(input, answer) -> (x, y)`; the input itself by default.
        batch_size: inputs a forward pass.
        forward: `forward(model, examples) -> (n, classes) scores`; by default examples are collated and the model gets
            all parts but the labels.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        preprocess: Preprocess | None = None,
        batch_size: int = 64,
        forward: Callable[[torch.nn.Module, list[Any]], torch.Tensor] | None = None,
    ) -> None:
        self.description = type(model).__name__
        self.model, self.preprocess, self.batch_size = model, preprocess, batch_size
        self.forward, self.names = forward or forward_first, names_of(model)
        self._share: bool | None = None

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Scores (n, classes) as float NumPy; of one score each, (n, 1) or (n,), the probability of class 1."""
        examples = [(x, 0) if self.preprocess is None else self.preprocess(x, 0) for x in inputs]
        with evaluating(self.model):
            outputs = [
                self.forward(self.model, examples[i : i + self.batch_size]).detach().float().cpu()
                for i in range(0, len(examples), self.batch_size)
            ]
            # A model that squeezes its output gives a single input's score without an axis.
            scores = np.concatenate([output.reshape(1 if output.ndim == 0 else output.shape) for output in outputs])
            if is_single(scores) and self.shares(scores, examples) is False:
                return expit(scores.astype(np.float64))
        return scores

    def shares(self, scores: Any, examples: list[Any]) -> bool | None:
        """Whether the model's single scores are probabilities; None if they may be both, and the model hides which.

        Args:
            scores: its answers.
            examples: those that it answered.
        """
        if self._share is None:
            few = examples[:_ASKED] if is_share(scores) else []
            kinds = [answers_shares(self.model, partial(_asked_one, self.forward, example)) for example in few]
            self._share = None if None in kinds else bool(kinds) and all(kinds)
        return self._share


def unwrapped(model: Any) -> Any:
    """The model without what `torch.compile` and parallel training wrap around it."""
    while True:
        inner = model.module if isinstance(model, _PARALLEL) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, torch.nn.Module):
            return model
        model = inner


def names_of(model: torch.nn.Module) -> tuple[str, ...]:
    """The names of a model's classes, in the order of its scores, as its config tells them (`id2label`); else none."""
    named = getattr(getattr(unwrapped(model), "config", None), "id2label", None)
    if not isinstance(named, Mapping) or set(named) != set(range(len(named))):
        return ()
    return tuple(str(named[place]) for place in range(len(named)))


def refuse_other_order(model: torch.nn.Module, task: Task) -> None:
    """Refuse to train a model that names the watermark's classes in another order.

    Raises:
        InputError: names both orders.
    """
    own, names = names_of(model), getattr(task, "names", ())
    if own != names and sorted(own) == sorted(names):
        raise InputError(
            f"{type(model).__name__} numbers its classes {', '.join(own[:8])} (id2label of its config), and the "
            f"watermark {', '.join(names[:8])}, so that one number means two classes: set id2label and label2id as the "
            "labels of your data are numbered, and make the watermark with classes=[NAME, ...] in that order"
        )


def _asked_one(forward: Callable[..., torch.Tensor], example: Any, model: torch.nn.Module) -> torch.Tensor:
    return forward(model, [example])


def forward_first(model: torch.nn.Module, examples: list[Any]) -> torch.Tensor:
    """Collate the examples as a DataLoader does and ask the model."""
    return forward_batch(model, default_collate(examples))


def forward_batch(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Logits (n, classes) of a collated batch: of its first part, or of all but the labels if parts have names.

    Raises:
        SuspectError: the model returned something else, or the batch is no tensor, tuple, list or mapping.
    """
    if isinstance(batch, Mapping):
        output = model(**{k: like_parameters(v, model) for k, v in batch.items() if k not in LABELS})
    elif isinstance(batch, (torch.Tensor, tuple, list)):
        output = model(like_parameters(batch if isinstance(batch, torch.Tensor) else batch[0], model))
    else:
        raise SuspectError(
            f"the collator returns a {type(batch).__name__}, and wmplug cannot know how the loop calls "
            f"{type(model).__name__} with it: pass forward=, a function from (model, batch) to logits"
        )
    if isinstance(output, (tuple, list)) and len(output):
        output = output[0]
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor):
        raise SuspectError(
            f"{type(model).__name__} returned a {type(output).__name__} without logits (n, classes): let it return "
            "logits, or an output with `logits`"
        )
    return logits


def suspect(target: Any, *, preprocess: Preprocess | None = None, batch_size: int = 64) -> Suspect | None:
    """A torch module as a suspect; None for other objects of torch, such as a tensor or a compiled function."""
    if not isinstance(target, torch.nn.Module):
        return None
    return ModuleSuspect(target, preprocess=preprocess, batch_size=batch_size)
