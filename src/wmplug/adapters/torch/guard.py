"""Watches that triggers reach the model: a run that teaches nothing must not go on in silence."""

import warnings
from collections.abc import Callable
from typing import Any

import torch

from wmplug.adapters.torch.batches import primary
from wmplug.adapters.torch.board import Board, row_signatures
from wmplug.adapters.torch.points import PATIENCE, Hook
from wmplug.errors import InjectionError, InjectionWarning


class Guard:
    """Watches the first training forwards until a trigger shows up in the model's inputs.

    Args:
        board: of the collator, which counts and signs the triggers it adds.
        model: not wrapped for distribution.
        wanted: triggers expected in a batch; below one, the guard waits for more forwards.
        heed: told the board's `other_label`.
    """

    def __init__(
        self,
        board: Board,
        model: torch.nn.Module,
        wanted: float,
        heed: Callable[[int | None], None] = lambda label: None,
    ) -> None:
        self.board, self.model, self.heed = board, model, heed
        self.forwards = 0
        # A working collator adds none in so many batches with a chance below e**-14, one in a million.
        self.patience = PATIENCE if wanted >= 1 else max(PATIENCE, round(14 / max(wanted, 1e-6)))
        self._batches, self._injected = board.batches, board.injected
        self._hook: Hook | None = None

    def install(self) -> None:
        """Start watching; call after `strip`."""
        self._hook = Hook(self._look).before(self.model)

    def remove(self) -> None:
        """Stop watching."""
        if self._hook is not None:
            self._hook.handle.remove()
            self._hook = None

    def finish(self) -> None:
        """Stop watching after training.

        Raises:
            InjectionError: the model was trained without a trigger.
        """
        self.remove()
        self.heed(self.board.other_label)
        if self.forwards and self.board.injected == self._injected:
            raise self._silent()

    def _look(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if not module.training:
            return
        self.forwards += 1
        self.heed(self.board.other_label)
        inputs = primary((args, kwargs), getattr(module, "main_input_name", None))
        if inputs is not None and self._recognises(inputs):
            self.remove()
        elif self.board.batches == self._batches and self.forwards >= PATIENCE:
            raise self._silent()
        elif self.forwards >= self.patience:
            if self.board.injected == self._injected:
                raise self._silent()
            warnings.warn(
                f"{self.board.injected - self._injected} triggers were added to batches, but none was recognised in "
                "the model's inputs: if the loop changes the batch (crops, mixes), it changes the triggers too",
                InjectionWarning,
                stacklevel=2,
            )
            self.remove()

    def _recognises(self, inputs: torch.Tensor) -> bool:
        try:
            return self.board.recognises(row_signatures(inputs))
        except (RuntimeError, TypeError):  # sparse, nested and other tensors, whose rows have no mean
            return False

    def _silent(self) -> InjectionError:
        batches = self.board.batches - self._batches
        how = (
            "iterate the very loader that you gave to wmplug (and build it anew if its workers were started before)"
            if not batches
            else "give the callback (or Watermarking) a higher rate=, or train longer"
        )
        return InjectionError(
            f"no trigger reached the model in {self.forwards} training steps ({batches} batches went through wmplug's "
            f"collator), so the watermark would not be learnt: {how}"
        )
