"""find: what a suspect data set holds of the owner's, and whose copy it is from."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from scipy.stats import binom
from sklearn.datasets import load_breast_cancer

import wmplug
from wmplug import dataset
from wmplug.dataset.finding import find
from wmplug.dataset.likeness import Likeness, digest
from wmplug.dataset.records import Record
from wmplug.dataset.schemes.canaries import Canaries
from wmplug.dataset.schemes.label_twins import LabelTwins
from wmplug.dataset.schemes.twins import Twins
from wmplug.dataset.sources import open_source
from wmplug.dataset.sources.pairs import Pair
from wmplug.errors import InputError, PluginError
from wmplug.keys.streams import Subkeys
from wmplug.schemes.tilt import Tilt
from wmplug.watermark.plan import draw_symbols

LEAKED = {}  # for the property below: Hypothesis prints its arguments, and these are large


@pytest.fixture(scope="module")
def texts():
    """180 paragraphs of NumPy's own documentation."""
    found = [getattr(np, name).__doc__ or "" for name in sorted(dir(np)) if callable(getattr(np, name))]
    return list(dict.fromkeys(" ".join(text.split()[:80]) for text in found if len(text.split()) > 80))[:180]


def twin_labels(owner, inputs, labels, copy="", count=60):
    """A mark that chooses between each of the first records' own label and the next class."""
    inputs, labels = inputs[:count], labels[:count]
    chosen = np.zeros((count, 10), np.float32)
    chosen[np.arange(count), labels], chosen[np.arange(count), (labels + 1) % 10] = 0.5, 0.5
    scheme = LabelTwins(copy=copy, pool=chosen)
    return wmplug.create(
        owner, scheme=scheme, carriers=inputs, labels=labels, classes=10, triggers=count, allow_weak=True
    )


def published(mark, inputs, labels):
    """The marked copy, as inputs and labels."""
    records = [
        Record(i, f"record {i}", value, int(label)) for i, (value, label) in enumerate(zip(inputs, labels, strict=True))
    ]
    changes = mark.scheme.changes(mark.triggers, records, len(records))
    return Pair(inputs, labels).write(None, changes).data


@pytest.fixture(scope="module")
def leaked(owner, patches):
    """The marks of eight licensees, and the copy of the third."""
    marks = {f"licensee {i}": twin_labels(owner, *patches, copy=str(i)) for i in range(8)}
    LEAKED["set"] = marks, published(marks["licensee 3"], *patches)
    return LEAKED["set"]


def test_a_set_is_found_whole_in_any_order_and_format(patches, leaked, tmp_path):
    images, labels = patches
    order = np.random.default_rng(0).permutation(len(images))
    for i in order:
        (tmp_path / "set" / str(labels[i])).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(tmp_path / "set" / str(labels[i]) / f"{159 - i:03}.png")
    np.savez(tmp_path / "set.npz", x=images[order].astype(np.float32), y=labels[order])
    for data in (tmp_path / "set", tmp_path / "set.npz"):
        found = find(leaked[0]["licensee 0"], data, own=(images, labels))
        assert (found.records, found.of, found.exact, found.near) == (160, 160, 160, 0)
        assert (found.held[0].exact, found.held[0].of) == (60, 60)
        assert found.held[0].draws == 60  # no label is out of place


def test_rows_of_a_table_are_found_in_a_file(tmp_path):
    table, labels = load_breast_cancer(return_X_y=True)
    names = [f"c{i}" for i in range(table.shape[1])]
    rows = [",".join([*map(str, row), str(label)]) for row, label in zip(table.tolist(), labels, strict=True)]
    (tmp_path / "set.csv").write_text("\n".join([",".join([*names, "label"]), *reversed(rows)]) + "\n")
    index = Likeness()
    for i, row in enumerate(table):
        index.add(i, row)
    records = open_source(tmp_path / "set.csv", label="label").records()
    found = index.find([record.input for record in records])
    assert [match.own for match in found] == list(reversed(range(len(table))))
    assert {match.how for match in found} == {"exact"}


def test_other_records_are_not_found(patches, leaked):
    images, labels = patches
    found = find(leaked[0]["licensee 0"], Pair(images[80:], labels[80:]), own=Pair(images[:80], labels[:80]))
    assert found.exact == 0
    assert found.near <= 3
    assert found.held[0].exact == 0
    assert found.examples == () or found.near


def test_labels_tell_whose_copy_it_is(patches, leaked):
    marks, copy = leaked
    found = find(marks, Pair(*copy))
    assert found.sources(1e-3) == ("licensee 3",)
    assert {one.name: one.matches for one in found.held}["licensee 3"] == 60
    assert found.held[3].log10_p == pytest.approx(60 * np.log10(0.5))
    assert find(marks, Pair(*patches)).sources(1e-3) == ()


def test_classes_that_the_data_have_not_are_asked_for(owner, table_of_words, tmp_path):
    made, path = table_of_words
    rows = path.read_text().splitlines()
    (tmp_path / "some.csv").write_text("\n".join([rows[0], *(row for row in rows[1:] if not row.endswith("food"))]))
    with pytest.raises(InputError, match=r"2 classes \(money, sport\), and the marked set has 3"):
        dataset.find(made.mark, tmp_path / "some.csv", near=False)
    found = dataset.find(made.mark, tmp_path / "some.csv", near=False, classes=made.manifest["classes"])
    (held,) = found.held
    assert 20 < held.draws < 60
    assert held.matches == held.draws
    assert held.log10_p == pytest.approx(-held.draws * np.log10(2))


