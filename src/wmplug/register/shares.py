"""A secret as sheets of words, any few of which recover it: SLIP-39, Shamir's secret sharing for mnemonic codes.

SLIP-39's own passphrase stays empty. With one, every passphrase opens the shares, each to another secret, so that a
typo looks like success; and shares exist to survive a forgotten passphrase.

The library is SLIP-39's reference implementation, written for clarity and not hardened against anybody who can measure
this process: split and combine on a machine that nobody else uses.
"""

from collections.abc import Sequence

from wmplug.errors import InputError
from wmplug.extras import need

with need("evidence"):
    from shamir_mnemonic import MnemonicError, Share, combine_mnemonics, generate_mnemonics
    from shamir_mnemonic.wordlist import WORD_INDEX_MAP

WORDS = 33  # of a share of 32 bytes: 4 and 26 of content, 3 of checksum
MOST = 16


def split(secret: bytes, shares: int, threshold: int) -> list[str]:
    """Sheets of words.

    Args:
        secret: 32 bytes.
        shares: number of sheets to make, up to 16.
        threshold: number of sheets that recover the secret, at least 2; fewer reveal nothing about it.

    Raises:
        InputError: the numbers are out of range.
    """
    if not 2 <= threshold <= shares <= MOST:
        raise InputError(
            f"shares={shares}, threshold={threshold}: give from 2 to {MOST} shares, and a threshold from 2 up to their "
            "number; 3 and 2 are usual"
        )
    # The exponent slows down guesses of a passphrase, which stays empty here.
    (sheets,) = generate_mnemonics(1, [(threshold, shares)], secret, iteration_exponent=0)
    return list(sheets)


def read(text: str, name: str) -> Share:
    """Read one share from its words.

    Args:
        text: 33 words, in either case, with any spacing.
        name: name of the share, for the error, which never shows words.

    Raises:
        InputError: `split` did not make this share.
    """
    words = text.lower().split()
    if len(words) != WORDS:
        raise InputError(f"{name} has {len(words)} words, and a share has {WORDS}: look for missing or doubled words")
    unknown = [str(number) for number, word in enumerate(words, 1) if word not in WORD_INDEX_MAP]
    if unknown:
        raise InputError(f"{name}: word {', '.join(unknown)} is not in the list of SLIP-39: check its spelling")
    share = _decode(" ".join(words))
    if share is None:
        raise InputError(
            f"{name}: its checksum does not fit, so a word is wrong or out of place: compare it with the sheet"
        )
    if share.group_count != 1 or share.member_threshold < 2:
        raise InputError(f"{name} is a share that wmplug did not make: give those of `wmplug owner split`")
    return share


def _decode(text: str) -> Share | None:
    try:
        return Share.from_mnemonic(text)
    except MnemonicError:
        return None  # its text would quote words


def combine(texts: Sequence[str]) -> bytes:
    """Recover the secret (32 bytes) from its shares; if there are more than needed, they must agree.

    Raises:
        InputError: a text is not a share, the shares come from several splits, or there are too few.
    """
    shares = [read(text, f"share {number}") for number, text in enumerate(texts, 1)]
    if not shares:
        raise InputError("no shares are given: give the words of each sheet")
    for number, share in enumerate(shares, 1):
        if share.group_parameters() != shares[0].group_parameters():
            raise InputError(f"share 1 and share {number} are not of one split: give shares that were made together")
    different = sorted(set(shares), key=lambda share: share.index)
    needed = shares[0].member_threshold
    if len(different) < needed:
        again = "" if len(different) == len(shares) else ", since one was given more than once"
        raise InputError(
            f"you gave {len(different)} of the {needed} shares that are needed{again}: give more of this split"
        )
    # Every share is in one of these selections.
    secret, *others = {_recover(different[start : start + needed]) for start in range(len(different) - needed + 1)}
    if others or secret is None:
        raise InputError("these shares do not fit together, though each looks right: they are of different splits")
    return secret


def _recover(shares: Sequence[Share]) -> bytes | None:
    try:
        return bytes(combine_mnemonics([share.mnemonic() for share in shares]))
    except MnemonicError:
        return None
