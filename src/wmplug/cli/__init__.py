"""The command line: `wmplug init | create | show | verify | register | notary | report | owner | ... | demo`.

Exit codes: 0 proven (or done), 1 not proven, 2 usage or input error, 70 a failure of wmplug itself or of the user's
code (with its traceback), 130 interrupted.
"""

import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from wmplug import __version__
from wmplug.cli import (
    adapters,
    audit,
    create,
    dataset,
    notary,
    owner,
    register,
    report,
    schemes,
    serving,
    show,
    tsa,
    verify,
)
from wmplug.cli.demo.command import demo
from wmplug.cli.terminal import echo, guard
from wmplug.errors import WmplugError

_EPILOG = (
    "Exit codes: 0 proven or done, 1 not proven, 2 usage or input error, 70 an unexpected error (with its traceback), "
    "130 interrupted. WMPLUG_PASSPHRASE or a prompt opens files."
)


class _Commands(TyperGroup):
    """Turns errors into one line and exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except WmplugError as error:
            raise _refusal(str(error)) from None
        except OSError as error:
            if error.filename is None:
                raise
            raise _refusal(f"{error.strerror}: {str(error.filename)!r}: check the path, or give another") from None
        except MemoryError as error:
            raise _refusal(f"not enough memory ({error}): ask for less, or fewer carriers at a time") from None
        # The defaults of both are 1, which would mean "not proven" here.
        except (KeyboardInterrupt, typer.Abort):
            echo("interrupted", to_err=True)
            raise typer.Exit(130) from None


def _refusal(text: str) -> typer.Exit:
    echo(f"error: {' '.join(text.split())}", to_err=True)
    return typer.Exit(2)


# Tracebacks stay plain: a pretty one could show local variables, some of which are secret.
app = typer.Typer(
    cls=_Commands,
    help="Watermark a model while your framework trains it; prove later that a copy is a copy.",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"wmplug {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Watermark a model while your framework trains it; prove later that a copy is a copy."""


app.command("init")(owner.init)
app.command("create")(create.create)
app.command("show")(show.show)
app.command("verify")(verify.verify)
app.command("audit")(audit.audit)
app.add_typer(dataset.dataset, name="dataset")
app.add_typer(register.register, name="register")
app.add_typer(owner.owner, name="owner")
app.add_typer(notary.notary, name="notary")
app.command("report")(report.report)
app.add_typer(serving.serving, name="serving")
app.add_typer(tsa.tsa, name="tsa")
app.command("schemes")(schemes.schemes)
app.command("adapters")(adapters.adapters)
app.command("demo")(demo)


def main() -> None:
    """Run the command line on sys.argv and exit."""
    guard()
    try:
        app()
    except Exception:
        # Python's own exit code for a traceback is 1, which would mean "not proven" here.
        echo(traceback.format_exc(), to_err=True)
        sys.exit(70)
