"""`wmplug notary key | prepare | challenge | check | certify`."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import wmplug
from wmplug.cli import carriers as files
from wmplug.cli import shown
from wmplug.cli.marks import read_parameters
from wmplug.cli.shown import read_json
from wmplug.cli.terminal import REGISTER, Json, Register, err, out, passphrase, print_json, progress
from wmplug.cli.verdicts import named
from wmplug.errors import InputError
from wmplug.keys.files import write_new

# What needs the extra `evidence` is imported by the commands: `wmplug --help` works without it.
if TYPE_CHECKING:
    from wmplug.register.notary.case import Model
    from wmplug.register.notary.challenge import Challenge

Keys = Annotated[Path, typer.Option("--keys", envvar="WMPLUG_NOTARY", help="Folder of the notary's keys.")]
KEYS = Path("notary")
CaseFolder = Annotated[Path, typer.Argument(metavar="CASE", help="Folder of the case.")]

notary = typer.Typer(
    help="A neutral party checks a claim; the secret does not become public. docs/notary.md goes step by step.",
    no_args_is_help=True,
)


@notary.command("key")
def key(
    name: Annotated[str, typer.Option("--name", help="Shown on certificates.")],
    keys: Keys = KEYS,
    as_json: Json = False,
) -> None:
    """Notary: make the keys that owners seal to and that certificates are signed with."""
    from wmplug.register.notary.identity import Notary

    words = passphrase(new=True)
    with progress("Sealing the keys"):
        made = Notary.create(keys, name=name, passphrase=words)
    public = {"name": name, "recipient": made.recipient, "public": made.signer().public.hex()}
    if as_json:
        return print_json({"keys": str(keys), **public})
    out.print(f"{name}'s keys are in {keys}; give {keys / 'notary.pub'} to owners and to whom you certify")
    out.print(f"to seal to  {made.recipient}\nsigns as    {public['public']}")


@notary.command("prepare")
def prepare(
    file: Annotated[Path, typer.Argument(metavar="FILE.wm", help="A watermark file, or its commit/ID.json.")],
    to: Annotated[str, typer.Option("--to", help="The notary's notary.pub, or his age1... key.")],
    case: Annotated[str, typer.Option("--case", help="Id of the case, agreed with the notary.")],
    carriers: Annotated[Path, typer.Option("--carriers", help="As given to `wmplug create`.")],
    package: Annotated[Path, typer.Option("--out", help="The sealed package to write, usually NAME.age.")],
    labels: Annotated[Path | None, typer.Option("--labels", help="As given to `wmplug create`.")] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=@FILE", help="What `wmplug create` was given of the owner's own."),
    ] = None,
    logo: Annotated[Path | None, typer.Option("--logo", help="The logo, as given to `wmplug create`.")] = None,
    references: Annotated[
        list[str] | None,
        typer.Option("--reference", metavar="NAME=TEXT", help="Where the notary finds suspect and own model."),
    ] = None,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Owner: seal what a notary needs to one watermark's claim; the register notes it."""
    from wmplug.register.notary import package as packages

    public = _public_line(file)
    material = read_parameters(str(public.get("scheme")), parameters or [])
    if logo is not None:
        material["logo"] = str(logo)
    pairs = dict(_pair(text, "--reference") for text in references or [])
    recipient = _recipient(Path(to)) if os.path.exists(to) else to
    inputs, natural, _ = files.read(carriers, labels)
    words = passphrase()
    with progress("Sealing"):
        owner = wmplug.Owner.open(register, passphrase=words)
        options: dict[str, Any] = {"carriers": inputs, "labels": natural, "references": pairs, **material}
        packages.prepare(owner, public, package, recipient=recipient, case=case, **options)
    if as_json:
        return print_json({"package": str(package), "watermark": public["id"], "case": case, "to": recipient})
    out.print(f"{package}: give it to the notary; only he can open it")
    out.print("It holds the secret of this one watermark, its carriers and the register's public parts.")


def _public_line(file: Path) -> dict[str, Any]:
    return read_json(file) if file.suffix == ".json" else wmplug.read_public(file)


def _recipient(file: Path) -> str:
    recipient = read_json(file).get("recipient")
    if not isinstance(recipient, str):
        raise InputError(f"{file} names nobody to seal to: give the notary.pub that the notary handed out")
    return recipient


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise InputError(f"{option} {text!r}: NAME=VALUE is needed")
    return name, value


