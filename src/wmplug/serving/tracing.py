"""Which customer's queries a clone was made from.

In some cells every customer has coins of their own. A clone that learned from the answers to one customer agrees with
that customer's coins, and by no more than luck with anybody else's. The null for each: the suspect is independent of
this customer's coins, which the label key drew for the name alone. One-sided, exact; a name is given after Holm's
correction (1979) over all customers for whom an own coin decided.
"""

import dataclasses
from typing import Any

import numpy as np

from wmplug.claim import scanning
from wmplug.claim.scanning import Scan
from wmplug.errors import InputError
from wmplug.schemes.served import Served, pattern_of, signs_for
from wmplug.watermark.carriers import digest
from wmplug.watermark.choices import Choice
from wmplug.watermark.decided import Decided
from wmplug.watermark.watermark import Watermark

SUSPECT = "the suspect"


def by_customer(
    mark: Watermark, decided: Decided, *, carriers: Any, labels: Any, pool: Any = None
) -> dict[str, Watermark]:
    """The watermark of each customer: the same, with the coins of this customer, asking what they decided.

    Each customer could have been asked about in place of another, so a verdict counts them all as tries. `trace`
    corrects for them by Holm's method instead, which costs less.

    Args:
        mark: a watermark of the scheme `served`.
        decided: what the log holds, `log.decided()`.
        carriers: the carriers that the watermark was made from; references are trained on them.
        labels: their labels.
        pool: (n, classes) probabilities of the decided queries from unmarked references of your own, which verdicts
            name as not committed; by default some are trained.

    Raises:
        InputError: the mark is of another scheme, carriers differ, or no customer has a coin of their own in the log.
    """
    found = _each(mark, decided, carriers, labels, pool)
    paid = Choice(what="customer", bound="paid", tries=len(found))
    return {who: dataclasses.replace(one, choices=(*one.choices, paid)) for who, one in found.items()}


def _each(mark: Watermark, decided: Decided, carriers: Any, labels: Any, pool: Any) -> dict[str, Watermark]:
    scheme, triggers = mark.scheme, mark.triggers
    if not isinstance(scheme, Served):
        raise InputError(f"scheme {scheme.name!r} has no customers: give a watermark of scheme 'served'")
    heard = scheme.heard(mark.brief(carriers, labels), decided, pool)
    personal = np.flatnonzero(scheme.is_personal(triggers.plan, decided))
    personal = personal[np.argsort(heard.gap[personal], kind="stable")]
    if not len(personal):
        raise InputError(
            f"none of {len(decided)} decided queries fell to a coin of a customer's own: serve with customer=, wait "
            "for more queries, or make the watermark with a larger personal="
        )
    own = None if pool is None else digest(np.asarray(pool))
    chosen = (*mark.choices, *mark.asked(decided.digest, own))
    names = np.array([decided.customers[row] for row in personal.tolist()], dtype=object)
    count, found = pattern_of(triggers.plan).signs, {}
    for who in sorted(set(names.tolist())):
        plan = scheme.about(triggers.plan, decided, heard, personal[names == who])
        symbols = (signs_for(mark.subkeys, who, count) + 1) // 2
        found[who] = dataclasses.replace(
            mark,
            triggers=dataclasses.replace(triggers, plan=plan, symbols=symbols),
            public={**mark.public, "queries": decided.digest},
            choices=chosen,
        )
    return found


def trace(
    mark: Watermark,
    decided: Decided,
    suspect: Any,
    *,
    carriers: Any,
    labels: Any,
    pool: Any = None,
    batch_size: int = 64,
) -> Scan:
    """Ask a suspect about every customer's coins; `accused(alpha)` of the result names customers.

    Args:
        mark: a watermark of the scheme `served`.
        decided: what the log holds, `log.decided()`.
        suspect: as for `verify`.
        carriers, labels, pool: as in `by_customer`.
        batch_size: inputs in a forward pass.

    Raises:
        InputError: as in `by_customer`.
        SuspectError: the suspect cannot be asked.
    """
    marks = _each(mark, decided, carriers, labels, pool)
    result = scanning.scan(marks, {SUSPECT: suspect}, batch_size=batch_size)
    for error in result.failed.values():
        raise error
    return result
