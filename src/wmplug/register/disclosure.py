"""Disclosure of some triggers, with proof that the owner committed to them; and the record of rows that it spends.

Everybody knows a leaf once it is shown: the holder of a copy can filter it, the maker of a model can teach it. So the
register records it as spent, and nobody is asked it again.
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from wmplug.claim.verification import fresh
from wmplug.errors import InputError, NotaryError
from wmplug.keys import merkle
from wmplug.register import Entry, Register
from wmplug.register.challenge import Challenge
from wmplug.watermark.carriers import digest, input_from_json, input_to_json
from wmplug.watermark.plan import hash_leaf
from wmplug.watermark.watermark import Watermark

SCHEMA = "wmplug/disclosure/1"
_LEAF = {"version", "watermark", "i", "n", "x_sha256", "y", "salt"}


def confidence(n: int, m: int, level: float = 0.95, *, missed: int = 0) -> int:
    """Lower bound on how many of n leaves match, if m of them, drawn without replacement, matched but for some.

    Exact: n - b, where b is the largest number of leaves that do not match for which at most `missed` of m are among
    the drawn ones by luck with a chance above 1 - level (hypergeometric). 20 of 100 give 88, if all match.

    Args:
        n: number of leaves.
        m: number of leaves drawn, not chosen.
        level: level of confidence, in (0, 1).
        missed: number of drawn leaves that do not match, or that were spent before.

    Raises:
        InputError: m is not in range(n + 1), missed not in range(m + 1), or level is out of range.
    """
    if not (0 <= m <= n and 0 <= missed <= m and 0 < level < 1):
        raise InputError(
            f"{m} of {n} leaves, {missed} missed, at level {level}: give m from 0 to n, missed from 0 to m, and a "
            "level between 0 and 1"
        )
    all_drawn, luck = math.comb(n, m), 1 - Fraction(str(level))

    def chance(bad: int) -> Fraction:
        return Fraction(sum(math.comb(bad, x) * math.comb(n - bad, m - x) for x in range(missed + 1)), all_drawn)

    bad = missed
    while bad < n - m + missed and chance(bad + 1) > luck:
        bad += 1
    return n - bad


def shown_rows(entries: Iterable[Entry], watermark: str) -> frozenset[int]:
    """The rows of a watermark whose answers everybody knows: they count as misses, whatever a suspect answers.

    Args:
        entries: a register's, or those of type `disclosure`.
        watermark: public id.
    """
    shown = (e.body for e in entries if e.type == "disclosure" and e.body.get("revealed") is not None)
    rows = (body.get("rows") for body in shown if body.get("watermark") == watermark)
    return frozenset(row for some in rows if isinstance(some, list) for row in some if type(row) is int)


def spent(register: Register, watermark: str) -> set[int]:
    """The rows of a watermark that its owner recorded as asked or shown; leaving them out is the owner's choice."""
    return set(spent_in(register, watermark))


def spent_in(register: Register, watermark: str, *, before: str | None = None) -> dict[int, str]:
    """The spent rows of a watermark, each with the case that spent it first.

    Args:
        register: the register to read.
        watermark: public id.
        before: stop at the first entry that spends rows in this case.
    """
    gone: dict[int, str] = {}
    for entry in register.entries():
        body = entry.body
        shown = entry.type == "disclosure" and body.get("revealed") is not None
        if (shown or entry.type == "trigger.spent") and body.get("watermark") == watermark:
            case, rows = body.get("case"), body.get("rows")
            if case == before and before is not None:
                break
            # A key that signs for a run may have written anything; only a whole number is a row.
            for row in rows if isinstance(rows, list) else ():
                if type(row) is int:
                    gone.setdefault(row, str(case))
    return gone


def spend(
    register: Register,
    watermark: str,
    rows: Collection[int],
    why: str,
    case: str,
    certificate: Mapping[str, Any] | None = None,
) -> Entry:
    """Record that rows were asked or shown, which spends them.

    Args:
        register: the register, opened for writing.
        watermark: public id.
        rows: the rows.
        why: the reason, for people.
        case: id of the case.
        certificate: the notary's certificate.json that names them, if one does: other notaries believe no other record.

    Raises:
        RegisterError: the register cannot be written.
    """
    numbers = sorted(int(row) for row in rows)
    body: dict[str, Any] = {"watermark": watermark, "rows": numbers, "why": why, "case": case}
    if certificate is not None:
        body["certificate"] = dict(certificate)
    which = hashlib.sha256(repr(numbers).encode()).hexdigest()[:16]
    return register.append("trigger.spent", body, event_id=f"spent/{watermark}/{case}/{which}")


