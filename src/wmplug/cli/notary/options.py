"""Common options of the notary's commands."""

from pathlib import Path
from typing import Annotated

import typer

from wmplug.errors import InputError

Keys = Annotated[Path, typer.Option("--keys", envvar="WMPLUG_NOTARY", help="Folder of the notary's keys.")]
KEYS = Path("notary")
CaseFolder = Annotated[Path, typer.Argument(metavar="CASE", help="Folder of the case.")]


def pair(text: str, option: str) -> tuple[str, str]:
    """NAME and VALUE of an option.

    Raises:
        InputError: the text is not NAME=VALUE.
    """
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise InputError(f"{option} {text!r}: give NAME=VALUE")
    return name, value


def fixed_digest(folder: Path) -> str | None:
    """The expected digest of the case file; None for the opponent, who has the case file alone."""
    from wmplug.register.challenge import Challenge
    from wmplug.register.notary.case import CHALLENGE

    file = folder / CHALLENGE
    return Challenge.read(file).case_sha256 if file.exists() else None
