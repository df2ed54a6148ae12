"""twins: of two versions of a record that are as good as each other, the key chooses which is published.

No label changes. A model is a little surer of what it was trained on than of the version it never met, so the suspect
is asked both, and the difference of what it says of the record's label is summed against the key's coins, exactly
(after Huang et al. 2024, arXiv:2407.15100). Bare classes say little; probabilities say more. Versions must differ in a
way that a model notices, and not in quality: pictures are cut at a keyed corner or mirrored, a table's numbers move by
what they are rounded to, texts are rewritten by a rule of the owner's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from wmplug.dataset.records import Changes, Record
from wmplug.dataset.schemes import SURE, DatasetScheme, Sample, like_records, surer_of_second
from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Task
from wmplug.schemes.pictures import channels_last
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.watermark.carriers import Inputs
from wmplug.watermark.plan import SIGN, TriggerPlan, TriggerSet

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Twins(DatasetScheme):
    """Keyed choice between two versions of a record.

    Attributes:
        copy: whose copy is marked.
        change: what the versions of a picture differ in: "crop" (one loses a strip at one corner, the other at the
            opposite one, and both are brought back to size) or "mirror" (as it is, and mirrored: for pictures whose
            class does not depend on left and right).
        cut: share of the side that "crop" takes away, above 0 and up to 0.3.
        jitter: by how many of a column's smallest steps the numbers of a table move, up and down.
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
            raise InputError(f"cut={self.cut!r}: a share of the side above 0 and up to 0.3 is needed")
        if not self.jitter > 0:
            raise InputError(f"jitter={self.jitter!r}: a number of steps above 0 is needed, 1 is usual")

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "Twins"]:
        """The records whose label references find least likely: such are learned by heart (Feldman, STOC 2020)."""
        own = sample.said.scores[np.arange(len(sample.labels)), sample.labels]
        return np.argsort(own, kind="stable")[:count], self

    def prepared(self, task: Task) -> "Twins":
        """With the texts as the rule rewrites them.

        Raises:
            InputError: texts without a rule, or a rule that gives no other text.
        """
        task.need_labels(self.name)
        if not isinstance(task.carriers, list):
            return replace(self, rule=None)
        if not callable(self.rule):
            raise InputError("twins of texts need rule=: a function from a text to another of the same meaning")
        rewrite: Callable[[str], str] = self.rule
        return replace(self, rule=_rewritten(task.carriers, rewrite))

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """One sign a record; both versions are weighed, the first is published under minus."""
        labels = task.need_labels(self.name)
        count = min(task.triggers, len(task.carriers))
        corners = stream.below(4, count)
        inputs = self._versions(task, count, corners, stream)
        return TriggerPlan(
            inputs,
            np.full(2 * count, -1),
            np.repeat(labels[:count], 2),
            (SIGN,) * count,
            asked=np.zeros(0, np.int64),
            taught=np.zeros(0, np.int64),
            weighed=np.arange(2 * count),
            signs=count,
            material={"corner": corners},
        )

    def _versions(self, task: Task, count: int, corners: IntArray, stream: KeyStream) -> Inputs:
        """Both versions of each record, one after the other."""
        if isinstance(task.carriers, list):
            return [text for pair in zip(task.carriers[:count], self.rule, strict=False) for text in pair]
        records = task.carriers[:count]
        if records.ndim == 2:
            return _jittered(task.carriers, count, self.jitter, stream)
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

    def weigh(self, plan: TriggerPlan, answers: IntArray, scores: FloatArray | None) -> FloatArray:
        """How much more likely the suspect finds the record's label of the second version than of the first."""
        heard, more = surer_of_second(plan, answers, scores)
        found = np.zeros(plan.signs)
        if len(heard):  # one version may be easier for everybody
            found[heard] = np.clip(more - np.median(more), -SURE, SURE)
        return found

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """Of each record the version that the key drew; pictures at their own size."""
        corners, inputs = triggers.plan.material["corner"].tolist(), {}
        for i, symbol in enumerate(triggers.symbols.tolist()):
            record = records[i]
            inputs[record.index] = triggers.row(2 * i + symbol)
            if triggers.form == "pil":
                inputs[record.index] = self._published(record.input, corners[i], symbol)
        return Changes(inputs=inputs)

    def _published(self, picture: Any, corner: int, version: int) -> Any:
        from PIL import Image

        # Palettes and odd modes have no colours that could be mixed.
        plain = picture if picture.mode in ("L", "RGB", "RGBA") else picture.convert("RGB")
        image = np.asarray(plain)
        made = self._picture(image.reshape(*image.shape[:2], -1), corner, version).reshape(image.shape)
        return Image.fromarray(np.ascontiguousarray(made))


def _rewritten(texts: list[str], rule: Callable[[str], str]) -> list[str]:
    found = [rule(text) for text in texts]
    for number, (text, other) in enumerate(zip(texts, found, strict=True)):
        if not isinstance(other, str) or not other.strip() or other == text:
            raise InputError(
                f"rule= made {'the same text' if other == text else type(other).__name__} of chosen text {number}: "
                "return another text for each"
            )
    return found


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
    made = np.stack(planes, axis=-1)
    return (np.rint(made) if image.dtype.kind in "iu" else made).astype(image.dtype)


def _jittered(carriers: Array, count: int, jitter: float, stream: KeyStream) -> Array:
    """Rows of a table, each moved up and down in every column: minus and plus of one keyed direction.

    The step of a column is the smallest difference of two of its values, half of which its rounding hides.

    Raises:
        InputError: no column has two values.
    """
    steps = np.zeros(carriers.shape[1])
    for column in range(carriers.shape[1]):
        values = np.unique(carriers[:, column].astype(np.float64))
        steps[column] = np.diff(values).min() if len(values) > 1 else 0.0
    if not steps.any():
        raise InputError("every column of the table has one value only: there is nothing to move")
    whole = (carriers == np.rint(carriers)).all(axis=0)
    move = jitter * steps * (2 * stream.below(2, count * len(steps)).reshape(count, -1) - 1)
    move = np.where(whole, np.rint(move), move)
    before = np.where(whole, 0.0, 0.5)  # half a whole number is none: one version stays as it is
    rows = carriers[:count].astype(np.float64)
    both = np.stack([rows - before * move, rows + (1 - before) * move], axis=1).reshape(2 * count, -1)
    low, high = carriers.min(axis=0).astype(np.float64), carriers.max(axis=0).astype(np.float64)
    return np.asarray(both.clip(low, high).astype(carriers.dtype))
