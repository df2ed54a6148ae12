"""radioactive-data: pictures are moved a little along keyed directions of a feature space, and no label changes.

After Sablayrolles et al. (ICML 2020). A reference network, trained on the set, says what features a picture has. The
input key draws an isotropic direction for each class, the label key's coin on which side of its original a published
picture lies; both sides differ from it by a few grey levels at most. A suspect is asked for both sides (black
box): of what it was trained on it is a little surer than of what it never met. White box, the weights of its last layer
lean towards the directions that were published, which has an exact probability too: `white_box`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, ndtri

from wmplug import plugins
from wmplug.dataset.records import Changes, Record
from wmplug.dataset.schemes import SURE, DatasetScheme, Sample, like_records, odds, surer_of_second
from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Task
from wmplug.schemes.pictures import channels_last, value_range
from wmplug.statistics import combination
from wmplug.statistics.arrays import FloatArray, IntArray
from wmplug.watermark.carriers import read_whole
from wmplug.watermark.plan import SIGN, TriggerPlan, TriggerSet
from wmplug.watermark.watermark import Watermark

Array = npt.NDArray[Any]
REFERENCE = "wmplug.dataset.schemes.gradients:Reference"


@dataclass(frozen=True)
class RadioactiveData(DatasetScheme):
    """Keyed directions in feature space; needs torch (extra `torch`) and pictures.

    Attributes:
        copy: whose copy is marked.
        bound: grey levels out of 255 by which a pixel may change.
        network: the reference, as its parameters; one is trained if None.
    """

    name: ClassVar[str] = "radioactive-data"

    bound: int = 16
    network: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        read_whole(self.bound, "bound", 1, 64, "1 to 64 grey levels out of 255, 16 is usual")

    def chosen(self, sample: Sample, count: int) -> tuple[IntArray, "RadioactiveData"]:
        """The pictures whose label references find least likely: such are learned by heart (Feldman, STOC 2020)."""
        network = _trained(_pictures(sample.inputs), sample.labels, sample.classes)
        own = sample.said.scores[np.arange(len(sample.labels)), sample.labels]
        return np.argsort(own, kind="stable")[:count], replace(self, network=network)

    def prepared(self, task: Task) -> "RadioactiveData":
        """With a reference network.

        Raises:
            InputError: no pictures, or no labels.
        """
        task.need_form(self.name, "array", "pil")
        labels = task.need_labels(self.name)
        pictures = _pictures(task.carriers)
        return self if self.network is not None else replace(self, network=_trained(pictures, labels, task.classes))

    def plan(self, task: Task, stream: KeyStream) -> TriggerPlan:
        """One sign a picture; both sides are weighed, minus first."""
        labels, carriers = task.need_labels(self.name), np.asarray(task.carriers)
        count = min(task.triggers, len(carriers))
        own, (low, high) = labels[:count], value_range(carriers)
        pictures = _pictures(carriers)[:count]
        reference = plugins.load(REFERENCE)(pictures.shape[1], task.classes, self.network)
        directions = _isotropic(stream, task.classes, reference.features(pictures[:1]).shape[1])
        steps = reference.steps_along(pictures, directions[own], self.bound / 255)
        if carriers.dtype.kind in "ui":  # both sides are to differ by whole steps of what can be written
            steps = np.rint(steps * (high - low)) / (high - low)
        sides = np.stack([pictures - steps, pictures + steps], axis=1).clip(0, 1)
        said = reference.log_probabilities(sides.reshape(-1, *pictures.shape[1:]))
        images = low + np.moveaxis(sides.reshape(-1, *pictures.shape[1:]), 1, -1).astype(np.float64) * (high - low)
        if carriers.dtype.kind in "ui":
            images = np.rint(images)
        return TriggerPlan(
            like_records(images.astype(carriers.dtype), carriers, channels_last(carriers)[1]),
            np.full(2 * count, -1),
            np.repeat(own, 2),
            (SIGN,) * count,
            asked=np.zeros(0, np.int64),
            taught=np.zeros(0, np.int64),
            weighed=np.arange(2 * count),
            signs=count,
            material={
                "directions": directions,
                "network": self.network,
                "odds": np.diff(odds(said, np.repeat(own, 2)).reshape(-1, 2))[:, 0],
            },
        )

    def weigh(self, plan: TriggerPlan, answers: IntArray, scores: FloatArray | None) -> FloatArray:
        """How much surer the suspect is of the label on the plus side than on minus, beyond what the reference is."""
        heard, more = surer_of_second(plan, answers, scores)
        known = plan.material["odds"][heard]
        # As far as the suspect follows the reference at all.
        more = more - known * float(more @ known) / max(float(known @ known), 1e-9)
        found = np.zeros(plan.signs)
        found[heard] = np.clip(more, -SURE, SURE)
        return found

    def changes(self, triggers: TriggerSet, records: Sequence[Record], count: int) -> Changes:
        """Of each picture the side that the key drew; a larger one than was asked is changed by as much, enlarged."""
        pairs = zip(records, triggers.plan.weighed.reshape(-1, 2).tolist(), triggers.symbols.tolist(), strict=False)
        return Changes(inputs={r.index: _published(r.input, triggers, sides, symbol) for r, sides, symbol in pairs})


def _published(picture: Any, triggers: TriggerSet, sides: list[int], symbol: int) -> Any:
    from PIL import Image

    asked = triggers.row(sides[symbol])
    if np.shape(asked) == np.shape(picture) and getattr(picture, "mode", None) == getattr(asked, "mode", None):
        return asked
    minus, plus = (np.asarray(triggers.row(side), np.float32) for side in sides)
    step = (plus - minus) / 2 if symbol else (minus - plus) / 2
    if not hasattr(picture, "getpalette"):
        raise InputError(
            f"a picture of {np.shape(picture)} was asked as one of {np.shape(asked)}: give them in one size"
        )
    plain = picture.convert(asked.mode)
    planes = np.moveaxis(step.reshape(*step.shape[:2], -1), -1, 0)
    large = [np.asarray(Image.fromarray(plane).resize(plain.size, Image.Resampling.BILINEAR)) for plane in planes]
    moved = np.asarray(plain, np.float32) + np.stack(large, axis=-1).reshape(np.shape(plain))
    return Image.fromarray(np.clip(np.rint(moved), 0, 255).astype(np.uint8)).convert(picture.mode)


def _pictures(carriers: Any) -> npt.NDArray[np.float32]:
    """(n, C, H, W) in [0, 1]."""
    if isinstance(carriers, list) or np.ndim(carriers) < 3:
        raise InputError(
            "radioactive-data marks pictures, these are none: twins is the like of it for texts and tables"
        )
    array = np.asarray(carriers)
    low, high = value_range(array)
    images = np.moveaxis(channels_last(array)[0], -1, 1)
    return np.asarray((images.astype(np.float32) - low) / (high - low), np.float32)


def _trained(pictures: Array, labels: IntArray, classes: int) -> Array:
    parameters: Array = plugins.load(REFERENCE)(pictures.shape[1], classes).learn(pictures, labels).parameters
    return parameters


def _isotropic(stream: KeyStream, count: int, size: int) -> npt.NDArray[np.float32]:
    normal = ndtri(np.clip(stream.uniform(count, size), 2**-53, 1 - 2**-53))
    return np.asarray(normal / np.linalg.norm(normal, axis=1, keepdims=True), np.float32)


@dataclass(frozen=True)
class WhiteBox:
    """What a suspect's last layer says.

    Attributes:
        cosines: (classes,) of its weights with the directions that were published, NaN for a class without any.
        log10_p: log10 of the chance of so much agreement, over all classes (Fisher 1932); exact.
    """

    cosines: FloatArray
    log10_p: float


def white_box(
    mark: Watermark, features: Callable[[Any], Any], weights: Any, pictures: Any, *, share: float = 1e-3
) -> WhiteBox:
    """Compare a suspect's last layer with the directions that were published.

    The suspect's features are aligned with the reference's by least squares on pictures without a mark, and with them
    the weights of its last layer. Of each class the cosine is taken with its direction, on the side where most of its
    pictures were published. The null is that the suspect is independent of both keys: a direction then points anywhere
    on the sphere of d dimensions with equal probability, and P(cosine >= t) is I(1 - t^2; (d-1)/2, 1/2) / 2 for t >= 0,
    one-sided. Both sides are published nearly as often, so this says less than what is asked.

    Args:
        mark: of the set.
        features: from pictures, as the set has them, to what the suspect's last layer is given (n, d').
        weights: (classes, d') of that layer.
        pictures: some thousand natural pictures, none of which is marked, as the set has them.
        share: ridge of the alignment, of the features' mean square.

    Raises:
        InputError: another scheme's mark, or shapes that do not fit.
    """
    plan = mark.triggers.plan
    if "directions" not in plan.material:
        raise InputError(f"the mark is of scheme {mark.scheme.name!r}: only radioactive-data has directions to compare")
    own = _pictures(np.stack([np.asarray(picture) for picture in pictures]))
    reference = plugins.load(REFERENCE)(own.shape[1], mark.classes, plan.material["network"])
    seen, theirs = reference.features(own).astype(np.float64), np.asarray(features(pictures), np.float64)
    layer = np.asarray(weights, np.float64)
    if theirs.shape != (len(own), layer.shape[-1]) or layer.shape[0] != mark.classes:
        raise InputError(
            f"features() gave {theirs.shape} for {len(own)} pictures and weights= is {layer.shape}: (n, d) and "
            f"({mark.classes}, d) are needed"
        )
    seen, theirs = seen - seen.mean(axis=0), theirs - theirs.mean(axis=0)
    ridge = share * float(np.square(seen).sum(axis=0).mean()) * np.eye(seen.shape[1])
    aligned = layer @ np.linalg.solve(seen.T @ seen + ridge, seen.T @ theirs).T
    aligned = aligned - aligned.mean(axis=0)
    balance = np.bincount(plan.labels[plan.weighed[::2]], mark.triggers.signs, minlength=mark.classes)
    sums = balance[:, None] * plan.material["directions"]
    norms = np.linalg.norm(aligned, axis=1) * np.linalg.norm(sums, axis=1)
    with np.errstate(invalid="ignore"):
        cosines = (aligned * sums).sum(axis=1) / norms
    told = cosines[np.isfinite(cosines)]
    return WhiteBox(cosines, combination.combine_log10_p([_log10_cap(t, seen.shape[1]) for t in told]))


def _log10_cap(cosine: float, dimensions: int) -> float:
    """log10 of the chance that an isotropic direction has at least this cosine with a given one."""
    half = float(betainc((dimensions - 1) / 2, 0.5, max(0.0, 1 - cosine * cosine))) / 2
    return math.log10(max(half if cosine >= 0 else 1 - half, 1e-300))
