"""The formats of training sets, each read and written record by record."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from wmplug.dataset.records import Source
from wmplug.dataset.sources.columns import Columns
from wmplug.dataset.sources.delimited import Delimited
from wmplug.dataset.sources.folders import Folder
from wmplug.dataset.sources.jsonlines import JsonLines
from wmplug.dataset.sources.memory import pair_of
from wmplug.dataset.sources.packed import endings
from wmplug.dataset.sources.pairs import Pair
from wmplug.dataset.sources.pictures import SUFFIXES
from wmplug.dataset.sources.shards import Shards
from wmplug.dataset.sources.zipped import Zipped
from wmplug.errors import InputError
from wmplug.keys.files import files_of, refuse_pipe

__all__ = ["open_source"]

_KINDS = (
    "a .csv, .tsv, .jsonl, .parquet, .npz or .tar file (lines and tars also as .gz, .zst, .bz2 or .xz), a folder of "
    "pictures, of .parquet or of .tar files, the folder of a saved datasets.Dataset, such a Dataset, or a pair "
    "(inputs, labels) of arrays or lists"
)


def open_source(
    data: Any,
    *,
    text: str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    keep_files: bool = False,
) -> Source:
    """A training set, ready to be read and written record by record.

    Args:
        data: the path of a set, or a set in memory.
        text: name of the column of texts.
        label: name of the column of labels.
        columns: names of the columns of numbers that make the input.
        classes: names of the classes in the order of their numbers, which saves the pass that finds them.
        keep_files: whether a copy keeps files beside the records that nobody can judge; without it they are refused.

    Raises:
        InputError: the set does not exist, or its format is unknown.
    """
    wanted = Columns(text, label, columns, classes, keep_files)
    if isinstance(data, (str, os.PathLike)):
        return _of_path(Path(data), wanted)
    if type(data).__module__.partition(".")[0] == "datasets":
        return _hugging_face(data, wanted)
    wanted.refuse(f"a {type(data).__name__} in memory has no columns")
    return Pair(*pair_of(data, _KINDS), classes)


def _of_path(path: Path, wanted: Columns) -> Source:
    if not path.exists():
        raise InputError(f"{path} does not exist: give {_KINDS}")
    refuse_pipe(path)
    if path.is_dir():
        return _of_folder(path, wanted)
    suffix, packing = endings(path)
    if suffix not in (_PACKED if packing else _FILES):
        raise InputError(f"the format of {path} is unknown: give {_KINDS}")
    return _FILES[suffix](path, wanted)


def _of_folder(path: Path, wanted: Columns) -> Source:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _hugging_face(path, wanted)
    found = [(name, *endings(file)) for name, file in files_of(path)]
    for suffix in _IN_FOLDERS:
        if tables := [name for name, ending, _ in found if ending == suffix]:
            pictures = [name for name, ending, packing in found if ending in SUFFIXES and not packing]
            if len({name.partition("/")[0] for name in pictures if "/" in name}) > 1:
                raise InputError(
                    f"{path} holds {len(pictures)} pictures in folders, and {len(tables)} {suffix} files such as "
                    f"{tables[0]}: give {path / tables[0]} if that is the set, or take it out of the folder"
                )
            return _FILES[suffix](path, wanted)
    wanted.refuse(f"{path} is a folder of pictures and has no columns")
    return Folder(path, wanted.classes, keep_files=wanted.keep_files)


def _parquet(path: Path, wanted: Columns) -> Source:
    from wmplug.dataset.sources.parquet import Parquet

    return Parquet(path, wanted)


def _hugging_face(data: Any, wanted: Columns) -> Source:
    from wmplug.dataset.sources.huggingface import HuggingFace

    return HuggingFace(data, wanted)


_FILES: Mapping[str, Callable[[Path, Columns], Source]] = {
    ".csv": Delimited,
    ".tsv": Delimited,
    ".tab": Delimited,
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".npz": Zipped,
    ".parquet": _parquet,
    ".tar": Shards,
}
_PACKED = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".tar")  # that compression is usual for
_IN_FOLDERS = (".parquet", ".tar")  # a folder of such files is one set
