import csv
import json
import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import wmplug
from wmplug import Owner, dataset
from wmplug.dataset import manifest, places, sampling
from wmplug.dataset.sources import open_source
from wmplug.errors import AmbiguityWarning, InputError
from wmplug.keys.streams import KeyStream
from wmplug.register import Register, assets
from wmplug.schemes.tilt import references

PASSPHRASE = "correct horse battery staple"


@pytest.fixture(scope="module")
def table(digits):
    images, labels = digits
    return images.reshape(len(images), -1)[:500], labels[:500]


@pytest.fixture
def file(table, tmp_path):
    """The same as a table with named classes."""
    path = tmp_path / "digits.csv"
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow([*(f"p{i}" for i in range(64)), "digit"])
        writer.writerows([*row, f"digit {label}"] for row, label in zip(*table, strict=True))
    return path


def numbers(count, label=True):
    """A source of so many records, each its own number."""
    return open_source((np.arange(count)[:, None], np.arange(count) % 2 if label else None))


def test_the_same_again_and_another_under_another_owner(table, owner, rival):
    one, two = (dataset.mark(table, owner, share=0.1) for _ in range(2))
    assert one.mark.id == two.mark.id
    assert np.array_equal(one.data[1], two.data[1])
    assert one.manifest == two.manifest
    other = dataset.mark(table, rival, share=0.1)
    assert other.mark.id != one.mark.id
    assert not np.array_equal(other.data[1], one.data[1])
    assert 10 < (one.data[1] != table[1]).sum() == one.manifest["changed"] < 40


def test_a_file_its_manifest_and_its_secret(file, owner, tmp_path):
    made = dataset.mark(file, owner, out=tmp_path / "out.csv", label="digit", share=0.1)
    before, after = file.read_text().splitlines(), (tmp_path / "out.csv").read_text().splitlines()
    changed = [(one, two) for one, two in zip(before, after, strict=True) if one != two]
    assert len(changed) == made.manifest["changed"] == made.written[""].changed
    assert all(one.rpartition(",")[0] == two.rpartition(",")[0] for one, two in changed)
    assert manifest.read(tmp_path / "out.csv.manifest.json") == made.manifest
    assert made.manifest["dataset"]["root"] == assets.dataset(tmp_path / "out.csv")["root"]
    again = wmplug.load(tmp_path / "out.csv.wm", passphrase=PASSPHRASE)
    assert again.public == made.mark.public
    # What is public names no record, no draw and no key.
    assert set(made.manifest) == {
        *("kind", "wmplug", "owner", "scheme", "scheme_version", "copy", "share", "records", "changed", "added"),
        *("watermark", "root", "evidence", "dataset", "classes", "draws"),
    }


def test_the_register_has_the_copy(table, tmp_path):
    owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    made = dataset.mark(table, owner, scheme="canaries", share=0.05)
    found = {entry.type: entry.body for entry in Register(tmp_path / "register").entries()}
    assert found["triggers.committed"]["root"] == made.manifest["root"]
    assert found["dataset.committed"]["root"] == made.manifest["dataset"]["root"]
    assert found["dataset.committed"]["watermark"] == made.mark.id


def test_copies_lie_in_a_folder_under_their_names(file, owner, tmp_path):
    made = dataset.mark(file, owner, out=tmp_path / "out", label="digit", scheme="canaries", copies=3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"copy-{i}.csv{end}" for i in (1, 2, 3) for end in ("", ".manifest.json", ".wm")
    ]
    assert [one["copy"] for one in made.manifests.values()] == ["copy-1", "copy-2", "copy-3"]
    with pytest.raises(InputError, match="there are 3 copies"):
        _ = made.mark


