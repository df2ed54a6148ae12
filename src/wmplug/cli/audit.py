"""`wmplug audit`: attack a marked model, and see what of the watermark is left."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import wmplug
from wmplug.cli.terminal import Json, err, out, passphrase, progress
from wmplug.cli.verdicts import named
from wmplug.errors import InputError, PluginError
from wmplug.keys.files import write_new

if TYPE_CHECKING:
    from wmplug.audit import Attack, Report, Setting, Sweep
    from wmplug.watermark.watermark import Watermark

_SWEPT = "delta"


def audit(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE.wm", help="A watermark file; without it, digits are marked.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="module:name of the torch model, or of a function that gives it."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="MODULE:FUNCTION", help="Gives the wmplug.audit.Setting: what the thief has."),
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
        list[str] | None, typer.Option("--attack", metavar="NAME", help="This attack; repeat it.")
    ] = None,
    scheme: Annotated[str, typer.Option("--scheme", help="That digits are marked by.")] = "combined",
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Of each attack.")] = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that attack.")] = 1,
    folder: Annotated[Path, typer.Option("--out", help="Folder for audit.json, audit.png and finished cells.")] = Path(
        "wmplug-audit"
    ),
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="delta", help="Train a model for each value, and clone it.")
    ] = None,
    values: Annotated[str, typer.Option("--values", metavar="V,V,...", help="To sweep over.")] = ".1,.2,.3,.5,1",
    as_json: Json = False,
) -> None:
    """Attack a marked model: which copies would still be found out, at what accuracy?"""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file: name a folder")
    if sweep is not None:
        if file is not None:
            raise InputError("--sweep trains models of its own: leave FILE.wm out; --data gives a Setting with make=")
        if quick or full or attacks or twin or preprocess or workers > 1:
            raise InputError(
                "--sweep clones what it trained, and takes --values, --seeds, --scheme, --data and --out alone"
            )
        report: Report | Sweep = _swept(sweep, values, data, scheme, seeds)
        name = "sweep"
    else:
        if sum([quick, full, bool(attacks)]) > 1:
            raise InputError("--quick, --full and --attack exclude each other: give one of them")
        if file is not None and (model is None or data is None):
            raise InputError("an audit of FILE.wm takes MODEL, its torch model, and --data, what the thief has")
        if file is None and (model or data or twin or preprocess):
            raise InputError("MODEL, --data, --twin and --preprocess belong to a mark of yours: give FILE.wm first")
        audits = _module("audit")
        wanted = audits.chosen(attacks or (audits.FULL if full else audits.QUICK))
        given = _own(file, model, data, preprocess, twin) if file and model and data else _digits(scheme)
        report, name = _audited(wanted, seeds, folder, workers, *given), "audit"
    folder.mkdir(parents=True, exist_ok=True)
    write_new(folder / f"{name}.json", (report.to_json() + "\n").encode(), 0o644)
    report.draw(folder / f"{name}.png")
    if as_json:
        typer.echo(report.to_json())
        return
    out.print(str(report))
    err.print(f"{folder / name}.json, {folder / name}.png")


def _audited(
    attacks: "Sequence[Attack]",
    seeds: int,
    folder: Path,
    workers: int,
    mark: Any,
    model: Any,
    setting: Any,
    controls: Any,
) -> "Report":
    with progress("Attacking", len(attacks) * seeds) as shown:
        found: Report = _module("audit").run(
            mark,
            model,
            setting,
            attacks,
            range(seeds),
            controls=controls,
            folder=folder,
            workers=workers,
            progress=lambda done, most: shown.update(shown.task_ids[0], completed=done, total=most),
        )
    return found


def _digits(scheme: str) -> "tuple[Watermark, Any, Setting, dict[str, Any]]":
    digits = _module("audit.digits")
    with progress("Training a marked model and its unmarked twin"):
        mark = digits.mark(scheme)
        model, twin = digits.trained(mark, 0), digits.trained(None, 0)
    return mark, model, digits.setting(), {"unmarked twin": twin}


def _own(
    file: Path, model: str, data: str, preprocess: str | None, twin: str | None
) -> "tuple[Watermark, Any, Setting, dict[str, Any]]":
    setting, victim = _setting(data), _torch_model(model, "MODEL")
    controls = {} if twin is None else {"unmarked twin": _torch_model(twin, "--twin")}
    function = None if preprocess is None else named(preprocess, "--preprocess")
    words = passphrase()
    with progress("Opening the watermark"):
        return wmplug.load(file, passphrase=words, preprocess=function), victim, setting, controls


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
        digits = _module("audit.digits")
        setting, make = digits.setting(), lambda value, seed: digits.made(value, seed, scheme=scheme)
    else:
        setting = _setting(data)
        make = setting.make
        if make is None:
            raise InputError(f"--data {data!r} gives a Setting without make=, the function that trains a model")
    with progress("Training and cloning", len(wanted) * seeds) as shown:
        found: Sweep = _module("audit").sweep(
            make,
            setting,
            wanted,
            range(seeds),
            parameter=parameter,
            progress=lambda done, most: shown.update(shown.task_ids[0], completed=done, total=most),
        )
    return found


def _setting(data: str) -> Any:
    function = named(data, "--data")
    try:
        setting = function()
    except Exception as error:  # whatever it raises: it is the user's own
        raise InputError(f"--data {data!r} failed ({type(error).__name__}: {error})") from error
    if not isinstance(setting, _module("audit").Setting):
        raise InputError(f"--data {data!r} gave a {type(setting).__name__}: return a wmplug.audit.Setting")
    return setting


def _torch_model(path: str, what: str) -> Any:
    kind = importlib.import_module("torch").nn.Module
    found = named(path, what)
    try:
        model = found if isinstance(found, kind) else found()
    except Exception as error:
        raise InputError(f"{what} {path!r} failed ({type(error).__name__}: {error})") from error
    if not isinstance(model, kind):
        raise InputError(f"{what} {path!r} gave a {type(model).__name__}: name a torch module, or what returns one")
    return model


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"wmplug.{name}")
    except ImportError as error:
        raise PluginError(
            f"an audit attacks with torch and scikit-learn and draws with matplotlib ({error}): pip install "
            "'wmplug[audit]'"
        ) from error
