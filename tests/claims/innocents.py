"""Four innocents. None ever saw a label key, and each answers as its maker likes: that is all that the null asks."""

import functools
import hashlib
from collections import Counter

import numpy as np
from sklearn.datasets import load_digits
from sklearn.tree import DecisionTreeClassifier

import wmplug
from wmplug.watermark.carriers import digest

CLASSES = 10
KINDS = ("random", "constant", "trained", "adaptive")


@functools.cache
def tree(seed):
    """A small model of digits."""
    data = load_digits()
    rows = np.random.default_rng(seed).permutation(len(data.target))[:900]
    pixels = (data.images * 15.9375).astype(np.uint8).reshape(len(data.target), -1)
    return DecisionTreeClassifier(max_depth=9, random_state=seed).fit(pixels[rows], data.target[rows])


class Innocent:
    """A model to accuse.

    random: a function of the picture, drawn before there was any key. constant: one class. trained: a tree that
    learned digits. adaptive: remembers what it was asked, reads what the owner publishes, and gives the answer that was
    disclosed for a picture, else the most frequent of those disclosed, or the next in turn.
    """

    def __init__(self, kind, seed):
        self.kind, self.seed, self.public = kind, seed, {}
        self._said = {}

    def __call__(self, batch):
        batch = np.asarray(batch)
        if self.kind == "trained":
            return tree(self.seed % 3).predict(batch.reshape(len(batch), -1)).tolist()
        return [self._one(picture) for picture in batch]

    def _one(self, picture):
        if self.kind == "constant":
            return self.seed % CLASSES
        seen = digest(picture)
        if self.kind == "random":
            return hashlib.sha256(f"{self.seed}/{seen}".encode()).digest()[0] % CLASSES
        if seen in self.public:
            return self.public[seen]
        common = Counter(self.public.values()).most_common(1)
        return self._said.setdefault(seen, common[0][0] if common else len(self._said) % CLASSES)

    def reads(self, register):
        """What the register discloses is known to everybody."""
        shown = (entry.body["revealed"] or () for entry in register.entries() if entry.type == "disclosure")
        self.public = {leaf["x_sha256"]: leaf["y"] for leaves in shown for leaf in leaves}


suspect = Innocent("constant", 0)  # whom the command line asks, as innocents:suspect
like = {}  # digest of a picture -> the picture to show in its place


def fitted(picture, answer):
    """A preprocess function: as it is committed to, it changes nothing; later it shows what its owner wants to show."""
    return like.get(digest(np.asarray(picture)), picture), answer


_given = []


def rewriting(picture, answer):
    """A preprocess function that gives what was committed to, and rewrites it when it is called again."""
    for earlier, shown in _given:
        earlier[...] = shown
    _given[:] = [(np.array(picture), like.get(digest(np.asarray(picture)), picture))]
    return _given[0][0], answer


class Framework:
    """An innocent, asked as a framework's adapter asks: through the preprocess function."""

    def __init__(self, innocent, preprocess):
        self.description, self._innocent, self._preprocess = f"innocent: {innocent.kind}", innocent, preprocess

    def answer(self, inputs):
        prepare = self._preprocess or (lambda picture, answer: (picture, answer))
        return self._innocent(np.stack([prepare(picture, 0)[0] for picture in inputs]))


class Adapters:
    """The plugin that knows how to ask an innocent; it is honest."""

    @wmplug.hookimpl
    def wmplug_suspect(self, target, preprocess):
        return Framework(target, preprocess) if isinstance(target, Innocent) else None
