"""`wmplug show`: shows a watermark."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

import wmplug
from wmplug.cli import sheet
from wmplug.cli.terminal import Json, can_ask, err, out, passphrase, print_json, progress
from wmplug.errors import InputError
from wmplug.keys.files import write_new
from wmplug.keys.sealing import of_kind

_SEALING = ("scrypt", "check", "nonce")


def show(
    file: Annotated[Path, typer.Argument(metavar="FILE.wm", help="A watermark file.")],
    sheet_file: Annotated[
        Path | None,
        typer.Option("--out", help="File for the drawn triggers; default: FILE.sheet.png, FILE.sheet.txt for texts."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Only the public facts, without a passphrase.")] = False,
    as_json: Json = False,
) -> None:
    """Show the public facts of a watermark file, and draw its triggers for its owner."""
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
                raise InputError(
                    f"{path} already exists and is not a sheet of triggers: choose another path with --out"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            write_new(path, drawn, 0o600)
    if as_json:
        return print_json({**facts, "sheet": None if path is None else str(path)})
    for name, value in facts.items():
        out.print(f"{name:<15} {value if isinstance(value, (str, int)) else json.dumps(value)}")
    if path is not None:
        err.print(f"triggers and their answers: {path}")
        err.print("That sheet is secret: anybody who sees it can remove the watermark.")
    elif not public:
        err.print("The triggers need the passphrase: set WMPLUG_PASSPHRASE, or run this on a terminal.")
