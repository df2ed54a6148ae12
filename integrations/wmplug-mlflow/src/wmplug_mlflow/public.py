"""The fields that may go to a tracking server, which people besides the owner may read."""

from collections.abc import Mapping
from typing import Any

# Documents, asked rows, and the owner's names stay in the register.
_BODY = (
    *("watermark", "run", "step", "epoch", "triggers", "total", "root", "count", "sha256", "scheme", "generator"),
    *(
        "head",
        "hash",
        "token",
        "tsa",
        "authority",
        "gen_time",
        "lab",
        "system",
        "dataset",
        "parameters",
        "architecture",
    ),
)


def entry(event: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without possible trade secrets.

    Args:
        event: the argument of `wmplug_event`.
    """
    plain = {name: value for name, value in event["body"].items() if name in _BODY and not isinstance(value, Mapping)}
    about = {name: event[name] for name in ("seq", "type", "hash", "register", "claimed_time")}
    verdict = event["body"].get("verdict")
    return {**about, "body": plain, "state": verdict.get("state") if isinstance(verdict, Mapping) else None}


def numbers(verdict: Any) -> dict[str, float]:
    """The numbers of a verdict to plot."""
    return {"log10_p": verdict.log10_p, "log10_e": verdict.log10_e, "matches": float(verdict.matches)}
