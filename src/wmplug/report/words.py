"""Numbers and terms in plain words, for readers who know no statistics and no cryptography."""

import math
from collections.abc import Mapping
from typing import Any

from wmplug.register.history import QUERIES

_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_NAMES = ((12, "trillion"), (9, "billion"), (6, "million"), (3, "thousand"))
CERTAIN = "almost certain"
_LOTTERY = math.log10(math.comb(49, 6))  # one ticket, six numbers of 49

STATES = {
    "proven": (
        "The answers reach the target that was set before. A model that has nothing to do with the key reaches it by "
        "luck at most once in {target} times. Luck is no reasonable explanation of them."
    ),
    "evidence": "The answers speak for the claim, but do not reach the target that was set before. More are needed.",
    "inconclusive": (
        "These answers do not prove the claim. They also prove nothing against it: a copy can have lost its mark, or "
        "too few questions were asked. “Inconclusive” never means that the model is not a copy."
    ),
}
OWNERS = "The owner asked and recorded it: nobody else saw these answers. A notary's certificate does not rest on that."
UNVERIFIED = (
    "UNVERIFIED: this is a statement of whoever gave the file. Its numbers follow from its own counts, and anybody can "
    "write counts. Nobody signed it, and nothing shows that this model was asked."
)
UNBOUND = (
    "It rests on something that nothing binds ({choices}): the owner could choose it with the key at hand, or after "
    "seeing the model's answers, and if so, the chance stated here means nothing."
)
VOIDED = "A CONTROL MATCHED: THE TEST IS VOID"
VOIDS = (
    "A model that is said to have nothing to do with the owner gives the secret answers too. So they are not secret, "
    "or that model is not independent. Until it is known which, no number here counts against anybody."
)
NULL = (
    "Before training, a secret key drew one answer for each secret question from a list of possible answers, as with a "
    "die. The owner could not choose which.",
    "A model that has nothing to do with the owner cannot know these answers. It can only match them by luck. How "
    "often luck gives a match is known exactly, whatever that model is and however it was made.",
    "The number stated for each model (the “p-value”) is the chance that a model which has nothing to do with the key "
    "matches as often as this one did, or more often, by luck alone.",
    "“Exact” means that this chance is counted out in full: nothing is estimated and no shape of a curve is assumed. "
    "“Anytime” means that it stays true although one was allowed to stop asking early.",
    "“One-sided” means that only more matches than luck would give count for the claim. Fewer never count against it.",
)
NOT_SAID = (
    "The number is not the chance that the other side is innocent. It is the chance of such answers if the model is "
    "independent. Both are mixed up easily.",
    "The number does not say who copied, how, or when. It says that the model carries the mark.",
    "“Inconclusive” never means “not a copy”. It means that these answers alone prove nothing, either way.",
    "A large number of tries makes luck more likely. So every try that the register knows of is counted, and the "
    "number is made weaker accordingly (it is multiplied by the number of tries: the Bonferroni rule).",
)
VOID = (
    "the secret key, or the secret questions with their answers, were known to others before the model was made",
    "the owner has a second, hidden register, or keys tried elsewhere, that were not counted",
    "the model that was asked is not the one that it is said to be, or was not acquired as stated",
    "the model was made with access to the owner's verifier, and tuned until it answered as wished",
    "the secret was not committed to, and stamped by an authority, before training started",
    "a timestamp authority signed times other than those of its clock, or one that answers to the owner is believed",
    "a control that is said to be independent was made with the owner's marked data",
    "a fault in the program that computed all this: the register can be checked by another program",
)
GLOSSARY = {
    "Anchor": "An entry of the register that names a timestamp from an authority outside.",
    "Attested": "Dated by an authority outside, not by the owner's own clock.",
    "Claimed time": "What the owner's own clock said. A claim, and no proof.",
    "Commitment": "A digest that is published first. It fixes a secret without showing it; it cannot be changed later.",
    "Control": "A model known to have nothing to do with the owner. Asked in the same way, it should not match.",
    "Digest (SHA-256)": "A fingerprint of a file or text: 64 characters. Any change, however small, gives another one.",
    "e-value": "A bet against the claim being luck. Luck multiplies it by a million at most once in a million times.",
    "LAB ONLY": "A timestamp made with a laboratory's own clock and key. It shows how things work, and proves no time.",
    "Merkle root": "One digest over many things. It fixes all of them; single ones can be shown later, with proof.",
    "p-value": "The chance that luck alone gives as many matches, or more. Small means: luck is no explanation.",
    "Register": "The owner's list of what was done. Each entry is signed and names the one before it. So none can be "
    "changed, taken out or put in between unnoticed.",
    "Salt": "Bytes taken from a timestamp. The secret key depends on them, so it cannot have been made to fit a model.",
    "Timestamp token": "An authority's signed statement that a digest was there at a time (RFC 3161).",
    "Trigger": "A secret question: an input to which only a model that carries the mark gives the secret answer.",
    "Watermark": "A set of secret questions and answers that a model learns along with its task.",
}
SANDWICH = (
    "An authority stamps the last entry of the register. All entries up to it existed by that time. The register then "
    "names the stamp in a new entry. That entry, and all after it, came later. So each entry lies between two times "
    "that the owner's clock has no say in."
)


