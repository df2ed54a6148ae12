"""What a mark did to a data set, and what the usual cleaning leaves of it.

Pictures are compared by PSNR and SSIM (Wang et al. 2004; scikit-image), tables by cells, texts by words, all by labels.
"""

from __future__ import annotations

import difflib
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wmplug.claim.verdict import Verdict
from wmplug.claim.verification import verify
from wmplug.dataset import finding
from wmplug.dataset.likeness import BLOCK, Likeness, digest, pixels
from wmplug.dataset.records import Record, Source
from wmplug.errors import InputError
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.watermark import Watermark

Array: TypeAlias = npt.NDArray[Any]
Labelled: TypeAlias = "tuple[Any, str | None]"
_SHOWN, _TILE, _GAP = 6, 112, 6  # pairs in a picture, and its measures in pixels
_QUALITY, _SMALLER, _CUT = 75, 0.75, 1 / 16
_SEED = 0  # of cleaning that draws: the same every time


@dataclass(frozen=True)
class Quality:
    """What differs between a set and its marked copy.

    Attributes:
        records: of the original.
        changed: records of which the input differs.
        relabelled: records of which the label differs.
        added: records of the copy that the original has not.
        removed: records of the original that the copy has not.
        psnr: (lowest, mean) of the changed pictures, in dB; None where no picture changed.
        ssim: (lowest, mean) of the changed pictures, at most 1; None likewise, or where they are below 7 pixels a side.
        cells: (changed, all) numbers of the original's tables.
        words: (changed, all) words of the original's texts; one that moved counts once.
        examples: some changed inputs, before and after. Secret: they say which records carry the mark.
    """

    records: int
    changed: int
    relabelled: int
    added: int
    removed: int
    psnr: tuple[float, float] | None
    ssim: tuple[float, float] | None
    cells: tuple[int, int]
    words: tuple[int, int]
    examples: tuple[tuple[Any, Any], ...] = field(repr=False)

    @property
    def noise(self) -> float:
        """Share of labels that changed; 0 for a clean-label mark."""
        return self.relabelled / max(1, self.records)

    def to_json(self) -> dict[str, Any]:
        """All of it but the examples."""
        return {name: value for name, value in asdict(self).items() if name != "examples"} | {"noise": self.noise}

    def __str__(self) -> str:
        parts = [
            f"{self.records} records: {self.changed} inputs and {self.relabelled} labels ({self.noise:.2%}) changed"
        ]
        parts += [f"{count} {what}" for count, what in ((self.added, "added"), (self.removed, "removed")) if count]
        if self.psnr is not None:
            parts.append(f"PSNR {self.psnr[1]:.1f} dB (lowest {self.psnr[0]:.1f})")
        if self.ssim is not None:
            parts.append(f"SSIM {self.ssim[1]:.3f} (lowest {self.ssim[0]:.3f})")
        for (part, whole), what in ((self.cells, "cells"), (self.words, "words")):
            if whole:
                parts.append(f"{part} of {whole} {what} changed")
        return ", ".join(parts)


def compare(original: Source, marked: Source) -> Quality:
    """What the mark did, in two passes over the original and one over the copy; their order does not matter.

    A record of the copy is the original's where both inputs are the same, else where they are near-duplicates, else
    where as many are left over on both sides, by their order. Takes some 200 bytes of memory a record.

    Raises:
        InputError: a record cannot be read, or scikit-image (pictures), ImageHash or datasketch is not installed.
    """
    labels: dict[bytes, list[str | None]] = {}
    count = cells = words = 0
    for record in original.records():
        labels.setdefault(digest(record.input), []).append(_label(record, original))
        count += 1
        cells += _cells(record.input)
        words += len(record.input.split()) if isinstance(record.input, str) else 0
    left, relabelled = [], 0
    for record in marked.records():
        given = labels.get(digest(record.input), [])
        label = _label(record, marked)
        if not given:
            left.append((record.input, label))
        else:
            # Of equal inputs with several labels, one with the same label is the same record.
            relabelled += given.pop(given.index(label) if label in given else 0) != label
    missing = [
        (record.input, _label(record, original))
        for record in original.records()
        if _taken(labels.get(digest(record.input), []), _label(record, original))
    ]
    pairs = _paired(missing, left)
    inputs = [(before[0], after[0]) for before, after in pairs]
    pictures = [pair for pair in inputs if _is_picture(pair[0])]
    return Quality(
        records=count,
        changed=len(pairs),
        relabelled=relabelled + sum(before[1] != after[1] for before, after in pairs),
        added=len(left) - len(pairs),
        removed=len(missing) - len(pairs),
        psnr=_range([_psnr(*pair) for pair in pictures]),
        ssim=_range([_ssim(*pair) for pair in pictures if min(pixels(pair[0]).shape[:2]) >= 7]),
        cells=(sum(_changed_cells(*pair) for pair in inputs), cells),
        words=(sum(_changed_words(*pair) for pair in inputs), words),
        examples=tuple(inputs[:_SHOWN]),
    )


