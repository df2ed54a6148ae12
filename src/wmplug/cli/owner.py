"""`wmplug init`: make an owner."""

from typing import Annotated

import typer

import wmplug
from wmplug.cli.terminal import REGISTER, Json, Register, out, passphrase, print_json, progress
from wmplug.errors import InputError


def init(
    name: Annotated[str, typer.Option("--name", help="How the owner is called; public.")],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Make an owner: a secret key, sealed with a passphrase, and a public commitment to it."""
    if (register / "owner.pub").exists():
        raise InputError(f"{register} holds an owner already: use it, or choose another folder (--register)")
    words = passphrase(new=True)
    with progress("Sealing the key"):
        owner = wmplug.Owner.create(register, name=name, passphrase=words)
    if as_json:
        return print_json({"register": str(register), "name": owner.name, "commitment": owner.commitment})
    out.print(f"{owner.name} owns {register}")
    out.print(f"commitment {owner.commitment}  (public: publish it early, it dates your key)")
    out.print("The passphrase cannot be recovered. Keep a copy of the folder; nothing opens without both.")
