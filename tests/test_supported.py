"""docs/supported.md is what the code does: each scheme with each kind of input, each adapter with each point."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wmplug
from wmplug import plugins
from wmplug.errors import InputError

PAGE = (Path(__file__).parents[1] / "docs" / "supported.md").read_text()
RNG = np.random.default_rng(0)
KINDS = {
    "pictures": [
        RNG.integers(0, 256, (400, 8, 8)).astype(np.uint8),
        [Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(400)],
    ],
    "texts": [[" ".join(f"w{i}" for i in RNG.integers(0, 50, 12)) for _ in range(400)]],
    "tables": [RNG.standard_normal((400, 12)).astype(np.float32)],
}


def table(title):
    section = PAGE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    head, _, *rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"
    ]
    return {row[0].strip("`"): dict(zip(head, row, strict=True)) for row in rows}


SCHEMES = table("Scheme and kind of input")


def test_every_scheme_and_adapter_has_a_row():
    assert set(SCHEMES) == set(plugins.SCHEMES)
    assert set(table("Framework and what it can carry")) == set(plugins.ADAPTERS)


def spoken(text, answer):
    return np.array([1 + int(word[1:]) for word in text.split()]), answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scheme", [name for name, row in SCHEMES.items() if row["put into"] != "a training set"])
def test_a_scheme_takes_what_the_page_says(scheme, kind, owner):
    shares = RNG.dirichlet(np.ones(4), (2, 400))  # references that cost nothing
    cheap = {"pool": shares, "delta": 1.0, "blends": 20} if scheme in ("tilt", "combined") else {}
    cheap |= {"pool": shares[0]} if scheme in ("served", "combined-served", "mixed") else {}
    for carriers in KINDS[kind]:
        given = {"carriers": carriers, "labels": np.arange(400) % 4, "classes": 4, **cheap}
        given |= {"triggers": 50} if scheme in ("close-calls", "mixed") else {}
        given |= {"preprocess": spoken} if kind == "texts" and "delta" in cheap else {}
        given |= {"phrases": [f"rare{i} words{i}" for i in range(16)]} if scheme == "phrase" else {}
        if SCHEMES[scheme][kind] == "yes":
            assert wmplug.create(owner, scheme=scheme, **given).scheme.name == scheme
        else:
            with pytest.raises(InputError):
                wmplug.create(owner, scheme=scheme, **given)


def test_the_points_of_a_scheme_are_those_of_the_page():
    for name, row in SCHEMES.items():
        points = set(plugins.registry().scheme(name).points)
        said = {
            "training batches": {"samples"},
            "training batches and logits": {"samples", "logits"},
            "training batches and answers of a served model": {"samples", "answers"},
            "answers of a served model": {"answers"},
            "a training set": set(),
        }
        assert points == said[row["put into"]], name
