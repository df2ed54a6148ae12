"""A torch module as a suspect, asked in eval mode and left as it was."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from wmplug.errors import SuspectError
from wmplug.schemes.tilt.texts import LABELS
from wmplug.suspects.protocols import Suspect
from wmplug.watermark.watermark import Preprocess


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients; every submodule's own mode is restored, also after an exception."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


class ModuleSuspect:
    """A torch module that maps a batch of inputs to logits.

    Args:
        model: asked as it is, in eval mode.
        preprocess: `preprocess(input, answer) -> (x, y)`; the input itself by default.
        batch_size: inputs a forward pass.
        forward: `forward(model, examples) -> (n, classes) scores`; by default examples are collated and what is not
            labels is given to the model.
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
        self.forward = forward or forward_first

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Scores (n, classes) as float NumPy."""
        examples = [(x, 0) if self.preprocess is None else self.preprocess(x, 0) for x in inputs]
        with evaluating(self.model):
            parts = [
                self.forward(self.model, examples[i : i + self.batch_size]).detach().float().cpu().numpy()
                for i in range(0, len(examples), self.batch_size)
            ]
        return np.concatenate(parts)


def forward_first(model: torch.nn.Module, examples: list[Any]) -> torch.Tensor:
    """Collate the examples as a DataLoader does and ask the model."""
    return forward_batch(model, default_collate(examples))


def forward_batch(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Logits (n, classes) of a collated batch: of its first part, or of all but the labels where parts have names.

    Raises:
        SuspectError: the model returned something else.
    """
    if isinstance(batch, Mapping):
        output = model(**{k: like_parameters(v, model) for k, v in batch.items() if k not in LABELS})
    else:
        output = model(like_parameters(batch if isinstance(batch, torch.Tensor) else batch[0], model))
    if isinstance(output, (tuple, list)) and len(output):
        output = output[0]
    logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if not isinstance(logits, torch.Tensor):
        raise SuspectError(
            f"{type(model).__name__} returned a {type(output).__name__} without logits (n, classes): let it return "
            "them, or an output with `logits`"
        )
    return logits


def trained(
    model: torch.nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    only: Iterable[torch.nn.Parameter] | None = None,
) -> torch.nn.Module:
    """A plain training loop with Adam; the order comes from torch's global generator.

    Args:
        model: trained in place.
        inputs: (n, ...).
        targets: (n,) labels or (n, classes) probabilities.
        epochs: to train.
        batch_size: inputs a step.
        learning_rate: Adam's.
        only: the parameters to train; all by default.

    Returns:
        The model, in eval mode.
    """
    optimizer = torch.optim.Adam(model.parameters() if only is None else only, learning_rate)
    device = next((p.device for p in model.parameters()), None)
    for _ in range(epochs):
        model.train()
        for rows in torch.split(torch.randperm(len(inputs)), batch_size):
            if len(rows) == 1 and len(inputs) > 1:
                continue  # batch normalisation takes no batch of one
            optimizer.zero_grad()
            scores = model(like_parameters(inputs[rows], model))
            loss = torch.nn.functional.cross_entropy(scores, targets[rows].to(device))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return model.eval()


def like_parameters(x: Any, model: torch.nn.Module) -> Any:
    """X on the model's device, floats in the model's dtype."""
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if parameter is None or not isinstance(x, torch.Tensor):
        return x
    return x.to(parameter.device, parameter.dtype if x.is_floating_point() else x.dtype)


def suspect(target: Any, *, preprocess: Preprocess | None = None, batch_size: int = 64) -> Suspect | None:
    """A torch module as a suspect."""
    return ModuleSuspect(target, preprocess=preprocess, batch_size=batch_size)
