"""What may be sent to a tracking server, which others than the owner may read."""

from collections.abc import Mapping
from typing import Any

# Documents, rows that were asked, and names that the owner gave stay in the register.
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
    """An entry without what may be secret to the trade.

    Args:
        event: as `wmplug_event` gets it.
    """
    plain = {name: value for name, value in event["body"].items() if name in _BODY and not isinstance(value, Mapping)}
    about = {name: event[name] for name in ("seq", "type", "hash", "register", "claimed_time")}
    verdict = event["body"].get("verdict")
    return {**about, "body": plain, "state": verdict.get("state") if isinstance(verdict, Mapping) else None}


def numbers(verdict: Any) -> dict[str, float]:
    """What is plotted of a verdict."""
    return {"log10_p": verdict.log10_p, "log10_e": verdict.log10_e, "matches": float(verdict.matches)}
