"""`wmplug register`: show the record, check it, have it stamped, give out receipts, compare copies."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import wmplug
from wmplug.cli import inputs as files
from wmplug.cli.terminal import REGISTER, Crls, Json, Register, err, out, passphrase, print_json, progress
from wmplug.errors import InputError, PluginError, TimestampError
from wmplug.keys.files import read_bytes, write_new
from wmplug.register import Entry, Signer, assets, checking, history, receipts
from wmplug.register import Register as Record
from wmplug.register.history import QUERIES
from wmplug.register.reading import Finding

if TYPE_CHECKING:
    from wmplug.register.anchors import Outcome
    from wmplug.register.timestamps import Trust

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
    """Show the entries, without a check: `wmplug register check` checks them."""
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
        list[Path] | None, typer.Option("--receipt", help="A receipt that the owner gave out; again for each.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option("--trust", help="Trust files of authorities to trust, instead of those in the owner's policy."),
    ] = None,
    crl: Crls = None,
    headers: Annotated[
        Path | None,
        typer.Option(
            "--headers", help="Bitcoin block headers from a source you trust, JSON {height: hex}, for OpenTimestamps."
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            help="Your note of what you have checked: the next check verifies only new signatures.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the record, offline and without any key: exit code 0 if it holds, 1 if the check refuses something."""
    held = [receipts.read(file) for file in receipt or []]
    believed = None if trust is None else _believed(trust)
    with progress("Checking") as shown:
        report = checking.check(
            register,
            receipts=held,
            authorities=believed,
            checkpoint=checkpoint,
            crls=crl or [],
            progress=lambda done: shown.update(shown.task_ids[0], completed=done),
        )
    if headers is not None or "retimestamp" in report.counts:
        report = _with_calendars(report, register, headers)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
        if report.ok and not held:
            out.print("Only a receipt (--receipt) or a later token shows whether entries are missing at the end.")
    raise typer.Exit(0 if report.ok else 1)


def _with_calendars(report: checking.Report, register: Path, headers: Path | None) -> checking.Report:
    try:
        from wmplug.register.calendars import check, read_headers
    except PluginError as error:
        if headers is not None:
            raise
        unchecked = Finding("inconclusive", "calendars-unchecked", None, f"its OpenTimestamps are unchecked: {error}")
        return replace(report, findings=(*report.findings, unchecked))
    return check(report, register, {} if headers is None else read_headers(headers))


