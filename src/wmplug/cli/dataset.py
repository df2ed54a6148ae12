"""`wmplug dataset`: mark a training set, and later ask models and other sets about it."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

import wmplug
from wmplug import dataset as sets
from wmplug.cli import verify as verdicts
from wmplug.cli.parameters import read_parameters
from wmplug.cli.terminal import REGISTER, Json, Register, err, out, passphrase, print_json, progress
from wmplug.dataset.records import Taken
from wmplug.errors import InputError
from wmplug.suspects.targets import from_module, resolve

_SHOWN = 8  # parts of a set in one row
dataset = typer.Typer(help="Mark a training set: a model trained on it carries the mark.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(metavar="FILE.wm...", help="Watermark files, one for each copy.")]
Text = Annotated[str | None, typer.Option("--text", help="Column of the text, for tables.")]
Label = Annotated[str | None, typer.Option("--label", help="Column of the label, for tables.")]
Columns = Annotated[str | None, typer.Option("--columns", help="Columns of the numbers, for tables: a,b,c.")]
Classes = Annotated[
    str | None, typer.Option("--classes", help="Names of the classes in the order of their numbers: a,b,c.")
]
Alpha = Annotated[float, typer.Option("--alpha", help="Largest chance of one or more false accusations.")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="Inputs at a time.")]
Preprocess = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="MODULE:FUNCTION",
        help="Turns (input, answer) into an example as the model's dataset yields them.",
    ),
]
Suspect = Annotated[
    str,
    typer.Argument(
        metavar="SUSPECT",
        help="A checkpoint folder, a .keras or .h5 file, or module:name of a model or of a function from "
        "inputs to labels or scores.",
    ),
]


@dataset.command("mark")
def mark(
    data: Annotated[Path, typer.Argument(metavar="IN", help="A folder of class folders, a table, .npz, tar shards.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Path of the marked copy; with --copies, a folder.")],
    scheme: Annotated[str, typer.Option("--scheme", help="label-twins, twins, canaries ...")] = "label-twins",
    share: Annotated[
        float | None, typer.Option("--share", help="Share of the records to mark; the scheme's own by default.")
    ] = None,
    copies: Annotated[
        str | None,
        typer.Option("--copies", help="One marked copy for each licensee: their number, or their names, a,b,c."),
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the scheme.")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option("--rule", metavar="MODULE:FUNCTION", help="For twins of texts: rewrites one to the same meaning."),
    ] = None,
    text: Text = None,
    label: Label = None,
    columns: Columns = None,
    classes: Classes = None,
    keep_files: Annotated[
        bool,
        typer.Option("--keep-files", help="Copy files beside the records that nobody can judge, as they are."),
    ] = False,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Write a marked copy of a training set, its public manifest, and the secret watermark."""
    options = read_parameters(scheme, parameters or [])
    if rule is not None:
        options["rule"] = from_module(rule, "--rule")
    if not data.exists():
        raise InputError(f"{data} does not exist: give a folder of class folders, a table, .npz or tar shards")
    words = passphrase()
    taken: list[Taken] = []
    with progress("Marking", 0) as shown:
        made = sets.mark(
            data,
            wmplug.Owner.open(register, passphrase=words),
            scheme=scheme,
            out=target,
            share=share,
            copies=_number_or_names(copies),
            text=text,
            label=label,
            columns=_names(columns),
            classes=_names(classes),
            keep_files=keep_files,
            told=taken.extend if as_json else _tell,
            progress=lambda done, total: shown.update(shown.task_ids[0], completed=done, total=total),
            **options,
        )
    if as_json:
        return print_json(
            [
                {**manifest, "path": str(made.written[name].data), "taken": [one._asdict() for one in taken]}
                for name, manifest in made.manifests.items()
            ]
        )
    for name, manifest in made.manifests.items():
        out.print(
            f"{made.written[name].data}: {manifest['records']} records of {len(manifest['classes'])} classes, "
            f"{manifest['changed']} changed, {manifest['added']} added; {manifest['draws']} draws carry the mark"
        )
    err.print("The .wm files are secret: keep them with the register, and publish no more than the manifests.")


@dataset.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE.wm", help="The watermark file of a marked copy.")],
    suspect: Suspect,
    preprocess: Preprocess = None,
    target_e: Annotated[
        float, typer.Option("--target-e", help="Proven from this e-value on; at most 1 false claim in so many.")
    ] = 1e6,
    batch_size: Batch = 64,
    as_json: Json = False,
) -> None:
    """Test whether a model was trained on a marked copy: exit code 0 if that is proven, 1 if it is not."""
    verdicts.verify(
        file,
        suspect,
        preprocess=preprocess,
        exhaustive=True,
        target_e=target_e,
        max_queries=None,
        batch_size=batch_size,
        keys=1,
        fresh=False,
        spend=False,
        as_json=as_json,
    )


