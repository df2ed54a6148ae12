"""`wmplug audit`: attack a marked model, and report how much of the watermark remains."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

import wmplug
from wmplug.cli.terminal import Json, echo, err, out, passphrase, progress
from wmplug.errors import InputError
from wmplug.extras import need
from wmplug.keys.files import write_new
from wmplug.suspects.targets import from_module
from wmplug.watermark.watermark import Watermark

if TYPE_CHECKING:
    from torch import nn

    from wmplug.audit import Attack, Report, Setting, Sweep

_SWEPT = "delta"
_SERVED = ("served", "combined-served")


def audit(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE.wm", help="A watermark file; without it, the audit marks digits.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="module:name of the torch model, or of a function that returns it."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="MODULE:FUNCTION", help="Returns a wmplug.audit.Setting: what the thief has."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", metavar="MODULE:FUNCTION", help="Turns (input, answer) into an example."),
    ] = None,
    twin: Annotated[
        str | None, typer.Option("--twin", metavar="MODULE:NAME", help="An unmarked model, as a control.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few attacks of each kind; the default.")] = False,
    full: Annotated[bool, typer.Option("--full", help="All attacks.")] = False,
    attacks: Annotated[
        list[str] | None, typer.Option("--attack", metavar="NAME", help="Run this attack; repeat the option for more.")
    ] = None,
    scheme: Annotated[str, typer.Option("--scheme", help="Scheme for digits; `served` audits answers.")] = "combined",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds for each attack.")] = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Number of processes.")] = 1,
    folder: Annotated[Path, typer.Option("--out", help="Folder for audit.json, audit.png and finished cells.")] = Path(
        "wmplug-audit"
    ),
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="delta", help="Train a model for each value, and clone it.")
    ] = None,
    values: Annotated[str, typer.Option("--values", metavar="V,V,...", help="Values to sweep over.")] = ".1,.2,.3,.5,1",
    as_json: Json = False,
) -> None:
    """Attack a marked model: which copies would you still detect, at what accuracy?"""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file: name a folder")
    if sweep is not None:
        if file is not None:
            raise InputError("--sweep trains models of its own: leave FILE.wm out; --data gives a Setting with make=")
        if quick or full or attacks or twin or preprocess or workers > 1:
            raise InputError(
                "--sweep clones what it trained, and takes --values, --seeds, --scheme, --data and --out alone"
            )
        return _write(_swept(sweep, values, data, scheme, seeds), folder, "sweep", as_json)
    if sum([quick, full, bool(attacks)]) > 1:
        raise InputError("--quick, --full and --attack exclude each other: give one of them")
    if file is not None and (model is None or data is None):
        raise InputError("an audit of FILE.wm takes MODEL, its torch model, and --data, what the thief has")
    if file is None and (model or data or twin or preprocess):
        raise InputError("MODEL, --data, --twin and --preprocess belong to a mark of yours: give FILE.wm first")
    served = file is None and scheme in _SERVED
    wanted = _attacks(attacks, full, scheme if served else "")
    if served:
        subject = _served(scheme)
    else:
        subject = _own(file, model, data, preprocess, twin) if file and model and data else _digits(scheme)
    _write(_audited(subject, wanted, seeds, folder, workers), folder, "audit", as_json)


class _Subject(NamedTuple):
    """The subject of the attacks."""

    mark: Watermark
    model: "nn.Module"
    setting: "Setting"
    controls: "dict[str, nn.Module]"


def _attacks(names: list[str] | None, full: bool, served: str) -> "Sequence[Attack]":
    with need("audit"):
        from wmplug.audit import CLONING, FULL, QUICK, chosen
    cloning = [name for name in CLONING if name != "foreign-clone"]
    few = {"": QUICK, "served": cloning, "combined-served": tuple(dict.fromkeys((*QUICK, *cloning)))}
    return chosen(names or (FULL if full else few[served]))


def _audited(subject: _Subject, attacks: "Sequence[Attack]", seeds: int, folder: Path, workers: int) -> "Report":
    from wmplug.audit import run

    with progress("Attacking", len(attacks) * seeds) as shown:
        return run(
            subject.mark,
            subject.model,
            subject.setting,
            attacks,
            range(seeds),
            controls=subject.controls,
            folder=folder,
            workers=workers,
            progress=lambda done, most: shown.update(shown.task_ids[0], completed=done, total=most),
        )


def _write(report: "Report | Sweep", folder: Path, name: str, as_json: bool) -> None:
    from wmplug.audit.drawing import draw

    folder.mkdir(parents=True, exist_ok=True)
    write_new(folder / f"{name}.json", (report.to_json() + "\n").encode(), 0o644)
    draw(folder / f"{name}.png", report)
    if as_json:
        echo(report.to_json())
        return
    out.lines(str(report))
    err.print(f"{folder / name}.json, {folder / name}.png")


def _digits(scheme: str) -> _Subject:
    with need("audit"):
        from wmplug.audit import digits
    with progress("Training a marked model and its unmarked twin"):
        mark = digits.mark(scheme)
        model, twin = digits.trained(mark, 0), digits.trained(None, 0)
    return _Subject(mark, model, digits.setting(), {"unmarked twin": twin})


def _served(scheme: str) -> _Subject:
    """The digits behind a service, which is asked here; the attackers get what it answered."""
    with need("audit"):
        from wmplug.audit import ATTACKS, ask_service, digits
    with need("serving"):
        from wmplug.serving import Log, Serving
    with progress("Training a model and asking it as a service"), TemporaryDirectory() as folder:
        mark, setting, twin = digits.mark(scheme), digits.copying(), digits.trained(None, 0)
        model = digits.trained(mark, 0) if "samples" in mark.scheme.points else twin
        log = Log(Path(folder) / "decisions.db", mark)
        Serving(mark, model, log).answer(digits.pictures(setting.asked))
        # A replica without a log answers alike: what `majority` asks is not in the log of what all others asked.
        replica = Serving(mark, model)
        asked = ask_service(setting, lambda x: replica.answer(digits.pictures(x)))
        carriers, labels = digits.owned()
        mark = mark.with_queries(log.decided(), carriers=carriers, labels=labels)
        log.close()
        unmarked = ATTACKS["hard-clone"](twin, setting, 0)
    return _Subject(mark, model, asked, {"unmarked clone": unmarked})


def _own(file: Path, model: str, data: str, preprocess: str | None, twin: str | None) -> _Subject:
    setting, victim = _setting(data), _torch_model(model, "MODEL")
    controls = {} if twin is None else {"unmarked twin": _torch_model(twin, "--twin")}
    function = None if preprocess is None else from_module(preprocess, "--preprocess")
    words = passphrase()
    with progress("Opening the watermark"):
        return _Subject(wmplug.load(file, passphrase=words, preprocess=function), victim, setting, controls)


def _swept(parameter: str, values: str, data: str | None, scheme: str, seeds: int) -> "Sweep":
    if parameter != _SWEPT:
        raise InputError(f"--sweep {parameter!r}: only {_SWEPT} can be swept")
    try:
        wanted = [float(value) for value in values.split(",")]
    except ValueError:
        raise InputError(f"--values {values!r}: give numbers with commas between, such as .1,.3,1") from None
    if min(wanted) <= 0 or max(wanted) > 5 or len(set(wanted)) < len(wanted):
        raise InputError(f"--values {values!r}: give numbers above 0 and up to 5, each once")
    if data is None:
        with need("audit"):
            from wmplug.audit import digits
        setting, make = digits.setting(), lambda value, seed: digits.made(value, seed, scheme=scheme)
    else:
        setting = _setting(data)
        make = setting.make
        if make is None:
            raise InputError(
                f"--data {data!r} returned a Setting without make=: give the function that trains a model as make="
            )
    with need("audit"):
        from wmplug.audit import sweep
    with progress("Training and cloning", len(wanted) * seeds) as shown:
        return sweep(
            make,
            setting,
            wanted,
            range(seeds),
            parameter=parameter,
            progress=lambda done, most: shown.update(shown.task_ids[0], completed=done, total=most),
        )


def _setting(data: str) -> Any:
    with need("audit"):
        from wmplug.audit import Setting
    function = from_module(data, "--data")
    try:
        setting = function()
    except Exception as error:  # any error, since it is the user's own function
        raise InputError(f"--data {data!r} failed ({type(error).__name__}: {error})") from error
    if not isinstance(setting, Setting):
        raise InputError(f"--data {data!r} returned a {type(setting).__name__}: return a wmplug.audit.Setting")
    return setting


def _torch_model(path: str, what: str) -> Any:
    with need("audit"):
        from torch.nn import Module
    named = from_module(path, what)
    try:
        model = named if isinstance(named, Module) else named()
    except Exception as error:
        raise InputError(f"{what} {path!r} failed ({type(error).__name__}: {error})") from error
    if not isinstance(model, Module):
        raise InputError(
            f"{what} {path!r} returned a {type(model).__name__}: name a torch module, or a function that returns one"
        )
    return model
