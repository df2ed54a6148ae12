"""`wmplug tsa make | serve`: a timestamp authority for a lab, on this machine only."""

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wmplug.cli.terminal import Json, err, out, print_json

if TYPE_CHECKING:
    from wmplug.register.timestamps import Trust

_WARNING = "LAB ONLY - NOT ATTESTED: anyone with this folder can date anything; its timestamps prove nothing to others."

Folder = Annotated[Path, typer.Option("--dir", help="Folder of the authority; its keys lie open in it.")]

tsa = typer.Typer(help="A timestamp authority for a lab: real tokens that prove nothing.", no_args_is_help=True)


@tsa.command("make")
def make(
    folder: Folder,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port that it will serve on.")] = 3161,
    rsa: Annotated[bool, typer.Option("--rsa", help="RSA keys instead of P-256.")] = False,
    as_json: Json = False,
) -> None:
    """Make an authority: three certificates and their keys."""
    from wmplug.register.authority import LabAuthority

    url = f"http://127.0.0.1:{port}"
    authority = LabAuthority.create(folder, url=url, kind="rsa" if rsa else "ec")
    file = _pin(folder, authority.trust(url))
    if as_json:
        return print_json({"warning": _WARNING, "dir": str(folder), "url": url, "trust": str(file)})
    err.print(_WARNING, style="bold yellow")
    out.print(f"an authority is in {folder}; start it with: wmplug tsa serve --dir {folder} --port {port}")
    out.print(f"what a register has to trust is in {file}")


@tsa.command("serve")
def serve(
    folder: Folder,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0 takes a free one.")] = 3161,
    as_json: Json = False,
) -> None:
    """Answer timestamp requests on 127.0.0.1 until interrupted."""
    from wmplug.register import authority

    with authority.serve(folder, port=port) as url:
        file = _pin(folder, authority.LabAuthority.open(folder).trust(url))
        if as_json:
            print_json({"warning": _WARNING, "dir": str(folder), "url": url, "trust": str(file)})
        else:
            err.print(_WARNING, style="bold yellow")
            out.print(f"serving {url}  (stop with Ctrl-C)")
            out.print(f"what a register has to trust is in {file}")
        threading.Event().wait()


def _pin(folder: Path, trust: "Trust") -> Path:
    """Write the trust file for a register."""
    file = folder / "trust.json"
    file.write_text(json.dumps(trust.to_json(), indent=1) + "\n", encoding="utf-8")
    return file
