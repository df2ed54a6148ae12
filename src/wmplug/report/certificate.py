"""A notary's certificate: public, signed, without any secret; as JSON for machines and as one HTML file for people."""

import json
import math
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import rfc8785

from wmplug.errors import NotaryError
from wmplug.extras import need
from wmplug.keys.files import file_digest, read_json, write_new
from wmplug.register.challenge import Challenge
from wmplug.register.notary.case import ANSWERS, CASE, CHALLENGE, RESULT, Case
from wmplug.register.notary.certificates import SCHEMA, TYPE, check_signature
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.outcome import RESULT_TYPE
from wmplug.report import pages, words
from wmplug.watermark import choices
from wmplug.watermark.choices import Choice

with need("evidence"):
    from markupsafe import Markup

OF_A_LOG = (
    "a log that was filled to fit what the suspect was made from, such as an earlier model of the same maker, if no "
    "control was made from that too"
)
JSON_FILE, HTML_FILE = "certificate.json", "certificate.html"
NULL = (
    "The secret answers were drawn at random by a key, before training, after the candidates were fixed. A model that "
    "is independent of that key matches a secret answer with a chance known exactly, whatever else it does. The "
    "p-value is the chance that such a model matches as often as this one did, or more often, times the number of keys "
    "that could have been tried."
)
VOID = (
    "a register of the same owner with further keys that was not deducted",
    "a control that was not independent of the owner",
    "a suspect that is not the model that was acquired as stated",
    "a notary and an opponent who chose their nonces together with the owner",
    "secret answers that somebody else knew, or a secret that was published, before the suspect was made",
    "a timestamp authority that signs times other than its clock's",
    "a fault in the verifier, whose hash is stated: run it again from the sealed package and the kept answers",
)


def certify(notary: Notary, folder: str | Path) -> tuple[Path, Path]:
    """Write certificate.json and certificate.html for a case that was heard.

    Args:
        notary: the notary who heard it.
        folder: folder of the case.

    Returns:
        Both files.

    Raises:
        NotaryError: the case was not heard, or one of its files was edited since.
    """
    folder, signer = Path(folder), notary.signer()
    result = _read_result(folder, signer.public)
    challenge = Challenge.read(folder / CHALLENGE)
    case = Case.read(folder / CASE, challenge.case_sha256)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "result": result,
        "challenge": challenge.to_json(),
        "statistic": case.statistic,
        "null": NULL,
        "void": [*VOID, OF_A_LOG] if "log" in result else list(VOID),
        "claimed_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    signature = signer.sign(rfc8785.dumps(document), TYPE).hex()
    signed = {"certificate": document, "signature": {"keyid": signer.keyid, "sig": signature}}
    data = (json.dumps(signed, indent=1, allow_nan=False) + "\n").encode()
    write_new(folder / JSON_FILE, data, 0o644)
    write_new(folder / HTML_FILE, render(signed).encode(), 0o644)
    return folder / JSON_FILE, folder / HTML_FILE


def _read_result(folder: Path, public: bytes) -> dict[str, Any]:
    try:
        document = read_json(folder / RESULT)
        result: dict[str, Any] = document["result"]
        check_signature(result, document["signature"], public, RESULT_TYPE)
        files = dict(result["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotaryError(
            f"{folder / RESULT} cannot be read ({type(error).__name__}): hear the case first (`wmplug notary check`)"
        ) from None
    for name in (CASE, CHALLENGE, ANSWERS):
        found = file_digest(folder / name)[0] if (folder / name).exists() else None
        if found != files.get(name):
            raise NotaryError(f"{folder / name} was edited or removed since the case was heard: restore it from a copy")
    return result


def render(signed: Mapping[str, Any]) -> str:
    """The certificate as one HTML page that needs nothing else.

    Args:
        signed: the document in certificate.json.
    """
    environment = pages.environment()
    environment.filters |= {"power": power, "named": named, "tries": tries, "of_log": words.log}
    template = environment.get_template("certificate.html")
    return template.render(c=signed["certificate"], r=signed["certificate"]["result"], signature=signed["signature"])


def named(verdict: Mapping[str, Any]) -> str:
    """The end of the state line of a verdict, given as JSON: what nothing binds."""
    return choices.named(_choices(verdict))


def tries(verdict: Mapping[str, Any]) -> int:
    """The factor on the p-value of a verdict, given as JSON: its keys, times the selections in its choices."""
    return int(verdict["keys"]) * choices.paid(_choices(verdict))


def _choices(verdict: Mapping[str, Any]) -> list[Choice]:
    return [Choice(**choice) for choice in verdict.get("choices", ())]


def power(log10: float) -> Markup:
    """10**log10 for people, as HTML, also beyond the range of floats: 2.5 times ten to a raised -31."""
    if log10 > -3:
        return Markup(f"{10.0**log10:.3f}")
    exponent = math.floor(log10)
    mantissa = f"{10.0 ** (log10 - exponent):.1f}"
    if mantissa == "10.0":
        mantissa, exponent = "1.0", exponent + 1
    return Markup(f"{mantissa} × 10<sup>{exponent}</sup>".replace("-", "−"))