def _paired(missing: Sequence[Labelled], left: Sequence[Labelled]) -> list[tuple[Labelled, Labelled]]:
    index: Likeness[int] = Likeness()
    for i, (value, _) in enumerate(missing):
        index.add(i, value)
    free, pairs, unlike = dict(enumerate(missing)), [], []
    for start in range(0, len(left), BLOCK):
        block = left[start : start + BLOCK]
        for after, match in zip(block, index.find([value for value, _ in block]), strict=True):
            if match is not None and match.own in free:
                pairs.append((free.pop(match.own), after))
            else:
                unlike.append(after)
    if len(unlike) == len(free):
        pairs += zip(free.values(), unlike, strict=True)
    return pairs


def _taken(left: list[str | None], label: str | None) -> bool:
    """Whether a record of this label is among those that the copy lacks; it is taken out of them."""
    if label in left:
        left.remove(label)
        return True
    return False


def _label(record: Record, source: Source) -> str | None:
    return None if record.label is None else source.classes[record.label] if source.classes else str(record.label)


def _is_picture(value: Any) -> bool:
    return not isinstance(value, str) and pixels(value).ndim > 1


def _cells(value: Any) -> int:
    return 0 if isinstance(value, str) or _is_picture(value) else int(np.size(value))


def _changed_cells(before: Any, after: Any) -> int:
    return int((np.asarray(before) != np.asarray(after)).sum()) if _cells(before) else 0


def _changed_words(before: Any, after: Any) -> int:
    if not isinstance(before, str):
        return 0
    steps = difflib.SequenceMatcher(None, before.split(), after.split(), autojunk=False).get_opcodes()
    return sum(max(i1 - i0, j1 - j0) for step, i0, i1, j0, j1 in steps if step != "equal")


def _range(values: Sequence[float]) -> tuple[float, float] | None:
    return (min(values), float(np.mean(values))) if values else None


def _psnr(before: Any, after: Any) -> float:
    metrics = _metrics()
    one, two, span = _same(before, after)
    return float(metrics.peak_signal_noise_ratio(one, two, data_range=span))


def _ssim(before: Any, after: Any) -> float:
    metrics = _metrics()
    one, two, span = _same(before, after)
    return float(metrics.structural_similarity(one, two, data_range=span, channel_axis=-1 if one.ndim == 3 else None))


def _same(before: Any, after: Any) -> tuple[Array, Array, float]:
    one, two = pixels(before), pixels(after)
    if one.shape != two.shape:
        raise InputError(f"a picture of {one.shape} became one of {two.shape}: only those of one size can be compared")
    if one.ndim == 3 and one.shape[0] in (3, 4):
        one, two = np.moveaxis(one, 0, -1), np.moveaxis(two, 0, -1)
    span = 255.0 if one.dtype == np.uint8 else float(max(one.max(), two.max()) - min(one.min(), two.min()))
    return one.astype(np.float64), two.astype(np.float64), span or 1.0


def _metrics() -> Any:
    try:
        from skimage import metrics
    except ModuleNotFoundError:
        raise InputError("pictures are compared with scikit-image: pip install 'wmplug[dataset]'") from None
    return metrics


