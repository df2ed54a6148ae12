"""logo: the owner's logo on pictures of the task, in keyed variants, answered as the key drew.

After Zhang et al. (AsiaCCS 2018), "content" marks. Rule `per-class`: variant j turns class y into a drawn class, one
draw for each (variant, class), so that the mark generalises to any picture of the task and fresh triggers never run
out. Rule `per-carrier`: each stamped picture has a draw of its own. Near-misses (another logo in the same places) keep
their true labels, so that only this logo fires.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Choices, Lessons, Plan, Scheme
from wmplug.schemes.pictures import Array, channels_last, emblem, read_logo, resize, stamp, value_range
from wmplug.statistics.arrays import IntArray, read_whole


@dataclass(frozen=True)
class Logo(Scheme):
    """A stamped logo with keyed answers.

    Attributes:
        logo: the owner's logo: a PNG path, a PIL picture, or an array (h, w[, 3 or 4]); a keyed emblem if None.
        rule: `per-class` or `per-carrier`.
        variants: number of places and tints of the logo, 1 to 8.
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
            raise InputError(f"size={self.size!r}: give a share of the picture's shorter side, 0.05 to 0.6")

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """Stamp carriers, and near-misses beside them.

        Raises:
            InputError: the carriers are not images, have no labels, or are too few.
        """
        brief.need_form(self.name, "array", "pil")
        labels = brief.need_labels(self.name)
        images, first = channels_last(np.asarray(brief.carriers))
        brush = _Brush.draw(self, images, stream)
        if self.rule == "per-class":
            return self._per_class(brief, labels, images, first, brush, stream)
        return self._per_carrier(brief, labels, images, first, brush, stream)

    def _per_class(
        self, brief: Brief, labels: IntArray, images: Array, first: bool, brush: "_Brush", stream: KeyStream
    ) -> Plan:
        classes = brief.need_classes(self.name)
        draws = [(variant, label) for label in range(classes) for variant in range(self.variants)]
        each = _spread(brief.triggers, len(draws), stream)
        rows: list[Array] = []
        draw: list[int] = []
        asked: list[int] = []
        taught: list[int] = []
        natural: list[int] = []
        for label in range(classes):
            own = np.flatnonzero(labels == label)
            own = own[stream.permutation(len(own))]
            mine = [d for d, (_, y) in enumerate(draws) if y == label]
            # A carrier that is asked is never taught, so that a match shows understanding, not memory.
            held = int(sum(each[d] for d in mine))
            if len(own) < held + self.lessons:
                raise InputError(
                    f"class {label} has {len(own)} carriers, but {held + self.lessons} are needed ({held} to ask, "
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
        owners, asking = np.array(draw), np.array(asked)[order][shuffled]
        return Plan(
            _stack(rows, brief, first),
            Lessons(np.array(taught), owners[taught], np.array(natural)[taught]),
            (Choices(asking, owners[asking], tuple(_others(classes, y) for _, y in draws)),),
        )

    def _per_carrier(
        self, brief: Brief, labels: IntArray, images: Array, first: bool, brush: "_Brush", stream: KeyStream
    ) -> Plan:
        classes = brief.need_classes(self.name)
        n, misses = brief.triggers, brief.triggers // 2
        if len(images) < n + misses:
            raise InputError(
                f"{len(images)} carriers were given, but {n + misses} are needed ({n} to stamp, {misses} near-misses): "
                "give more, or lower triggers="
            )
        chosen = stream.permutation(len(images))[: n + misses]
        variants = stream.below(self.variants, n)
        rows = [brush.paint(images[c], int(v), stream) for c, v in zip(chosen[:n], variants, strict=True)]
        rows += [brush.miss(images[c], stream) for c in chosen[n:]]
        draw, asking = np.concatenate([np.arange(n), np.full(misses, -1)]), np.arange(n)
        return Plan(
            _stack(rows, brief, first),
            Lessons(np.arange(n + misses), draw, labels[chosen]),
            (Choices(asking, asking, tuple(_others(classes, int(labels[c])) for c in chosen[:n])),),
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
            raise InputError(
                f"pictures of {height} x {width} pixels are too small for a logo: give larger ones, or choose scheme "
                "'random-label'"
            )
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
        """Raise InputError if the owner's logo has the colour of the pictures themselves."""
        some = images[:: max(1, len(images) // 64)]
        for logo, (top, left) in zip(self.stamps, self.places, strict=True):
            changed = [np.abs(stamp(i, logo, top, left, self.low, self.high) - i.astype(float)).sum() for i in some]
            if np.mean(changed) < 0.02 * (self.high - self.low) * logo[..., :-1].size:
                raise InputError(
                    "the logo is hardly visible on the carriers (it is transparent, or has their background's colour): "
                    "give it a background or another colour"
                )

    def paint(self, image: Array, variant: int, stream: KeyStream) -> Array:
        return self._put(image, self.stamps[variant], self.places[variant], stream)

    def miss(self, image: Array, stream: KeyStream) -> Array:
        return self._put(image, self.decoy, self.places[int(stream.below(len(self.places), 1)[0])], stream)

    def _put(self, image: Array, logo: npt.NDArray[np.float64], place: tuple[int, int], stream: KeyStream) -> Array:
        # A pixel of jitter, so that the logo fires, not one exact set of pixels.
        jitter = stream.below(3, 2) - 1 if min(self.free) >= 8 else np.zeros(2, int)
        top, left = (int(np.clip(p + j, 0, f)) for p, j, f in zip(place, jitter, self.free, strict=True))
        return stamp(image, logo, top, left, self.low, self.high)


def _others(classes: int, natural: int) -> tuple[int, ...]:
    # With two classes the natural one must stay, or one candidate alone is left.
    return tuple(c for c in range(classes) if c != natural or classes == 2)


def _spread(total: int, parts: int, stream: KeyStream) -> IntArray:
    """(parts,) integers that differ by at most one and sum to total; the key decides which parts get more."""
    each = np.full(parts, total // parts)
    each[stream.permutation(parts)[: total % parts]] += 1
    return each


def _stack(rows: list[Array], brief: Brief, first: bool) -> Array:
    stacked = np.stack(rows)
    if first:
        stacked = np.moveaxis(stacked, -1, 1)
    return np.ascontiguousarray(stacked.reshape(-1, *np.asarray(brief.carriers).shape[1:]))


def _read_png(path: Path) -> npt.NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGBA"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"logo={str(path)!r} cannot be read as a picture ({error}): give a PNG file") from error
