"""The evidence register: the cost of an append and of a check, and the speed of committing to a training set.

A recheck takes the signatures from a checkpoint of all entries; a short one is of a tenth of the entries.

    python benchmarks/register.py [--entries 100000] [--gigabytes 1] [--rounds 5] [--out FILE]

Rounds of all measurements are interleaved, so that other load on the machine falls on all of them; the table has the
median and, in brackets, the least and the most. Callback overhead with the register on is in overhead.py.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from rich.console import Console
from rich.table import Table

from wmplug.keys.owner import binding
from wmplug.register.assets import dataset
from wmplug.register.checking import check
from wmplug.register.ledger import Ledger
from wmplug.register.statements import FIRST, Signer, decode, encode

OWNER, RECORDER = Signer(bytes(32)), Signer(bytes([1]) * 32)
OPENING = "ab" * 32
REGISTER, MARK = binding(OPENING, OWNER.public.hex()), "cd" * 16
VERDICT = {"p": 3.5e-31, "matches": 71, "trials": 100, "null": "conditional on labels", "threshold": 1e-24}
REACH = {
    "append, median": "< 1.2 ms",
    "check": "< 60 s",
    "check, CPU": "< 60 s",
    "check, peak memory": "< 200 MB",
    "recheck": "< 8 s",
    "recheck, CPU": "< 8 s",
    "dataset, one file": ">= 200 MB/s",
}


def events(count: int) -> Iterator[tuple[str, dict, Signer]]:
    yield "register.opened", {"name": "Ada", "public": OWNER.public.hex(), "opening": OPENING}, OWNER
    yield "secret.committed", {"watermark": MARK, "commitment": "ee" * 32}, OWNER
    evidence = {"register": REGISTER, "secret_committed": 1, "salt": None}
    yield "triggers.committed", {"watermark": MARK, "recorder": RECORDER.public.hex(), "evidence": evidence}, OWNER
    run = {"watermark": MARK, "run": "ab" * 16, "epoch": 1.5, "system": None, "verdict": VERDICT}
    for step in range(count - 3):
        yield "training.checkpoint", {**run, "step": step}, RECORDER


def write_log(folder: Path, count: int) -> None:
    """Write a signed log at once, since 100,000 appends would sync as often."""
    folder.mkdir()
    (folder / "owner.pub").write_text(json.dumps({"commitment": REGISTER}))
    prev = FIRST
    with (folder / "log.jsonl").open("wb") as log:
        for seq, (kind, body, signer) in enumerate(events(count)):
            predicate = {"register": REGISTER, "seq": seq, "prev": prev, "type": kind, "body": body}
            named = {"event_id": f"{seq:032x}", "claimed_time": "2026-01-31T12:00:00Z"}
            line = encode({**predicate, **named}, (), signer)
            prev = decode(line, seq, 0).hash
            log.write(line)


def append(folder: Path, count: int = 200) -> dict[str, float]:
    ledger = Ledger(folder, REGISTER, OWNER)
    took, busy = [], time.process_time()
    for step in range(count):
        start = time.perf_counter()
        ledger.append("training.checkpoint", {"step": step, "verdict": VERDICT})
        took.append((time.perf_counter() - start) * 1e3)
    return {
        "append, median": statistics.median(took),
        "append, 95 %": statistics.quantiles(took, n=20)[-1],
        "append, CPU": (time.process_time() - busy) / count * 1e3,
    }


def sync(folder: Path, count: int = 200) -> dict[str, float]:
    """The disk's share of an append: writing a line's length and syncing it."""
    took = []
    with (folder / "raw").open("ab", buffering=0) as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(bytes(1100))
            os.fsync(file.fileno())
            took.append((time.perf_counter() - start) * 1e3)
    return {"bare write and fsync, median": statistics.median(took)}


def check_in_a_process(
    folder: Path, entries: int, name: str = "check", checkpoint: Path | None = None
) -> dict[str, float]:
    """The cost of a check in a fresh process, imports included."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--check", str(folder)]
    if checkpoint is not None:
        command += ["--checkpoint", str(checkpoint)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found["ok"]
    assert found["entries"] == entries
    return {
        name: time.perf_counter() - start,
        f"{name}, CPU": found["cpu"],
        f"{name}, peak memory": found["peak"],
    }


def commit(file: Path) -> dict[str, float]:
    start = time.process_time()
    body = dataset(file)
    assert body["bytes"] == file.stat().st_size
    return {"dataset, one file": file.stat().st_size / 1e6 / (time.process_time() - start)}


UNITS = {"append": "ms", "bare": "ms", "check": "s", "recheck": "s", "dataset": "MB/s a core"}
UNITS |= {f"{name}, peak memory": "MB" for name in ("check", "recheck", "short check", "short recheck")}
UNITS |= {"short": "s"}


def table(rounds: list[dict[str, float]], about: str) -> Table:
    shown = Table("", "median", "range", "unit", "to reach", title=about)
    for name in rounds[0]:
        values = [one[name] for one in rounds if name in one]
        unit = UNITS.get(name) or UNITS[name.partition(",")[0].split()[0]]
        spread = f"{min(values):.3g} to {max(values):.3g}"
        shown.add_row(name, f"{statistics.median(values):.3g}", spread, unit, REACH.get(name, ""))
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", type=Path, help="a folder on the disk to measure")
    parser.add_argument("--out", type=Path, help="write all rounds there, as JSON")
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check:
        report = check(options.check, checkpoint=options.checkpoint)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
        print(json.dumps({"ok": report.ok, "entries": report.entries, "cpu": time.process_time(), "peak": peak}))
        return
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        measure(Path(name), options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    os.environ["WMPLUG_STATE"] = str(folder / "state")
    for name, entries in (("long", options.entries), ("tenth", options.entries // 10)):
        write_log(folder / name, entries)
        check_in_a_process(folder / name, entries, checkpoint=folder / f"{name}.json")
    (folder / "short").mkdir()
    data = folder / "data"
    with data.open("wb") as file:
        for _ in range(int(options.gigabytes * 1e9) >> 20):
            file.write(os.urandom(1 << 20))
    steps: tuple[Callable[[], dict[str, float]], ...] = (
        lambda: append(folder / "short"),
        lambda: sync(folder / "short"),
        lambda: check_in_a_process(folder / "long", options.entries),
        lambda: check_in_a_process(folder / "long", options.entries, "recheck", folder / "long.json"),
        lambda: check_in_a_process(folder / "tenth", options.entries // 10, "short check"),
        lambda: check_in_a_process(folder / "tenth", options.entries // 10, "short recheck", folder / "tenth.json"),
        lambda: commit(data),
    )
    rounds = []
    for _ in range(options.rounds):
        rounds.append({name: value for step in steps for name, value in step().items()})
        print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    load = os.getloadavg()[0]
    about = f"{options.entries} entries, {data.stat().st_size / 1e9:.2f} GB, {options.rounds} rounds, load {load:.1f}"
    Console().print(table(rounds, f"{about} on {os.cpu_count()} cores"))
    if options.out:
        options.out.write_text(json.dumps({"about": about, "rounds": rounds}, indent=1) + "\n")


if __name__ == "__main__":
    main()