def picture(quality: Quality, path: str | Path) -> Path:
    """Write some changed pictures before, after, and their difference (tenfold, around grey) as PNG. Secret.

    Raises:
        InputError: no picture changed.
    """
    pairs = [pair for pair in quality.examples if _is_picture(pair[0])]
    if not pairs:
        raise InputError("no picture was changed, so there is none to show: look at the counts")
    step = _TILE + _GAP
    sheet = Image.new("RGB", (step * len(pairs) + _GAP, 3 * (step + 12) + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, title in enumerate(("before", "after", "difference x 10")):
        top = _GAP + row * (step + 12)
        draw.text((_GAP, top), title, fill="black")
        for column, (before, after) in enumerate(pairs):
            one, two, span = _same(before, after)
            low = 0.0 if span == 255.0 else min(one.min(), two.min())
            shown = (one - low, two - low, span / 2 + 10 * (two - one))[row] * 255 / span
            tile = Image.fromarray(np.clip(np.rint(shown), 0, 255).astype(np.uint8)).convert("RGB")
            sheet.paste(tile.resize((_TILE, _TILE), Image.Resampling.NEAREST), (_GAP + column * step, top + 12))
    path = Path(path)
    sheet.save(path, "PNG")
    return path


@dataclass(frozen=True)
class Survival:
    """What a cleaning leaves of a mark.

    Attributes:
        how: the cleaning.
        of: records that the key decided something of.
        left: how many of these are still found in the cleaned set.
        log10_p: log10 p of a suspect that repeats all that the cleaned set says of these: no model that was trained on
            it can be expected to give more. Exact, under the null of `find`.
    """

    how: str
    of: int
    left: int
    log10_p: float


def cleaned(x: Any, y: Any, how: str) -> tuple[Any, IntArray]:
    """A data set after one of the usual cleanings, which does not see any key.

    Args:
        x: n inputs: an array, PIL pictures or texts.
        y: (n,) labels.
        how: "dedup" (equal inputs but the first go), "jpeg" (re-encoded at quality 75), "resize" (to three quarters,
            a sixteenth of each side cropped, and back), "lower" (lower case), "shuffle", or "half" (a random half).

    Returns:
        The inputs that are left, of the same kind, and their labels.

    Raises:
        InputError: there is no such cleaning, or it does not fit the inputs.
    """
    if how not in CLEANINGS:
        raise InputError(f"how={how!r} is no cleaning: choose {', '.join(CLEANINGS)}")
    labels = np.asarray(y, np.int64)
    if len(labels) != len(x):
        raise InputError(f"{len(labels)} labels for {len(x)} inputs: give one for each")
    rows, change = CLEANINGS[how]
    kept = rows(x)
    if isinstance(x, np.ndarray):
        return (x[kept] if change is None else np.stack([change(value) for value in x[kept]])), labels[kept]
    return [x[i] if change is None else change(x[i]) for i in kept], labels[kept]


def survival(mark: Watermark, x: Any, y: Any, how: str) -> Survival:
    """What a cleaning leaves of a mark in the published set, without training anything.

    Args:
        mark: of the set.
        x: its inputs, as they were published.
        y: (n,) its labels.
        how: as in `cleaned`.

    Raises:
        InputError: as `cleaned` and `find`.
    """
    inputs, labels = cleaned(x, y, how)
    nothing: Likeness[int] = Likeness()
    held = finding.search({mark.id: mark}, _records(inputs, labels), whole=nothing).held[0]
    return Survival(how, held.of, held.exact + held.near, held.log10_p)


def retrained(
    mark: Watermark, x: Any, y: Any, how: str, *, train: Callable[[Any, IntArray], Any], **options: Any
) -> Verdict:
    """The exact verdict on what somebody trains on the cleaned set.

    Args:
        mark: of the set.
        x: its inputs, as they were published.
        y: (n,) its labels.
        how: as in `cleaned`.
        train: from (inputs, labels) to anything that `verify` can ask.
        **options: of `verify`.

    Raises:
        InputError: as `cleaned`.
        SuspectError: as `verify`.
    """
    return verify(mark, train(*cleaned(x, y, how)), exhaustive=True, **options)


def _records(inputs: Any, labels: IntArray) -> Iterator[Record]:
    return (Record(i, f"record {i}", inputs[i], int(label)) for i, label in enumerate(labels))


def _all(x: Sequence[Any]) -> IntArray:
    return np.arange(len(x))


def _first(x: Sequence[Any]) -> IntArray:
    seen: dict[bytes, int] = {}
    for i, value in enumerate(x):
        seen.setdefault(digest(value), i)
    return np.array(list(seen.values()), np.int64)


def _shuffled(x: Sequence[Any]) -> IntArray:
    return np.random.default_rng(_SEED).permutation(len(x))


def _half(x: Sequence[Any]) -> IntArray:
    return np.sort(_shuffled(x)[: len(x) // 2])


def _jpeg(value: Any) -> Any:
    def encode(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY)
        return Image.open(file)

    return _through(value, encode)


def _resized(value: Any) -> Any:
    def resize(picture: Image.Image) -> Image.Image:
        width, height = picture.size
        small = picture.resize((max(1, round(width * _SMALLER)), max(1, round(height * _SMALLER))))
        left, top = small.width * _CUT, small.height * _CUT
        return small.resize((width, height), box=(left, top, small.width - left, small.height - top))

    return _through(value, resize)


def _through(value: Any, change: Callable[[Image.Image], Image.Image]) -> Any:
    """A picture changed as a picture, in the form it came in."""
    if isinstance(value, Image.Image):
        return change(value if value.mode in ("L", "RGB") else value.convert("RGB")).convert(value.mode)
    array = np.asarray(value)
    flat = array.squeeze(axis=-1) if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.dtype != np.uint8 or flat.ndim not in (2, 3) or (flat.ndim == 3 and flat.shape[-1] != 3):
        raise InputError(
            f"an input is a {type(value).__name__} of {getattr(array, 'shape', ())} {array.dtype}: pictures of uint8, "
            "(h, w) or (h, w, 3), or PIL pictures can be re-encoded and resized"
        )
    return np.asarray(change(Image.fromarray(flat))).reshape(array.shape)


def _lowered(value: Any) -> Any:
    if not isinstance(value, str):
        raise InputError(f"an input is a {type(value).__name__}: only texts have a lower case")
    return value.lower()


CLEANINGS: dict[str, tuple[Callable[[Any], IntArray], Callable[[Any], Any] | None]] = {
    "dedup": (_first, None),
    "jpeg": (_all, _jpeg),
    "resize": (_all, _resized),
    "lower": (_all, _lowered),
    "shuffle": (_shuffled, None),
    "half": (_half, None),
}
