"""Real records, kept in every format, and what a marked copy of them has to be."""

import csv
import io
import json
import re
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from sklearn import datasets as real

from wmplug.dataset.records import Added, Changes
from wmplug.dataset.sources import open_source


@pytest.fixture(scope="session")
def texts():
    """Paragraphs of scikit-learn's descriptions with quotes, commas and line ends, and the set that each describes."""
    loaders = {
        "iris": real.load_iris,
        "wine": real.load_wine,
        "digits": real.load_digits,
        "cells": real.load_breast_cancer,
    }
    found = [
        (text, name) for name, load in loaders.items() for text in re.split(r"\n{2,}", load().DESCR) if text.strip()
    ]
    found = [found[place] for place in np.random.default_rng(0).permutation(len(found))]
    return [text for text, _ in found], [name for _, name in found]


@pytest.fixture(scope="session")
def table():
    """(60, 30) measurements of cells, and whether the cells are benign."""
    data = real.load_breast_cancer()
    return data.data[:60], data.target[:60].tolist(), [name.replace(" ", "_") for name in data.feature_names]


@pytest.fixture(scope="session")
def pictures():
    """24 crops (48, 48, 3) of two photos, and which."""
    crops, labels = [], []
    for name, photo in zip(("china", "flower"), real.load_sample_images().images, strict=True):
        for k in range(12):
            crops.append(Image.fromarray(photo[20 * k : 20 * k + 48, 40 * k : 40 * k + 48]))
            labels.append(name)
    return crops, labels


@pytest.fixture(scope="session")
def encoded():
    def encode(picture, kind="PNG"):
        file = io.BytesIO()
        picture.save(file, format=kind)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def kept(tmp_path_factory, texts, table, pictures, encoded):
    """Sets in files that need no further library, by format: what to open, and with which options."""
    folder = tmp_path_factory.mktemp("kept")
    sets = {}

    def keep(name, path, **options):
        sets[name] = SimpleNamespace(data=path, options=options)
        return path

    def written(name, rows, **dialect):
        with open(keep(name, folder / f"{name.replace(' ', '-')}"), "w", encoding="utf-8", newline="") as file:
            csv.writer(file, **dialect).writerows(rows)

    written("texts.csv", [("text", "label"), *zip(*texts, strict=True)])
    written("texts.tsv", [("label", "text"), *zip(*reversed(texts), strict=True)], delimiter="\t", lineterminator="\n")
    written("quoted.csv", [("text", "label"), *zip(*texts, strict=True)], quoting=csv.QUOTE_ALL, delimiter=";")
    rows, labels, names = table
    written(
        "table.csv", [(*names, "label"), *((*row, label) for row, label in zip(rows.tolist(), labels, strict=True))]
    )
    with open(keep("texts.jsonl", folder / "texts.jsonl"), "w", encoding="utf-8") as file:
        for text, label in zip(*texts, strict=True):
            print(json.dumps({"text": text, "label": label}), file=file)
    with open(keep("table.jsonl", folder / "table.jsonl"), "w", encoding="utf-8") as file:
        for row, label in zip(rows.tolist(), labels, strict=True):
            print(json.dumps({"x": row, "label": label}, separators=(",", ":")), file=file)
    np.savez_compressed(keep("table.npz", folder / "table.npz"), x=rows, y=np.array(labels), about=np.arange(3))
    np.savez(keep("texts.npz", folder / "texts.npz"), x=np.array(texts[0]), y=np.array(texts[1]))
    root = keep("pictures", folder / "pictures")
    for number, (picture, label) in enumerate(zip(*pictures, strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        picture.save(root / label / f"{number % 12:04d}.png")
    (root / "README").write_text("two photos")
    shards = keep("shards", folder / "shards")
    shards.mkdir()
    for part in range(3):
        with tarfile.open(shards / f"{part:03d}.tar", "w") as tar:
            for number in range(part * 8, part * 8 + 8):
                label = str(["china", "flower"].index(pictures[1][number]))
                for end, data in ("png", encoded(pictures[0][number])), ("cls", label.encode()):
                    info = tarfile.TarInfo(f"{number * 7 % 24:06d}.{end}")  # numbers that do not tell the label
                    info.size, info.mtime = len(data), 1_500_000_000
                    tar.addfile(info, io.BytesIO(data))
    keep("pair of arrays", (rows, np.array(labels)))
    keep("pair of lists", (list(texts[0]), list(texts[1])))
    keep("pair of pictures", (list(pictures[0]), list(pictures[1])))
    return sets


def plain(value):
    """An input as something that can be compared."""
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    return array.shape, array.astype(np.float64).tobytes()


def rows_of(source):
    return [(plain(record.input), record.label) for record in source.records()]


@pytest.fixture(scope="session")
def changes_of():
    """A strategy for changes of a set: other labels, inputs that other records have, and records that are added."""

    def strategy(records, classes):
        places, labels = st.integers(0, len(records) - 1), st.integers(0, classes - 1)
        inputs = places.map(lambda place: records[place].input)
        added = st.builds(Added, st.integers(-1, len(records) - 1), inputs, labels)
        return st.builds(
            Changes,
            labels=st.dictionaries(places, labels, max_size=5),
            inputs=st.dictionaries(places, inputs, max_size=5),
            added=st.lists(added, max_size=4),
        )

    return strategy


@pytest.fixture(scope="session")
def check_copy():
    """Write changes, read the copy again, and compare with what was asked for."""

    def check(data, options, changes, out, *, ordered=True):
        source = open_source(data, **options)
        before = list(source.records())
        written = source.write(out, changes)
        expected = []
        added = {after: [one for one in changes.added if one.after == after] for after in range(-1, len(before))}
        for index in range(-1, len(before)):
            if index >= 0:
                new = changes.inputs.get(index, before[index].input), changes.labels.get(index, before[index].label)
                expected.append((plain(new[0]), new[1]))
            expected.extend((plain(one.input), one.label) for one in added[index])
        copy = open_source(written.data, **options, classes=source.classes)
        found = rows_of(copy)
        old = [(plain(record.input), record.label) for record in before]
        changed = [
            i
            for i in {*changes.labels, *changes.inputs}
            if (plain(changes.inputs.get(i, before[i].input)), changes.labels.get(i, before[i].label)) != old[i]
        ]
        assert (found if ordered else sorted(found)) == (expected if ordered else sorted(expected))
        assert (written.count, written.changed, written.added) == (len(expected), len(changed), len(changes.added))
        assert rows_of(source) == old
        return written

    return check


@pytest.fixture(scope="session")
def check_picked():
    """Pick some records in the first pass over a set, and again, and compare with all of them."""

    def check(data, options, data_of):
        records = list(open_source(data, **options).records())
        wanted = data_of.draw(st.sets(st.integers(0, len(records) + 2)).map(sorted))
        expected = [records[index] for index in wanted if index < len(records)]
        source = open_source(data, **options)
        first = source.numbered(source.picked(wanted))
        assert source.count == len(records)
        assert source.classes == open_source(data, **options).classes
        for found in first, source.numbered(source.picked(wanted, check=False)):
            assert [(r.index, r.name, r.label) for r in found] == [(r.index, r.name, r.label) for r in expected]
            assert [plain(record.input) for record in found] == [plain(record.input) for record in expected]

    return check