@notary.command("challenge")
def challenge(
    folder: CaseFolder,
    open_: Annotated[bool, typer.Option("--open", help="Notary: fix a case in writing; asks nobody yet.")] = False,
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
    draws: Annotated[int, typer.Option("--draws", min=1, help="--open: how many are asked.")] = 60,
    decoys: Annotated[int, typer.Option("--decoys", min=0, help="--open: natural inputs mixed in.")] = 60,
    attempts: Annotated[
        int, typer.Option("--attempts", min=0, help="--open: keys to deduct beside those in the register.")
    ] = 0,
    authorities: Annotated[
        list[str] | None,
        typer.Option("--authority", metavar="SHA256", help="--open: root certificate you accept; again for each."),
    ] = None,
    nonce: Annotated[
        str | None,
        typer.Option("--nonce", metavar="PARTY=FILE", help="Make a nonce, keep it secret in FILE, print what to send."),
    ] = None,
    commit: Annotated[
        list[str] | None, typer.Option("--commit", metavar="PARTY=HEX", help="Note what a party committed to.")
    ] = None,
    reveal: Annotated[
        list[str] | None, typer.Option("--reveal", metavar="PARTY=FILE", help="Note a party's nonce, from its file.")
    ] = None,
    keys: Keys = KEYS,
    as_json: Json = False,
) -> None:
    """Fix a case (notary); then nonces of notary and opponent choose what is asked. PARTY is notary or opponent."""
    from wmplug.register.notary import hearing
    from wmplug.register.notary.case import Case
    from wmplug.register.notary.challenge import Challenge, commitment

    if open_:
        if package is None or suspect is None or own is None:
            raise InputError("--open needs --package, --suspect and --own, and one --control or more")
        why = control_how or []
        if len(why) != len(control or []):
            raise InputError(f"{len(control or [])} --control and {len(why)} --control-how: one for each is needed")
        given = [("suspect", "suspect", suspect, suspect_how), ("own", "own", own, own_how)]
        named_ = [(f"control {i}", "control", *pair) for i, pair in enumerate(zip(control or [], why, strict=True), 1)]
        models = tuple(_model(*one) for one in [*given, *named_])
        fixed = {"draws": draws, "decoys": decoys, "attempts": attempts, "authorities": tuple(authorities or ())}
        for name, text in _open_case(folder, package, keys, models, fixed).items():
            if not as_json:
                err.print(f"the owner says where to find {name}: {text}")
    case = Case.read(folder / hearing.CASE, _fixed(folder))
    if nonce is not None:
        party, path = _pair(nonce, "--nonce")
        made = secrets.token_bytes(32)
        said = commitment(_sha256(folder / hearing.CASE), party, made)
        _write_secret(Path(path), made.hex())
        if as_json:
            return print_json({"case": case.case, "party": party, "commitment": said})
        out.print(f"commitment of the {party}: {said}\nkeep {path} to yourself until both have committed")
        return None
    current = Challenge.read(folder / hearing.CHALLENGE)
    for text in commit or []:
        current = current.committed(*_pair(text, "--commit"))
    for text in reveal or []:
        party, path = _pair(text, "--reveal")
        current = current.revealed(party, _nonce(Path(path)))
    hearing.save_challenge(folder, current)
    if as_json:
        return print_json(current.to_json())
    _show(current)
    return None


def _model(name: str, role: Any, reference: str, how: str) -> "Model":
    from wmplug.register.notary.case import Model, digests_of

    return Model(name, role, reference, how, digests_of(_target(reference)))


def _target(reference: str) -> Any:
    """What a case names: a path or URL as it is, else the object at module:name."""
    return reference if os.path.exists(reference) or "://" in reference else named(reference, "the model")


def _open_case(
    folder: Path, package: Path, keys: Path, models: "tuple[Model, ...]", fixed: dict[str, Any]
) -> Mapping[str, str]:
    """Fix a case; what the owner says where to find."""
    from wmplug.register.notary import hearing
    from wmplug.register.notary.case import Case
    from wmplug.register.notary.identity import Notary
    from wmplug.register.notary.package import open_package

    opened = open_package(Notary.open(keys, passphrase=passphrase()), package, folder)
    public = opened.public
    case = Case(opened.case, public["id"], public["root"], opened.sha256, models, **fixed)
    hearing.check_left(opened, folder / "register", case.draws)
    hearing.open_case(folder, case, public["classes"])
    return opened.references


