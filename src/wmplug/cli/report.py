"""`wmplug report`: the dossier of a register, and what else is made of it."""

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer

from wmplug import plugins
from wmplug.cli.terminal import REGISTER, Json, Register, err, out, print_json, progress
from wmplug.errors import InputError
from wmplug.keys.files import write_new
from wmplug.register import receipts


def report(
    html: Annotated[Path, typer.Option("--out", metavar="FILE", help="HTML file to write.")],
    register: Register = REGISTER,
    json_out: Annotated[Path | None, typer.Option("--json-out", metavar="FILE", help="The same facts as JSON.")] = None,
    bom: Annotated[
        Path | None, typer.Option("--bom", metavar="FILE", help="A bill of materials (CycloneDX 1.6 JSON).")
    ] = None,
    card: Annotated[
        Path | None,
        typer.Option("--card", metavar="README.md", help="A model card, to put the public commitment into."),
    ] = None,
    verdict: Annotated[
        list[Path] | None,
        typer.Option("--verdict", metavar="FILE", help="What `wmplug verify --json` printed of a suspect; repeat it."),
    ] = None,
    control: Annotated[
        list[Path] | None,
        typer.Option("--control", metavar="FILE", help="The same, of a model known to be independent; repeat it."),
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option("--certificate", metavar="FILE", help="A notary's certificate.json; repeat it."),
    ] = None,
    receipt: Annotated[
        list[Path] | None,
        typer.Option("--receipt", metavar="FILE", help="A receipt that was handed out; repeat it."),
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust", metavar="FILE", help="Authorities to believe instead of those that the owner named; repeat it."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the dossier of a register: exit code 0, or 1 if the register does not hold."""
    dossier = _module("dossier:gather")
    document = _gather(dossier, register, verdict, control, certificate, receipt, trust)
    # Made before anything is written: each may refuse.
    made = {html: dossier.render(document).encode()}
    if json_out is not None:
        made[json_out] = dossier.encode(document)
    refused = document["attestation"]["status"] == "refused"
    if bom is not None and not refused:
        boms = _module("bom:bom")
        made[bom] = boms.encode(boms.bom(document))
    if len(made) < 1 + (json_out is not None) + (bom is not None and not refused):
        raise InputError("two outputs have one name: give each a file of its own")
    if card is not None and not refused:
        cards = _module("card:section")
        cards.write(card, cards.section(document))
    for file, data in made.items():
        write_new(file, data, 0o644)
    written = [*map(str, made), *([str(card)] if card is not None and not refused else [])]
    _tell(document["attestation"], written, as_json)
    if refused and (bom is not None or card is not None):
        err.print("nothing public (--bom, --card) is made of a register that does not hold", style="bold red")
    raise typer.Exit(1 if refused else 0)


def _module(path: str) -> Any:
    # The page needs jinja2, the timestamps more: said in one line where it is missing.
    return importlib.import_module(plugins.load(f"wmplug.report.{path}").__module__)


def _gather(
    dossier: Any,
    register: Path,
    verdict: list[Path] | None,
    control: list[Path] | None,
    certificate: list[Path] | None,
    receipt: list[Path] | None,
    trust: list[Path] | None,
) -> dict[str, Any]:
    suspects, anchors = _module("suspects:read"), plugins.load("wmplug.register.anchors:read_trust")
    given = [("suspect", file.name, suspects.read(file)) for file in verdict or []]
    given += [("control", file.name, suspects.read(file)) for file in control or []]
    with progress("Checking") as shown:
        document: dict[str, Any] = dossier.gather(
            register,
            verdicts=given,
            certificates=[suspects.certificate(file) for file in certificate or []],
            receipts=[receipts.read(file) for file in receipt or []],
            authorities=[anchors(file) for file in trust] if trust else None,
            progress=lambda done: shown.update(shown.task_ids[0], completed=done),
        )
    return document


def _tell(attestation: dict[str, Any], written: list[str], as_json: bool) -> None:
    if as_json:
        return print_json({"status": attestation["status"], "reasons": attestation["reasons"], "files": written})
    for file in written:
        out.print(file)
    if attestation["status"] != "attested":
        err.print(f"{attestation['headline']}: {attestation['text']}", style="bold yellow")
        for reason in attestation["reasons"]:
            err.print(f"  {reason}")
