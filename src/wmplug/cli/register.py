"""`wmplug register`: look at the record, check it, have it stamped, hand out receipts, compare copies."""

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import wmplug
from wmplug import plugins
from wmplug.cli.terminal import REGISTER, Json, Register, err, out, passphrase, print_json, progress
from wmplug.errors import InputError, PluginError, TimestampError
from wmplug.keys.files import write_new
from wmplug.register import Entry, Signer, assets, checking, receipts
from wmplug.register import Register as Record
from wmplug.register.reading import Finding

register = typer.Typer(
    help="The record of what was chosen and inserted when.", no_args_is_help=True, pretty_exceptions_enable=False
)
_BODY = 100  # characters of a body in a line


@register.command()
def log(
    register: Register = REGISTER,
    kind: Annotated[str | None, typer.Option("--type", help="Only events of this type.")] = None,
    as_json: Json = False,
) -> None:
    """Show the entries. Nothing is checked here: `wmplug register check` does that."""
    entries = [entry for entry in Record(register).entries() if kind in (None, entry.type)]
    if as_json:
        return print_json([_shown(entry) for entry in entries])
    for entry in entries:
        body = json.dumps(entry.body)
        short = body if len(body) <= _BODY else body[:_BODY] + "..."
        out.print(f"{entry.seq:>6}  {entry.claimed_time}  {entry.type:<22}  {short}")


def _shown(entry: Entry) -> dict[str, object]:
    names = ("seq", "type", "claimed_time", "event_id", "prev", "hash", "keyid", "body")
    return {**{name: getattr(entry, name) for name in names}, "subject": dict(entry.subject)}


