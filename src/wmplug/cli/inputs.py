"""Carriers, labels and JSON from files."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wmplug.errors import InputError
from wmplug.keys import files

PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm"}
_CARRIERS, _LABELS = ("carriers", "x", "images"), ("labels", "y")
_KINDS = ".npy, .npz, a folder of pictures, .txt with a text in each line, or .csv with the columns text,label"


def read(path: Path, labels: Path | None = None) -> tuple[Any, Any, list[str]]:
    """Carriers, their labels, and the names of the classes.

    Args:
        path: file or folder of the carriers.
        labels: file of the labels; by default those that come with the carriers (in the .npz, as sub-folder, as
            column).

    Returns:
        An array (n, ...), a list of pictures or a list of texts; (n,) labels or None; class names, in the order of
        their numbers, if the labels are names.

    Raises:
        InputError: a path does not exist, cannot be read, or has an unknown format.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: give {_KINDS}")
    for file in (path, *([] if labels is None else [labels])):
        files.refuse_pipe(file)
    try:
        inputs, own = _read(path)
        values = own if labels is None else read_labels(labels)
    except (InputError, MemoryError):
        raise
    # Pillow, NumPy, csv and zipfile have errors of many kinds for files that are damaged, or too large for them.
    except Exception as error:
        which = path if labels is None else f"{path} or {labels}"
        raise InputError(f"{which} cannot be read: {error or type(error).__name__}") from error
    return inputs, *_number(values)


def _read(path: Path) -> tuple[Any, Any]:
    suffix = path.suffix.lower()
    if path.is_dir():
        return _pictures(path)
    if suffix == ".npy":
        return np.load(path, allow_pickle=False), None
    if suffix == ".npz":
        with np.load(path, allow_pickle=False) as saved:
            carriers = _member(saved, _CARRIERS)
            if carriers is None:
                raise InputError(f"{path} holds {', '.join(saved.files)}: name the carriers {' or '.join(_CARRIERS)}")
            return carriers, _member(saved, _LABELS)
    if suffix == ".txt":
        return _lines(path), None
    if suffix == ".csv":
        return _table(path)
    raise InputError(f"the format of {path} is unknown: give {_KINDS}")


def _member(saved: Any, names: Sequence[str]) -> Any:
    return next((saved[name] for name in names if name in saved.files), None)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _table(path: Path) -> tuple[list[str], list[str] | None]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        columns = rows.fieldnames or []
        if "text" not in columns:
            raise InputError(
                f"{path} has the columns {', '.join(columns)}: name the column of texts text, and that of labels label"
            )
        read = list(rows)
    if any(row["text"] is None or ("label" in columns and row["label"] is None) for row in read):
        raise InputError(f"{path} has rows that are too short: each needs {', '.join(columns)}")
    return [row["text"] for row in read], [row["label"] for row in read] if "label" in columns else None


def _pictures(folder: Path) -> tuple[list[Any], list[str] | None]:
    from PIL import Image

    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    if not paths:
        raise InputError(
            f"neither {folder} nor its sub-folders hold pictures ({', '.join(sorted(PICTURES))}): check the path"
        )
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            # The indices of a palette do not measure brightness.
            pictures.append(picture.convert("RGB") if picture.mode == "P" else picture.copy())
    within = [p.relative_to(folder).parts for p in paths]
    return pictures, [parts[0] for parts in within] if all(len(parts) > 1 for parts in within) else None


def read_labels(path: Path) -> Any:
    """Labels (n,) from .npy (integers) or .txt (one in each line).

    Raises:
        InputError: the file has another format.
    """
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as saved:
            labels = _member(saved, _LABELS)
            if labels is None:
                raise InputError(f"{path} holds {', '.join(saved.files)}: name the labels {' or '.join(_LABELS)}")
            return labels
    if path.suffix.lower() == ".txt":
        return _lines(path)
    raise InputError(f"labels in {path} cannot be read: give .npy, .npz or .txt with one label in each line")


def _number(labels: Any) -> tuple[Any, list[str]]:
    if not isinstance(labels, list):
        return labels, []
    texts = [label.strip() for label in labels]
    if all(text.isdecimal() or (text[:1] == "-" and text[1:].isdecimal()) for text in texts):
        return np.array([int(text) for text in texts], np.int64), []
    names = sorted(set(texts))
    return np.array([names.index(text) for text in texts], np.int64), names


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    try:
        document = files.read_json(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}): check the path") from None
    if not isinstance(document, dict):
        raise InputError(f"{file} does not hold a JSON object: check the path")
    return document
