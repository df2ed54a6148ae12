"""`wmplug report`: the dossier of a register, and other documents made from it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from wmplug.cli.terminal import REGISTER, Crls, Json, Register, err, out, print_json, progress
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
        typer.Option(
            "--verdict", metavar="FILE", help="Output of `wmplug verify --json` for a suspect; again for each."
        ),
    ] = None,
    control: Annotated[
        list[Path] | None,
        typer.Option("--control", metavar="FILE", help="The same for a model known to be independent; again for each."),
    ] = None,
    certificate: Annotated[
        list[Path] | None,
        typer.Option("--certificate", metavar="FILE", help="A notary's certificate.json; again for each."),
    ] = None,
    receipt: Annotated[
        list[Path] | None,
        typer.Option("--receipt", metavar="FILE", help="A receipt that the owner gave out; again for each."),
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust",
            metavar="FILE",
            help="Authorities to trust, instead of those that the owner named; again for each.",
        ),
    ] = None,
    crl: Crls = None,
    as_json: Json = False,
) -> None:
    """Write the dossier of a register: exit code 0, or 1 if the register does not hold, or a control matched."""
    from wmplug.report import bom as boms
    from wmplug.report import card as cards
    from wmplug.report import dossier

    document = _gather(register, verdict, control, certificate, receipt, trust, crl)
    # Make all documents before writing any: each may raise an error.
    made = {html: dossier.render(document).encode()}
    if json_out is not None:
        made[json_out] = dossier.encode(document)
    refused = document["attestation"]["status"] == "refused"
    if bom is not None and not refused:
        made[bom] = boms.encode(boms.bom(document))
    if len(made) < 1 + (json_out is not None) + (bom is not None and not refused):
        raise InputError("two outputs have one name: give each a file of its own")
    if card is not None and not refused:
        cards.write(card, cards.section(document))
    for file, data in made.items():
        write_new(file, data, 0o644)
    written = [*map(str, made), *([str(card)] if card is not None and not refused else [])]
    _tell(document["attestation"], document["controls"], written, as_json)
    if refused and (bom is not None or card is not None):
        err.print("nothing public (--bom, --card) is made of a register that does not hold", style="bold red")
    raise typer.Exit(1 if refused or document["controls"]["void"] else 0)


def _gather(
    register: Path,
    verdict: list[Path] | None,
    control: list[Path] | None,
    certificate: list[Path] | None,
    receipt: list[Path] | None,
    trust: list[Path] | None,
    crl: list[Path] | None,
) -> dict[str, Any]:
    from wmplug.register.anchors import read_trust
    from wmplug.report import dossier, models

    verdicts = [("suspect", file.name, models.read(file)) for file in verdict or []]
    verdicts += [("control", file.name, models.read(file)) for file in control or []]
    with progress("Checking") as shown:
        document = dossier.gather(
            register,
            verdicts=verdicts,
            certificates=[models.certificate(file) for file in certificate or []],
            receipts=[receipts.read(file) for file in receipt or []],
            authorities=[read_trust(file) for file in trust] if trust else None,
            crls=crl or [],
            progress=lambda done: shown.update(shown.task_ids[0], completed=done),
        )
    return document


def _tell(attestation: dict[str, Any], controls: dict[str, Any], written: list[str], as_json: bool) -> None:
    if as_json:
        about = {"status": attestation["status"], "reasons": attestation["reasons"]}
        return print_json({**about, "controls_matched": controls["reasons"], "files": written})
    for file in written:
        out.print(file)
    if controls["void"]:
        err.print(f"{controls['headline']}: {controls['text']}", style="bold red")
        for reason in controls["reasons"]:
            err.print(f"  {reason}")
    if attestation["status"] != "attested":
        err.print(f"{attestation['headline']}: {attestation['text']}", style="bold yellow")
        for reason in attestation["reasons"]:
            err.print(f"  {reason}")
