"""The common part of all commands: options, the passphrase, and output."""

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from wmplug.errors import InputError

# What moves a cursor, hides or turns text, or cannot be encoded; new lines and tabs stay.
_CONTROLS = re.compile(r"[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text for a terminal, its control characters as their numbers: others may have written parts of it."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class _Console(Console):
    """A console whose texts, those in the cells of tables too, are printable; styles are its own.

    A text is one line: a line feed in it is others', and would let them write a line of ours. For several lines,
    give several texts and `sep`, or call `lines`.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(_one_line(one) if isinstance(one, str) else one for one in objects), **options)

    def lines(self, text: str, **options: Any) -> None:
        """Print a text that lays out its lines itself, and lets nobody else write one."""
        self.print(*text.split("\n"), sep="\n", **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


def _one_line(text: str) -> str:
    return text.replace("\n", "\\u000a")


# Results go to stdout, everything else to stderr; neither wraps lines or interprets markup.
out = _Console(soft_wrap=True, markup=False, emoji=False, highlight=False)
err = _Console(stderr=True, soft_wrap=True, markup=False, emoji=False, highlight=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Register = Annotated[
    Path, typer.Option("--register", envvar="WMPLUG_REGISTER", help="Folder that holds the owner's secret.")
]
REGISTER = Path("register")
Crls = Annotated[
    list[Path] | None,
    typer.Option(
        "--crl",
        help="A revocation list (DER or PEM) of an authority, beside those that the owner kept; again for each.",
    ),
]
_VARIABLE = "WMPLUG_PASSPHRASE"


def passphrase(*variables: str, title: str = "Passphrase", twice: bool = False) -> str:
    """The passphrase from an environment variable, or else from a hidden prompt.

    Args:
        *variables: variables to look up in this order; WMPLUG_PASSPHRASE by default.
        title: title of the prompt.
        twice: ask for it twice, because it is new.

    Raises:
        InputError: no variable is set, and the command does not run on a terminal.
    """
    variables = variables or (_VARIABLE,)
    for name in variables:
        if words := os.environ.get(name):
            return words
    if not sys.stdin.isatty():
        raise InputError(
            f"no {title.lower()}: set {' or '.join(variables)}, or run this on a terminal to be asked for it"
        )
    return str(typer.prompt(title, hide_input=True, confirmation_prompt=twice, err=True))


def can_ask() -> bool:
    """Whether `passphrase` can return one."""
    return bool(os.environ.get(_VARIABLE)) or sys.stdin.isatty()


def echo(text: str, *, to_err: bool = False) -> None:
    """Print a text as it is, without styles, except for control characters."""
    typer.echo(printable(text), err=to_err)


def print_json(document: Any) -> None:
    """Print one JSON document on stdout."""
    echo(json.dumps(document, indent=1, allow_nan=False))


def guard() -> None:
    """Make warnings and what libraries log printable for the rest of this process."""
    make, write = logging.getLogRecordFactory(), warnings.formatwarning

    def record(*args: Any, **options: Any) -> logging.LogRecord:
        made = make(*args, **options)
        made.msg, made.args = printable(made.getMessage()), ()
        return made

    logging.setLogRecordFactory(record)
    warnings.formatwarning = lambda text, *args, **options: printable(write(_one_line(str(text)), *args, **options))


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Progress]:
    """A bar on stderr that disappears at the end; no bar if stderr is not a terminal.

    Args:
        what: the activity, in words.
        total: number of steps; None shows elapsed time only.
    """
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()]
    if total is not None:
        columns[2:2] = [BarColumn(), MofNCompleteColumn()]
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as shown:
        shown.add_task(what, total=total)
        yield shown