@pytest.mark.parametrize("written", [(-1, 1), (False, True), (1001, 2050)])
def test_labels_of_two_classes_stay_as_they_are_written_and_are_answered_so(table, owner, tmp_path, written):
    """A model of scikit-learn answers with the labels that it was trained on."""
    rows, labels = table
    labels = np.array(written)[(labels % 2).astype(int)]
    made = dataset.mark((rows, labels), owner, scheme="canaries", share=0.2)
    kept = wmplug.load(made.mark.save(tmp_path / "mark.wm"), passphrase=PASSPHRASE)
    assert made.data[1].dtype == labels.dtype
    assert {type(one) for one in made.data[1].tolist()} == {type(one) for one in written}
    assert set(made.data[1].tolist()) == set(written)
    assert made.manifest["classes"] == [str(one) for one in written]
    known = {row.tobytes(): label for row, label in zip(made.data[0], made.data[1], strict=True)}
    answer = lambda asked: np.array([known[row.tobytes()] for row in asked])  # noqa: E731
    assert dataset.verify(kept, answer).state == "proven"
    assert ("class_names" in kept.public) == (False not in written)


def test_records_that_occur_again_beyond_the_sample_keep_their_labels(table, owner, monkeypatch):
    """Two labels of one record show which was drawn."""
    monkeypatch.setattr(sampling, "SAMPLE", 300)
    rows, labels = table[0].astype(np.float32), table[1]
    again = np.where(rows[:250] == 0, np.float32(-0.0), rows[:250])
    made = dataset.mark((np.concatenate([rows, again]), np.concatenate([labels, labels[:250]])), owner, share=0.05)
    changed = np.flatnonzero(made.data[1] != np.concatenate([labels, labels[:250]]))
    assert made.manifest["changed"] == len(changed) > 3
    assert 250 <= changed.min() <= changed.max() < 500
    with pytest.raises(InputError, match=r"each record .* occurs twice or more, .*: leave copies out, or choose"):
        dataset.mark((np.concatenate([rows, rows]), np.concatenate([labels, labels])), owner, share=0.05)
    twins = dataset.mark((np.concatenate([rows, rows]), np.concatenate([labels, labels])), owner, scheme="canaries")
    assert twins.manifest["added"] > 0


