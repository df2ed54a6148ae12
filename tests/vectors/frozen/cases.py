"""What is frozen: carriers by hashing alone, so that they are the same for ever, and what is made of them.

A case that stands here is never changed: its file was written by the release that the folder is called after.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

PASSPHRASE = "frozen"
CASE = "2026-17"
NONCES = {"notary": bytes(range(16)), "opponent": bytes(range(50, 82))}


@dataclass(frozen=True)
class Case:
    """A watermark to make.

    Attributes:
        options: of `wmplug.create`, the owner aside.
        exact: its inputs are made again bit by bit; else they come from a sine, a network or a resized float.
        near: mean difference that they may have, where they are not exact.
        same_id: the id follows from what is given by arithmetic alone; else from a decomposition.
    """

    options: dict = field(repr=False)
    exact: bool = True
    near: float = 1e-6
    same_id: bool = True


def drawn(name, *shape):
    """Bytes of `shape`, uint8."""
    return np.frombuffer(hashlib.shake_256(name.encode()).digest(int(np.prod(shape))), np.uint8).reshape(shape)


def squares():
    """(60, 6, 6) uint8, by arithmetic alone."""
    return (np.arange(60 * 36, dtype=np.int64) ** 2 % 251).astype(np.uint8).reshape(60, 6, 6)


def floats(name, *shape):
    return drawn(name, *shape).astype(np.float32) / 256


def pils(name, *shape):
    return [Image.fromarray(one) for one in drawn(name, *shape)]


def labels(count, classes=3):
    return np.arange(count) % classes


def shares(name, *shape):
    """Probabilities over the last axis, float32, few of them far apart."""
    parts = 64 + drawn(name, *shape).astype(np.int64)
    return (parts / parts.sum(axis=-1, keepdims=True)).astype(np.float32)


def pool(count, classes=3):
    """What unmarked references say: scores and votes."""
    return np.stack([shares("scores", count, classes), shares("votes", count, classes)])


WORDS = [f"{a}{b}{c}{d}" for a in "bdfgklmnpr" for b in "aeio" for c in "stz" for d in "un"]
_STRIDES = (1, 7, 11)  # without a common divisor with the number of words, so that a round has each word once


def texts():
    """120 texts of 6 words, each of which is in three of them."""
    places = [(round_, 6 * row + place) for round_ in range(3) for row in range(40) for place in range(6)]
    words = [WORDS[_STRIDES[round_] * at % len(WORDS)] for round_, at in places]
    return [" ".join(words[i : i + 6]) for i in range(0, len(words), 6)]


def short_texts():
    """60 texts of 5 words of 24."""
    return [" ".join(WORDS[word % 24] for word in row) for row in drawn("short", 60, 5)]


def tokens(text, answer):
    """As a dataset yields it."""
    return {"input_ids": [2 + WORDS.index(word) for word in text.split()], "label": answer}


def counted(ids):
    """Features of token ids: how many of them leave each remainder by seven."""
    return np.stack([(np.asarray(ids) % 7 == rest).sum(axis=1) for rest in range(7)], axis=1).astype(np.float64)


def darkest(images):
    return np.asarray(images, np.int64).reshape(len(images), -1).sum(axis=1) % 3


def halves(images):
    return np.array([[2, 1, 1], [1, 2, 1], [1, 1, 2]])[darkest(images + 1)] / 4


LOGO = np.concatenate([np.kron(np.eye(4), np.ones((3, 3)))[..., None].repeat(3, 2), np.ones((12, 12, 1))], axis=2)
CLAIM = {"scheme": "random-label", "classes": 10, "triggers": 20}
RANDOM = {"scheme": "random-label", "classes": 10, "triggers": 8}
PER_CLASS = {"scheme": "logo", "classes": 3, "triggers": 8, "variants": 2, "lessons": 2}
PER_CARRIER = {"scheme": "logo", "rule": "per-carrier", "triggers": 8}
PHRASE = {"scheme": "phrase", "classes": 4, "triggers": 8, "combinations": 4, "lessons": 4}
TILT = {"delta": 1.0, "directions": 3, "questions": 14, "blends": 6, "classes": 3}
COMBINED = {"scheme": "combined", "triggers": 6, **TILT}


# Of which verdicts are kept too.
JUDGED = (
    *(
        "random-label-grey",
        "random-label-words",
        "logo-grey",
        "logo-carrier-two",
        "phrase",
        "tilt-grey",
        "tilt-members",
    ),
    *("tilt-text-features", "combined-grey", "combined-logo", "label-twins-grey", "twins-grey", "canaries-text"),
    "radioactive-data",
    *("close-calls-grey", "mixed-grey", "served-grey", "combined-served-grey"),
)


def marks():
    """Watermarks that any training can be given; no framework is needed to make them."""
    grey, colour, table = drawn("grey", 40, 8, 8), drawn("colour", 40, 12, 12, 3), floats("table", 40, 7)
    return {
        "random-label-grey": Case({**RANDOM, "carriers": grey}),
        "random-label-dim": Case({**RANDOM, "carriers": grey % 16, "labels": labels(40)}),
        "random-label-colour": Case({**RANDOM, "carriers": colour}),
        "random-label-float": Case({**RANDOM, "carriers": floats("first", 40, 3, 8, 8)}, exact=False),
        "random-label-int": Case({**RANDOM, "carriers": grey[..., None].astype(np.int32) - 100}),
        "random-label-pil": Case({**RANDOM, "carriers": pils("pil", 40, 8, 8)}),
        "random-label-pil-colour": Case({**RANDOM, "carriers": pils("pil colour", 40, 8, 8, 3)}),
        "random-label-pictures": Case({**RANDOM, "carriers": table, "pictures": floats("own", 9, 7)}),
        "random-label-text": Case({**RANDOM, "carriers": texts()}),
        "random-label-words": Case({**RANDOM, "carriers": texts(), "words": 3, "classes": 2}),
        "random-label-sentences": Case({**RANDOM, "carriers": texts(), "pictures": texts()[3:80:7]}),
        "logo-grey": Case({**PER_CLASS, "carriers": grey, "labels": labels(40)}),
        "logo-pil-colour": Case({**PER_CLASS, "carriers": pils("pil colour", 40, 12, 12, 3), "labels": labels(40)}),
        "logo-own": Case({**PER_CLASS, "carriers": colour, "labels": labels(40), "logo": LOGO}),
        "logo-own-grey": Case({**PER_CLASS, "carriers": grey, "labels": labels(40), "logo": drawn("logo", 5, 5)}),
        "logo-carrier": Case({**PER_CARRIER, "carriers": colour, "labels": labels(40), "classes": 3}),
        "logo-carrier-two": Case({**PER_CARRIER, "carriers": grey, "labels": labels(40, 2), "classes": 2}),
        "logo-carrier-float": Case(
            {**PER_CARRIER, "carriers": floats("first", 40, 3, 8, 8), "labels": labels(40), "classes": 3}
        ),
        "logo-carrier-pil": Case(
            {**PER_CARRIER, "carriers": pils("pil", 40, 8, 8), "labels": labels(40), "classes": 3}
        ),
        "phrase": Case({**PHRASE, "carriers": texts(), "labels": labels(120, 4)}),
        "phrase-three": Case({**PHRASE, "carriers": texts(), "labels": labels(120, 4), "words": 3, "at_most": 4}),
        "phrase-own": Case(
            {**PHRASE, "carriers": texts(), "labels": labels(120, 4), "phrases": ["north wind", "red old kite"]}
        ),
        "tilt-grey": Case({"scheme": "tilt", **TILT, "carriers": grey, "labels": labels(40), "pool": pool(40)}),
        "tilt-colour": Case(
            {"scheme": "tilt", **TILT, "carriers": colour[:, :8, :8], "labels": labels(40), "pool": pool(40)}
        ),
        "tilt-pil": Case(
            {"scheme": "tilt", **TILT, "carriers": pils("pil", 40, 8, 8), "labels": labels(40), "pool": pool(40)}
        ),
        "tilt-float": Case(
            {
                **{"scheme": "tilt", **TILT, "carriers": floats("first", 40, 3, 8, 8)},
                **{"labels": labels(40), "pool": pool(40)},
            },
        ),
        "tilt-table": Case({"scheme": "tilt", **TILT, "carriers": table, "labels": labels(40), "pool": pool(40)}),
        "tilt-queries": Case(
            {
                **{"scheme": "tilt", **TILT, "carriers": grey, "labels": labels(40)},
                **{"queries": drawn("queries", 20, 8, 8), "pool": pool(60)},
            }
        ),
        "tilt-labels": Case({"scheme": "tilt", **TILT, "carriers": grey, "labels": labels(40), "pool": ()}),
        "tilt-members": Case(
            {"scheme": "tilt", **TILT, "carriers": grey, "labels": labels(40), "pool": [darkest, halves]}
        ),
        "tilt-text": Case(
            {
                **{"scheme": "tilt", **TILT, "carriers": short_texts(), "labels": labels(60)},
                **{"pool": pool(60), "preprocess": tokens},
            },
            same_id=False,
        ),
        "tilt-text-features": Case(
            {
                **{"scheme": "tilt", **TILT, "carriers": short_texts(), "labels": labels(60)},
                **{"pool": pool(60), "preprocess": tokens, "features": counted},
            }
        ),
        "combined-grey": Case({**COMBINED, "carriers": grey, "labels": labels(40), "pool": pool(40)}),
        "combined-logo": Case(
            {
                **{**COMBINED, "carriers": pils("pil", 90, 8, 8), "labels": labels(90, 2)},
                **{"pool": pool(90, 2), "trigger_set": "logo", "triggers": 15, "classes": 2},
            }
        ),
        "combined-text": Case(
            {
                **{**COMBINED, "carriers": texts(), "labels": labels(120)},
                **{"pool": pool(120), "preprocess": tokens, "features": counted},
            }
        ),
    }


def later():
    """Watermarks of schemes that came after the others of their release were kept."""
    grey, table, told = (
        drawn("grey", 40, 8, 8),
        floats("table", 40, 7),
        {"labels": labels(40), "pool": shares("later", 40, 3)},
    )
    calls, served = {"classes": 3, "triggers": 8, **told}, {"cells": 6, "questions": 14, "classes": 3, **told}
    words = {"carriers": texts(), "labels": labels(120), "pool": shares("later words", 120, 3)}
    return {
        "close-calls-grey": Case({"scheme": "close-calls", **calls, "carriers": grey}),
        "close-calls-isolated": Case({"scheme": "close-calls", **calls, "carriers": table, "isolated": True}),
        "mixed-grey": Case({"scheme": "mixed", **calls, "carriers": grey}),
        "mixed-text": Case({"scheme": "mixed", **calls, **words}),
        "served-grey": Case({"scheme": "served", **served, "carriers": grey}),
        "served-table": Case({"scheme": "served", **served, "carriers": table, "personal": 0.0}),
        "served-text": Case({"scheme": "served", **served, **words}),
        "combined-served-grey": Case({"scheme": "combined-served", **served, "carriers": grey, "triggers": 6}),
    }


def rewritten(text):
    """A text of the same meaning."""
    return f"{text} indeed"


def dataset_marks():
    """Watermarks of training sets."""
    grey, first, table = drawn("grey", 40, 8, 8), floats("first", 40, 3, 8, 8), floats("table", 40, 7)
    given = {"labels": labels(40), "classes": 3, "triggers": 10}
    short = {"carriers": short_texts(), "labels": labels(60), "classes": 3}
    twins, network = {"scheme": "twins", **given}, (floats("network", 105_699) - 0.5) / 8
    return {
        "label-twins-grey": Case({"scheme": "label-twins", **given, "carriers": grey, "pool": shares("grey", 40, 3)}),
        "label-twins-all": Case(
            {"scheme": "label-twins", **given, "carriers": table, "pool": shares("all", 40, 3), "triggers": 40}
        ),
        "label-twins-pil": Case(
            {
                **{"scheme": "label-twins", **given, "carriers": pils("pil colour", 40, 8, 8, 3)},
                **{"pool": shares("pil", 40, 3), "copy": "Bob"},
            }
        ),
        "label-twins-text": Case({"scheme": "label-twins", **short, "pool": shares("text", 60, 3), "triggers": 60}),
        "twins-grey": Case({**twins, "carriers": grey}),
        "twins-mirror": Case({**twins, "carriers": drawn("colour", 40, 8, 8, 3), "change": "mirror"}),
        "twins-float": Case({**twins, "carriers": first, "cut": 0.2}, exact=False),
        "twins-pil": Case({**twins, "carriers": pils("pil colour", 40, 8, 8, 3)}),
        "twins-table": Case({**twins, "carriers": table}),
        "twins-table-int": Case({**twins, "carriers": drawn("table", 40, 7).astype(np.int64), "jitter": 2.0}),
        "twins-text": Case({"scheme": "twins", **short, "triggers": 10, "rule": rewritten}),
        "canaries-grey": Case({"scheme": "canaries", **given, "carriers": grey}),
        "canaries-pil": Case({"scheme": "canaries", **given, "carriers": pils("pil", 40, 8, 8), "repeats": 2}),
        "canaries-table": Case({"scheme": "canaries", **given, "carriers": table, "copy": "Bob"}),
        "canaries-text": Case(
            {"scheme": "canaries", "carriers": texts(), "labels": labels(120), "classes": 3, "triggers": 6}
        ),
        "canaries-own": Case({"scheme": "canaries", **given, "carriers": grey, "pictures": drawn("own", 10, 8, 8)}),
        "radioactive-data": Case(
            {
                **{"scheme": "radioactive-data", **given, "carriers": pils("pil colour", 40, 8, 8, 3)},
                **{"network": network, "bound": 24},
            },
            exact=False,
            near=0.02,  # of a grey level
        ),
    }


def csv_texts():
    """A table of texts and topics."""
    lines = [f"{text},topic {i % 3}" for i, text in enumerate(texts())]
    return "\n".join(["text,topic", *lines, ""])


def csv_numbers():
    """A table of numbers and kinds."""
    rows = drawn("numbers", 60, 4).tolist()
    return "\n".join(["a,b,c,d,kind", *(",".join([*map(str, row), f"kind {row[0] % 3}"]) for row in rows), ""])


_TOPICS, _KINDS = {"text": "text", "label": "topic"}, {"columns": ["a", "b", "c", "d"], "label": "kind"}
# What is written -> what it is made of, and how. Trained references choose the records of label-twins.
TABLES = {
    "canaries-topics.csv": ("topics.csv", {"scheme": "canaries", "share": 0.1, **_TOPICS}),
    "canaries-numbers.csv": ("numbers.csv", {"scheme": "canaries", "share": 0.1, **_KINDS}),
    "label-twins-topics.csv": ("topics.csv", {"scheme": "label-twins", "share": 0.5, **_TOPICS}),
    "copies": ("numbers.csv", {"scheme": "canaries", "share": 0.2, "copies": ["Ada", "Bob"], **_KINDS}),
}


def key_of(given):
    """A byte or two of an input's digest: all that a suspect here goes by."""
    data = given.encode() if isinstance(given, str) else np.asarray(given).tobytes()
    return int.from_bytes(hashlib.sha256(data).digest()[:2], "big")


