"""`wmplug notary check`: hears a case, once."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from wmplug.cli.notary.options import KEYS, CaseFolder, Keys, fixed_digest
from wmplug.cli.terminal import Crls, Json, out, passphrase, print_json, progress
from wmplug.errors import InputError
from wmplug.suspects.targets import from_module, resolve
from wmplug.watermark.choices import Choice, named


def check(
    folder: CaseFolder,
    package: Annotated[Path, typer.Option("--package", help="The sealed package.")],
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="MODULE:FUNCTION",
            help="As in `wmplug verify`: what the owner committed to, or what the case names.",
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Inputs at a time.")] = 64,
    receipts: Annotated[
        list[Path] | None, typer.Option("--receipt", help="A receipt that the owner gave out earlier; again for each.")
    ] = None,
    crl: Crls = None,
    keys: Keys = KEYS,
    as_json: Json = False,
) -> None:
    """Notary: check the register, derive all triggers anew, ask all models; exit code 0 if the claim holds."""
    from wmplug.register.notary import hearing
    from wmplug.register.notary.case import CASE, Case
    from wmplug.register.notary.identity import Notary
    from wmplug.register.receipts import read

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        case = Case.read(folder / CASE, fixed_digest(folder))
        function = None if preprocess is None else from_module(preprocess, "--preprocess")
        targets = {
            model.name: resolve(model.reference, preprocess=function, batch_size=batch_size, what=model.name)
            for model in case.models
        }
        holder = Notary.open(keys, passphrase=passphrase())
        with progress("Hearing the case") as bar:
            result = hearing.check(
                holder,
                folder,
                package,
                targets,
                preprocess=function,
                batch_size=batch_size,
                receipts=[read(file) for file in receipts or []],
                crls=crl or [],
                progress=lambda what: bar.update(bar.task_ids[0], description=what),
            )
    # Exit code 0 means that the claim holds: the user's code must not be able to set it.
    except (SystemExit, typer.Exit) as error:
        raise InputError(
            f"a model or --preprocess ended the program ({type(error).__name__}) before there was a result: let it do "
            "so under `if __name__ == '__main__':` only"
        ) from error
    if as_json:
        print_json(result)
    else:
        _show_result(result)
    raise typer.Exit(0 if result["status"] == "holds" else 1)


def _show_result(result: dict[str, Any]) -> None:
    for check in result["checks"]:
        out.print(f"{check['result']:<13} {check['name']}: {check['text']}")
    for model in result["models"]:
        if model["verdict"] is not None:
            verdict = model["verdict"]
            answers = f"{verdict['matches']} of {verdict['in_set']} answers, log10 p = {verdict['log10_p']:.1f}"
            rest = named(Choice(**choice) for choice in verdict.get("choices", ()))
            void = "  THE TEST IS VOID" if model["role"] == "control" and verdict["state"] == "proven" else ""
            line = f"{verdict['state']:<13} {model['name']}: {answers}{rest}{void}"
            out.print(line, style="bold red" if void else "")
    if "why" in result.get("log", {}):
        out.print(f"the log of {result['log']['count']} queries: {result['log']['why']}")
    out.print(f"the claim: {result['status']}", style="bold green" if result["status"] == "holds" else "bold yellow")
    for reason in result["reasons"]:
        out.print(f"  {reason}")
