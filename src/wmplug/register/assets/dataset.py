"""The training set, committed: one root over the digests of its records, whatever their order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from wmplug.errors import InputError
from wmplug.keys.files import PIECE, files_of, pieces_of
from wmplug.keys.merkle import leaf_hash
from wmplug.register.assets import digests, encoding
from wmplug.register.assets.encoding import Record, Schema
from wmplug.register.assets.randomness import kept_random_states

Progress: TypeAlias = Callable[[int, "int | None"], object]
PROBED = 8
_TREE = "rfc9162-sha256, leaves in ascending order of record digests"
_REPORT_EVERY = 1024
_SCHEMA_BYTES = 16_384
_NESTING = 4


def dataset(data: Any, *, progress: Progress | None = None) -> dict[str, Any]:
    """Commit to a training set in one pass, also one larger than memory.

    The root is that of RFC 9162 over leaves SHA-256(0x00 || record digest) in ascending order of the record digests
    (see `encoding`): the order of records does not matter, how often each occurs does. Leaves have no salt. Who holds
    the tree could therefore test whether a record that he knows is in it; only the root is published, and it tells
    nothing about single records.

    What is read:
        - a file, or a folder of files: a record is [path relative to the folder ("." for a file), offset, up to 1 MiB];
        - an array (n, ...): its rows; a tuple, mapping or table of columns of one length: a tuple or mapping of rows;
        - a map-style dataset (`len`, `[i]`); of a torch DataLoader, its dataset;
        - any other iterable, once: an iterator is used up by it, and whether it repeats is not known.

    Random augmentation gives other records in each epoch: pass the data before it. Where one of the first 8 records
    differs when read again, or reading map-style records draws from a global generator, nothing is called a
    commitment to records: status is "not-deterministic", and `instead` holds what was committed in its place
    (the data below a wrapper or without its transform, `what` says which), if anything was.
    Global random states of Python, NumPy and torch are as before when it returns; a generator of the dataset's own is
    not.

    Args:
        data: the raw records that training reads.
        progress: called with the number of records read and their total (None where nobody knows) now and then.

    Returns:
        The body of `dataset.committed`: kind, status, root (hex), count, bytes (of files, or of all encodings), schema
        (of the first record), uniform (all records have that schema), read ("files", "columns", "map", "stream"),
        class, tree, encoding.

    Raises:
        InputError: there is nothing to read, or a record has no canonical encoding.
    """
    return {"kind": "dataset", **_commit(data, progress or (lambda done, total: None), _NESTING)}


@dataclass(frozen=True)
class _Source:
    """Where records come from, and how many there are.

    Attributes:
        read: how they are read.
        records: an iterable over them, or over their digests where the source makes those itself.
        total: their number, where it is known.
        again: the record at an index, where it can be read twice.
    """

    read: str
    records: Iterable[Any]
    total: int | None = None
    again: Callable[[int], Any] | None = None


@dataclass
class _Tally:
    """What is counted in the pass."""

    count: int = 0
    length: int = 0
    schema: Schema = None
    uniform: bool = True

    def add(self, record: Record) -> None:
        if self.count == 0:
            self.schema = record.schema
        self.uniform = self.uniform and record.schema == self.schema
        self.count += 1
        self.length += record.length


def _commit(data: Any, progress: Progress, nesting: int) -> dict[str, Any]:
    if all(hasattr(data, part) for part in ("dataset", "batch_size", "collate_fn")):
        data = data.dataset  # of a torch DataLoader, which shuffles and batches
    source, tally = _source(data), _Tally()
    with kept_random_states() as drawn_from, digests.SortedDigests(digests.LIMIT) as found:
        probed = [_read(source.again(i)).digest for i in range(min(PROBED, source.total or 0))] if source.again else []
        for record in map(_read, source.records):
            if tally.count < len(probed) and record.digest != probed[tally.count]:
                reason = f"record {tally.count} differs when read again"
                return _refused(data, source, record, reason, progress, nesting)
            tally.add(record)
            found.add(record.digest)
            if tally.count % _REPORT_EVERY == 0:
                progress(tally.count, source.total)
        if source.again and drawn_from():
            reason = "reading its records draws from a global random generator"
            return _refused(data, source, tally, reason, progress, nesting)
        progress(tally.count, source.total)
        root = digests.tree_root(leaf_hash(digest) for digest in found)
    if tally.count == 0:
        raise InputError(f"the training set, a {_name(data)}, has no records: pass what training reads")
    return {
        "status": "committed",
        "root": root.hex(),
        "count": tally.count,
        "bytes": tally.length,
        "schema": _bounded(tally.schema),
        "uniform": tally.uniform,
        "read": source.read,
        "class": _name(data),
        "tree": _TREE,
        "encoding": encoding.VERSION,
    }


def _read(record: Any) -> Record:
    return record if isinstance(record, Record) else encoding.read_record(record)


def _refused(
    data: Any, source: _Source, seen: Record | _Tally, reason: str, progress: Progress, nesting: int
) -> dict[str, Any]:
    """What is said of a dataset whose records are not the same twice."""
    instead = None
    for what, raw in _below(data) if nesting else ():
        try:
            found = {"what": what, **_commit(raw, progress, nesting - 1)}
        except InputError:
            continue
        instead = instead or found
        if found["status"] == "committed":
            instead = found
            break
    return {
        "status": "not-deterministic",
        "reason": f"{reason}: pass the data before random augmentation",
        "count": source.total,
        "schema": _bounded(seen.schema),
        "class": _name(data),
        "encoding": encoding.VERSION,
        "instead": instead,
    }


def _below(data: Any) -> Iterator[tuple[str, Any]]:
    """The data that a dataset wraps or transforms, under the names that are usual."""
    if callable(getattr(data, "with_format", None)):
        yield "with_format(None)", data.with_format(None)
    raw, targets = getattr(data, "data", None), getattr(data, "targets", None)
    if raw is not None and targets is not None:
        yield "(data, targets)", {"data": raw, "targets": targets}
    if raw is not None:
        yield "data", raw
    if getattr(data, "dataset", None) is not None:
        yield "dataset", data.dataset
    root = getattr(data, "root", None)
    if hasattr(data, "samples") and isinstance(root, (str, Path)) and Path(root).is_dir():
        yield "root", Path(root)


def _source(data: Any) -> _Source:
    if isinstance(data, (str, os.PathLike)):
        return _Source("files", _file_records(Path(data)))
    if hasattr(data, "columns") and hasattr(data, "to_numpy") and not callable(data.columns):
        return _columns({str(name): data[name] for name in data.columns})
    if hasattr(data, "to_numpy"):  # a pandas Series is indexed by its labels
        data = data.to_numpy()
    if isinstance(data, Mapping):
        return _columns(data)
    if _is_array(data) and not isinstance(data, (list, tuple)):
        return _Source("columns", map(data.__getitem__, range(len(data))), len(data), data.__getitem__)
    if isinstance(data, tuple) and any(map(_is_array, data)):
        return _columns(dict(enumerate(data)))
    if isinstance(data, (list, tuple)) or (hasattr(data, "with_format") and hasattr(data, "__len__")):
        return _Source("map", data, len(data), data.__getitem__)  # iterating is faster than indexing, and the same
    if (rows := _tensor_rows(data)) is not None:
        return _Source("map", map(rows, range(len(data))), len(data), rows)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (bytes, bytearray)):
        return _Source("map", map(data.__getitem__, range(len(data))), len(data), data.__getitem__)
    if hasattr(data, "__iter__") and not isinstance(data, (bytes, bytearray)):
        return _Source("stream", data, len(data) if hasattr(data, "__len__") else None)
    raise InputError(
        f"the training set is a {_name(data)}: give a dataset with len() and [i], an iterable of records, arrays "
        "(n, ...), or the path of a file or folder"
    )


def _tensor_rows(data: Any) -> Callable[[int], Any] | None:
    """Records of a torch TensorDataset, several times faster than it hands them out, and the same."""
    if type(data).__module__ != "torch.utils.data.dataset" or type(data).__name__ != "TensorDataset":
        return None
    try:
        arrays = [tensor.detach().cpu().numpy() for tensor in data.tensors]
    except (TypeError, RuntimeError):  # NumPy has no bfloat16; a sparse tensor is no array
        return None
    return lambda index: tuple(array[index, ...] for array in arrays)


def _columns(columns: Mapping[Any, Any]) -> _Source:
    columns = {name: column.to_numpy() if hasattr(column, "to_numpy") else column for name, column in columns.items()}
    lengths = {len(column) if hasattr(column, "__len__") else None for column in columns.values()}
    if len(lengths) != 1 or None in lengths or any(isinstance(c, (str, bytes, Mapping)) for c in columns.values()):
        shown = ", ".join(f"{name}: {len(c) if hasattr(c, '__len__') else _name(c)}" for name, c in columns.items())
        raise InputError(
            f"the columns of the training set differ in length ({shown}): give columns, or one split, of n rows"
        )
    (total,) = lengths

    def row(index: int) -> Any:
        cells = {name: column[index] for name, column in columns.items()}
        return list(cells.values()) if all(isinstance(name, int) for name in cells) else cells

    return _Source("columns", map(row, range(total or 0)), total, row)


def _is_array(data: Any) -> bool:
    return hasattr(data, "shape") and hasattr(data, "dtype") and len(data.shape) > 0 and hasattr(data, "__getitem__")


def _file_records(path: Path) -> Iterator[Record]:
    """The encodings of [path, offset, bytes], hashed from one buffer that is filled again and again."""
    buffer = bytearray(PIECE)
    for name, file in files_of(path):
        offset = 0
        for piece in pieces_of(file, buffer):
            head = encoding.encode([os.fsencode(name), offset, b""])
            digest = hashlib.sha256(encoding.PREFIX + head[:-8] + encoding.u64(len(piece)))
            digest.update(piece)
            yield Record(digest.digest(), len(piece), {"file": "pieces of 1 MiB"})
            offset += len(piece)


def _bounded(schema: Schema) -> Schema:
    """The schema, or its digest where a table has thousands of columns."""
    text = repr(schema).encode()
    return schema if len(text) <= _SCHEMA_BYTES else {"sha256": hashlib.sha256(text).hexdigest()}


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
