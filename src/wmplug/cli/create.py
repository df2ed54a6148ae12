"""`wmplug create`: make a watermark."""

from pathlib import Path
from typing import Annotated

import typer

import wmplug
from wmplug.cli import inputs as files
from wmplug.cli.parameters import check_material, read_parameters, write_material
from wmplug.cli.terminal import REGISTER, Json, Register, out, passphrase, print_json, progress
from wmplug.errors import InputError
from wmplug.making import creation, oddness
from wmplug.suspects.targets import from_module
from wmplug.watermark.carriers import read_carriers
from wmplug.watermark.sizes import sized


def create(
    carriers: Annotated[
        Path,
        typer.Option(
            "--carriers",
            help="Natural inputs: .npy, .npz (carriers, x or images), a folder of pictures, .txt (one text in each "
            "line), .csv (text,label).",
        ),
    ],
    file: Annotated[Path, typer.Option("--out", help="The watermark file to write; usually NAME.wm.")],
    classes: Annotated[
        int | None,
        typer.Option("--classes", help="Number of classes of the task; by default that of the labels' names."),
    ] = None,
    scheme: Annotated[
        str | None, typer.Option("--scheme", help="Name of a scheme; `wmplug schemes` lists them.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="The purpose, in place of a scheme: theft, theft+cloning or theft+answers."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", help="Class of each carrier: .npy, .txt; default: those in the carriers' file."),
    ] = None,
    triggers: Annotated[
        int | None,
        typer.Option("--triggers", help="Number of queries to make; by default what is usual for the scheme."),
    ] = None,
    parameters: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A parameter of the scheme; KEY=@FILE reads carriers."),
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(
            "--preprocess",
            metavar="MODULE:FUNCTION",
            help="Turns (input, answer) into an example as the model's dataset yields them; tilt of texts needs it.",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option("--image-size", metavar="N|HxW", help="Bring pictures of mixed sizes to one, in pixels."),
    ] = None,
    allow_weak: Annotated[
        bool, typer.Option("--allow-weak", help="Make it even if so few triggers could never prove anything.")
    ] = False,
    material: Annotated[
        Path | None,
        typer.Option(
            "--material",
            metavar="FILE.npz",
            help="Keep here what the scheme was given, and what unmarked references said; a notary's package needs it.",
        ),
    ] = None,
    logo: Annotated[Path | None, typer.Option("--logo", help="Your logo, a PNG; the same as --set logo=PNG.")] = None,
    register: Register = REGISTER,
    as_json: Json = False,
) -> None:
    """Make a watermark from the owner's key and natural inputs."""
    wanted = str(creation.wanted(scheme, against))
    options = read_parameters(wanted, parameters or [])
    if logo is not None:
        options["logo"] = str(logo)
    if preprocess is not None:
        options["preprocess"] = from_module(preprocess, "--preprocess")
    with progress("Reading carriers"):
        inputs, natural, names = files.read(carriers, labels)
    if classes is None and not names:
        raise InputError("the labels have no names to count: give --classes, the number of the task's classes")
    if material is not None:
        check_material(material)
    words = passphrase()
    with progress("Making triggers"):
        owner = wmplug.Owner.open(register, passphrase=words)
        mark = wmplug.create(
            owner,
            scheme=wanted,
            carriers=inputs,
            labels=natural,
            classes=names if len(names) == (classes or len(names)) > 0 else classes,
            image_size=None if image_size is None else _pixels(image_size),
            triggers=triggers,
            allow_weak=allow_weak,
            **options,
        )
        mark.save(file)
        if material is not None:
            write_material(material, mark.scheme.material())
    if as_json:
        return print_json({**mark.public, "file": str(file), "class_names": names})
    out.print(f"{file}: {mark.scheme.name}, {len(mark.triggers)} queries, {mark.public['draws']} draws")
    out.print(f"id   {mark.id}", f"root {mark.public['root']}", sep="\n")
    if found := oddness.told_apart(mark.triggers.plan, read_carriers(sized(inputs, mark.public))[0]):
        out.print(f"filters tell its triggers from natural inputs by AUC {oddness.listed(found)} (.5: not at all)")
    if names:
        out.print("classes " + ", ".join(f"{i} = {name}" for i, name in enumerate(names)))


def _pixels(text: str) -> int | tuple[int, int]:
    numbers = text.lower().split("x")
    if not all(number.isdecimal() for number in numbers) or len(numbers) > 2:
        raise InputError(f"--image-size {text!r}: give pixels as 224, or height and width as 192x256")
    return int(numbers[0]) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1]))
