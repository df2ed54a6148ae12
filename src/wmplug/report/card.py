"""A section for a model card on the Hugging Face Hub: the public commitment, and nothing else."""

import re
from pathlib import Path

from wmplug.errors import InputError, RegisterError
from wmplug.keys.files import read_bytes, write_new
from wmplug.report import words
from wmplug.report.facts import Fact

BEGIN, END = "<!-- wmplug:begin -->", "<!-- wmplug:end -->"
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>&])")


def section(document: Fact) -> str:
    """Register, Merkle roots, schemes, generators, head and timestamps, in Markdown between two markers.

    Args:
        document: as `dossier.gather` returns it.

    Raises:
        RegisterError: the register does not hold.
    """
    if document["attestation"]["status"] == "refused":
        raise RegisterError(
            "the register does not hold, so nothing public is made of it: see the dossier for the reasons"
        )
    lines = [
        *(BEGIN, "## Watermark commitment", ""),
        "This model's owner has committed to a watermark. What is below shows nothing of its secret.",
        *("", "| what | value |", "|---|---|"),
        _line("register", f"`{document['who']['register']}`"),
        _line("head", f"`{document['who']['head']}`"),
    ]
    for mark in document["watermarks"]:
        if "root" in mark:
            made = f"scheme {_plain(mark['scheme'])}, generator {_plain(mark['generator'])}"
            lines.append(_line("Merkle root", f"`{mark['root']}`, {made}"))
    for anchor in document["anchors"]:
        if anchor["holds"]:
            lab = ", **LAB ONLY, NOT ATTESTED**" if anchor["lab"] else ""
            where = f"{anchor['time']}, {_plain(anchor['authority'])}{lab}"
            lines.append(_line("timestamp", f"{words.entries(anchor['covers'])}: {where}, token `{anchor['token']}`"))
    return "\n".join([*lines, END])


def _line(what: str, value: str) -> str:
    return f"| {what} | {value} |"


def _plain(text: object) -> str:
    """The text on one line, without any character that has a meaning in Markdown or HTML."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split())).replace("\\<", "&lt;").replace("\\>", "&gt;")


def insert(text: str, made: str) -> str:
    """A model card with the section in place of the one it had, or at its end.

    Args:
        text: the card.
        made: the section.

    Raises:
        InputError: the markers in the text are not one pair in order.
    """
    end = "\r\n" if "\r\n" in text else "\n"
    made = made.replace("\n", end)
    if (text.count(BEGIN), text.count(END)) == (0, 0):
        return f"{text.rstrip()}{end}{end}{made}{end}".lstrip("\r\n")
    if (text.count(BEGIN), text.count(END)) != (1, 1) or text.index(BEGIN) > text.index(END):
        raise InputError(
            f"the markers {BEGIN} and {END} are not there once each, in this order: remove what is left of them"
        )
    return text[: text.index(BEGIN)] + made + text[text.index(END) + len(END) :]


def write(file: Path, made: str) -> None:
    """Put the section into an existing model card.

    Raises:
        InputError: the file does not exist or is not a text, or its markers are broken.
    """
    try:
        data = read_bytes(file)
        new = insert(data.decode(), made).encode()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the model card {file} cannot be read ({error}): give an existing README.md") from error
    if new != data:
        write_new(file.resolve(), new, file.stat().st_mode & 0o777)
