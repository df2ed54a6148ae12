"""`wmplug serving cost | log | commit | verify | trace`: a served model's answers, their log, and claims from it."""

import io
import json
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

import wmplug
from wmplug.cli import inputs as files
from wmplug.cli import verify as told
from wmplug.cli.terminal import Json, out, passphrase, print_json, progress
from wmplug.errors import InputError
from wmplug.keys.files import write_new
from wmplug.schemes.served import Served
from wmplug.suspects.targets import from_module, resolve
from wmplug.watermark.choices import unbound

# The package needs the extra `serving`, and `wmplug --help` works without it.
if TYPE_CHECKING:
    from wmplug.serving import Decided, Log

File = Annotated[Path, typer.Argument(metavar="FILE.wm", help="A watermark file of scheme `served`.")]
Place = Annotated[str, typer.Option("--log", help="The log: a file, or the URL of a database.")]
Carriers = Annotated[Path, typer.Option("--carriers", help="The carriers the watermark was made from.")]
Labels = Annotated[Path | None, typer.Option("--labels", help="Their labels, as for `wmplug create`.")]
Queries = Annotated[
    Path | None, typer.Option("--inputs", help="The queries that you kept, if the log keeps digests only.")
]
Version = Annotated[
    str | None, typer.Option("--model", help="Ask what this model decided alone, by its name in the log.")
]
Pool = Annotated[
    Path | None,
    typer.Option(
        "--pool",
        metavar="FILE.npz",
        help="Keeps what the references say: written if it is missing, else read. A verdict names what was read.",
    ),
]
Suspect = Annotated[str, typer.Argument(metavar="SUSPECT", help="As for `wmplug verify`.")]
Preprocess = Annotated[
    str | None, typer.Option("--preprocess", metavar="MODULE:FUNCTION", help="As for `wmplug verify`.")
]

serving = typer.Typer(
    help="Answers that mark whoever learns from them. docs/serving.md explains each step.", no_args_is_help=True
)


@serving.command()
def cost(
    file: File,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model to serve, as SUSPECT of `wmplug verify`.")],
    queries: Annotated[Path, typer.Argument(metavar="INPUTS", help="Inputs such as your users send, as carriers are.")],
    gap: Annotated[
        float, typer.Option("--gap", help="Difference of the two best probabilities, below which the key decides.")
    ] = 0.1,
    share: Annotated[
        float | None, typer.Option("--share", help="Of queries that the key may decide; prints the gap for it.")
    ] = None,
    preprocess: Preprocess = None,
    as_json: Json = False,
) -> None:
    """What serving would change, and cost, by the model's own probabilities; nothing is logged."""
    from wmplug.serving import Serving

    target, mark = _target(file, model, preprocess)
    with progress("Asking"):
        found = Serving(mark, target, gap=gap).cost(files.read(queries)[0], share=share)
    if as_json:
        return print_json(asdict(found))
    out.print(str(found))


@serving.command()
def log(file: File, place: Place, as_json: Json = False) -> None:
    """How many decisions the log holds, by customer and by model."""
    held = log_of(wmplug.load(file, passphrase=passphrase()), place)
    found, models = held.customers(), held.models()
    if as_json:
        return print_json({"customers": found, "models": models})
    for name, count in found.items():
        out.print(f"{count:8d}  {name or '(nobody in particular)'}")
    for name, count in models.items() if any(models) else ():
        out.print(f"{count:8d}  by model {name or '(without a name)'}")
    out.print(f"{sum(found.values()):8d}  decisions")


@serving.command()
def commit(file: File, place: Place, as_json: Json = False) -> None:
    """Write the log's Merkle root into the register; then run `wmplug register anchor`."""
    from wmplug.serving import commit as write

    mark = wmplug.load(file, passphrase=passphrase())
    with progress("Committing"):
        entry = write(log_of(mark, place, read_only=False), mark)
    if as_json:
        return print_json({"entry": entry.seq, **entry.body})
    out.print(f"entry {entry.seq}: {entry.body['count']} decisions", f"root {entry.body['root']}", sep="\n")


@serving.command()
def verify(
    file: File,
    suspect: Suspect,
    place: Place,
    carriers: Carriers,
    labels: Labels = None,
    queries: Queries = None,
    model: Version = None,
    pool: Pool = None,
    preprocess: Preprocess = None,
    exhaustive: Annotated[bool, typer.Option("--exhaustive", help="Ask all, and give the exact p-value.")] = False,
    name: Annotated[str | None, typer.Option("--as", metavar="NAME", help="The suspect's name for people.")] = None,
    no_record: Annotated[bool, typer.Option("--no-record", help="Write nothing into the register.")] = False,
    as_json: Json = False,
) -> None:
    """Was this model trained on the answers? Exit code 0 if that is proven, 1 if it is not."""

    def asking(mark: wmplug.Watermark) -> wmplug.Watermark:
        decided, given = _asked(mark, log_of(mark, place), carriers, labels, queries, model, pool)
        return mark.with_queries(decided, **given)

    with told.no_early_end():
        verdict, asked = told.ask(file, suspect, name, preprocess, asking, no_record=no_record, exhaustive=exhaustive)
    told.tell(verdict, name, suspect, asked, as_json)


