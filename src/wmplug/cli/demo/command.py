"""`wmplug demo`: the whole story on scikit-learn's digits, in about a minute and without a download."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import wmplug
from wmplug.cli.demo.findings import Finding, judge, table
from wmplug.cli.terminal import Json, out, print_json, progress
from wmplug.errors import InputError
from wmplug.extras import need
from wmplug.keys.files import write_new
from wmplug.keys.owner import Owner
from wmplug.watermark.watermark import Watermark

if TYPE_CHECKING:
    from wmplug.cli.demo.models import Row

PASSPHRASE = "demo"
EPOCHS, TUNING_EPOCHS = 14, 10
_MADE = ("register", "rival", "mark.wm", "checkpoints", "model", "copy", "demo.png")
_RECORD = "demo.json"
_MAKER = "wmplug demo"


def demo(
    folder: Annotated[Path, typer.Option("--out", help="Folder for everything the demo makes.")] = Path("wmplug-demo"),
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, order and split.")] = 0,
    as_json: Json = False,
) -> None:
    """Watermark a small model while it trains, then judge it, a fine-tuned copy, a stranger and a wrong key."""
    started = time.monotonic()
    with need("demo"):
        from wmplug.cli.demo import models as digits
        from wmplug.cli.demo import plot
    again = _claim(folder)
    say = _silent if as_json else out.print
    if again:
        say(f"{folder} holds an earlier demo: its files are replaced, everything else is left alone.")
    train, other, test = digits.parts(seed)
    with progress("Making the owner, a rival, and a watermark each"):
        mark, rival = (_mark(_owner(folder, place), digits, train) for place in ("register", "rival"))
        mark.save(folder / "mark.wm")
    say(f"Watermark {mark.id}: {len(mark.triggers)} secret triggers. Training with one more callback:")
    say("")
    say("  step  epoch    loss  accuracy  matches  log10 p")
    model, history = digits.train(
        train, test, folder / "checkpoints", seed=seed, epochs=EPOCHS, mark=mark, tell=lambda row: say(_line(row))
    )
    with progress("Fine-tuning a copy"):
        copy, _ = digits.train(
            other, test, folder / "checkpoints", seed=seed + 1, epochs=TUNING_EPOCHS, rate=5e-4, start=model
        )
    with progress("Training a stranger"):
        stranger, _ = digits.train(train, test, folder / "checkpoints", seed=seed + 2, epochs=EPOCHS)
    digits.save(model, folder / "model")
    digits.save(copy, folder / "copy")
    with progress("Asking"):
        findings = [
            judge("model", True, mark, model, digits.accuracy(model, test)),
            judge("fine-tuned copy", True, mark, copy, digits.accuracy(copy, test)),
            judge("independent model", False, mark, stranger, digits.accuracy(stranger, test)),
            judge("wrong key", False, rival, model, digits.accuracy(model, test)),
        ]
    plot.draw(folder / "demo.png", digits.curve(history, "loss"), _rising(digits, history), findings)
    record: dict[str, Any] = {
        "made_by": _MAKER,
        "seed": seed,
        "watermark": mark.public,
        "checkpoints": _checkpoints(digits, history),
        "findings": [finding.to_dict() for finding in findings],
        "as_expected": all(finding.as_expected for finding in findings),
        "seconds": round(time.monotonic() - started, 1),
    }
    _write(folder, record)
    if as_json:
        print_json(record)
    else:
        _show(folder, findings, record["seconds"])
    raise typer.Exit(0 if record["as_expected"] else 1)


def _show(folder: Path, findings: list[Finding], seconds: float) -> None:
    out.print()
    out.print(table(findings), soft_wrap=False)
    out.print(
        "accuracy on test digits; answers and log10 p with all triggers asked; queries until proven or out of reach"
    )
    out.print(f"Plot: {folder / 'demo.png'}. {seconds:.0f} s. Try it yourself:")
    options = "--preprocess wmplug.cli.demo.models:example"
    out.print(f"  WMPLUG_PASSPHRASE={PASSPHRASE} wmplug verify {folder}/mark.wm {folder}/copy {options}")
    out.print(f"  WMPLUG_PASSPHRASE={PASSPHRASE} wmplug show {folder}/mark.wm")


def _claim(folder: Path) -> bool:
    """Whether the folder holds an earlier demo; if not, makes it and marks it as a demo's before it writes anything.

    Raises:
        InputError: the folder holds a file of the same name that the demo did not make.
    """
    record = folder / _RECORD
    foreign = [name for name in (_RECORD, *_MADE) if (folder / name).exists()]
    if record.is_file():
        try:
            ours = json.loads(record.read_text())["made_by"] == _MAKER
        except (ValueError, KeyError, TypeError):
            ours = False
        if ours:
            return True
    if foreign:
        raise InputError(f"{folder} holds {', '.join(foreign)}, not made by a demo: give another folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, {"made_by": _MAKER})
    return False


def _write(folder: Path, record: dict[str, Any]) -> None:
    write_new(folder / _RECORD, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode(), 0o644)


def _owner(folder: Path, place: str) -> Owner:
    # Open it rather than make it again: a secret cannot be replaced.
    if (folder / place / "owner.pub").exists():
        return Owner.open(folder / place, passphrase=PASSPHRASE)
    return Owner.create(folder / place, name=f"demo {place}", passphrase=PASSPHRASE)


def _mark(owner: Owner, digits: Any, train: Any) -> Watermark:
    return wmplug.create(
        owner,
        scheme="random-label",
        carriers=train.images,
        labels=train.labels,
        classes=digits.CLASSES,
        preprocess=digits.example,
    )


def _checkpoints(digits: Any, history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    seen: dict[str, Any] = {}
    for entry in history:
        seen.update(entry)
        if "watermark/log10_p" in entry:
            rows.append(asdict(digits.row(entry["step"], seen)))
    return rows


def _rising(digits: Any, history: list[dict[str, Any]]) -> tuple[list[int], list[float]]:
    found: tuple[list[int], list[float]] = digits.curve(history, "watermark/log10_p")
    return found


def _line(row: "Row") -> str:
    left = f"{row.step:6d} {row.epoch:6.1f} {row.loss:7.3f}  {100 * row.accuracy:6.1f} %"
    return f"{left} {row.matches:8d} {row.log10_p:8.1f}"


def _silent(*_: object) -> None:
    pass
