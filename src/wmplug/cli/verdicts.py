"""`wmplug verify`: ask one suspect."""

import json
import os
import pkgutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import wmplug
from wmplug.claim import verification
from wmplug.cli import carriers as files
from wmplug.cli.terminal import Json, err, out, passphrase, progress
from wmplug.errors import InputError, RegisterError
from wmplug.register import Register, Signer, assets, disclosure


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE.wm", help="A watermark file.")],
    suspect: Annotated[
        str,
        typer.Argument(
            metavar="SUSPECT",
            help="A checkpoint folder, a .keras file, or module:name of a model or of a function from inputs to "
            "labels or scores (found from the current folder too).",
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
        float, typer.Option("--target-e", help="Proven from this e-value on; false claims: at most 1 in so many.")
    ] = 1e6,
    max_queries: Annotated[int | None, typer.Option("--max-queries", help="Ask no more than this.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Inputs at a time.")] = 64,
    keys: Annotated[
        int, typer.Option("--keys", min=1, help="Keys or watermarks tried for this claim, this one included.")
    ] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Leave out triggers that the register has as spent.")] = False,
    spend: Annotated[
        bool, typer.Option("--spend", help="The suspect's owner sees the queries (an API): record them as spent.")
    ] = False,
    queries: Annotated[
        Path | None,
        typer.Option("--queries", help="Ask these ordinary inputs, such as a log of your API's; needs --carriers."),
    ] = None,
    carriers: Annotated[
        Path | None, typer.Option("--carriers", help="What the watermark was made from; with --queries.")
    ] = None,
    labels: Annotated[Path | None, typer.Option("--labels", help="Of the carriers, as for `wmplug create`.")] = None,
    as_json: Json = False,
) -> None:
    """Test one suspect: exit code 0 if the claim is proven, 1 if it is not."""
    # The bars of what loads checkpoints would join ours.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if (queries is None) != (carriers is None) or (labels is not None and carriers is None):
        raise InputError(
            "--queries and --carriers (with their --labels) go together: references learn from the carriers"
        )
    options = {"target_e": target_e, "max_queries": max_queries, "batch_size": batch_size, "keys": keys}
    others = None if queries is None or carriers is None else (queries, carriers, labels)
    try:
        verdict = _ask(file, suspect, preprocess, others, fresh, spend, exhaustive=exhaustive, **options)
    # Exit code 0 is a claim that was proven: no code that was given may set it.
    except (SystemExit, typer.Exit) as error:
        raise InputError(
            f"SUSPECT or --preprocess ended the program ({type(error).__name__}) before there was a verdict: let it do "
            "so under `if __name__ == '__main__':` only"
        ) from error
    if as_json:
        typer.echo(verdict.to_json())
    else:
        out.print(str(verdict), style="bold green" if verdict.proven else "bold yellow")
        if not verdict.proven:
            out.print("That never means 'not ours': it says only that these answers do not prove it.")
    raise typer.Exit(0 if verdict.proven else 1)


def _ask(
    file: Path,
    suspect: str,
    preprocess: str | None,
    others: tuple[Path, Path, Path | None] | None,
    fresh: bool,
    spend: bool,
    **options: Any,
) -> wmplug.Verdict:
    # All that can be mistyped comes before the passphrase.
    total = wmplug.read_public(file).get("triggers")
    target = suspect if os.path.exists(suspect) else named(suspect, "SUSPECT")
    function = None if preprocess is None else named(preprocess, "--preprocess")
    words = passphrase()
    with progress("Asking", total if isinstance(total, int) else None) as shown:
        mark = wmplug.load(file, passphrase=words, preprocess=function)
        mark = mark if others is None else _asking(mark, *others)
        record = _record_of(mark, needed=fresh or spend)
        rows = verification.fresh(mark, disclosure.spent(record, mark.id)) if fresh and record else None
        verdict = wmplug.verify(
            mark,
            target,
            rows=rows,
            progress=lambda done, most: shown.update(shown.task_ids[0], completed=done, total=most),
            **options,
        )
    if record is not None:
        _record(record, mark, suspect, verdict, verification.asked(mark, verdict, rows), spend)
    return verdict


def _asking(mark: wmplug.Watermark, queries: Path, carriers: Path, labels: Path | None) -> wmplug.Watermark:
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
    record: Register, mark: wmplug.Watermark, suspect: str, verdict: wmplug.Verdict, rows: list[int], spend: bool
) -> None:
    system = assets.system(suspect) if os.path.exists(suspect) else None
    found = {"watermark": mark.id, "suspect": suspect, "rows": rows, "verdict": json.loads(verdict.to_json())}
    try:
        entry = record.append("suspect.verified", {**found, "system": system})
        if spend:
            disclosure.spend(record, mark.id, rows, f"asked of {suspect}", f"verify/{entry.seq}")
    except RegisterError as error:
        if spend:  # whoever trusts the next --fresh would ask the same again
            raise RegisterError(f"asked and NOT recorded as spent ({verdict}): {error}") from error
        err.print(f"not recorded: {error}")


def named(path: str, what: str) -> Any:
    """The object at `module:name`, the current folder included.

    Raises:
        InputError: there is none, or it is a class, or nothing that could be called.
    """
    module, colon, name = path.partition(":")
    if not (colon and module and name):
        raise InputError(f"{what} {path!r} is no existing file or folder, and no module:name")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"{what} {path!r} cannot be found from {os.getcwd()} ({error}): check its spelling") from error
    if isinstance(found, type) or not (callable(found) or hasattr(found, "answer")):
        raise InputError(
            f"{what} {path!r} is {found!r}: name a function, or an object that can be asked, not its class"
        )
    return found