@register.command()
def check(
    register: Register = REGISTER,
    receipt: Annotated[
        list[Path] | None, typer.Option("--receipt", help="A receipt that was handed out; may be given again.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", help="Authorities to believe, instead of those the owner's policy names; trust files."),
    ] = None,
    headers: Annotated[
        Path | None,
        typer.Option(
            "--headers", help="Bitcoin block headers from a source you trust, JSON {height: hex}, for OpenTimestamps."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the record, offline and without any key: exit code 0 if nothing is refused, 1 if something is."""
    given = [receipts.read(file) for file in receipt or []]
    believed = None if trust is None else [_module("anchors:read_trust").read_trust(file) for file in trust]
    with progress("Checking") as shown:
        report = checking.check(
            register,
            receipts=given,
            authorities=believed,
            progress=lambda done: shown.update(shown.task_ids[0], completed=done),
        )
    if headers is not None or "retimestamp" in report.counts:
        report = _with_calendars(report, register, headers)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
        if report.ok and not given:
            out.print("Whether entries are missing at the end, only a receipt tells (--receipt) or a later token.")
    raise typer.Exit(0 if report.ok else 1)


def _with_calendars(report: checking.Report, register: Path, headers: Path | None) -> checking.Report:
    try:
        calendars = _module("calendars:check")
    except PluginError as error:
        if headers is not None:
            raise
        unchecked = Finding("inconclusive", "calendars-unchecked", None, f"its OpenTimestamps are unchecked: {error}")
        return replace(report, findings=(*report.findings, unchecked))
    checked: checking.Report = calendars.check(
        report, register, {} if headers is None else calendars.read_headers(headers)
    )
    return checked


def _print(report: checking.Report) -> None:
    out.print(f"register {report.register}\n{report.entries} entries, head {report.head}")
    for stamp in report.stamps:
        lab = "  LAB ONLY, attests nothing" if stamp.lab else ""
        out.print(
            f"  entries 0 to {stamp.head} existed at {stamp.gen_time:%Y-%m-%d %H:%M:%S} UTC: {stamp.authority}{lab}"
        )
    for finding in report.findings:
        out.print(
            f"  {finding.level}: {finding.text} [{finding.code}]",
            style="bold red" if finding.level == "refused" else "",
        )
    if unattested := report.entries - report.attested:
        which = (
            "no entry is"
            if not report.attested
            else f"{unattested} at the end {'is' if unattested == 1 else 'are'} not"
        )
        out.print(f"NOT ATTESTED: {which} dated by an authority; claimed times are the owner's own clock")
    out.print("ok" if report.ok else "REFUSED", style="bold green" if report.ok else "bold red")


@register.command()
def anchor(
    register: Register = REGISTER,
    tsa: Annotated[
        list[str] | None, typer.Option("--tsa", help="URL of a timestamp authority (RFC 3161), kept for the next time.")
    ] = None,
    root: Annotated[
        list[Path] | None, typer.Option("--root", help="Root certificates to trust for it, PEM; needed the first time.")
    ] = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", help="A trust file, such as `wmplug tsa make` writes, instead of both.")
    ] = None,
    ots: Annotated[
        list[str] | None,
        typer.Option("--ots", help="URL of an OpenTimestamps calendar to ask too; may be given again."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Have the head of the record stamped by every authority named: exit code 1 if one did not answer."""
    stamp = _module("calendars:stamp").stamp if ots else None
    if trust is not None:
        anchors = _module("anchors:anchor")
        anchors.trust(register, anchors.read_trust(trust))
    for url in tsa or []:
        _introduce(register, url, root or [])
    owner = wmplug.Owner.open(register, passphrase=passphrase())
    record = Record.of(owner)
    with progress("Waiting for the authority"):
        # Calendars alone will do; where there is neither, `anchor` says so.
        outcomes = _module("anchors:anchor").anchor(record) if record.has_authorities or stamp is None else []
        told = [{"tsa": o.url, "entry": o.entry, "error": o.error} for o in outcomes]
        if stamp is not None:
            told.append(_submit(stamp, record, ots or []))
    if as_json:
        print_json(
            [
                {**one, "entry": one["entry"] and _shown(one["entry"]), "error": one["error"] and str(one["error"])}
                for one in told
            ]
        )
    for one in [] if as_json else told:
        if one["entry"] is not None:
            out.print(_stamped(one["entry"]))
        elif "tsa" in one:
            err.print(f"{one['tsa']}: {one['error']}\nThe request is kept; this command repeats it.")
        else:
            err.print(str(one["error"]))
    raise typer.Exit(1 if any(one["entry"] is None for one in told) else 0)


def _submit(stamp: Callable[..., Entry], record: Record, calendars: list[str]) -> dict[str, Any]:
    try:
        return {"ots": calendars, "entry": stamp(record, calendars), "error": None}
    except TimestampError as error:
        return {"ots": calendars, "entry": None, "error": error}


def _stamped(entry: Entry) -> str:
    body = entry.body
    if entry.type == "anchor":
        return f"entries 0 to {body['head']} stamped {body['gen_time']} by {body['authority']}"
    return (
        f"entries 0 to {body['head']} given to {', '.join(body['calendars'])}: pending; some hours later, "
        "`wmplug register upgrade` fetches the proof"
    )


@register.command()
def upgrade(
    register: Register = REGISTER,
    ots: Annotated[
        list[str] | None, typer.Option("--ots", help="URL of a calendar that a pool handed the record on to.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch the proofs that OpenTimestamps calendars have completed since, and record them."""
    calendars = _module("calendars:upgrade")
    owner = wmplug.Owner.open(register, passphrase=passphrase())
    with progress("Waiting for the calendars"):
        made = calendars.upgrade(Record.of(owner), ots or [])
    if as_json:
        return print_json([_shown(entry) for entry in made])
    for entry in made:
        out.print(f"entries 0 to {entry.body['head']}: {entry.body['file']} is complete; check it with --headers")
    if not made:
        out.print("no proof was completed")


def _module(path: str) -> Any:
    # What needs more than the core's own dependencies; a missing package is told with its extra.
    return importlib.import_module(plugins.load(f"wmplug.register.{path}").__module__)


def _introduce(register: Path, url: str, roots: list[Path]) -> None:
    anchors = _module("anchors:anchor")
    if any(known.url == url for known in anchors.policy(register)) and not roots:
        return
    if not roots:
        raise InputError(
            f"--tsa {url} is new: give its root certificate too (--root PEM), from the authority's own page"
        )
    anchors.trust(register, anchors.pin(url, [file.read_bytes() for file in roots]))


@register.command()
def receipt(
    file: Annotated[Path, typer.Option("--out", help="File to write.")],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Write a receipt for the head: whoever holds it can tell later whether the record was cut or rewritten."""
    owner = wmplug.Owner.open(register, passphrase=passphrase())
    made = receipts.receipt(Record(register), Signer(owner.signing_seed()))
    write_new(file, (json.dumps(made.to_json(), indent=1) + "\n").encode(), 0o644)
    if as_json:
        return print_json(made.to_json())
    out.print(f"{file}: entry {made.seq}, {made.hash}")


@register.command()
def diff(
    first: Annotated[Path, typer.Argument(metavar="DIR", help="A register's folder.")],
    second: Annotated[Path, typer.Argument(metavar="DIR", help="A copy of it.")],
    as_json: Json = False,
) -> None:
    """Compare two copies of a register: exit code 0 if one continues the other, 1 if they fork."""
    found = receipts.diff(Record(first), Record(second))
    if as_json:
        print_json({"relation": found.relation, "common": found.common, "first": found.first, "second": found.second})
    else:
        out.print(f"{found.relation}: {found.common} entries in common, then {found.first} and {found.second}")
    raise typer.Exit(1 if found.relation == "fork" else 0)


@register.command()
def artwork(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A logo, a picture, a text that triggers are made with.")
    ],
    author: Annotated[str, typer.Option("--author", help="Who made it.")],
    created: Annotated[str, typer.Option("--created", help="When, as YYYY-MM-DD.")],
    licence: Annotated[str | None, typer.Option("--licence", help="Under which terms you use it.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="What it is called.")] = None,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Record an artwork: its hash, author and date."""
    body = assets.artwork(file, author=author, created=created, licence=licence, title=title)
    _record(register, "artwork.committed", body, as_json)


@register.command()
def commit(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="dataset or system.")],
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A file or folder.")],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Record a training set or a finished system that lies in files."""
    if what not in ("dataset", "system"):
        raise InputError(f"{what!r} cannot be committed to from files: dataset or system can")
    with progress("Reading"):
        body = getattr(assets, what)(path)
    _record(register, f"{what}.committed", body, as_json)


def _record(register: Path, kind: str, body: dict[str, object], as_json: bool) -> None:
    owner = wmplug.Owner.open(register, passphrase=passphrase())
    entry = Record.of(owner).append(kind, body)
    if as_json:
        return print_json(_shown(entry))
    out.print(f"entry {entry.seq}: {entry.type}")