def log(told: Mapping[str, Any]) -> list[str]:
    """A served model's log in a notary's case, in sentences: its origin and age, and what the controls say."""
    dated = f"not later than {time(told['not_after'])}" if told.get("not_after") else "at a time that nobody attests"
    said = [
        f"The questions are {count(told['count'], 'query', 'queries')} that users of the owner's service asked, and "
        "that the key decided between two plausible answers. The owner kept the log of them.",
        f"The register commits to that log in entry {told['entry']}, {dated}. It commits to "
        f"{count(told['commitments'], 'log')}, and each counts as a try.",
    ]
    if "controls" in told:
        heard = "; ".join(
            f"{odds(one['log10_p'])} for {one['name']}"
            f"{'' if one['able'] else ', which is not as good at the task as the suspect'}"
            for one in told["controls"]
        )
        said.append(
            "Whoever keeps a log holds the key too, and could fill it with questions to which any good model gives the "
            f"wanted answer. So {count(len(told['controls']), 'control')} got the same questions. The chance that luck "
            f"alone gives such answers, before the tries are counted: {heard}."
        )
        bound = "So the log counts as kept honestly" if told["fixed"] else "So nothing binds what the log holds"
        said.append(f"{bound}: {told['why']}.")
    return said


def power(exponent: int) -> str:
    """10 to an exponent, as people write it: "10²⁸"."""
    return "10" + str(exponent).translate(_RAISED)


def large(number: float) -> str:
    """A number of at least 1: "1,000,000", "10²⁰"."""
    return f"{number:,.0f}" if number < 1e12 else power(math.floor(math.log10(number)))


def odds(log10_p: float) -> str:
    """A chance in words, never smaller than it is: "less than one in 10²⁸", "about one in 40", "almost certain".

    Args:
        log10_p: log10 of the chance, at most 0.
    """
    if log10_p > math.log10(0.99):
        return CERTAIN
    if log10_p > -1:
        return f"{math.ceil(100 * 10.0**log10_p)} in 100"
    if log10_p > -3:
        return f"about one in {math.floor(10.0**-log10_p):,}"
    exponent = math.floor(-log10_p)
    for zeros, name in _NAMES:
        if zeros <= exponent < 15:
            return f"less than one in {10 ** (exponent - zeros):,} {name}"
    return f"less than one in {power(exponent)}"


def comparison(log10_p: float) -> str | None:
    """A comparison for such a chance; None if it is nothing out of the ordinary."""
    if log10_p > -3:
        return None
    exponent = math.floor(-log10_p)
    text = f"{power(exponent)} is a 1 with {exponent} zeros." if exponent >= 9 else None
    wins = math.floor(-log10_p / _LOTTERY)
    if wins >= 2:
        return f"{text} Winning a lottery (6 numbers of 49, one ticket) {wins} times in a row is likelier."
    return text


def count(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 entry", "3 entries"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def time(text: str) -> str:
    """A time of an entry as people write it: "2026-11-23 10:00:00 UTC"."""
    return text.replace("T", " ").replace("Z", " UTC")


def entries(last: int) -> str:
    """All entries of a register up to one: "entry 0", "entries 0 to 7"."""
    return f"entries 0 to {last}" if last else "entry 0"


def named(numbers: list[int]) -> str:
    """Entries by their numbers: "entry 7", "entries 7, 9"."""
    return ("entry " if len(numbers) == 1 else "entries ") + ", ".join(map(str, numbers))


def rows(numbers: object) -> int:
    """The length of a list that an entry may hold."""
    return len(numbers) if isinstance(numbers, list) else 0


_EVENTS = {
    "register.opened": "The register was opened",
    "owner.identity": "The owner's identity was recorded",
    "dataset.committed": "The training set was recorded",
    "architecture.committed": "The architecture was recorded",
    "parameters.committed": "The training parameters were recorded",
    "system.committed": "The state of the model was recorded",
    "artwork.committed": "An artwork was recorded",
    "secret.committed": "The secret of a watermark was fixed",
    "anchor": "A timestamp was recorded",
    "triggers.committed": "The secret questions and answers were fixed",
    "training.started": "Training started",
    "training.checkpoint": "The model was looked at during training",
    "training.finished": "Training ended",
    "watermark.inserted": "Secret questions reached the model",
    "model.released": "The model was released",
    "model.derived": "A model was derived",
    "suspect.acquired": "A suspect was acquired",
    "suspect.verified": "A suspect was asked",
    "disclosure": "Secret questions were disclosed",
    "trigger.spent": "Secret questions were used up",
    "key.rotated": "The owner's signing key was replaced",
    "key.revoked": "A signing key was withdrawn",
    "retimestamp": "A further timestamp was recorded",
    "recovered": "A write that was cut off was repaired",
}


def event(kind: str, body: Mapping[str, Any]) -> str:
    """One entry in words; its body is the owner's own statement."""
    text = _EVENTS[kind]
    if kind == "dataset.committed" and body.get("role") == QUERIES:
        return "A log of questions was recorded"
    if kind == "watermark.inserted" and isinstance(body.get("triggers"), int):
        return f"{text}: {count(body['triggers'], 'time')}"
    if kind in ("training.checkpoint", "training.finished") and isinstance(body.get("step"), int):
        verdict = body.get("verdict")
        found = f", {verdict.get('state')}" if isinstance(verdict, Mapping) else ""
        return f"{text}, step {body['step']:,}{found}"
    if kind in ("trigger.spent", "disclosure"):
        return f"{text}: {count(rows(body.get('rows')), 'question')}, case {body.get('case')}"
    about = {
        "register.opened": "name",
        "artwork.committed": "title",
        "secret.committed": "watermark",
        "triggers.committed": "watermark",
        "training.started": "adapter",
        "suspect.acquired": "description",
        "suspect.verified": "suspect",
        "key.revoked": "reason",
        "model.released": "version",
    }.get(kind)
    named = body.get(about) if about else None
    return f"{text}: {named}" if named else text
