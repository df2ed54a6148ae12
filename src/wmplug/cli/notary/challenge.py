"""`wmplug notary challenge`: fixes a case in writing; then two nonces choose the questions."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wmplug.cli.notary.options import KEYS, CaseFolder, Keys, fixed_digest, pair
from wmplug.cli.terminal import Json, err, out, passphrase, print_json
from wmplug.errors import InputError
from wmplug.keys.files import file_digest, read_bytes, write_new
from wmplug.suspects.targets import from_module, resolve

# The commands import modules that need the extra `evidence`, so that `wmplug --help` works without it.
if TYPE_CHECKING:
    from wmplug.register.challenge import Challenge
    from wmplug.register.notary.case import Adapter, Model, Since
    from wmplug.watermark.plan import TriggerSet


def challenge(
    folder: CaseFolder,
    open_: Annotated[
        bool, typer.Option("--open", help="Notary: fix a case in writing; no model is asked yet.")
    ] = False,
    package: Annotated[Path | None, typer.Option("--package", help="--open: the sealed package.")] = None,
    suspect: Annotated[str | None, typer.Option("--suspect", help="--open: path, URL or module:name.")] = None,
    suspect_how: Annotated[str, typer.Option("--suspect-how", help="--open: how it was acquired.")] = "",
    own: Annotated[str | None, typer.Option("--own", help="--open: the owner's own model.")] = None,
    own_how: Annotated[str, typer.Option("--own-how", help="--open: how it was acquired.")] = "",
    control: Annotated[
        list[str] | None, typer.Option("--control", help="--open: an independent model; again for each, 3 are usual.")
    ] = None,
    control_how: Annotated[
        list[str] | None, typer.Option("--control-how", help="--open: why it is independent; again for each.")
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", min=0, help="--open: number of draws to ask; 0 for a tilt alone.")
    ] = 60,
    decoys: Annotated[int, typer.Option("--decoys", min=0, help="--open: number of natural inputs to mix in.")] = 60,
    attempts: Annotated[
        int, typer.Option("--attempts", min=0, help="--open: keys to deduct in addition to those in the register.")
    ] = 0,
    authorities: Annotated[
        list[str] | None,
        typer.Option("--authority", metavar="SHA256", help="--open: root certificate you accept; again for each."),
    ] = None,
    suspect_since: Annotated[
        str | None,
        typer.Option("--suspect-since", metavar="DATE", help="--open: the suspect is known since then (YYYY-MM-DD)."),
    ] = None,
    since_source: Annotated[
        str, typer.Option("--suspect-since-source", help="--open: where that date comes from.")
    ] = "",
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="MODULE:FUNCTION",
            help="--open: a function of your own, in place of the owner's, that turns an input into what models take.",
        ),
    ] = None,
    preprocess_how: Annotated[str, typer.Option("--preprocess-how", help="--open: who wrote it; what it does.")] = "",
    notaries: Annotated[
        list[str] | None,
        typer.Option(
            "--notary-key", metavar="HEX", help="--open: a notary whose certificates you accept too; again for each."
        ),
    ] = None,
    nonce: Annotated[
        str | None,
        typer.Option(
            "--nonce", metavar="PARTY=FILE", help="Make a nonce, keep it secret in FILE, print the commitment."
        ),
    ] = None,
    commit: Annotated[
        list[str] | None, typer.Option("--commit", metavar="PARTY=HEX", help="Note a party's commitment.")
    ] = None,
    reveal: Annotated[
        list[str] | None, typer.Option("--reveal", metavar="PARTY=FILE", help="Note a party's nonce, from its file.")
    ] = None,
    keys: Keys = KEYS,
    as_json: Json = False,
) -> None:
    """Fix a case (notary); then nonces of notary and opponent choose the questions. PARTY is notary or opponent."""
    if open_:
        if package is None or suspect is None or own is None:
            raise InputError("--open needs --package, --suspect and --own, and one --control or more")
        models = [_model("suspect", "suspect", suspect, suspect_how), _model("own", "own", own, own_how)]
        models += _controls(control or [], control_how or [])
        facts: dict[str, Any] = {
            "draws": draws,
            "decoys": decoys,
            "attempts": attempts,
            "authorities": tuple(authorities or ()),
        }
        facts |= {"suspect_since": _since(suspect_since, since_source), "notaries": tuple(notaries or ())}
        facts |= {"preprocess": _adapter(preprocess, preprocess_how)}
        for name, text in _open_case(folder, package, keys, tuple(models), facts).items():
            if not as_json:
                err.print(f"by the owner's account, {name} is at: {text}")
    if nonce is not None:
        return _commit_to_nonce(folder, *pair(nonce, "--nonce"), as_json)
    current = _noted(folder, commit or [], reveal or [])
    if as_json:
        return print_json(current.to_json())
    _show(current)
    return None


def _since(date: str | None, source: str) -> "Since | None":
    from wmplug.register.notary.case import Since

    return None if date is None else Since(date, source)


def _adapter(reference: str | None, how: str) -> "Adapter | None":
    from wmplug.register.notary.case import Adapter, digests_of

    if reference is None:
        return None
    if not how.strip():
        raise InputError("--preprocess needs --preprocess-how: write down who wrote the function, and what it does")
    source = digests_of(from_module(reference, "--preprocess")).get("source")
    if source is None:
        raise InputError(f"--preprocess {reference} has no source file, so it cannot be fixed: give a function of one")
    return Adapter(reference, how, source)


def _commit_to_nonce(folder: Path, party: str, path: str, as_json: bool) -> None:
    from wmplug.register.challenge import commitment
    from wmplug.register.notary.case import CASE, Case

    case = Case.read(folder / CASE, fixed_digest(folder))
    secret = secrets.token_bytes(32)
    public = commitment(file_digest(folder / CASE)[0], party, secret)
    _write_secret(Path(path), secret.hex())
    if as_json:
        return print_json({"case": case.case, "party": party, "commitment": public})
    out.print(f"commitment of the {party}: {public}")
    out.print(f"keep {path} to yourself until both have committed")
    return None


def _noted(folder: Path, commitments: list[str], nonces: list[str]) -> "Challenge":
    """The challenge, with the parties' commitments and nonces so far."""
    from wmplug.register.challenge import Challenge
    from wmplug.register.notary import hearing
    from wmplug.register.notary.case import CASE, CHALLENGE, Case

    Case.read(folder / CASE, fixed_digest(folder))  # checks the digest
    current = Challenge.read(folder / CHALLENGE)
    for text in commitments:
        current = current.committed(*pair(text, "--commit"))
    for text in nonces:
        party, path = pair(text, "--reveal")
        current = current.revealed(party, _nonce(Path(path)))
    hearing.save_challenge(folder, current)
    return current


