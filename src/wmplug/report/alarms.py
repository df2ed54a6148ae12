"""What takes the ground from under the numbers, for page one: a control that matched, and tries that nobody counts."""

from collections.abc import Sequence

from wmplug.register.receipts import Receipt
from wmplug.report import words
from wmplug.report.facts import Fact, Facts


def controls(suspects: Sequence[Fact], certificates: Sequence[Fact]) -> Fact:
    """Whether a model that is to be independent gives the secret answers too, which voids the test.

    Args:
        suspects: as `models.asked` returns them.
        certificates: as `models.certificate` reads them.

    Returns:
        void, headline, text, and reasons: each control that matched, in words.
    """
    matched = [f"{one['model']} ({one['source']}): {one['state']}" for one in suspects if one["matched"]]
    matched += [
        f"{model['model']} (certificate of case {one['case']}): {model['result']}"
        for one in certificates
        for model in one["models"]
        if model["matched"]
    ]
    return {"void": bool(matched), "headline": words.VOIDED, "text": words.VOIDS, "reasons": matched}


def tries(facts: Facts, marks: Sequence[Fact], receipts: Sequence[Receipt]) -> Fact:
    """The number of tries, and whose word it is: an owner can cut entries at the end of a register.

    Args:
        facts: the register's facts.
        marks: watermarks that the owner committed to.
        receipts: receipts that the owner gave out earlier.

    Returns:
        attempts; owners_word, whether neither a timestamp of an authority nor a receipt covers the last entries; text.
    """
    outside = max([facts.report.attested, *(receipt.seq + 1 for receipt in receipts)])
    loose = [entry.seq for entry in facts.entries if entry.seq >= outside and entry.type != "anchor"]
    text = (
        f"The number of tries, {len(marks)}, is the owner's word: no timestamp of an authority and no receipt covers "
        f"the entries from {loose[0]} on, so others can be missing at the end."
        if loose
        else f"The number of tries is {len(marks)}: a timestamp of an authority, or a receipt, covers every entry."
    )
    return {"attempts": len(marks), "owners_word": bool(loose), "text": text}
