"""Whether what stands beside a label tells it: then it shows every label that the mark changes."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from wmplug.errors import InputError

T = TypeVar("T")
_MOST, LONG = 2000, 2000  # records that are looked at, and characters of each
_FEWEST, _OTHERS = 20, 5  # among fewer records, or fewer of other labels than the usual, much tells by chance
_COVERED, _RIGHT = 0.9, 0.95
_VALUE = re.compile(r'"\w+"\s*:\s*(?:"[^"]*"|[^,\]}\s]+)')  # a key of JSON and what it says
_PLACES = 8
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+(?:e[-+]?[0-9]+)?|e[-+]?[0-9]+)")
_READINGS: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: re.sub(r"[0-9]+", "#", text),
    lambda text: re.sub(r"[0-9]", "#", text),  # names of one class may have more digits
    lambda text: re.sub(r"[0-9]+(?=[^0-9]*$)", "#", text),  # n01440764_# is a class, n#_# is none
)


def spread(found: Iterable[T], most: int = _MOST) -> list[T]:
    """Some of all, drawn evenly and always the same."""
    drawn, kept = random.Random(0), []
    for index, one in enumerate(found):
        if index < most:
            kept.append(one)
        elif (place := drawn.randrange(index + 1)) < most:
            kept[place] = one
    return kept


def refuse_tells(pairs: Iterable[tuple[Hashable, str]], what: str, remedy: str) -> None:
    """Refuse to change labels beside what tells them.

    Args:
        pairs: the label of each record, and the text beside it.
        what: what the texts are, in the plural, with the location of the set.
        remedy: what to do.

    Raises:
        InputError: the texts tell the labels.
    """
    if why := told_by(spread(pairs)):
        raise InputError(
            f"{what} tell the label ({why}), which would show every label that the mark changes: {remedy}, or choose a "
            "scheme that changes no label, such as twins"
        )


def told_by(pairs: Sequence[tuple[Hashable, str]]) -> str | None:
    """What of the texts tells the labels, in words; None if nothing does.

    A text tells if other records predict the label of nearly each one: those with the same text but for numbers, those
    with the next numbers, those with the same largest of several decimals, as scores have, or those with a word that
    nearly all records of one label have, and nearly no other.

    Args:
        pairs: labels and texts of records, all of a set or drawn from it.
    """
    labels = [label for label, _ in pairs]
    texts = [text[:LONG].lower().strip() for _, text in pairs]
    if len(pairs) < _FEWEST or len(pairs) - max(Counter(labels).values()) < _OTHERS:
        return None
    for reading in _READINGS:
        read = [reading(text) for text in texts]
        if _predict(_of_same(labels, read), labels):
            return _example(labels, read)
    if why := _word(labels, [_words(text) for text in texts]):
        return why
    numbers = [[int(found) for found in re.findall(r"[0-9]{1,18}", text)] for text in texts]
    for place in range(-1, -1 - min(map(len, numbers)), -1):
        if _predict(_of_next(labels, [of[place] for of in numbers]), labels):
            return _ranges(labels, [of[place] for of in numbers])
    return _score(labels, [[float(found) for found in _DECIMAL.findall(text)] for text in texts])


def _predict(predicted: Sequence[Hashable | None], labels: Sequence[Hashable]) -> bool:
    """Whether predictions are nearly all right, and far better than the most frequent label."""
    made = [(one, label) for one, label in zip(predicted, labels, strict=True) if one is not None]
    wrong = sum(one != label for one, label in made)
    usual = len(made) - max(Counter(label for _, label in made).values(), default=0)
    return len(made) >= _COVERED * len(labels) and wrong <= (1 - _RIGHT) * len(made) and 2 * wrong < usual


def _of_same(labels: Sequence[Hashable], texts: Sequence[str]) -> list[Hashable | None]:
    """The most frequent label of all other records with the same text."""
    counts: dict[str, Counter[Hashable]] = defaultdict(Counter)
    for label, text in zip(labels, texts, strict=True):
        counts[text][label] += 1
    found: list[Hashable | None] = []
    for label, text in zip(labels, texts, strict=True):
        counts[text][label] -= 1
        likely, count = counts[text].most_common(1)[0]
        found.append(likely if count else None)
        counts[text][label] += 1
    return found


def _of_next(labels: Sequence[Hashable], numbers: Sequence[float]) -> list[Hashable | None]:
    """The label that the next record in the order of numbers has, above or below.

    None where records share a number, and for all if the labels come in many more runs than there are labels.
    """
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    shared = Counter(numbers)
    found: list[Hashable | None] = [None] * len(labels)
    runs = 1 + sum(labels[one] != labels[other] for one, other in itertools.pairwise(order))
    if runs > len(set(labels)) + (1 - _RIGHT) * len(labels):
        return found
    for rank, index in enumerate(order):
        if shared[numbers[index]] == 1:
            near = [labels[other] for other in (*order[max(rank - 1, 0) : rank], *order[rank + 1 : rank + 2])]
            found[index] = labels[index] if labels[index] in near else near[0]
    return found


def _score(labels: Sequence[Hashable], decimals: Sequence[Sequence[float]]) -> str | None:
    """What of decimals tells the labels: the place of the largest, or one that goes up or down with the label."""
    widths = {len(found) for found in decimals}
    if len(widths) == 1 and min(widths) > 1:
        largest = [f"number {1 + max(range(len(found)), key=found.__getitem__)} is the largest" for found in decimals]
        if _predict(_of_same(labels, largest), labels):
            return _example(labels, largest)
    for place in range(min(*widths, _PLACES)):
        column = [found[place] for found in decimals]
        same = _of_same(labels, [str(number) for number in column])
        near = [one if one is not None else other for one, other in zip(_of_next(labels, column), same, strict=True)]
        if _predict(near, labels):
            return _ranges(labels, column)
    return None


def _words(text: str) -> set[str]:
    """What of a text could tell the label: words, also without numbers, values of JSON, and words in their places."""
    words = set(re.split(r"[\W_]+", text)) - {""}
    placed = {f"{place}. {word}" for place, word in enumerate(text.split()[:_PLACES], 1)}
    return words | {re.sub(r"[0-9]+", "#", word) for word in words} | set(_VALUE.findall(text)) | placed


def _word(labels: Sequence[Hashable], texts: Sequence[set[str]]) -> str | None:
    """The words that nearly all records of one label have, and nearly no other; the last label may have none."""
    sizes, counts = Counter(labels), Counter(word for words in texts for word in words)
    within = Counter((label, word) for label, words in zip(labels, texts, strict=True) for word in words)
    found: dict[Hashable, str] = {}
    for (label, word), count in sorted(within.items(), key=lambda one: (-one[1], one[0][1])):
        elsewhere, others = counts[word] - count, len(labels) - sizes[label]
        most = (1 - _RIGHT) * min(others, counts[word])
        if label not in found and 1 < count >= _RIGHT * sizes[label] and elsewhere <= most:
            found[label] = word
    told = sum(sizes[label] for label in found)
    if not found or (told < _COVERED * len(labels) and len(found) < len(sizes) - 1):
        return None
    return ", ".join(f"{word!r} says {label}" for label, word in [*found.items()][:2])


def _example(labels: Sequence[Hashable], texts: Sequence[str]) -> str:
    shown: dict[Hashable, str] = {}
    for (label, text), _ in Counter(zip(labels, texts, strict=True)).most_common():
        if text not in shown.values():
            shown.setdefault(label, text)
    return ", ".join(f"{text!r:.80} says {label}" for label, text in [*shown.items()][:2])


def _ranges(labels: Sequence[Hashable], numbers: Sequence[float]) -> str:
    of: dict[Hashable, list[float]] = defaultdict(list)
    for label, number in sorted(zip(labels, numbers, strict=True), key=lambda one: one[1]):
        of[label].append(number)
    return "their numbers go on label by label: " + ", ".join(
        f"{found[0]} to {found[-1]} say {label}" for label, found in [*of.items()][:2]
    )
