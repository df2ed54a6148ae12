"""logo: the owner's logo on pictures of the task, in keyed variants, answered as the key drew.

After Zhang et al. (AsiaCCS 2018), "content" marks. Rule `per-class`: variant j turns class y into a drawn class, one
draw for each (variant, class), so that the mark generalises to any picture of the task and fresh triggers never run
out. Rule `per-carrier`: each stamped picture has a draw of its own. Near-misses (another logo in the same places) keep
their true labels, so that it is this logo that fires.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Scheme, Task
from wmplug.schemes.pictures import Array, channels_last, emblem, read_logo, resize, stamp, value_range
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.carriers import read_whole
from wmplug.watermark.plan import TriggerPlan


@dataclass(frozen=True)
class Logo(Scheme):
    """A stamped logo with keyed answers.

    Attributes:
        logo: the owner's: a PNG path, a PIL picture, or an array (h, w[, 3 or 4]); a keyed emblem if None.
        rule: `per-class` or `per-carrier`.
        variants: places and tints the logo comes in, 1 to 8.
        size: side of the logo as a share of the picture's shorter side.
        lessons: stamped carriers taught for each draw of `per-class`.
    """

    name: ClassVar[str] = "logo"
    rate: ClassVar[float] = 0.12

    logo: Any = field(default=None, repr=False)
    rule: Literal["per-class", "per-carrier"] = "per-class"
    variants: int = 5
    size: float = 0.3
    lessons: int = 20

    def __post_init__(self) -> None:
        if isinstance(self.logo, (str, Path)):
            object.__setattr__(self, "logo", _read_png(Path(self.logo)))
        elif hasattr(self.logo, "convert"):
            object.__setattr__(self, "logo", np.asarray(self.logo.convert("RGBA")))
        if self.rule not in ("per-class", "per-carrier"):
            raise InputError(f"rule={self.rule!r}: choose 'per-class' or 'per-carrier'")
        read_whole(self.variants, "variants", 1, 8, "1 to 8 variants of the logo")
        read_whole(self.lessons, "lessons", 1, 2**31, "1 or more carriers taught for each draw")
        if not (isinstance(self.size, (int, float)) and 0.05 <= self.size <= 0.6):
            raise InputError(f"size={self.size!r}: a share of the picture's shorter side, 0.05 to 0.6, is needed")

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """Stamp carriers, and near-misses beside them.

        Raises:
            InputError: no images, no labels, too few carriers.
        """
        task.need_form(self.name, "array", "pil")
        labels = task.need_labels(self.name)
        images, first = channels_last(np.asarray(task.carriers))
        brush = _Brush.draw(self, images, stream)
        if self.rule == "per-class":
            return self._per_class(task, labels, images, first, brush, stream)
        return self._per_carrier(task, labels, images, first, brush, stream)

    def _per_class(
        self, task: Task, labels: IntArray, images: Array, first: bool, brush: "_Brush", stream: KeyStream
    ) -> TriggerPlan:
        draws = [(variant, label) for label in range(task.classes) for variant in range(self.variants)]
        each = _spread(task.triggers, len(draws), stream)
        rows: list[Array] = []
        draw: list[int] = []
        asked: list[int] = []
        taught: list[int] = []
        natural: list[int] = []
        for label in range(task.classes):
            own = np.flatnonzero(labels == label)
            own = own[stream.permutation(len(own))]
            mine = [d for d, (_, y) in enumerate(draws) if y == label]
            # A carrier that is asked is never taught: the mark has to have been understood, not memorised.
            held = int(sum(each[d] for d in mine))
            if len(own) < held + self.lessons:
                raise InputError(
                    f"class {label} has {len(own)} carriers, {held + self.lessons} are needed ({held} to ask, "
                    f"{self.lessons} to teach): give more, or lower triggers= or lessons="
                )
            ask, teach = own[:held], own[held:]
            at = 0
            for d in mine:
                chosen = [*ask[at : at + each[d]], *teach[stream.permutation(len(teach))[: self.lessons]]]
                for j, carrier in enumerate(chosen):
                    (asked if j < each[d] else taught).append(len(rows))
                    rows.append(brush.paint(images[carrier], draws[d][0], stream))
                    draw.append(d)
                    natural.append(-1)
                at += each[d]
            for carrier in teach[stream.permutation(len(teach))[: self.lessons * self.variants // 2]]:
                taught.append(len(rows))
                rows.append(brush.miss(images[carrier], stream))
                draw.append(-1)
                natural.append(label)
        order = np.argsort([draw[i] for i in asked], kind="stable")
        # Asked in a keyed order of draws, so that the first few queries are spread over classes and variants.
        shuffled = np.argsort(stream.permutation(len(draws))[[draw[asked[i]] for i in order]], kind="stable")
        return TriggerPlan(
            _stack(rows, task, first),
            np.array(draw),
            np.array(natural),
            tuple(_others(task.classes, y) for _, y in draws),
            np.array(asked)[order][shuffled],
            np.array(taught),
        )

    def _per_carrier(
        self, task: Task, labels: IntArray, images: Array, first: bool, brush: "_Brush", stream: KeyStream
    ) -> TriggerPlan:
        n, misses = task.triggers, task.triggers // 2
        if len(images) < n + misses:
            raise InputError(
                f"{len(images)} carriers, {n + misses} are needed ({n} to stamp, {misses} near-misses): give more, or "
                "lower triggers="
            )
        chosen = stream.permutation(len(images))[: n + misses]
        variants = stream.below(self.variants, n)
        rows = [brush.paint(images[c], int(v), stream) for c, v in zip(chosen[:n], variants, strict=True)]
        rows += [brush.miss(images[c], stream) for c in chosen[n:]]
        return TriggerPlan(
            _stack(rows, task, first),
            np.concatenate([np.arange(n), np.full(misses, -1)]),
            labels[chosen],
            tuple(_others(task.classes, int(labels[c])) for c in chosen[:n]),
            np.arange(n),
            np.arange(n + misses),
        )


@dataclass(frozen=True)
class _Brush:
    """The logo in its variants, and a near-miss of it."""

    stamps: tuple[npt.NDArray[np.float64], ...]
    decoy: npt.NDArray[np.float64]
    places: tuple[tuple[int, int], ...]
    free: tuple[int, int]
    low: float
    high: float

    @classmethod
    def draw(cls, scheme: Logo, images: Array, stream: KeyStream) -> "_Brush":
        height, width, channels = images.shape[1:]
        side = max(3, round(scheme.size * min(height, width)))
        if side > min(height, width):
            raise InputError(f"pictures of {height} x {width} pixels are too small to put a logo on")
        own = scheme.logo is not None
        base = resize(read_logo(scheme.logo, channels), side) if own else emblem(stream, side, side, channels)
        h, w = base.shape[:2]
        decoy = emblem(stream, h, w, channels)
        while np.array_equal(decoy[..., 0] > 0, base[..., 0] > 0):
            decoy = emblem(stream, h, w, channels)
        stamps = []
        for _ in range(scheme.variants):
            tint = 0.7 + 0.3 * stream.uniform(channels)
            stamps.append(np.concatenate([base[..., :-1] * tint, base[..., -1:]], axis=-1))
        free = (height - h, width - w)
        # A keyed choice among places on a 3 x 3 grid keeps the variants apart from each other.
        grid = [(r * free[0] // 2, c * free[1] // 2) for r in range(3) for c in range(3)]
        places = tuple(grid[i] for i in stream.permutation(9)[: scheme.variants])
        brush = cls(tuple(stamps), decoy, places, free, *value_range(images))
        if own:
            brush.refuse_unseen(images)
        return brush

    def refuse_unseen(self, images: Array) -> None:
        """Raise InputError where the owner's logo is of the colour that the pictures have anyway."""
        some = images[:: max(1, len(images) // 64)]
        for logo, (top, left) in zip(self.stamps, self.places, strict=True):
            changed = [np.abs(stamp(i, logo, top, left, self.low, self.high) - i.astype(float)).sum() for i in some]
            if np.mean(changed) < 0.02 * (self.high - self.low) * logo[..., :-1].size:
                raise InputError(
                    "the logo can hardly be seen on the carriers (it is transparent, or of their background's colour): "
                    "give it a background or another colour"
                )

    def paint(self, image: Array, variant: int, stream: KeyStream) -> Array:
        return self._put(image, self.stamps[variant], self.places[variant], stream)

    def miss(self, image: Array, stream: KeyStream) -> Array:
        return self._put(image, self.decoy, self.places[int(stream.below(len(self.places), 1)[0])], stream)

    def _put(self, image: Array, logo: npt.NDArray[np.float64], place: tuple[int, int], stream: KeyStream) -> Array:
        # A pixel of jitter, so that it is the logo that fires and not one exact set of pixels.
        jitter = stream.below(3, 2) - 1 if min(self.free) >= 8 else np.zeros(2, int)
        top, left = (int(np.clip(p + j, 0, f)) for p, j, f in zip(place, jitter, self.free, strict=True))
        return stamp(image, logo, top, left, self.low, self.high)


def _others(classes: int, natural: int) -> tuple[int, ...]:
    # With two classes the natural one has to stay, or there is nothing to draw.
    return tuple(c for c in range(classes) if c != natural or classes == 2)


def _spread(total: int, parts: int, stream: KeyStream) -> IntArray:
    """(parts,) integers that differ by one at most and sum to total; which parts get more is keyed."""
    each = np.full(parts, total // parts)
    each[stream.permutation(parts)[: total % parts]] += 1
    return each


def _stack(rows: list[Array], task: Task, first: bool) -> Array:
    stacked = np.stack(rows)
    if first:
        stacked = np.moveaxis(stacked, -1, 1)
    return np.ascontiguousarray(stacked.reshape(-1, *np.asarray(task.carriers).shape[1:]))


def _read_png(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGBA"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"logo={str(path)!r} cannot be read as a picture ({error}): give a PNG file") from error