@pytest.fixture
def table_of_words(owner, tmp_path):
    """A marked table of texts, and where it lies."""
    draw = np.random.default_rng(0)
    with (tmp_path / "set.csv").open("w") as file:
        file.write("text,label\n")
        for number in range(300):
            text = " ".join(draw.choice(["red", "blue", "green", "wet", "dry", "cold", "warm"], 8))
            file.write(f"{text} n{number},{draw.choice(['food', 'money', 'sport'])}\n")
    made = dataset.mark(tmp_path / "set.csv", owner, out=tmp_path / "out.csv", share=0.2)
    return made, made.data


def test_nobody_is_named_by_chance(owner, patches):
    mark = twin_labels(owner, *patches, count=20)
    marks = {}
    for key in range(200):
        label = Subkeys.derive(f"label {key}".encode().ljust(32, b"."), "0").stream("label")
        drawn = replace(mark.triggers, symbols=draw_symbols(label, mark.triggers.plan.options))
        marks[f"copy {key}"] = replace(mark, triggers=drawn)
    found = find(marks, Pair(patches[0][:20], patches[1][:20]), near=False)
    ps = np.array([10**one.log10_p for one in found.held])
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (ps <= level).sum() <= binom.ppf(1 - 1e-4, 200, level)
    assert (ps <= 0.5).sum() >= 60
    assert found.sources(1e-3) == ()


def test_a_version_is_told_after_reencoding(owner, rival, patches):
    images, labels = patches
    mark, other = (
        wmplug.create(
            who, scheme=Twins(change="mirror"), carriers=images[:80], labels=labels[:80], classes=10, triggers=80
        )
        for who in (owner, rival)
    )
    inputs, labels = published(mark, images, labels)
    found = find([mark, other], Pair([jpeg(image) for image in inputs], labels))
    assert found.held[0].near > 70
    assert found.held[0].matches >= 0.95 * found.held[0].draws > 60
    assert found.sources() == (mark.id,)


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=75)
    return Image.open(file)


def test_texts_are_found_after_small_changes(owner, texts):
    labels = np.arange(len(texts)) % 4
    mark = wmplug.create(owner, scheme=Canaries(), carriers=texts, classes=4, triggers=40)
    inputs, labels = published(mark, texts, labels.tolist())
    changed = [" ".join(text.lower().split()[1:]) for text in inputs]
    found = find(mark, Pair(changed, labels), own=Pair(texts, None))
    assert found.exact == 0
    assert found.near == len(texts)
    assert found.held[0].matches == found.held[0].draws >= 30
    strangers = find(mark, Pair(changed[:40], labels[:40]), own=Pair(texts[60:], None))
    assert strangers.near < 10  # its functions have relatives, which it describes in the same words


def test_rows_are_found_in_three_digits(leaked):
    table = load_breast_cancer().data
    noisy = table * (1 + 1e-7 * np.random.default_rng(0).normal(size=table.shape))
    index = Likeness()
    for i, row in enumerate(table):
        index.add(i, row)
    found = index.find(list(noisy))
    assert (
        np.mean([match is not None and match.own == i and match.how == "near" for i, match in enumerate(found)]) > 0.98
    )
    assert index.find(list(table * 1.05)) == [None] * len(table)
    assert [match.how for match in index.find(list(table.astype(object).astype(float)))] == ["exact"] * len(table)


def test_chosen_records_stay_secret_unless_asked_for(patches, leaked):
    marks, copy = leaked
    shy, bold = (find(marks, Pair(*copy), near=False, reveal=reveal) for reveal in (False, True))
    assert shy.examples == shy.chosen == ()
    assert set(bold.chosen) == {f"record {i}" for i in range(60)}
    for text in (str(shy), repr(bold), str(bold), str(bold.to_json())):
        assert "record 1" not in text
    whole = find(marks, Pair(*copy), own=Pair(*patches), near=False, examples=3)
    assert whole.examples == ("record 0", "record 1", "record 2")
    assert "record 2" in str(whole)


def test_what_holds_no_records_is_refused(owner, digits):
    images, labels = digits
    mark = wmplug.create(
        owner, scheme=Tilt(directions=4, blends=4, pool=()), carriers=images, labels=labels, classes=10
    )
    with pytest.raises(InputError, match="decides nothing about single records"):
        find(mark, Pair(images, labels))
    with pytest.raises(InputError, match="needs the watermark"):
        find([], Pair(images, labels))
    with pytest.raises(InputError, match="needs the watermark"):
        find("mark.wm", Pair(images, labels))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imagehash", None)
    with pytest.raises(PluginError, match=r"pip install 'wmplug\[dataset\]'"):
        Likeness().add(0, np.eye(16))
    Likeness(near=False).add(0, np.eye(16))


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=2, max_side=6)))
def test_a_digest_knows_numbers_and_not_their_dtype(array):
    assert digest(array) == digest(array.astype(np.float32)) == digest(array.ravel())
    other = array.copy()
    other.flat[0] ^= 1
    assert digest(other) != digest(array)


@pytest.mark.usefixtures("leaked")
@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 159), min_size=1, unique=True))
def test_order_and_number_of_records_do_not_matter(rows):
    marks, (inputs, labels) = LEAKED["set"]
    one, other = (find(marks["licensee 3"], Pair(inputs[r], labels[r]), near=False).held for r in (rows, sorted(rows)))
    assert one == other
    assert one[0].exact == one[0].matches == sum(row < 60 for row in rows)
