"""`wmplug notary key`: the keys of a notary."""

from typing import Annotated

import typer

from wmplug.cli.notary.options import KEYS, Keys
from wmplug.cli.terminal import Json, out, passphrase, print_json, progress


def key(
    name: Annotated[str, typer.Option("--name", help="Shown on certificates.")],
    keys: Keys = KEYS,
    as_json: Json = False,
) -> None:
    """Notary: make one key that owners seal to, and one that signs certificates."""
    from wmplug.register.notary.identity import Notary

    words = passphrase(twice=True)
    with progress("Sealing the keys"):
        made = Notary.create(keys, name=name, passphrase=words)
    public = {"name": name, "recipient": made.recipient, "public": made.signer().public.hex()}
    if as_json:
        return print_json({"keys": str(keys), **public})
    out.print(
        f"{name}'s keys are in {keys}; give {keys / 'notary.pub'} to owners, and to the readers of your certificates"
    )
    out.print(f"to seal to  {made.recipient}", f"signs as    {public['public']}", sep="\n")