def _fixed(folder: Path) -> str | None:
    """The digest that the case file must have; the opponent has the case file alone."""
    from wmplug.register.notary import hearing
    from wmplug.register.notary.challenge import Challenge

    file = folder / hearing.CHALLENGE
    return Challenge.read(file).case_sha256 if file.exists() else None


def _sha256(file: Path) -> str:
    from wmplug.keys.files import file_digest

    return file_digest(file)[0]


def _write_secret(file: Path, text: str) -> None:
    if file.exists():
        raise InputError(f"{file} is there already: choose another path")
    write_new(file, (text + "\n").encode(), 0o600)


def _nonce(file: Path) -> bytes:
    try:
        return bytes.fromhex(file.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} holds no nonce ({type(error).__name__}): hexadecimal digits are needed") from None


def _show(current: "Challenge") -> None:
    from wmplug.register.notary.challenge import PARTIES

    out.print(f"case {current.case}, fixed in writing as {current.case_sha256}")
    for party in PARTIES:
        state = "revealed" if party in current.nonces else "committed" if party in current.commitments else "to commit"
        out.print(f"{party:<9} {state}")
    if len(current.nonces) == len(PARTIES):
        out.print("The questions are drawn: `wmplug notary check`.")


@notary.command("check")
def check(
    folder: CaseFolder,
    package: Annotated[Path, typer.Option("--package", help="The sealed package.")],
    preprocess: Annotated[
        str | None,
        typer.Option("--preprocess", metavar="MODULE:FUNCTION", help="As in `wmplug verify`; from the owner."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Inputs at a time.")] = 64,
    receipts: Annotated[
        list[Path] | None, typer.Option("--receipt", help="The owner gave it out earlier; again for each.")
    ] = None,
    keys: Keys = KEYS,
    as_json: Json = False,
) -> None:
    """Notary: check the register, derive all triggers anew, ask all models; exit code 0 if the claim holds."""
    from wmplug.register.notary import hearing
    from wmplug.register.notary.case import Case
    from wmplug.register.notary.identity import Notary
    from wmplug.register.receipts import read

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        case = Case.read(folder / hearing.CASE, _fixed(folder))
        targets = {model.name: _target(model.reference) for model in case.models}
        function = None if preprocess is None else named(preprocess, "--preprocess")
        holder = Notary.open(keys, passphrase=passphrase())
        with progress("Hearing the case") as bar:
            result = hearing.check(
                holder,
                folder,
                package,
                targets,
                preprocess=function,
                batch_size=batch_size,
                receipts=[read(file) for file in receipts or []],
                progress=lambda what: bar.update(bar.task_ids[0], description=what),
            )
    # Exit code 0 is a claim that holds: no code that was given may set it.
    except (SystemExit, typer.Exit) as error:
        raise InputError(
            f"a model or --preprocess ended the program ({type(error).__name__}) before there was a result: let it do "
            "so under `if __name__ == '__main__':` only"
        ) from error
    if as_json:
        print_json(result)
    else:
        _show_result(result)
    raise typer.Exit(0 if result["status"] == "holds" else 1)


def _show_result(result: dict[str, Any]) -> None:
    for one in result["checks"]:
        out.print(f"{one['result']:<13} {one['name']}: {one['text']}")
    for model in result["models"]:
        if model["verdict"] is not None:
            verdict = model["verdict"]
            told = f"{verdict['matches']} of {verdict['in_set']} answers, log10 p = {verdict['log10_p']:.1f}"
            out.print(f"{verdict['state']:<13} {model['name']}: {told}")
    out.print(f"the claim: {result['status']}", style="bold green" if result["status"] == "holds" else "bold yellow")
    for reason in result["reasons"]:
        out.print(f"  {reason}")


@notary.command("certify")
def certify(folder: CaseFolder, keys: Keys = KEYS, as_json: Json = False) -> None:
    """Notary: write the public, signed certificate of a case that was heard."""
    from wmplug.register.notary.identity import Notary
    from wmplug.report import certificate

    holder = Notary.open(keys, passphrase=passphrase())
    document, page = certificate.certify(holder, folder)
    if as_json:
        return print_json({"json": str(document), "html": str(page)})
    out.print(f"{page}\n{document}")
    err.print("Both are public. The other files of the case are not: keep them under lock.")


notary.command("spend")(shown.spend)
notary.command("reveal")(shown.reveal)
notary.command("leaves")(shown.leaves)
