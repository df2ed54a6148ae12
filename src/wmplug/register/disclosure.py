"""Some of the triggers, shown to everybody with proof that they were committed to; and which are thereby spent.

A leaf that was shown is known: whoever holds a copy can filter it, and whoever makes a model can learn it. So it is
recorded as spent, and not asked again.
"""

import base64
import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from wmplug.claim.verification import fresh
from wmplug.errors import InputError, NotaryError
from wmplug.keys import merkle
from wmplug.register import Entry, Register
from wmplug.register.notary.challenge import Challenge
from wmplug.watermark.carriers import digest
from wmplug.watermark.plan import hash_leaf
from wmplug.watermark.watermark import Watermark

SCHEMA = "wmplug/disclosure/1"
_LEAF = {"version", "watermark", "i", "n", "x_sha256", "y", "salt"}


def confidence(n: int, m: int, level: float = 0.95) -> int:
    """How many of n leaves match at least, where m drawn from them without replacement were shown and all matched.

    Exact: the largest number b of leaves that do not match for which all m match by luck with a chance above
    1 - level, C(n-b, m) / C(n, m) (hypergeometric), is taken away from n. 20 of 100 give 88.

    Args:
        n: leaves.
        m: of them that were drawn, not chosen; all matched.
        level: of confidence, in (0, 1).

    Raises:
        InputError: m is not in range(n + 1), or level is out of range.
    """
    if not (0 <= m <= n and 0 < level < 1):
        raise InputError(f"{m} of {n} leaves at level {level}: give m from 0 to n, and a level between 0 and 1")
    all_drawn, luck = math.comb(n, m), 1 - Fraction(str(level))
    misses = 0
    while misses < n - m and Fraction(math.comb(n - misses - 1, m), all_drawn) > luck:
        misses += 1
    return n - misses


def spent(register: Register, watermark: str) -> set[int]:
    """The rows of a watermark that are not to be asked again."""
    return set(spent_in(register, watermark))


def spent_in(register: Register, watermark: str, *, before: str | None = None) -> dict[int, str]:
    """The rows of a watermark that are spent, each with the case it was first spent in.

    Args:
        register: to read.
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
            # A key that signs for a run may have written anything; what is no row spends none.
            for row in rows if isinstance(rows, list) else ():
                if type(row) is int:
                    gone.setdefault(row, str(case))
    return gone


def spend(register: Register, watermark: str, rows: Collection[int], why: str, case: str) -> Entry:
    """Record that rows were asked or shown, and are spent.

    Raises:
        RegisterError: the register cannot be written.
    """
    gone = sorted(int(row) for row in rows)
    body = {"watermark": watermark, "rows": gone, "why": why, "case": case}
    which = hashlib.sha256(repr(gone).encode()).hexdigest()[:16]
    return register.append("trigger.spent", body, event_id=f"spent/{watermark}/{case}/{which}")


def reveal(register: Register, mark: Watermark, challenge: Challenge, m: int) -> dict[str, Any]:
    """Show the m leaves that a challenge draws among the rows of draws that are asked and not spent.

    The register has them as spent before they are handed out.

    Args:
        register: opened for writing.
        mark: the watermark.
        challenge: complete.
        m: how many.

    Returns:
        A JSON document, public.

    Raises:
        NotaryError: the challenge is for other triggers, or incomplete, or fewer rows are left.
        RegisterError: the register cannot be written.
    """
    if challenge.root != mark.public["root"]:
        raise NotaryError(f"the challenge is for root {challenge.root[:16]}..., not for this watermark's")
    before = spent_in(register, mark.id, before=challenge.case)
    rows = challenge.draw(sorted(fresh(mark, before)), m)
    leaves = mark.triggers.leaves(mark.id, mark.subkeys.stream("disclosure"))
    hashed = [hash_leaf(leaf) for leaf in leaves]
    shown = [
        {
            "leaf": leaves[row],
            "proof": [beside.hex() for beside in merkle.proof(hashed, row)],
            "input": _write_input(mark.triggers.plan.inputs[row]),
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
    """See that leaves are below a root, were drawn by their challenge, and were not spent before.

    Needs no key: this is for everybody.

    Args:
        document: that `reveal` made.
        committed: body of the register's `triggers.committed`.
        spent: rows that were spent before (`spent_in`, before this case).
        among: rows that were drawn from, as a notary who derived the triggers found them (`verification.fresh`);
            default: all that are not spent, where the register says that every row is a draw of its own.

    Returns:
        Input and secret answer of each, to be asked.

    Raises:
        NotaryError: a leaf is not below the root or was spent, or the owner picked them himself.
    """
    try:
        challenge, case = Challenge.from_json(document["challenge"]), str(document["case"])
        leaves = [dict(one["leaf"]) for one in document["leaves"]]
        rows, count = [int(leaf["i"]) for leaf in leaves], int(document["n"])
        shown = [_check_leaf(one, committed, count) for one in document["leaves"]]
    except (KeyError, TypeError, ValueError) as error:
        raise NotaryError(f"this is no disclosure ({type(error).__name__}: {error}): ask for it again") from None
    if again := [row for row in rows if row in spent]:
        told = ", ".join(f"{row} (case {spent[row]})" for row in again)
        raise NotaryError(f"these leaves were spent before: {told}; they prove nothing any more, draw fresh ones")
    if challenge.root != committed["root"] or challenge.case != case:
        raise NotaryError("the challenge is of another case or for another root: ask for the one these were drawn by")
    if among is None and not count == committed["rows"] == committed["draws"]:
        raise NotaryError(
            f"of {committed['rows']} rows only some are asked, and which ones is not public: a notary who has derived "
            "them has to say (among=)"
        )
    left = sorted(set(range(count)) - set(spent)) if among is None else sorted(among)
    if rows != challenge.draw(left, len(rows)):
        raise NotaryError(
            "the challenge draws other leaves than those shown: the owner picked them, so they prove nothing"
        )
    return shown


def _check_leaf(one: Mapping[str, Any], committed: Mapping[str, Any], count: int) -> tuple[Any, int]:
    root, watermark = str(committed["root"]), committed["watermark"]
    leaf, value = dict(one["leaf"]), _read_input(one["input"])
    path = [bytes.fromhex(beside) for beside in one["proof"]]
    if set(leaf) != _LEAF or (leaf["version"], leaf["watermark"], leaf["n"]) != (1, watermark, count):
        raise NotaryError(f"leaf {leaf.get('i')} is of another watermark or version")
    if digest(value) != leaf["x_sha256"]:
        raise NotaryError(f"the input of leaf {leaf['i']} is not the one the leaf commits to")
    if not merkle.verify_proof(hash_leaf(leaf), leaf["i"], count, path, bytes.fromhex(root)):
        raise NotaryError(f"leaf {leaf['i']} is not below root {root[:16]}...: it was not committed to")
    return value, int(leaf["y"])


def _write_input(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"text": value}
    array = np.ascontiguousarray(value)
    array = array.astype(array.dtype.newbyteorder("<"))
    return {
        "dtype": array.dtype.str,
        "shape": list(array.shape),
        "data": base64.b64encode(array.tobytes()).decode(),
    }


def _read_input(document: Mapping[str, Any]) -> Any:
    if "text" in document:
        return str(document["text"])
    data = base64.b64decode(document["data"], validate=True)
    return np.frombuffer(data, np.dtype(document["dtype"])).reshape(document["shape"])
