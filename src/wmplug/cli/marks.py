"""`wmplug create` and `wmplug show`: make a watermark, look at one."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

import wmplug
from wmplug import plugins
from wmplug.cli import carriers as files
from wmplug.cli import sheet, verdicts
from wmplug.cli.terminal import REGISTER, Json, Register, can_ask, err, out, passphrase, print_json, progress
from wmplug.errors import InputError
from wmplug.keys.files import write_new
from wmplug.keys.sealing import of_kind
from wmplug.making import creation

_SEALING = ("scrypt", "check", "nonce")


def create(
    carriers: Annotated[
        Path,
        typer.Option(
            "--carriers",
            help="Natural inputs: .npy, .npz (carriers, x or images), a folder of pictures, .txt (a text a line), "
            ".csv (text,label).",
        ),
    ],
    classes: Annotated[int, typer.Option("--classes", help="Number of classes of the task.")],
    file: Annotated[Path, typer.Option("--out", help="The watermark file to write; usually NAME.wm.")],
    scheme: Annotated[
        str | None, typer.Option("--scheme", help="Name of a scheme; `wmplug schemes` lists them.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="In place of a scheme, what the mark is for: theft, or theft+cloning."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Class of each carrier: .npy, .txt; default: what the carriers' file says."),
    ] = None,
    triggers: Annotated[int, typer.Option("--triggers", help="Number of queries to make.")] = 100,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the scheme; KEY=@FILE reads carriers."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="MODULE:FUNCTION",
            help="Turns (input, answer) into an example as the model's dataset yields them; tilt of texts needs it.",
        ),
    ] = None,
    logo: Annotated[Path | None, typer.Option("--logo", help="Your logo, a PNG; the same as --set logo=PNG.")] = None,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Make a watermark from the owner's key and natural inputs."""
    wanted = str(creation.wanted(scheme, against))
    given = read_parameters(wanted, parameters or [])
    if logo is not None:
        given["logo"] = str(logo)
    if preprocess is not None:
        given["preprocess"] = verdicts.named(preprocess, "--preprocess")
    with progress("Reading carriers"):
        inputs, natural, names = files.read(carriers, labels)
    words = passphrase()
    with progress("Making triggers"):
        owner = wmplug.Owner.open(register, passphrase=words)
        mark = wmplug.create(
            owner, scheme=wanted, carriers=inputs, labels=natural, classes=classes, triggers=triggers, **given
        )
        mark.save(file)
    if as_json:
        return print_json({**mark.public, "file": str(file), "class_names": names})
    out.print(f"{file}: {mark.scheme.name}, {len(mark.triggers)} queries, {mark.public['draws']} draws")
    out.print(f"id   {mark.id}\nroot {mark.public['root']}")
    if names:
        out.print("classes " + ", ".join(f"{i} = {name}" for i, name in enumerate(names)))


def read_parameters(scheme: str, pairs: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs as arguments of a scheme, checked against its fields.

    Raises:
        InputError: no such parameter, or a value of another type than its default.
        PluginError: no such scheme.
    """
    fields = {f.name: f for f in dataclasses.fields(plugins.registry().scheme(scheme))}
    given: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or key not in fields:
            raise InputError(
                f"--set {pair!r}: KEY=VALUE is needed, the keys of scheme {scheme!r} are {', '.join(fields)}"
            )
        given[key] = files.read(Path(text[1:]))[0] if text.startswith("@") else _typed(key, text, fields[key])
    return given


def _typed(key: str, text: str, field: "dataclasses.Field[Any]") -> Any:
    default = field.default
    words = {word for kind in get_args(field.type) for word in get_args(kind)}  # of float | Literal["auto"]
    if isinstance(default, str) or text in words:
        return text
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if default is None or type(value) is type(default) or (type(default) is float and type(value) is int):
        return value
    raise InputError(f"--set {key}={text}: {type(default).__name__} is needed, such as the default {default!r}")


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE.wm", help="A watermark file.")],
    sheet_file: Annotated[
        Path | None,
        typer.Option("--out", help="Where to draw the triggers; default: FILE.sheet.png, FILE.sheet.txt for texts."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Only what needs no passphrase.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a watermark file says to anyone, and draw its triggers for its owner."""
    facts = {name: value for name, value in wmplug.read_public(file).items() if name not in _SEALING}
    of_kind(facts, "watermark", file)
    secret = not public and (can_ask() or sheet_file is not None)
    path = None
    if secret:
        words = passphrase()
        with progress("Drawing the triggers"):
            mark = wmplug.load(file, passphrase=words)
            path = sheet_file or file.with_suffix(f".sheet{sheet.suffix(mark)}")
            drawn = sheet.draw(mark, path.suffix)
            if os.path.lexists(path) and not sheet.is_sheet(path):
                raise InputError(f"{path} is there and is no sheet of triggers: choose another path with --out")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new(path, drawn, 0o600)
    if as_json:
        return print_json({**facts, "sheet": None if path is None else str(path)})
    for name, value in facts.items():
        out.print(f"{name:<15} {value if isinstance(value, (str, int)) else json.dumps(value)}")
    if path is not None:
        err.print(f"triggers and their answers: {path}\nThat sheet is secret: who sees it can unlearn the watermark.")
    elif not public:
        err.print("The triggers need the passphrase: set WMPLUG_PASSPHRASE, or run this on a terminal.")
