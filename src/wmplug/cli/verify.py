"""`wmplug verify`: asks one suspect."""

import functools
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

import wmplug
from wmplug.claim import verification
from wmplug.cli import inputs as files
from wmplug.cli.terminal import Json, echo, err, out, passphrase, progress
from wmplug.errors import InputError, RegisterError
from wmplug.register import Register, Signer, assets, disclosure
from wmplug.suspects.targets import from_module, resolve


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE.wm", help="A watermark file.")],
    suspect: Annotated[
        str,
        typer.Argument(
            metavar="SUSPECT",
            help="A checkpoint folder (of a PEFT adapter too), a .keras or .h5 file, or module:name of a model or of a "
            "function from inputs to labels or scores (found from the current folder too).",
        ),
    ],
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="MODULE:FUNCTION",
            help="Turns (input, answer) into an example as the model's dataset yields them.",
        ),
    ] = None,
    exhaustive: Annotated[
        bool, typer.Option("--exhaustive", help="Ask all triggers, and give the exact p-value.")
    ] = False,
    target_e: Annotated[
        float, typer.Option("--target-e", help="Proven from this e-value on; at most 1 false claim in so many.")
    ] = 1e6,
    max_queries: Annotated[int | None, typer.Option("--max-queries", help="Ask no more than this.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Inputs at a time.")] = 64,
    keys: Annotated[
        int, typer.Option("--keys", min=1, help="Keys or watermarks tried for this claim, this one included.")
    ] = 1,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh",
            help="Leave out triggers that the register records as spent. It counts as tries, or is named.",
        ),
    ] = False,
    spend: Annotated[
        bool, typer.Option("--spend", help="The suspect's owner sees the queries (an API): record them as spent.")
    ] = False,
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="The suspect's name for people, in verdict, register and dossier."),
    ] = None,
    no_record: Annotated[
        bool, typer.Option("--no-record", help="Write nothing into the register; the verdict is your word alone.")
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", help="Ask these ordinary inputs, such as a log of your API's; needs --carriers."),
    ] = None,
    carriers: Annotated[
        Path | None, typer.Option("--carriers", help="The carriers the watermark was made from; with --queries.")
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Labels of the carriers, as for `wmplug create`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Test one suspect: exit code 0 if the claim is proven, 1 if it is not."""
    # Loaders of checkpoints would show progress bars of their own.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if (queries is None) != (carriers is None) or (labels is not None and carriers is None):
        raise InputError(
            "--queries and --carriers (with their --labels) go together: references learn from the carriers"
        )
    if no_record and spend:
        raise InputError("--no-record writes nothing into the register, and --spend records the queries: give one")
    options: dict[str, Any] = {"target_e": target_e, "max_queries": max_queries, "batch_size": batch_size, "keys": keys}
    asking = None if queries is None or carriers is None else functools.partial(_asking, queries, carriers, labels)
    options |= {"exhaustive": exhaustive, "fresh": fresh, "spend": spend, "no_record": no_record}
    with no_early_end():
        verdict, asked = ask(file, suspect, name, preprocess, asking, **options)
    tell(verdict, name, suspect, asked, as_json)


@contextmanager
def no_early_end() -> Iterator[None]:
    """Exit code 0 means that the claim is proven: the user's code must not be able to set it."""
    try:
        yield
    except (SystemExit, typer.Exit) as error:
        raise InputError(
            f"SUSPECT or --preprocess ended the program ({type(error).__name__}) before there was a verdict: let it do "
            "so under `if __name__ == '__main__':` only"
        ) from error


def tell(verdict: wmplug.Verdict, name: str | None, given: str, asked: str, as_json: bool) -> NoReturn:
    """Print a verdict, and end with its exit code.

    Args:
        verdict: to print.
        name: the suspect's name for people.
        given: the suspect as the user named it.
        asked: what was asked, in words; printed where it says more than the user did.
        as_json: print one JSON document.
    """
    if as_json:
        echo(verdict.to_json())
    else:
        out.print(str(verdict), style="bold green" if verdict.proven else "bold yellow")
        if not verdict.proven:
            out.print("This never means 'not ours': these answers do not prove the claim, and no more.")
        if name is not None or asked != given:
            out.print(f"suspect {asked}" if name is None else f"suspect {name} ({asked})")
    raise typer.Exit(0 if verdict.proven else 1)


def ask(
    file: Path,
    suspect: str,
    name: str | None,
    preprocess: str | None,
    asking: Callable[[wmplug.Watermark], wmplug.Watermark] | None,
    *,
    fresh: bool = False,
    spend: bool = False,
    no_record: bool = False,
    **options: Any,
) -> tuple[wmplug.Verdict, str]:
    """The verdict on a suspect, and what was asked, in words; the register records it.

    Args:
        file: the watermark's file.
        suspect: names the suspect, for `resolve`.
        name: the suspect's name for people.
        preprocess: module:function.
        asking: makes a watermark that asks other queries.
        fresh, spend, no_record: as the options.
        options: of `wmplug.verify`.
    """
    # Check everything that can be mistyped before the prompt for the passphrase.
    total = wmplug.read_public(file).get("triggers")
    function = None if preprocess is None else from_module(preprocess, "--preprocess")
    target = resolve(suspect, preprocess=function, batch_size=options.get("batch_size", 64))
    words = passphrase()
    with progress("Asking", total if isinstance(total, int) else None) as shown:
        mark = wmplug.load(file, passphrase=words, preprocess=function)
        mark = mark if asking is None else asking(mark)
        record = _record_of(mark, needed=fresh or spend)
        rows = verification.fresh(mark, disclosure.spent(record, mark.id)) if fresh and record else None
        verdict = wmplug.verify(
            mark,
            target,
            rows=rows,
            progress=lambda done, most: shown.update(shown.task_ids[0], completed=done, total=most),
            **options,
        )
    # A function is described by its name alone; a folder also by what was done to load it.
    asked = verdict.suspect if suspect in verdict.suspect else suspect
    verdict = verdict if name is None else replace(verdict, suspect=name)
    if record is not None and not no_record:
        about = {"suspect": suspect} if name is None else {"suspect": name, "reference": asked}
        _record(record, mark, suspect, about, verdict, verification.asked(mark, verdict, rows), spend)
    return verdict, asked


def _asking(queries: Path, carriers: Path, labels: Path | None, mark: wmplug.Watermark) -> wmplug.Watermark:
    inputs, natural, _ = files.read(carriers, labels)
    return mark.with_queries(files.read(queries)[0], carriers=inputs, labels=natural)


def _record_of(mark: wmplug.Watermark, *, needed: bool) -> Register | None:
    try:
        return None if mark.register is None else Register(mark.register, Signer(mark.signing_seed()))
    except RegisterError as error:
        if needed:
            raise
        err.print(f"not recorded: {error}")
        return None


def _record(
    record: Register,
    mark: wmplug.Watermark,
    suspect: str,
    about: dict[str, str],
    verdict: wmplug.Verdict,
    rows: list[int],
    spend: bool,
) -> None:
    system = assets.system(suspect) if os.path.exists(suspect) else None
    body = {"watermark": mark.id, **about, "rows": rows, "verdict": json.loads(verdict.to_json())}
    try:
        entry = record.append("suspect.verified", {**body, "system": system})
        if spend:
            disclosure.spend(record, mark.id, rows, f"asked of {suspect}", f"verify/{entry.seq}")
    except RegisterError as error:
        if spend:  # the next --fresh would ask the same again
            raise RegisterError(f"asked and NOT recorded as spent ({verdict}): {error}") from error
        err.print(f"not recorded: {error}")
