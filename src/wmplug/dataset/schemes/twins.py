"""twins: the key chooses which of two equally good versions of a record is published.

No label changes. A model is a little more confident on the version in its training data, so the suspect is asked both.
The difference of its scores for the record's label is summed against the key's coins, exactly (after Huang et al. 2024,
arXiv:2407.15100). Bare classes show little; probabilities show more. Versions must differ in a way that a model
notices, and not in quality: pictures are cut at a keyed corner or mirrored, a table's numbers move by their
rounding step, texts are rewritten by a rule of the owner's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wmplug.dataset.records import Changes, Record
from wmplug.dataset.schemes import SURE, DatasetScheme, Sample, like_records, pattern_of, surer_of_second
from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Lessons, Pattern, Plan
from wmplug.schemes.pictures import channels_last
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.watermark.carriers import Inputs
from wmplug.watermark.plan import SIGN, TriggerSet

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Twins(DatasetScheme):
    """Keyed choice between two versions of a record.

    Attributes:
        copy: name of the licensee whose copy is marked.
        change: the difference between the versions of a picture: "crop" (one loses a strip at one corner, the other at
            the opposite one, and both are brought back to size) or "mirror" (the picture, and its mirror image: for
            pictures whose class does not depend on left and right).
        cut: share of the side that "crop" takes away, above 0 and up to 0.3.
        jitter: number of a column's smallest steps by which the numbers of a table move, up and down.
        rule: for texts, a function from a text to another of the same meaning and quality.
    """

    name: ClassVar[str] = "twins"
    rate: ClassVar[float] = 0.03

    change: str = "crop"
    cut: float = 0.1
    jitter: float = 1.0
    rule: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.change not in ("crop", "mirror"):
            raise InputError(f"change={self.change!r}: choose 'crop' or 'mirror'")
        if not 0 < self.cut <= 0.3:
            raise InputError(f"cut={self.cut!r}: give a share of the side above 0 and up to 0.3")
        if not self.jitter > 0:
            raise InputError(f"jitter={self.jitter!r}: give a number of steps above 0, 1 is usual")

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "Twins"]:
        """The records whose label references find least likely, since models memorise these (Feldman, STOC 2020)."""
        own = sample.said.scores[np.arange(len(sample.labels)), sample.labels]
        return np.argsort(own, kind="stable")[:count], self

    def prepared(self, brief: Brief) -> "Twins":
        """This scheme with the texts that the rule rewrote.

        Raises:
            InputError: texts come without a rule, or the rule does not return another text.
        """
        brief.need_labels(self.name)
        if not isinstance(brief.carriers, list):
            return replace(self, rule=None)
        if not callable(self.rule):
            raise InputError(
                "the records are texts, and twins needs rule= for them: give a function from a text to another of the "
                "same meaning"
            )
        rewrite: Callable[[str], str] = self.rule
        return replace(self, rule=_rewritten(brief.carriers, rewrite))

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """One sign a record; both versions are weighed, and minus publishes the first."""
        labels = brief.need_labels(self.name)
        count = min(brief.triggers, len(brief.carriers))
        corners = stream.below(4, count)
        inputs = self._versions(brief, count, corners, stream)
        pattern = Pattern(np.arange(2 * count), count, np.repeat(labels[:count], 2))
        return Plan(inputs, Lessons(), (pattern,), {"corner": corners})

    def _versions(self, brief: Brief, count: int, corners: IntArray, stream: KeyStream) -> Inputs:
        """Both versions of each record, one after the other."""
        if isinstance(brief.carriers, list):
            return [text for pair in zip(brief.carriers[:count], self.rule, strict=False) for text in pair]
        records = brief.carriers[:count]
        if records.ndim == 2:
            return _jittered(brief.carriers, count, self.jitter, stream)
        images, first = channels_last(records)
        both = [
            self._picture(image, corner, version)
            for image, corner in zip(images, corners.tolist(), strict=True)
            for version in SIGN
        ]
        return like_records(np.stack(both), records, first)

    def _picture(self, image: Array, corner: int, version: int) -> Array:
        """One version of a picture (H, W, C)."""
        if self.change == "mirror":
            return image[:, ::-1] if version else image
        return _cropped(image, 3 - corner if version else corner, self.cut)

    def weigh(self, plan: Plan, answers: IntArray, scores: FloatArray | None) -> FloatArray:
        """The suspect's gain in confidence in the record's label from the first version to the second."""
        heard, more = surer_of_second(plan, answers, scores)
        values = np.zeros(pattern_of(plan).signs)
        if len(heard):  # one version may be easier for every model
            values[heard] = np.clip(more - np.median(more), -SURE, SURE)
        return values

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """The version of each record that the key drew; pictures in their own size."""
        corners, inputs = triggers.plan.material["corner"].tolist(), {}
        for i, symbol in enumerate(triggers.symbols.tolist()):
            record = records[i]
            inputs[record.index] = triggers.row(2 * i + symbol)
            if triggers.form == "pil":
                inputs[record.index] = self._published(record.input, corners[i], symbol)
        return Changes(inputs=inputs)

    def _published(self, picture: Any, corner: int, version: int) -> Any:
        from PIL import Image

        # Colours of palettes and unusual modes cannot be mixed.
        plain = picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGB")
        image = np.asarray(plain)
        made = self._picture(image.reshape(*image.shape[:2], -1), corner, version).reshape(image.shape)
        return Image.fromarray(np.ascontiguousarray(made))


def _rewritten(texts: list[str], rule: Callable[[str], str]) -> list[str]:
    others = [rule(text) for text in texts]
    for number, (text, other) in enumerate(zip(texts, others, strict=True)):
        if not isinstance(other, str) or not other.strip() or other == text:
            raise InputError(
                f"rule= made {'the same text' if other == text else type(other).__name__} from chosen text {number}: "
                "return another text for each"
            )
    return others


def _cropped(image: Array, corner: int, cut: float) -> Array:
    """The picture (H, W, C) without a strip along two sides that meet at a corner, brought back to size."""
    from PIL import Image

    height, width = image.shape[:2]
    down, right = (max(1, round(cut * side)) for side in (height, width))
    top, left = down * (corner // 2), right * (corner % 2)
    part = image[top : top + height - down, left : left + width - right].astype(np.float32)
    planes = [
        np.asarray(
            Image.fromarray(np.ascontiguousarray(part[..., c])).resize((width, height), Image.Resampling.BILINEAR)
        )
        for c in range(part.shape[-1])
    ]
    cropped = np.stack(planes, axis=-1)
    return (np.rint(cropped) if image.dtype.kind in "iu" else cropped).astype(image.dtype)


def _jittered(carriers: Array, count: int, jitter: float, stream: KeyStream) -> Array:
    """Rows of a table, each moved up and down in every column: minus and plus of one keyed direction.

    The step of a column is the smallest difference between two of its values; rounding hides half of it.

    Raises:
        InputError: no column has two values.
    """
    steps = np.zeros(carriers.shape[1])
    for column in range(carriers.shape[1]):
        values = np.unique(carriers[:, column].astype(np.float64))
        steps[column] = np.diff(values).min() if len(values) > 1 else 0.0
    if not steps.any():
        raise InputError(
            "every column of the table holds a single value, so no number can move: give a table with different values"
        )
    whole = (carriers == np.rint(carriers)).all(axis=0)
    move = jitter * steps * (2 * stream.below(2, count * len(steps)).reshape(count, -1) - 1)
    move = np.where(whole, np.rint(move), move)
    before = np.where(whole, 0.0, 0.5)  # whole numbers have no half step: one version stays unchanged
    rows = carriers[:count].astype(np.float64)
    both = np.stack([rows - before * move, rows + (1 - before) * move], axis=1).reshape(2 * count, -1)
    low, high = carriers.min(axis=0).astype(np.float64), carriers.max(axis=0).astype(np.float64)
    return np.asarray(both.clip(low, high).astype(carriers.dtype))
