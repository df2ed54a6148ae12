"""Places of marked copies: nothing is overwritten, and every copy has its secret beside it."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wmplug.dataset import manifest
from wmplug.dataset.sources.packed import refuse_other_format, whole_ending
from wmplug.errors import InputError
from wmplug.statistics.arrays import read_whole
from wmplug.watermark.watermark import Watermark


def names_of(copies: int | Sequence[str] | None) -> list[str]:
    """Names of the copies; one without a name by default.

    Raises:
        InputError: a file cannot have one of the names, or two are the same.
    """
    if copies is None:
        return [""]
    if isinstance(copies, int):
        number = read_whole(copies, "copies", 1, 10_000, "1 to 10000 copies")
        return [f"copy-{i:0{len(str(number))}d}" for i in range(1, number + 1)]
    names = list(copies)
    if (
        isinstance(copies, str)
        or not names
        or not all(isinstance(n, str) and re.fullmatch(r"\w[\w. -]*", n) for n in names)
    ):
        raise InputError(f"copies={copies!r}: give a number, or names of letters, digits, '.', '_', '-' and spaces")
    if len(set(names)) < len(names):
        raise InputError("copies= names one licensee twice: both would get the same copy")
    return names


def place_of(out: str | Path | None, data: Any, name: str) -> Path | None:
    """The place of a copy; licensees' copies lie in one folder, under the licensees' names.

    Raises:
        InputError: the place is taken, or its name says another format. This is checked first, not after hours of work.
    """
    if out is None:
        return None
    is_file = isinstance(data, (str, Path)) and Path(data).is_file()
    place = Path(out) / (name + (whole_ending(Path(data)) if is_file else "")) if name else Path(out)
    if not place.is_dir() and (isinstance(data, (str, Path)) or type(data).__module__.partition(".")[0] == "datasets"):
        refuse_other_format(place, Path(data) if isinstance(data, (str, Path)) else None)
    taken = place.exists() and not (place.is_dir() and not any(place.iterdir()))
    if not name and not place.parent.is_dir():
        raise InputError(f"{place.parent} is not a folder: make it, then write {place.name} into it")
    for path in (place, beside(place, ".wm"), beside(place, manifest.SUFFIX)):
        if taken or (path != place and path.exists()):
            raise InputError(f"{path} already exists: give a new name or an empty folder, nothing is overwritten")
    return place


def beside(place: Path, suffix: str) -> Path:
    """The path of a file beside a copy."""
    return place.with_name(place.name + suffix)


@contextmanager
def with_secret(place: Path | None, mark: Watermark) -> Iterator[None]:
    """Write the watermark before its copy, and remove it if the copy fails: no copy is ever without its secret."""
    if place is None:
        yield
        return
    secret = beside(place, ".wm")
    try:
        mark.save(secret)
    except OSError as error:
        raise InputError(
            f"{secret} was not written: {error.strerror or error}; neither was the copy, so give another place"
        ) from error
    try:
        yield
    except BaseException:
        secret.unlink()
        raise