@dataset.command("trace")
def trace(
    files: Files,
    suspect: Suspect,
    preprocess: Preprocess = None,
    alpha: Alpha = 1e-3,
    batch_size: Batch = 64,
    as_json: Json = False,
) -> None:
    """Name the copy a model was trained on: exit code 0 if one can be named, 1 if none can."""
    function = None if preprocess is None else from_module(preprocess, "--preprocess")
    target = resolve(suspect, preprocess=function, batch_size=batch_size)
    marks = _marks(files, function)
    with progress("Asking", len(marks)) as shown:
        result = sets.trace(
            marks,
            target,
            alpha=alpha,
            batch_size=batch_size,
            progress=lambda done, total: shown.update(shown.task_ids[0], completed=done, total=total),
        )
    if as_json:
        print_json(result.to_json())
    else:
        out.print(str(result), style="bold green" if result.accused else "bold yellow")
    raise typer.Exit(0 if result.accused else 1)


@dataset.command("find")
def find(
    files: Files,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="The suspect data set.")],
    own: Annotated[
        Path | None, typer.Option("--own", help="The owner's whole set, to count how much of it DATA holds.")
    ] = None,
    near: Annotated[bool, typer.Option("--near/--exact", help="Look for near-duplicates too.")] = True,
    text: Text = None,
    label: Label = None,
    columns: Columns = None,
    classes: Classes = None,
    alpha: Alpha = 1e-3,
    as_json: Json = False,
) -> None:
    """Look for marked records in another data set: exit code 0 if it is proven to come from a copy, 1 if not."""
    if not data.exists():
        raise InputError(f"{data} does not exist: give the path of the data set to search")
    marks = _marks(files, None)
    with progress("Looking", 0) as shown:
        result = sets.find(
            marks,
            data,
            own=own,
            text=text,
            label=label,
            columns=_names(columns),
            classes=_names(classes),
            near=near,
            progress=lambda done, total: shown.update(shown.task_ids[0], completed=done, total=total),
        )
    sources = result.sources(alpha)
    if as_json:
        print_json({**result.to_json(), "sources": list(sources)})
    else:
        out.lines(str(result), style="bold green" if sources else "bold yellow")
    raise typer.Exit(0 if sources else 1)


@dataset.command("compare")
def compare(
    original: Annotated[Path, typer.Argument(metavar="IN", help="The set as it was.")],
    copy: Annotated[Path, typer.Argument(metavar="COPY", help="Its marked copy.")],
    picture: Annotated[
        Path | None, typer.Option("--out", help="A PNG of changed pictures, before and after; secret.")
    ] = None,
    text: Text = None,
    label: Label = None,
    columns: Columns = None,
    as_json: Json = False,
) -> None:
    """Report the changes of a mark in a set: labels, cells, words, and the difference of pictures."""
    named: dict[str, Any] = {"text": text, "label": label, "columns": _names(columns)}
    with progress("Comparing"):
        quality = sets.compare(*(sets.open_source(path, **named) for path in (original, copy)))
    if picture is not None:
        sets.picture(quality, picture)
    if as_json:
        return print_json(quality.to_json())
    out.print(str(quality))


def _tell(taken: Sequence[Taken]) -> None:
    """Print what was taken for what."""
    table, parts = Table("part of the set", "taken for", "because"), defaultdict[tuple[str, str], list[str]](list)
    for one in taken:
        parts[one.role, one.why].append(one.part or '""')
    for (role, why), names in parts.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        table.add_row(*map(escape, (", ".join(names[:_SHOWN]) + more, role, why)))
    if taken:
        err.print(table)


def _marks(files: list[Path], preprocess: Any) -> dict[str, wmplug.Watermark]:
    """The watermarks by the names of their copies.

    Raises:
        InputError: two have the same name.
    """
    for file in files:
        wmplug.read_public(file)  # report a mistyped path before the prompt for the passphrase
    words = passphrase()
    marks: dict[str, wmplug.Watermark] = {}
    with progress("Opening", len(files)) as shown:
        for file in files:
            mark = wmplug.load(file, passphrase=words, preprocess=preprocess)
            name = str(getattr(mark.scheme, "copy", "")) or file.stem
            if name in marks:
                raise InputError(
                    f"{file} is the second watermark named {json.dumps(name)}: give the watermark of each copy once"
                )
            marks[name] = mark
            shown.advance(shown.task_ids[0])
    return marks


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",")]


def _number_or_names(text: str | None) -> int | list[str] | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else _names(text)