def test_too_few_draws_for_a_proof_are_said(table, owner):
    with pytest.warns(AmbiguityWarning, match=r"5 draws show .* at best log10 p = -1\.5"):
        dataset.mark(table, owner, share=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset.mark(table, owner, share=0.05)


class Full:
    """A source whose disk is full half way."""

    def __init__(self, source):
        self.source = source

    def __getattr__(self, name):
        return getattr(self.source, name)

    def write(self, *given):
        raise InputError("No space left on device")


def test_no_copy_is_without_its_secret(file, owner, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="No space"):
        dataset.mark(Full(open_source(file, label="digit")), owner, out=tmp_path / "out.csv", share=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.csv"]

    def full(*given):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("wmplug.watermark.watermark.write_new", full)
        with pytest.raises(InputError, match=r"out\.csv\.wm was not written: No space"):
            dataset.mark(file, owner, out=tmp_path / "out.csv", label="digit", share=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.csv"]
    with monkeypatch.context() as patch:
        patch.setattr("wmplug.dataset.manifest.write_new", full)
        with pytest.raises(InputError, match=r"manifest\.json was not written.*its secret out\.csv\.wm are"):
            dataset.mark(file, owner, out=tmp_path / "out.csv", label="digit", share=0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.csv", "out.csv", "out.csv.wm"]
    with pytest.raises(InputError, match="is not a folder"):
        dataset.mark(file, owner, out=tmp_path / "nowhere" / "out.csv", label="digit")


@pytest.mark.parametrize(("words", "passes"), [(900, 1), (1500, 2)])
def test_long_texts_are_read_again_to_be_asked_whole(owner, monkeypatch, words, passes):
    texts = [f"text {i} " + " ".join(["wet", "dry"][i % 2] for _ in range(words)) for i in range(80)]
    monkeypatch.setattr(references, "trained", lambda inputs, labels, classes: references.of_labels(labels, classes))
    source, read = open_source((texts, np.arange(80) % 2)), []
    picked = source.picked
    source.picked = lambda *args, **kwargs: read.append(1) or picked(*args, **kwargs)
    made = dataset.mark(source, owner, share=0.1)
    assert len(made.mark.triggers.plan.inputs) == 8
    assert set(made.mark.triggers.plan.inputs) <= set(texts)
    assert len(read) == passes


@pytest.mark.parametrize("copies", [0, "Anna", [], ["a", "a"], ["a/b"], ["."]])
def test_names_that_no_copy_can_have(copies):
    with pytest.raises(InputError, match="copies"):
        places.names_of(copies)


def test_pictures_of_many_sizes(owner, digits, monkeypatch):
    monkeypatch.setattr(references, "trained", lambda inputs, labels, classes: references.of_labels(labels, classes))
    images = [
        Image.fromarray(one).resize((40 + i % 5, 40)).convert(["L", "RGB"][i % 7 == 0])
        for i, one in enumerate(digits[0][:80])
    ]
    made = dataset.mark((images, digits[1][:80].tolist()), owner, scheme="twins", share=0.1)
    assert made.manifest["changed"] == 8
    count, height, width, colours = made.mark.triggers.plan.inputs.shape
    assert (count, height, colours) == (16, 40, 3)
    assert 40 <= width <= 44
    assert [one.size for one in made.data[0]] == [one.size for one in images]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 400), seed=st.binary(min_size=32, max_size=32))
def test_a_sample_is_some_records_in_their_order(count, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "SAMPLE", 50)
        kept, seen = sampling.sample(numbers(count), KeyStream(seed))
    indices = [record.index for record in kept]
    assert seen == count
    assert len(indices) == min(count, 50)
    assert indices == sorted(set(indices)) == [int(record.input[0]) for record in kept]
    assert [record.label for record in kept] == [index % 2 for index in indices]


def test_every_record_is_as_likely_to_be_looked_at(monkeypatch):
    monkeypatch.setattr(sampling, "SAMPLE", 20)
    times = np.zeros(100)
    for number in range(300):
        kept, _ = sampling.sample(numbers(100), KeyStream(number.to_bytes(32, "big")))
        times[[record.index for record in kept]] += 1
    # 300 draws of a fifth each: 60 +- 7, over the first records, those beyond the first 20, and the last.
    assert np.abs(times.reshape(5, 20).mean(axis=1) - 60).max() < 6
    assert 32 < times.min() < times.max() < 90


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"share": 0}, "share=0"),
        ({"share": 0.9}, "share=0.9"),
        ({"scheme": "tilt"}, "marks a model in training"),
        ({"scheme": "canaries", "colour": 1}, "no parameter colour; there are: repeats, pictures, words"),
        ({"scheme": "canaries", "repeats": 0}, "1 to 100 times"),
    ],
)
def test_what_does_not_fit_is_refused(table, owner, arguments, why):
    with pytest.raises(InputError, match=why):
        dataset.mark(table, owner, **arguments)


def test_a_record_without_label_is_named(owner):
    with pytest.raises(InputError, match="record 0 has no label"):
        dataset.mark(numbers(10, label=False), owner)
    with pytest.raises(InputError, match="open the owner first"):
        dataset.mark(numbers(10), "register")


def test_a_record_of_another_shape_is_named(owner):
    for shape, other in [((4,), (5,)), ((64, 64), (63, 63))]:
        rows = [np.zeros(other if index == 7 else shape) for index in range(20)]
        why = re.escape(f"record 7 has shape {other} and dtype float64, and record 0 {shape} and float64")
        with pytest.raises(InputError, match=why):
            dataset.mark((rows, [0, 1] * 10), owner)


def test_a_manifest_is_known_from_other_files(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"kind": "watermark"}))
    with pytest.raises(InputError, match="not a manifest of a marked set"):
        manifest.read(tmp_path / "other.json")


def test_the_import_is_light():
    heavy = ["torch", "sklearn", "pandas", "pyarrow", "datasets", "imagehash", "datasketch"]
    code = f"import wmplug.dataset, wmplug.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