def _print(report: checking.Report) -> None:
    out.print(f"register {report.register}", f"{report.entries} entries, head {report.head}", sep="\n")
    if report.taken:
        last = report.taken.entries - 1
        out.print(f"signatures of entries 0 to {last} as you verified them by {report.taken.checked}, not again now")
    for stamp in report.stamps:
        notes = "  LAB ONLY, attests nothing" if stamp.lab else ""
        notes += f"  (not revoked as of {stamp.unrevoked_at:%Y-%m-%d %H:%M})" if stamp.unrevoked_at else ""
        out.print(
            f"  entries 0 to {stamp.head} existed at {stamp.gen_time:%Y-%m-%d %H:%M:%S} UTC: {stamp.authority}{notes}"
        )
    for text in report.unlisted:
        out.print(f"  {text}")
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
        typer.Option("--ots", help="URL of an OpenTimestamps calendar to ask too; again for each."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Have the head of the record stamped by every authority: exit code 1 if one did not answer."""
    if ots:
        from wmplug.register.calendars import stamp as stamp  # report a missing package before the prompt
    if trust is not None:
        from wmplug.register import anchors

        anchors.trust(register, anchors.read_trust(trust))
    for url in tsa or []:
        _introduce(register, url, root or [])
    owner = wmplug.Owner.open(register, passphrase=passphrase())
    record = Record.of(owner)
    with progress("Waiting for the authority"):
        # Calendars alone are enough; without either, `anchor` raises the error.
        outcomes = _anchored(record) if record.has_authorities or not ots else []
        results: list[dict[str, Any]] = [{"tsa": o.url, "entry": o.entry, "error": o.error} for o in outcomes]
        if ots:
            results.append(_submit(record, ots))
    if as_json:
        print_json(
            [
                {
                    **outcome,
                    "entry": outcome["entry"] and _shown(outcome["entry"]),
                    "error": outcome["error"] and str(outcome["error"]),
                }
                for outcome in results
            ]
        )
    for outcome in [] if as_json else results:
        if outcome["entry"] is not None:
            out.print(_stamped(outcome["entry"]))
        elif "tsa" in outcome:
            err.print(
                f"{outcome['tsa']}: {outcome['error']}", "The request is kept; this command repeats it.", sep="\n"
            )
        else:
            err.print(str(outcome["error"]))
    raise typer.Exit(1 if any(outcome["entry"] is None for outcome in results) else 0)


def _anchored(record: Record) -> "list[Outcome]":
    from wmplug.register.anchors import anchor

    return anchor(record)


def _submit(record: Record, urls: list[str]) -> dict[str, Any]:
    from wmplug.register.calendars import stamp

    try:
        return {"ots": urls, "entry": stamp(record, urls), "error": None}
    except TimestampError as error:
        return {"ots": urls, "entry": None, "error": error}


def _believed(files: list[Path]) -> "list[Trust]":
    from wmplug.register.anchors import read_trust

    return [read_trust(file) for file in files]


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
    from wmplug.register.calendars import upgrade as fetch_proofs

    owner = wmplug.Owner.open(register, passphrase=passphrase())
    with progress("Waiting for the calendars"):
        made = fetch_proofs(Record.of(owner), ots or [])
    if as_json:
        return print_json([_shown(entry) for entry in made])
    for entry in made:
        out.print(f"entries 0 to {entry.body['head']}: {entry.body['file']} is complete; check it with --headers")
    if not made:
        out.print("no proof was completed")


def _introduce(register: Path, url: str, roots: list[Path]) -> None:
    from wmplug.register import anchors

    if any(known.url == url for known in anchors.policy(register)) and not roots:
        return
    if not roots:
        raise InputError(
            f"--tsa {url} is new: give its root certificate too (--root PEM), from the authority's own web page"
        )
    anchors.trust(register, anchors.pin(url, [read_bytes(file) for file in roots]))


@register.command()
def receipt(
    file: Annotated[Path, typer.Option("--out", help="File to write.")],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Write a receipt for the head: its holder can check later whether the record was cut or rewritten."""
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
    compared = receipts.diff(Record(first), Record(second))
    if as_json:
        print_json(
            {
                "relation": compared.relation,
                "common": compared.common,
                "first": compared.first,
                "second": compared.second,
            }
        )
    else:
        out.print(
            f"{compared.relation}: {compared.common} entries in common, then {compared.first} and {compared.second}"
        )
    raise typer.Exit(1 if compared.relation == "fork" else 0)


@register.command()
def artwork(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A logo, a picture or a text that triggers contain.")],
    author: Annotated[str, typer.Option("--author", help="Who made it.")],
    created: Annotated[str, typer.Option("--created", help="Date of the work, as YYYY-MM-DD.")],
    licence: Annotated[str | None, typer.Option("--licence", help="The terms on which you use it.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="Title of the work.")] = None,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Record an artwork: its hash, author and date."""
    body = assets.artwork(file, author=author, created=created, licence=licence, title=title)
    _record(register, "artwork.committed", body, as_json)


@register.command()
def commit(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="dataset, system or queries.")],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A file or folder; a log of queries is read as carriers are.")
    ],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Record a training set, a finished system, or a log of the queries that your API received.

    Commit to a log of queries each day, whole, and anchor the register: `wmplug verify --queries` then asks questions
    that you could not choose by a suspect's answers.
    """
    if what not in ("dataset", "system", QUERIES):
        raise InputError(f"{what!r} cannot be committed from files: give dataset, system or queries")
    with progress("Reading"):
        body = history.log_of(files.read(path)[0]) if what == QUERIES else getattr(assets, what)(path)
    _record(register, "system.committed" if what == "system" else "dataset.committed", body, as_json)


def _record(register: Path, kind: str, body: dict[str, object], as_json: bool) -> None:
    owner = wmplug.Owner.open(register, passphrase=passphrase())
    entry = Record.of(owner).append(kind, body)
    if as_json:
        return print_json(_shown(entry))
    out.print(f"entry {entry.seq}: {entry.type}")