def reveal(register: Register, mark: Watermark, challenge: Challenge, m: int) -> dict[str, Any]:
    """Show the m leaves that a challenge draws among all rows that are asked.

    The register records them as spent before you get them. Those that were spent before are drawn too, and count as
    misses: otherwise the owner could choose the rest.

    Args:
        register: the register, opened for writing.
        mark: the watermark.
        challenge: the complete challenge.
        m: how many leaves to show.

    Returns:
        A JSON document, public.

    Raises:
        NotaryError: the challenge is for other triggers or incomplete, or the watermark has fewer rows.
        RegisterError: the register cannot be written.
    """
    if challenge.root != mark.public["root"]:
        raise NotaryError(
            f"the challenge is for root {challenge.root[:16]}..., not for this watermark's: open one for its root"
        )
    rows = challenge.draw(sorted(fresh(mark, ())), m)
    leaves = mark.triggers.leaves(mark.id, mark.subkeys.stream("disclosure"))
    hashed = [hash_leaf(leaf) for leaf in leaves]
    shown = [
        {
            "leaf": leaves[row],
            "proof": [beside.hex() for beside in merkle.proof(hashed, row)],
            "input": input_to_json(mark.triggers.plan.inputs[row]),
        }
        for row in rows
    ]
    body = {"watermark": mark.id, "case": challenge.case, "to": "public", "rows": rows}
    register.append(
        "disclosure",
        {**body, "revealed": [leaves[row] for row in rows]},
        event_id=f"disclosure/{mark.id}/{challenge.case}/revealed",
    )
    spend(register, mark.id, rows, "shown to everybody", challenge.case)
    return {
        "schema": SCHEMA,
        "case": challenge.case,
        "watermark": mark.id,
        "root": mark.public["root"],
        "n": len(leaves),
        "challenge": challenge.to_json(),
        "leaves": shown,
    }


def check_revealed(
    document: Mapping[str, Any],
    committed: Mapping[str, Any],
    *,
    spent: Mapping[int, str],
    among: Sequence[int] | None = None,
) -> list[tuple[Any, int]]:
    """Check that leaves are below a root and were drawn by their challenge.

    Anybody can do this: it needs no key.

    Args:
        document: the document that `reveal` returned.
        committed: body of the register's `triggers.committed`.
        spent: rows that were spent before (`spent_in`, before this case).
        among: rows that the challenge draws from, as a notary who derived the triggers knows them
            (`verification.fresh`); default: all rows, if every row is a draw of its own according to the register.

    Returns:
        Input and secret answer of each leaf that was not spent before, to ask a model; the others count as missed.

    Raises:
        NotaryError: a leaf is not below the root, or the owner picked the leaves.
    """
    try:
        challenge, case = Challenge.from_json(document["challenge"]), str(document["case"])
        leaves = [dict(item["leaf"]) for item in document["leaves"]]
        rows, count = [int(leaf["i"]) for leaf in leaves], int(document["n"])
        shown = [_check_leaf(item, committed, count) for item in document["leaves"]]
    except (KeyError, TypeError, ValueError) as error:
        raise NotaryError(f"this is not a disclosure ({type(error).__name__}: {error}): ask for it again") from None
    if challenge.root != committed["root"] or challenge.case != case:
        raise NotaryError(
            "the challenge is of another case or for another root: ask for the one that drew these leaves"
        )
    if among is None and not count == committed["rows"] == committed["draws"]:
        raise NotaryError(
            f"only some of the {committed['rows']} rows are asked, and their numbers are not public: a notary who "
            "derived them has to give them (among=)"
        )
    left = range(count) if among is None else sorted(among)
    if rows != challenge.draw(left, len(rows)):
        raise NotaryError(
            "the challenge draws other leaves than those shown: the owner picked them, so they prove nothing"
        )
    return [leaf for row, leaf in zip(rows, shown, strict=True) if row not in spent]


def _check_leaf(item: Mapping[str, Any], committed: Mapping[str, Any], count: int) -> tuple[Any, int]:
    root, watermark = str(committed["root"]), committed["watermark"]
    leaf, value = dict(item["leaf"]), input_from_json(item["input"])
    path = [bytes.fromhex(beside) for beside in item["proof"]]
    if set(leaf) != _LEAF or (leaf["version"], leaf["watermark"], leaf["n"]) != (1, watermark, count):
        raise NotaryError(f"leaf {leaf.get('i')} is of another watermark or version: ask for the disclosure again")
    if digest(value) != leaf["x_sha256"]:
        raise NotaryError(
            f"the input of leaf {leaf['i']} is not the one the leaf commits to: it was replaced, refuse it"
        )
    if not merkle.verify_proof(hash_leaf(leaf), leaf["i"], count, path, bytes.fromhex(root)):
        raise NotaryError(
            f"leaf {leaf['i']} is not below root {root[:16]}...: the owner never committed to it, refuse it"
        )
    return value, int(leaf["y"])
