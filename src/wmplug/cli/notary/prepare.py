"""`wmplug notary prepare`: the package that the owner seals to a notary."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

import wmplug
from wmplug.cli import inputs as files
from wmplug.cli.inputs import read_json
from wmplug.cli.notary.options import pair
from wmplug.cli.parameters import read_material, read_parameters
from wmplug.cli.terminal import REGISTER, Json, Register, out, passphrase, print_json, progress
from wmplug.errors import InputError


def prepare(
    file: Annotated[Path, typer.Argument(metavar="FILE.wm", help="A watermark file, or its commit/ID.json.")],
    to: Annotated[str, typer.Option("--to", help="The notary's notary.pub, or age1... key.")],
    case: Annotated[str, typer.Option("--case", help="Id of the case, agreed with the notary.")],
    carriers: Annotated[Path, typer.Option("--carriers", help="As given to `wmplug create`.")],
    package: Annotated[Path, typer.Option("--out", help="The sealed package to write, usually NAME.age.")],
    labels: Annotated[Path | None, typer.Option("--labels", help="As given to `wmplug create`.")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=@FILE", help="The owner's own material, as given to `wmplug create`."),
    ] = None,
    material: Annotated[
        Path | None, typer.Option("--material", metavar="FILE.npz", help="As written by `wmplug create --material`.")
    ] = None,
    logo: Annotated[Path | None, typer.Option("--logo", help="The logo, as given to `wmplug create`.")] = None,
    references: Annotated[
        list[str] | None,
        typer.Option("--reference", metavar="NAME=TEXT", help="Place of the suspect or the own model, for the notary."),
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            "--log", help="A served model's log, file or URL: the notary asks the queries of its last commitment."
        ),
    ] = None,
    queries: Annotated[
        Path | None, typer.Option("--inputs", help="The queries that you kept, if the log keeps digests only.")
    ] = None,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Owner: seal everything that a notary needs for one watermark's claim; the register records it."""
    from wmplug.register.notary import package as packages

    if log is not None and file.suffix == ".json":
        raise InputError(f"--log needs the watermark file, and {file} is its public line: give FILE.wm")
    public = _public_line(file)
    given: dict[str, Any] = {} if material is None else read_material(material)
    given |= read_parameters(str(public.get("scheme")), parameters or [])
    if logo is not None:
        given["logo"] = str(logo)
    pairs = dict(pair(text, "--reference") for text in references or [])
    recipient = _recipient(Path(to)) if os.path.exists(to) else to
    inputs, natural, _ = files.read(carriers, labels)
    words = passphrase()
    with progress("Sealing"):
        owner = wmplug.Owner.open(register, passphrase=words)
        options: dict[str, Any] = {"carriers": inputs, "labels": natural, "references": pairs, **given}
        if log is not None:
            options["decided"] = _decided(file, log, queries, words)
        packages.prepare(owner, public, package, recipient=recipient, case=case, **options)
    if as_json:
        return print_json({"package": str(package), "watermark": public["id"], "case": case, "to": recipient})
    out.print(f"{package}: give it to the notary; only the notary can open it")
    of_log = "" if log is None else ", the log's queries with the names of those who asked them"
    out.print(f"It holds the secret of this one watermark, its carriers{of_log} and the register's public parts.")


def _decided(file: Path, place: str, queries: Path | None, words: str) -> Any:
    from wmplug.cli.serving import log_of

    held = log_of(wmplug.load(file, passphrase=words), place)
    return held.decided(None if queries is None else files.read(queries)[0])


def _public_line(file: Path) -> dict[str, Any]:
    return read_json(file) if file.suffix == ".json" else wmplug.read_public(file)


def _recipient(file: Path) -> str:
    recipient = read_json(file).get("recipient")
    if not isinstance(recipient, str):
        raise InputError(f"{file} names no recipient: give the notary.pub that the notary published")
    return recipient
