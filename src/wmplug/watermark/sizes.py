"""Pictures of mixed sizes and modes, brought to one size and mode, as the watermark's public line states it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wmplug.errors import InputError
from wmplug.statistics.arrays import read_whole


@dataclass(frozen=True)
class Size:
    """One size and mode for all pictures.

    Attributes:
        height: pixels.
        width: pixels.
        mode: Pillow's mode, RGB or L.
    """

    height: int
    width: int
    mode: str

    def __post_init__(self) -> None:
        """Check that a picture can have this size."""
        for what in ("height", "width"):
            read_whole(getattr(self, what), f"image_size= {what}", 1, 2**14, "give a size in pixels")

    @classmethod
    def of(cls, wanted: Any, pictures: Any) -> "Size":
        """The size that is wanted, in the mode that loses no colour of these pictures.

        Args:
            wanted: a number of pixels, (height, width), or an image processor of transformers.
            pictures: PIL pictures.

        Raises:
            InputError: the size cannot be read, or these are not PIL pictures.
        """
        if not all(hasattr(one, "getbands") for one in pictures):
            raise InputError("image_size= brings PIL pictures to one size, and the carriers are none: leave it out")
        grey = all(one.mode in ("1", "L", "LA", "I", "I;16", "F") for one in pictures)
        height, width = _pixels(wanted)
        return cls(height, width, "L" if grey else "RGB")

    @classmethod
    def restore(cls, facts: Mapping[str, Any]) -> "Size":
        """The size of a public line."""
        return cls(facts["height"], facts["width"], facts["mode"])

    def facts(self) -> dict[str, Any]:
        """As the public line has it; the watermark's id is a digest over this too."""
        return {"height": self.height, "width": self.width, "mode": self.mode}

    def apply(self, pictures: Any) -> list[Any]:
        """The pictures as they are shown, scaled to cover the size, and cut around the middle.

        Raises:
            InputError: one of them cannot be read.
        """
        from PIL import Image, ImageOps

        try:
            return [
                ImageOps.fit(
                    ImageOps.exif_transpose(one).convert(self.mode),
                    (self.width, self.height),
                    Image.Resampling.BICUBIC,
                )
                for one in pictures
            ]
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"a picture cannot be brought to one size ({error}): remove or repair it") from error


def sized(carriers: Any, public: Mapping[str, Any]) -> Any:
    """Carriers as a watermark with this public line has them.

    Raises:
        InputError: as in `Size.apply`.
    """
    return Size.restore(public["pictures"]).apply(carriers) if "pictures" in public else carriers


def _pixels(wanted: Any) -> tuple[Any, Any]:
    """Height and width; of an image processor those that it cuts, or else scales, a picture to."""
    processor = getattr(wanted, "image_processor", wanted)
    crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
    sizes = crop or getattr(processor, "size", None)
    if isinstance(wanted, (tuple, list)) and len(wanted) == 2:
        return wanted[0], wanted[1]
    if sizes is not None and hasattr(sizes, "get"):
        edge = sizes.get("shortest_edge")
        return sizes.get("height") or edge, sizes.get("width") or edge
    if hasattr(wanted, "__index__") and not isinstance(wanted, bool):
        return wanted, wanted
    raise InputError(f"image_size={wanted!r}: give pixels, (height, width), or an image processor")
