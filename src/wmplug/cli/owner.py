"""`wmplug init` and `wmplug owner rotate | revoke | split | combine`: make an owner, and manage the keys."""

import os
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

import wmplug
from wmplug.cli.terminal import REGISTER, Json, Register, err, out, passphrase, print_json, progress
from wmplug.errors import InputError
from wmplug.keys.files import read_bytes, write_new
from wmplug.register import Register as Record
from wmplug.register import Signer, recovery

owner = typer.Typer(help="The owner's keys: replace, revoke, split into shares, recover.", no_args_is_help=True)

_RENEWED = "WMPLUG_NEW_PASSPHRASE"
Renew = Annotated[
    bool, typer.Option("--new-passphrase", help="Seal with a new passphrase: WMPLUG_NEW_PASSPHRASE, or a prompt.")
]


def init(
    name: Annotated[str, typer.Option("--name", help="Name of the owner; public.")],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Make an owner: a secret key, sealed with a passphrase, and a public commitment to it."""
    if (register / "owner.pub").exists():
        raise InputError(f"{register} already holds an owner: use it, or choose another folder (--register)")
    words = passphrase(twice=True)
    with progress("Sealing the key"):
        made = wmplug.Owner.create(register, name=name, passphrase=words)
        Record.of(made)
    if as_json:
        return print_json({"register": str(register), "name": made.name, "commitment": made.commitment})
    out.print(f"{made.name} owns {register}")
    out.print(f"commitment {made.commitment}  (public: publish it early, it dates your key)")
    out.print("The passphrase cannot be recovered. Keep a copy of the folder; nothing opens without both.")


@owner.command("rotate")
def rotate(register: Register = REGISTER, renew: Renew = False, as_json: Json = False) -> None:
    """Replace the secret by a new one; earlier watermarks stay valid."""
    held = _open(register)
    words = _new_passphrase() if renew else None
    with progress("Rotating"):
        rotated = recovery.rotate(held, passphrase=words)
    _tell_rotated(rotated, as_json, renew)


@owner.command("revoke")
def revoke(
    reason: Annotated[str, typer.Option("--reason", help="Why; public.")],
    key: Annotated[
        str | None, typer.Option("--key", help="A keyid, or a watermark's id for the key that records its training.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--since", help="UTC time from which others may have held it: a check flags its undated entries."),
    ] = None,
    compromised: Annotated[
        bool, typer.Option("--compromised", help="Others hold the owner's secret: rotate, and revoke all earlier keys.")
    ] = False,
    renew: Renew = False,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Record in the register that a key no longer signs."""
    if compromised and key is not None:
        raise InputError("--compromised revokes all keys of the secret, and --key revokes one: give one of the two")
    if renew and not compromised:
        raise InputError("--new-passphrase goes with --compromised here, or with `wmplug owner rotate`")
    moment = None if since is None else since.replace(tzinfo=timezone.utc)
    held = _open(register)
    if compromised:
        words = _new_passphrase() if renew else None
        with progress("Rotating"):
            rotated = recovery.renounce(held, reason=reason, since=moment, passphrase=words)
        return _tell_rotated(rotated, as_json, renew)
    entry = recovery.revoke(held, key, reason=reason, since=moment)
    if as_json:
        return print_json({"register": str(register), "seq": entry.seq, **entry.body})
    out.print(f"key {entry.body['keyid']} is revoked (entry {entry.seq})")


@owner.command("split")
def split(
    shares: Annotated[int, typer.Option("--shares", help="Sheets to make, up to 16.")] = 3,
    threshold: Annotated[int, typer.Option("--threshold", help="Number of sheets that recover the secret.")] = 2,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Write each to a file here that only you can read; default: print.")
    ] = None,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Split the secret into sheets of 33 words (SLIP-39); any THRESHOLD of them and the folder recover it."""
    files = [] if folder is None else [folder / f"share-{number}.txt" for number in range(1, shares + 1)]
    if taken := [file for file in files if os.path.lexists(file)]:
        raise InputError(f"{taken[0]} already exists: choose another folder (--out), or remove it")
    held = _open(register)
    made = recovery.split(held, shares, threshold)
    title = f"# wmplug owner {held.name!r} {held.commitment[:16]}, any {threshold} of {shares} shares"
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    for number, (file, words) in enumerate(zip(files, made, strict=False), 1):
        write_new(file, f"{title}; this is share {number}\n{words}\n".encode(), 0o600)
    if as_json:
        where = {"shares": made} if folder is None else {"files": [str(file) for file in files]}
        return print_json({"register": str(register), "threshold": threshold, **where})
    for file in files:
        out.print(str(file))
    for number, words in enumerate(made if folder is None else [], 1):
        out.print(f"share {number}: {words}")
    err.print(
        f"Any {threshold} of these {shares} and a copy of {register} recover the owner: keep them apart, and off this "
        "machine. They are shown this once. After a rotation they are void: split again."
    )


@owner.command("combine")
def combine(
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--share", metavar="FILE", help="A file with the words of one share; again for each. Default: prompts."
        ),
    ] = None,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Recover the owner from shares, under a new passphrase (WMPLUG_NEW_PASSPHRASE, WMPLUG_PASSPHRASE or a prompt)."""
    shares = [_words_of(file) for file in files] if files else _ask_shares()
    words = passphrase(_RENEWED, "WMPLUG_PASSPHRASE", twice=True)
    with progress("Sealing the key"):
        held = recovery.combine(register, shares, passphrase=words)
    if as_json:
        return print_json({"register": str(register), "name": held.name, "commitment": held.commitment})
    out.print(f"{held.name} owns {register} again, under the new passphrase")
    err.print(
        "Watermark files open with the passphrase they were saved with; without it, make them again (`wmplug create` "
        "with the same carriers and parameters): they come out the same."
    )


def _open(register: Path) -> wmplug.Owner:
    words = passphrase()
    with progress("Opening the key"):
        return wmplug.Owner.open(register, passphrase=words)


def _new_passphrase() -> str:
    return passphrase(_RENEWED, title="New passphrase", twice=True)


def _tell_rotated(rotated: wmplug.Owner, as_json: bool, renewed: bool) -> None:
    keyid = Signer(rotated.signing_seed()).keyid
    if as_json:
        return print_json({"register": str(rotated.path), "keyid": keyid})
    out.print(f"the register is signed by a new key: {keyid}")
    err.print("Shares split before are void: run `wmplug owner split` again, and stop processes that hold the old key.")
    if renewed:
        err.print("Watermark files saved before still open with the passphrase from before.")


def _words_of(file: Path) -> str:
    try:
        lines = read_bytes(file).decode().splitlines()
    except UnicodeDecodeError:
        lines = []  # the error would hold the words
    return " ".join(line for line in lines if not line.startswith("#"))


def _ask_shares() -> list[str]:
    """Shares from hidden prompts, as many as the first one requires; a share with a typing error is asked for again."""
    if not sys.stdin.isatty():
        raise InputError(
            "no shares: give a file for each (--share FILE), or run this on a terminal to be asked for them"
        )
    from wmplug.register.shares import read

    shares: list[str] = []
    needed = 1
    while len(shares) < needed:
        name = f"share {len(shares) + 1}"
        words = str(typer.prompt(f"Words of {name}", hide_input=True, err=True))
        try:
            needed = read(words, name).member_threshold
        except InputError as error:
            err.print(str(error))
        else:
            shares.append(words)
    return shares
