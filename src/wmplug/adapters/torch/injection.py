"""Triggers of a watermark in a DataLoader, one watermark at a time."""

import warnings
import weakref
from typing import Any, TypeVar

import torch
from torch.utils.data import IterableDataset, SequentialSampler

from wmplug.adapters.torch.batches import TriggerCollate, base_loader, peek, prepared, unwrap, wrap
from wmplug.adapters.torch.board import Board
from wmplug.claim.verification import check_mark
from wmplug.errors import InjectionError, InjectionWarning, InputError
from wmplug.tasks.classes import Classes
from wmplug.training.labels import IGNORED
from wmplug.training.loop import need_points
from wmplug.training.options import Rate
from wmplug.training.placement import PPM, Mode, Placement, read_rate
from wmplug.watermark.watermark import Watermark

L = TypeVar("L")

# Those inside their with-block; one whose frame died inside it is collected, and holds nothing after that.
ACTIVE: "weakref.WeakSet[Any]" = weakref.WeakSet()


def refuse_held(model: torch.nn.Module | None, loader: Any) -> None:
    """Refuse to undo the hooks of another watermarking.

    Args:
        model: not wrapped for distribution; None if only the loader is touched.
        loader: any; a DataLoader's collate_fn shows whose it is.

    Raises:
        InjectionError: another `Watermarking` is inside its with-block with this model or loader.
    """
    collate = getattr(base_loader(loader), "collate_fn", None)
    modules = set() if model is None else {*model.modules()}
    for other in tuple(ACTIVE):
        held = "loader" if isinstance(collate, TriggerCollate) and collate.board is other.board else None
        if model is not None and (other.bare in modules or model in {*other.bare.modules()}):
            held = "model"
        if held is not None:
            raise InjectionError(
                f"another Watermarking (mark {other.mark.id[:8]}) is active on this {held}, and a second one would "
                "undo it: leave the other's with-block first, one watermark a run"
            )


def ignored_by(model: torch.nn.Module) -> frozenset[int]:
    """Labels that a loss ignores: by default, and as the losses inside a model say."""
    own = (getattr(module, "ignore_index", None) for module in model.modules())
    return IGNORED | {index for index in own if isinstance(index, int)}


def inject(loader: L, mark: Watermark, *, rate: Rate = None, mode: Mode = "append") -> L:
    """Put triggers into a loader's batches, without the rest of `Watermarking`.

    Args:
        loader: a DataLoader; its collate_fn is wrapped in place.
        mark: the watermark; its scheme works on samples alone.
        rate: share of triggers in what the model sees; the scheme's by default.
        mode: `append` or `replace`.

    Returns:
        The same loader.

    Raises:
        InjectionError: the loader does not collate or has triggers already, or the scheme needs more than samples.
        InputError: triggers do not fit the dataset; the message shows both.
    """
    check_mark(mark, loader)
    need_points("torch.inject", mark.scheme, {"samples"})
    if rate == "auto":
        raise InputError('rate="auto" follows verdicts, and inject() makes none: give a number, or use Watermarking')
    refuse_held(None, loader)
    board = Board(read_rate(rate, mark.scheme.rate)[0])
    wrap_for(loader, mark, Placement.of(mark, mode), board, lasting=True)
    return loader


def wrap_for(
    loader: Any, mark: Watermark, placement: Placement, board: Board, world: int = 1, lasting: bool = False
) -> TriggerCollate:
    """Wrap the loader's collate_fn in one that adds the watermark's triggers; refuse triggers that do not fit.

    Args:
        loader: a DataLoader, or accelerate's around one.
        mark: the watermark.
        placement: the triggers' places in the batches.
        board: rate and counters.
        world: number of processes that batches are split over after collation.
        lasting: whether the wrapper stays on for good.

    Raises:
        InjectionError: the loader does not collate, or has triggers already.
        InputError: triggers do not fit the dataset.
    """
    lessons, classes = mark.lessons(), mark.task.count if isinstance(mark.task, Classes) else 0
    examples = lessons if mark.preprocess is None else prepared(lessons, mark.preprocess, classes)
    wrapper = wrap(loader, lambda collate: TriggerCollate(collate, examples, placement, board, world, lasting, classes))
    base = base_loader(loader)
    _warn_of_few(base, board.rate, len(examples))
    # Checked before training at the cost of an example, but not for a stream, which may not yield it again.
    if not isinstance(base.dataset, IterableDataset) and (like := peek(base.dataset)) is not None:
        wrapper.like = like
        try:
            for position in range(len(examples)):
                wrapper.fit(position)
        except InputError:
            unwrap(loader)
            raise
    return wrapper


def _warn_of_few(base: Any, rate: int, pool: int) -> None:
    """Warn if a loader does not shuffle: triggers follow from a batch's content, so each epoch has the same ones."""
    if base.batch_size is None or not isinstance(base.sampler, SequentialSampler):
        return
    shown = len(base) * base.batch_size * rate / PPM
    if shown < 3 * pool:
        warnings.warn(
            f"the loader does not shuffle, so every epoch shows the same {shown:.0f} or so of {pool} triggers: set "
            "shuffle=True",
            InjectionWarning,
            stacklevel=5,
        )