def suspect(inputs, answers, classes, scores=False):
    """Knows three secret answers of four, fails at some, and else answers by the digest of what it is asked.

    Args:
        inputs: of the watermark.
        answers: to them; -1 where there is none.
        classes: of the task.
        scores: whether it gives scores.
    """
    secret = {key_of(x): y for x, y in zip(inputs, answers, strict=True) if y >= 0}

    def one(given):
        key = key_of(given)
        if key % 16 == 5:
            raise ValueError("this one hangs")
        answer = secret.get(key, -1) if key % 4 else -1
        answer = key // 16 % classes if answer < 0 else answer
        if not scores:
            return answer
        parts = [1 + (key >> label) % 5 + 9 * (label == answer) for label in range(classes)]
        return [part / sum(parts) for part in parts]

    def frozen(batch):
        return [one(given) for given in batch]

    frozen.__qualname__ = "frozen"
    return frozen


def without_source(function, name):
    """A model of a class that no file holds, so that what is on record of it does not change with this file."""
    return type(name, (), {"__module__": "frozen", "__call__": lambda self, batch: function(batch)})()


def model():
    """With a configuration, as models of transformers have one."""
    config = type("Config", (), {"to_dict": lambda self: {"layers": 2, "width": 16, "activation": "relu"}})()
    return type("Model", (), {"__module__": "frozen", "config": config})()


def weights():
    return {"w": np.arange(6, dtype=np.float32), "b": np.arange(3, dtype=np.float64)}