def _controls(references: list[str], how: list[str]) -> "list[Model]":
    if len(how) != len(references):
        raise InputError(
            f"{len(references)} --control and {len(how)} --control-how: give one --control-how for each --control"
        )
    pairs = zip(references, how, strict=True)
    return [_model(f"control {i}", "control", *each) for i, each in enumerate(pairs, 1)]


def _model(name: str, role: Any, reference: str, how: str) -> "Model":
    from wmplug.register.notary.case import Model, digests_of

    return Model(name, role, reference, how, digests_of(resolve(reference, what=name)))


def _open_case(
    folder: Path, package: Path, keys: Path, models: "tuple[Model, ...]", facts: dict[str, Any]
) -> Mapping[str, str]:
    """Fix a case; returns the places of the models, as the owner states them."""
    from wmplug.register.notary import hearing
    from wmplug.register.notary.case import Case
    from wmplug.register.notary.identity import Notary
    from wmplug.register.notary.opening import open_package

    notary = Notary.open(keys, passphrase=passphrase())
    opened = open_package(notary, package, folder)
    public, accepted = opened.public, {notary.signer().public.hex(), *facts["notaries"]}
    triggers = hearing.check_left(opened, folder / "register", facts["draws"], accepted)
    pattern = None if triggers is None else triggers.plan.pattern
    facts |= {"pattern": pattern is not None, "log": opened.log}
    case = Case(opened.case, public["id"], public["root"], opened.sha256, models, **facts)
    hearing.open_case(folder, case, _candidates(public, triggers), 0 if pattern is None else pattern.signs)
    return opened.references


def _write_secret(file: Path, text: str) -> None:
    if file.exists():
        raise InputError(f"{file} already exists: choose another path")
    write_new(file, (text + "\n").encode(), 0o600)


def _nonce(file: Path) -> bytes:
    try:
        return bytes.fromhex(read_bytes(file).decode("ascii").strip())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{file} does not hold a nonce ({type(error).__name__}): give a file of hexadecimal digits"
        ) from None


def _show(current: "Challenge") -> None:
    from wmplug.register.challenge import PARTIES

    out.print(f"case {current.case}, fixed in writing as {current.case_sha256}")
    for party in PARTIES:
        state = "revealed" if party in current.nonces else "committed" if party in current.commitments else "to commit"
        out.print(f"{party:<9} {state}")
    if len(current.nonces) == len(PARTIES):
        out.print("The questions are drawn: `wmplug notary check`.")


def _candidates(public: Mapping[str, Any], triggers: "TriggerSet | None") -> int:
    """The largest number of answers that a draw chooses from."""
    if "classes" in public or triggers is None:
        return int(public.get("classes", 2))
    return max(len(options) for options in triggers.plan.options)
