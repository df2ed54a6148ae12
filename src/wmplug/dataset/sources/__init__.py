"""What training sets are kept in, each read and written record by record."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wmplug.dataset.records import Source
from wmplug.dataset.sources.delimited import Delimited
from wmplug.dataset.sources.folders import Folder
from wmplug.dataset.sources.jsonlines import JsonLines
from wmplug.dataset.sources.pairs import Pair
from wmplug.dataset.sources.shards import Shards
from wmplug.dataset.sources.zipped import Zipped
from wmplug.errors import InputError
from wmplug.keys.files import files_of

__all__ = ["open_source"]

_KINDS = (
    "a .csv, .tsv, .jsonl, .parquet, .npz or .tar file, a folder of pictures, of .parquet or of .tar files, the folder "
    "of a saved datasets.Dataset, such a Dataset, or a pair (inputs, labels) of arrays or lists"
)


def open_source(
    data: Any,
    *,
    text: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Source:
    """A training set, ready to be read and written record by record.

    Args:
        data: the path of a set, or a set in memory.
        text: name of the column of texts.
        label: name of the column of labels.
        columns: names of the columns of numbers that make the input.
        classes: names of the classes in the order of their numbers, which saves the pass that finds them.

    Raises:
        InputError: there is no such set, or it is of a kind that cannot be read.
    """
    named: dict[str, Any] = {"text": text, "label": label, "columns": columns, "classes": classes}
    if isinstance(data, (str, os.PathLike)):
        return _of_path(Path(data), named)
    if type(data).__module__.partition(".")[0] == "datasets":
        from wmplug.dataset.sources.huggingface import HuggingFace

        return HuggingFace(data, **named)
    if given := [name for name in ("text", "label", "columns") if named[name] is not None]:
        raise InputError(f"{given[0]}= names a column, and a {type(data).__name__} in memory has none: leave it away")
    inputs, labels = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    if not isinstance(inputs, (list, np.ndarray)):
        raise InputError(f"the set is a {type(data).__name__}: give {_KINDS}")
    return Pair(inputs, labels, classes)


def _of_path(path: Path, named: dict[str, Any]) -> Source:
    suffix = path.suffix.lower()
    if not path.exists():
        raise InputError(f"{path} is not there: give {_KINDS}")
    if path.is_dir():
        return _of_folder(path, named)
    if suffix in (".csv", ".tsv", ".tab"):
        return Delimited(path, **named)
    if suffix in (".jsonl", ".ndjson"):
        return JsonLines(path, **named)
    if suffix == ".npz":
        return Zipped(path, **named)
    if suffix == ".tar":
        return Shards(path, **named)
    if suffix == ".parquet":
        return _parquet(path, named)
    raise InputError(f"{path} is of no kind that can be read: give {_KINDS}")


def _of_folder(path: Path, named: dict[str, Any]) -> Source:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        from wmplug.dataset.sources.huggingface import HuggingFace

        return HuggingFace(path, **named)
    suffixes = {file.suffix.lower() for _, file in files_of(path)}
    if ".parquet" in suffixes:
        return _parquet(path, named)
    if ".tar" in suffixes:
        return Shards(path, **named)
    if given := [name for name in ("text", "label", "columns") if named[name] is not None]:
        raise InputError(f"{given[0]}= names a column, and {path} is a folder of pictures: leave it away")
    return Folder(path, named["classes"])


def _parquet(path: Path, named: dict[str, Any]) -> Source:
    from wmplug.dataset.sources.parquet import Parquet

    return Parquet(path, **named)
