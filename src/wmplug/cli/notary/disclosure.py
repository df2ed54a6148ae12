"""`wmplug notary spend | reveal | leaves`: triggers that were asked or shown, and must not be asked again."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import wmplug
from wmplug.cli.inputs import read_json
from wmplug.cli.terminal import REGISTER, Json, Register, out, passphrase, print_json
from wmplug.errors import InputError, NotaryError
from wmplug.keys.files import write_new

if TYPE_CHECKING:
    from wmplug.register import Register as Log


def spend(
    file: Annotated[Path, typer.Argument(metavar="CERTIFICATE.json", help="The notary's certificate.")],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Owner: record that a certificate's triggers were asked, so that nobody asks them again."""
    from wmplug.register import Register as Log
    from wmplug.register import disclosure

    signed = read_json(file)
    watermark, case, rows = _asked(file, signed, Log(register))
    owner = wmplug.Owner.open(register, passphrase=passphrase())
    entry = disclosure.spend(Log.of(owner), watermark, rows, "asked by a notary", case, signed)
    if as_json:
        return print_json({"entry": entry.seq, "rows": len(rows)})
    out.print(f"entry {entry.seq}: {len(rows)} triggers are spent")


def _asked(file: Path, signed: dict[str, Any], log: "Log") -> tuple[str, str, list[int]]:
    """Watermark, case and rows of a certificate, if the owner disclosed these rows to a notary for this case."""
    from wmplug.register.notary import certificates

    try:
        public = bytes.fromhex(signed["certificate"]["result"]["notary"]["public"])
        result = certificates.verify(signed, public)["result"]
        watermark, case, rows = result["watermark"]["id"], result["case"], list(result["rows_asked"])
    except (NotaryError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} is not a certificate ({error}): give certificate.json") from None
    disclosures = (
        entry.body
        for entry in log.entries()
        if entry.type == "disclosure" and (entry.body.get("watermark"), entry.body.get("case")) == (watermark, case)
    )
    sealed = next((body for body in disclosures if body.get("revealed") is None), None)
    if sealed is None:
        raise NotaryError(
            f"{log.path} has no package sealed to a notary for case {case} and watermark {watermark}: this certificate "
            "belongs to another register"
        )
    disclosed = set(sealed["rows"])
    if wrong := [row for row in rows if type(row) is not int or row not in disclosed]:
        raise NotaryError(f"{file} names rows that the watermark does not have ({wrong[0]!r}): nothing is recorded")
    return watermark, case, rows


def reveal(
    file: Annotated[Path, typer.Argument(metavar="FILE.wm", help="A watermark file.")],
    drawn_by: Annotated[Path, typer.Option("--challenge", help="challenge.json, with both nonces.")],
    leaves_: Annotated[int, typer.Option("--leaves", min=1, help="Number of triggers to show.")],
    document: Annotated[Path, typer.Option("--out", help="The public document to write.")],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Owner: show some triggers to everybody, with proof that you committed to them; this spends them."""
    from wmplug.register import Register as Log
    from wmplug.register import disclosure
    from wmplug.register.challenge import Challenge

    current = Challenge.read(drawn_by)
    if document.exists():
        raise InputError(f"{document} already exists: choose another path")
    words = passphrase()
    owner = wmplug.Owner.open(register, passphrase=words)
    mark = wmplug.load(file, passphrase=words, register=register)
    shown = disclosure.reveal(Log.of(owner), mark, current, leaves_)
    write_new(document, (json.dumps(shown, indent=1) + "\n").encode(), 0o644)
    if as_json:
        return print_json({"document": str(document), "leaves": leaves_, "of": shown["n"]})
    out.print(f"{document}: {leaves_} of {shown['n']} triggers, spent from now on")


def leaves(
    file: Annotated[Path, typer.Argument(metavar="DOCUMENT", help="The document that `wmplug notary reveal` wrote.")],
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Anybody: check shown triggers against a register, without any key."""
    from wmplug.register import Register as Log
    from wmplug.register import disclosure

    document = read_json(file)
    log, watermark = Log(register), document.get("watermark")
    committed = [e for e in log.entries() if e.type == "triggers.committed" and e.body.get("watermark") == watermark]
    if not committed:
        raise NotaryError(f"{register} commits to no triggers of watermark {watermark}: give the owner's register")
    before = disclosure.spent_in(log, str(watermark), before=str(document.get("case")))
    shown = disclosure.check_revealed(document, committed[0].body, spent=before)
    drawn, of = len(document["leaves"]), int(document["n"])
    least = disclosure.confidence(of, drawn, missed=drawn - len(shown))
    if as_json:
        return print_json({"leaves": len(shown), "drawn": drawn, "of": of, "if_all_match_at_least": least})
    out.print(f"{drawn} of {of} triggers, committed to in entry {committed[0].seq}, drawn by both nonces")
    if drawn > len(shown):
        out.print(f"{drawn - len(shown)} of these were asked or shown before, and count as misses.")
    out.print(f"If a model gives all {len(shown)} answers, at least {least} match at 95 % confidence.")