@serving.command()
def trace(
    file: File,
    suspect: Suspect,
    place: Place,
    carriers: Carriers,
    labels: Labels = None,
    queries: Queries = None,
    model: Version = None,
    pool: Pool = None,
    preprocess: Preprocess = None,
    alpha: Annotated[float, typer.Option("--alpha", help="The chance of any wrong name is at most this.")] = 1e-3,
    as_json: Json = False,
) -> None:
    """Whose queries was this model made from? Exit code 0 if somebody is named, 1 if nobody is."""
    from wmplug.serving import trace as ask

    with told.no_early_end(), progress("Asking"):
        target, mark = _target(file, suspect, preprocess)
        decided, given = _asked(mark, log_of(mark, place), carriers, labels, queries, model, pool)
        found = ask(mark, decided, target, **given)
    named = [name for _, name in found.accused(alpha)]
    verdicts = sorted(next(iter(found.verdicts.values())).items(), key=lambda pair: pair[1].log10_p)
    if as_json:
        print_json({"accused": named, "alpha": alpha, "verdicts": {n: json.loads(v.to_json()) for n, v in verdicts}})
    else:
        for name, one in verdicts:
            line = f"{name}: {one.matches} of {one.in_set} coins, log10 p = {one.log10_p:.1f}"
            out.print(line, style="bold green" if name in named else None)
        free = "".join(f"; {choice}" for choice in unbound(verdicts[0][1].choices))
        who = ", ".join(named) or "nobody"
        out.print(f"{who} of {len(verdicts)} customers; any wrong name: at most {alpha:g}{free}")
    raise typer.Exit(0 if named else 1)


def _target(file: Path, suspect: str, preprocess: str | None) -> tuple[Any, wmplug.Watermark]:
    wmplug.read_public(file)  # what can be mistyped is checked before the prompt
    function = None if preprocess is None else from_module(preprocess, "--preprocess")
    target = resolve(suspect, preprocess=function)
    return target, wmplug.load(file, passphrase=passphrase(), preprocess=function)


def log_of(mark: wmplug.Watermark, place: str, *, read_only: bool = True) -> "Log":
    """The log that a serving wrote.

    Raises:
        InputError: the file is not there, or the log belongs to another watermark.
        ServingError: the database cannot be opened.
    """
    from wmplug.serving import Log

    if "://" not in place and not Path(place).is_file():
        raise InputError(f"--log {place!r} is not there: give the file or URL that Log(...) writes to")
    return Log(place, mark, read_only=read_only)


def _asked(
    mark: wmplug.Watermark,
    log: "Log",
    carriers: Path,
    labels: Path | None,
    queries: Path | None,
    model: str | None,
    pool: Path | None,
) -> tuple[Any, dict[str, Any]]:
    """What the key decided, and what references are trained on, or said."""
    inputs, natural, _ = files.read(carriers, labels)
    decided = log.decided(None if queries is None else files.read(queries)[0], model=model)
    given = {"carriers": inputs, "labels": natural}
    if pool is not None:
        given["pool"] = _pool(mark, decided, given, pool)
    return decided, given


def _pool(mark: wmplug.Watermark, decided: "Decided", given: dict[str, Any], file: Path) -> Any:
    """What the references say of the queries, from a file; None if they were trained now and written there."""
    if not isinstance(mark.scheme, Served):
        raise InputError(f"--pool keeps references of scheme 'served', this watermark is {mark.scheme.name!r}")
    if not file.exists():
        # This process keeps them too, so they are trained once.
        packed, heard = io.BytesIO(), mark.scheme.heard(mark.brief(**given), decided, None)
        np.savez(packed, scores=heard.scores, queries=np.array(decided.digest))
        write_new(file, packed.getvalue(), 0o600)
        return None
    try:
        with np.load(file, allow_pickle=False) as kept:
            scores, of = kept["scores"], str(kept["queries"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"--pool {file} cannot be read ({error}): remove it, and the references are trained"
        ) from error
    if of != decided.digest:
        raise InputError(f"--pool {file} is of other queries: remove it, and the references are trained")
    return scores
