"""A training set read and copied with 1 % of it changed: how fast on one core, and in how much memory.

    python benchmarks/dataset_speed.py [--megabytes 192] [--pictures 1000] [--rounds 3] [--out FILE]

Texts are the topics of Python's manual (1 to 70 kB each), notes its paragraphs (150 bytes), tables scikit-learn's
measurements of cells (30 numbers), pictures 224x224 crops of its two photos; as often as the size needs, and
numbered, so that no two are alike. Every measurement is a process of its own. MB/s are of processor time, what a disk
adds is the disk's, and of the file's bytes; of Parquet, which packs them, of what the same records take in CSV. `read`
finds the classes, takes the sample that `mark` takes, and what was chosen again where the sample kept it smaller;
`write` writes the copy, `mark` is both. Rounds are interleaved; the table has the median and, in brackets, the least
and the most.
"""

import argparse
import contextlib
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from wmplug.dataset.marking import sample, whole
from wmplug.dataset.records import Changes
from wmplug.dataset.sources import open_source
from wmplug.keys.streams import Subkeys

SHARE, INPUTS = 100, 1000  # one record of so many gets another label, and so many at most another input
TABLES = [f"{what}.{kind}" for what in ("texts", "notes", "table") for kind in ("csv", "jsonl", "parquet")]
PICTURES = ["png", "jpg"]


def texts(short: bool) -> Iterator[dict]:
    from pydoc_data.topics import topics

    found = [
        (part.strip(), name[0])
        for name, topic in topics.items()
        for part in (topic.split("\n\n") if short else [topic])
        if part.strip()
    ]
    for number, (text, label) in enumerate(itertools.cycle(found)):
        yield {"text": f"{text} {number}", "label": label}


def measurements() -> Iterator[dict]:
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = [name.replace(" ", "_") for name in data.feature_names]
    rows = list(zip(data.data.tolist(), data.target.tolist(), strict=True))
    for number, (row, label) in enumerate(itertools.cycle(rows)):
        cells = [round(value * (1 + number % 9973 / 1e5), 4) for value in row]
        yield {**dict(zip(names, cells, strict=True)), "label": "MB"[label]}


def make_table(path: Path, size: int) -> None:
    """A file with the records of a CSV of at least so many bytes."""
    records = measurements() if path.stem == "table" else texts(path.stem == "notes")
    many = 50_000 if path.suffix == ".parquet" and path.stem != "texts" else 1000
    block = list(itertools.islice(records, many))
    counted = path if path.suffix == ".csv" else path.with_name(f"{path.name}.counted")
    with counted.open("w", encoding="utf-8", newline="") as file, contextlib.ExitStack() as stack:
        table = csv.DictWriter(file, list(block[0]))
        table.writeheader()
        if path.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            schema = pa.Table.from_pylist(block).schema
            writer = stack.enter_context(pq.ParquetWriter(path, schema))
        elif path.suffix == ".jsonl":
            lines = stack.enter_context(path.open("w", encoding="utf-8"))
        while file.tell() < size:
            table.writerows(block)
            if path.suffix == ".parquet":
                writer.write_table(pa.Table.from_pylist(block, schema=schema))
            elif path.suffix == ".jsonl":
                lines.writelines(json.dumps(record) + "\n" for record in block)
            block = list(itertools.islice(records, many))
    if path.suffix == ".parquet":
        path.with_name(f"{path.name}.size").write_text(str(counted.stat().st_size))


def make_pictures(folder: Path, count: int, kind: str) -> None:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    for name, photo in zip(("china", "flower"), load_sample_images().images, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(count // 2):
            top, left = number * 7 % (photo.shape[0] - 224), number * 13 % (photo.shape[1] - 224)
            Image.fromarray(photo[top : top + 224, left : left + 224]).save(folder / name / f"{number:06d}.{kind}")


def size_of(path: Path) -> int:
    return (
        sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) if path.is_dir() else path.stat().st_size
    )


def changed(value):
    return value.upper() if isinstance(value, str) else value.transpose(0)  # a mirror image


def measure(path: Path, out: Path) -> dict:
    """Run in a process of its own: reading, writing, and the peak of memory."""
    source, stream = open_source(path), Subkeys.derive(b"no secret", "").stream("schedule")
    start = time.process_time()
    sampled, count = sample(source, stream)
    chosen = whole(source, sampled[:: max(1, SHARE * len(sampled) // count)])
    read, start = time.process_time() - start, time.process_time()
    inputs = {} if source.form == "array" else {record.index: changed(record.input) for record in chosen[:INPUTS]}
    labels = {record.index: (record.label + 1) % len(source.classes) for record in chosen}
    written = source.write(out, Changes(labels, inputs))
    write = time.process_time() - start
    assert written.changed == len(labels)
    counted = path.with_name(f"{path.name}.size")
    size = int(counted.read_text()) if counted.exists() else size_of(path)
    # Not ru_maxrss, in which a child begins with what its parent had.
    peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000
    return {"records": written.count, "bytes": size, "read": read, "write": write, "peak": peak}


def in_process(path: Path, out: Path) -> dict:
    command = [sys.executable, __file__, "--measure", str(path), str(out)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    subprocess.run(["rm", "-r", str(out)], check=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=192)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(*asked.measure)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets: dict[str, tuple[Path, Path]] = {}
        for kind in [*TABLES, *PICTURES]:
            small, large = folder / "small" / kind, folder / "large" / kind
            for path, part in (small, 4), (large, 1):
                path.parent.mkdir(exist_ok=True)
                if kind in PICTURES:
                    make_pictures(path, asked.pictures // part, kind)
                else:
                    make_table(path, asked.megabytes * 1_000_000 // part)
            sets[kind] = small, large
        subprocess.run(["rm", "-f", *map(str, folder.glob("*/*.counted"))], check=True)
        found: dict[str, list[tuple[dict, dict]]] = {kind: [] for kind in sets}
        for _ in range(asked.rounds):
            for kind, (small, large) in sets.items():
                out = folder / f"copy{large.suffix}"
                found[kind].append((in_process(small, out), in_process(large, out)))
    show(found)
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1))


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f} ({min(values):,.0f}-{max(values):,.0f})"


def show(found: dict[str, list[tuple[dict, dict]]]) -> None:
    table = Table("set", "MB", "read", "write", "mark", "unit", "peak MB at a quarter", "peak MB", "reach")
    for kind, rounds in found.items():
        large = [one for _, one in rounds]
        amount = "records" if kind in PICTURES else "bytes"
        unit = 1 if kind in PICTURES else 1e6
        speed = {
            name: [one[amount] / unit / sum(one[step] for step in steps) for one in large]
            for name, steps in (("read", ["read"]), ("write", ["write"]), ("mark", ["read", "write"]))
        }
        table.add_row(
            kind,
            f"{large[0]['bytes'] / 1e6:,.0f}",
            *(spread(speed[name]) for name in ("read", "write", "mark")),
            "pictures/s" if kind in PICTURES else "MB/s",
            spread([one["peak"] for one, _ in rounds]),
            spread([one["peak"] for one in large]),
            ">= 200" if kind in PICTURES else ">= 50",
        )
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
