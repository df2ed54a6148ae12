"""`wmplug notary key | prepare | challenge | check | certify | spend | reveal | leaves`."""

import typer

from wmplug.cli.notary.certify import certify
from wmplug.cli.notary.challenge import challenge
from wmplug.cli.notary.check import check
from wmplug.cli.notary.disclosure import leaves, reveal, spend
from wmplug.cli.notary.key import key
from wmplug.cli.notary.prepare import prepare

notary = typer.Typer(
    help="A neutral party checks a claim, and the secret stays secret. docs/notary.md explains each step.",
    no_args_is_help=True,
)
for command in (key, prepare, challenge, check, certify, spend, reveal, leaves):
    notary.command(command.__name__)(command)
