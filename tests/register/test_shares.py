import inspect
import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shamir_mnemonic import generate_mnemonics
from shamir_mnemonic.wordlist import WORDLIST

from wmplug.errors import InputError
from wmplug.register import shares
from wmplug.register.shares import combine, split

SECRET = bytes(range(32))


PROSE = set(re.findall("[a-z]+", inspect.getsource(shares)))  # words of the list that our own sentences have


def refusal(given):
    """What is said of shares that are refused; it must not hold a word of them, not even in what it came from."""
    with pytest.raises(InputError) as caught:
        combine(given)
    assert caught.value.__context__ is None
    said = str(caught.value)
    assert not (set(" ".join(given).lower().split()) - PROSE) & set(re.findall("[a-z]+", said.lower()))
    return said


@given(st.binary(min_size=32, max_size=32), st.integers(2, 5), st.integers(0, 3), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=40)
def test_any_threshold_of_the_shares_recover_the_secret(secret, threshold, more, chance):
    made = split(secret, threshold + more, threshold)
    assert all(len(words.split()) == 33 for words in made)
    assert len(set(made)) == threshold + more
    chosen = chance.sample(made, chance.randint(threshold, len(made)))
    assert combine(chosen) == secret
    assert f"{threshold - 1} of the {threshold} shares" in refusal(chosen[: threshold - 1])


def test_every_two_of_three():
    made = split(SECRET, 3, 2)
    assert {combine(pair) for pair in itertools.permutations(made, 2)} == {SECRET}


def test_what_is_written_by_hand_is_read():
    first, second, _ = split(SECRET, 3, 2)
    assert combine([first.upper(), "\n\t ".join(second.split()) + "\n"]) == SECRET


@pytest.mark.parametrize(("number", "threshold"), [(1, 1), (3, 1), (2, 3), (17, 2), (0, 0), (3, -1)])
def test_numbers_that_do_not_fit(number, threshold):
    with pytest.raises(InputError, match=f"shares={number}, threshold={threshold}: give from 2 to 16"):
        split(SECRET, number, threshold)


def test_mistakes_in_copying_are_located():
    first, second, _ = split(SECRET, 3, 2)
    words = second.split()
    assert "share 2 has 32 words" in refusal([first, " ".join(words[1:])])
    assert "share 2 has 34 words" in refusal([first, " ".join([*words, words[0]])])
    assert "share 2: word 3, 9 is not in the list" in refusal(
        [first, " ".join("xylophon" if i in (2, 8) else word for i, word in enumerate(words))]
    )
    at = next(i for i in range(32) if words[i] != words[i + 1])
    words[at], words[at + 1] = words[at + 1], words[at]
    assert "share 2: its checksum does not fit" in refusal([first, " ".join(words)])
    assert refusal([]).startswith("no shares are given")


@given(st.integers(0, 32), st.sampled_from(WORDLIST))
@settings(deadline=None, max_examples=150)
def test_every_wrong_word_is_noticed(at, word):
    first, second, _ = split(SECRET, 3, 2)
    words = second.split()
    if words[at] != word:
        words[at] = word
        assert "share 2: its checksum" in refusal([first, " ".join(words)])


def test_shares_that_do_not_belong_together():
    first, second, third = split(SECRET, 3, 2)
    other, *_ = split(SECRET, 3, 2)
    assert "share 1 and share 2 are not of one split" in refusal([first, other])
    assert "share 1 and share 3 are not of one split" in refusal([first, second, other])
    assert "you gave 1 of the 2 shares that are needed, since one was given more than once" in refusal([first, first])
    assert combine([first, first, third]) == SECRET


def test_shares_of_equal_marks_and_different_splits(monkeypatch):
    # By chance two splits in 32,768 carry the same identifier.
    monkeypatch.setattr("shamir_mnemonic.shamir._random_identifier", lambda: 7)
    first, second, third = split(SECRET, 3, 2)
    other = split(bytes(32), 3, 2)
    assert "do not fit together" in refusal([first, other[1]])
    assert "do not fit together" in refusal([first, second, other[2]])
    assert combine([first, second, third]) == SECRET


def test_shares_of_a_wallet_are_refused():
    wallet = generate_mnemonics(1, [(2, 3)], bytes(16))[0]
    assert "share 1 has 20 words" in refusal(wallet[:2])
    grouped = generate_mnemonics(2, [(2, 3), (2, 3)], SECRET)
    assert "share 1 is a share that wmplug did not make" in refusal([*grouped[0], *grouped[1]])
    ((alone,),) = generate_mnemonics(1, [(1, 1)], SECRET)
    assert "share 1 is a share that wmplug did not make" in refusal([alone])
