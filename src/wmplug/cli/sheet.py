"""The contact sheet: every trigger with its secret answer, for the owner's eyes."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from wmplug.errors import InputError
from wmplug.schemes.pictures import channels_last, value_range
from wmplug.statistics.arrays import IntArray
from wmplug.watermark.watermark import Watermark

_MADE_BY = "wmplug sheet"
_SIDE, _GAP, _LABEL, _HEAD = 72, 10, 18, 44


def suffix(mark: Watermark) -> str:
    """The suffix of a sheet of this watermark: `.png` for pictures, `.txt` for texts and rows of a table."""
    return ".txt" if mark.triggers.form == "text" or np.ndim(mark.triggers.plan.inputs) == 2 else ".png"


def draw(mark: Watermark, wanted: str) -> bytes:
    """The sheet as a file's content.

    Args:
        mark: the watermark.
        wanted: suffix of that file.

    Raises:
        InputError: the suffix does not fit, the watermark has no triggers, or they are of another kind.
    """
    if wanted != suffix(mark):
        raise InputError(
            f"a sheet of {mark.triggers.form} triggers is a {suffix(mark)} file, and --out ends with {wanted!r}: "
            "change the suffix"
        )
    rows = mark.triggers.plan.secret
    if not len(rows):
        raise InputError(
            f"scheme {mark.scheme.name!r} asks ordinary inputs and has no triggers, so there is nothing to draw: "
            "`wmplug show --public` shows the public facts"
        )
    return _texts(mark, rows) if wanted == ".txt" else _pictures(mark, rows)


def is_sheet(path: Path) -> bool:
    """Whether the file is marked as a sheet, so that `show` may replace it."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(len(_MADE_BY)) == _MADE_BY.encode():
            return True
    try:
        with Image.open(path) as picture:
            return bool(picture.info.get("Software") == _MADE_BY)
    except (OSError, UnidentifiedImageError, ValueError):
        return False


def _heading(mark: Watermark) -> str:
    return f"SECRET  {mark.scheme.name}, {len(mark.triggers)} triggers, watermark {mark.id}"


def _texts(mark: Watermark, rows: IntArray) -> bytes:
    shown = [mark.task.shown(answer) for answer in mark.triggers.answers[rows]]
    width = max(6, *map(len, shown))
    texts = [_line(mark.triggers.row(row)) for row in rows.tolist()]
    lines = [f"{answer:>{width}}  {text}" for answer, text in zip(shown, texts, strict=True)]
    what = "text" if mark.triggers.form == "text" else "row"
    return "\n".join([f"{_MADE_BY}  {_heading(mark)}", "", f"answer  {what}", *lines, ""]).encode()


def _line(value: Any) -> str:
    """A text on one line, or the numbers of a row."""
    return " ".join(value.split() if isinstance(value, str) else [f"{number:.6g}" for number in value.tolist()])


def _pictures(mark: Watermark, rows: IntArray) -> bytes:
    answers = [mark.task.shown(answer) for answer in mark.triggers.answers[rows]]
    pictures = _visible(np.asarray(mark.triggers.plan.inputs)[rows])
    height, width = pictures.shape[1:3]
    # Whole multiples keep small pictures' pixels square; large ones are shrunk.
    factor = max(1, _SIDE // max(height, width)) if max(height, width) <= 2 * _SIDE else 2 * _SIDE / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    across = max(6, math.ceil(math.sqrt(len(pictures) * (size[1] + _LABEL) / size[0])))
    down = math.ceil(len(pictures) / across)
    step = (max(size[0], 40) + _GAP, size[1] + _LABEL + _GAP)
    sheet = Image.new("RGB", (max(across * step[0] + _GAP, 620), _HEAD + down * step[1] + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, 8), _heading(mark), fill="#a00000", font=ImageFont.load_default(14))
    pen.text((_GAP, 26), "under each: the answer that the key drew", fill="#555555", font=ImageFont.load_default(11))
    font = ImageFont.load_default(13)
    for k, (picture, answer) in enumerate(zip(pictures, answers, strict=True)):
        left, top = _GAP + k % across * step[0], _HEAD + k // across * step[1]
        resampling = Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX
        sheet.paste(Image.fromarray(picture).resize(size, resampling), (left, top))
        pen.text((left + size[0] / 2, top + size[1] + 2), answer, fill="black", font=font, anchor="ma")
    written = io.BytesIO()
    made_by = PngInfo()
    made_by.add_text("Software", _MADE_BY)
    sheet.save(written, "PNG", pnginfo=made_by)
    return written.getvalue()


def _visible(inputs: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Pictures in any shape and range as (n, H, W, 3) uint8."""
    images, _ = channels_last(inputs)
    low, high = value_range(images)
    scaled = np.rint((images.astype(np.float64) - low) * (255.0 / (high - low if high > low else 1.0)))
    colours = scaled[..., :3] if images.shape[-1] >= 3 else np.repeat(scaled[..., :1], 3, axis=-1)
    return np.clip(colours, 0, 255).astype(np.uint8)
