"""The training set's commitment: order does not count, multiplicity does, randomness is neither used nor believed."""

import json
import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.register.assets import dataset, digests, encoding

RECORDS = st.lists(st.integers(0, 3) | st.text("ab", max_size=2), min_size=1, max_size=12)


class MapStyle:
    def __init__(self, records, change=lambda record: record):
        self.records, self.change = records, change

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.change(self.records[index])


class Wrapped(MapStyle):
    """As a Subset or a transforming wrapper is."""

    def __init__(self, data, change):
        super().__init__(data, change)
        self.dataset = data


def root(data):
    body = dataset(data)
    assert body["status"] == "committed"
    return body["root"]


def by_hand(records):
    """The root as the docstring defines it."""
    return merkle.root([merkle.leaf_hash(d) for d in sorted(encoding.read_record(r).digest for r in records)]).hex()


@given(RECORDS, st.randoms())
@settings(deadline=None)
def test_the_order_of_records_does_not_matter(records, rng):
    shuffled = list(records)
    rng.shuffle(shuffled)
    assert root(shuffled) == root(records) == by_hand(records)


@given(RECORDS, RECORDS)
@settings(deadline=None)
def test_the_root_is_that_of_the_multiset(one, other):
    assert (root(one) == root(other)) == (Counter(map(repr, one)) == Counter(map(repr, other)))


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40), st.integers(1, 9))
@settings(deadline=None)
def test_spilled_digests_come_back_sorted_and_their_root_is_that_of_all(found, limit):
    with digests.SortedDigests(limit) as held:
        for digest in found:
            held.add(digest)
        assert list(held) == sorted(found)
        assert digests.tree_root(held) == merkle.root(sorted(found))


def test_one_flipped_bit_gives_another_root():
    images = np.zeros((5, 4, 4), np.uint8)
    flipped = images.copy()
    flipped[3, 2, 1] ^= 1
    assert root(images) != root(flipped)


def test_the_same_records_in_every_shape_of_dataset_have_one_root():
    x, y = np.arange(12.0, dtype="f4").reshape(4, 3), np.arange(4)
    rows = [(x[i], y[i]) for i in range(4)]
    roots = {root(data) for data in ((x, y), rows, MapStyle(rows), (row for row in rows), (x, list(y)))}
    assert roots == {by_hand(rows)}
    assert root({"x": x, "y": y}) == by_hand([{"x": x[i], "y": y[i]} for i in range(4)])


def test_the_body_says_what_was_committed():
    x, y = np.zeros((3, 2), "f4"), [1, 2, 3]
    seen = []
    body = dataset((x, y), progress=lambda done, total: seen.append((done, total)))
    assert json.loads(json.dumps(body)) == body
    assert body["count"] == 3
    assert body["schema"] == {"items": [{"array": "float32", "shape": [2]}, "int"]}
    assert body["uniform"]
    assert body["bytes"] == sum(len(encoding.encode([x[i], y[i]])) for i in range(3))
    assert (body["kind"], body["read"], body["class"]) == ("dataset", "columns", "tuple")
    assert seen[-1] == (3, 3)
    assert not dataset([np.zeros(2), np.zeros(3)])["uniform"]


def test_nested_records_with_pictures_and_texts():
    records = [{"image": Image.new("RGB", (2, 2), (i, 0, 0)), "text": "é", "tags": [["a"], []]} for i in range(3)]
    assert root(records) == by_hand(records)


def test_a_table_of_thousands_of_columns_has_a_short_schema():
    body = dataset({f"column {i}": np.zeros(2) for i in range(2000)})
    assert set(body["schema"]) == {"sha256"}


@pytest.mark.once
def test_many_records_stay_flat_in_memory(monkeypatch):
    monkeypatch.setattr(digests, "LIMIT", 50_000)
    root([0])
    tracemalloc.start()
    body = dataset(iter(range(200_000)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert body["count"] == 200_000
    assert peak < 4_000_000, "32 bytes a record would be 6.4 MB"


def test_spilling_changes_no_root(monkeypatch):
    records = list(range(1000))
    whole = root(records)
    monkeypatch.setattr(digests, "LIMIT", 64)
    assert root(records) == whole


def states():
    return random.getstate(), np.random.get_state(legacy=False)


@pytest.mark.parametrize("draw", [random.random, np.random.random_sample])
def test_random_augmentation_is_found_out_and_the_raw_data_is_committed_instead(draw):
    raw = [np.full(3, float(i)) for i in range(20)]
    before = repr(states())
    body = dataset(Wrapped(raw, lambda record: record + draw()))
    assert repr(states()) == before
    assert body["status"] == "not-deterministic"
    assert "record 0 differs" in body["reason"]
    assert "root" not in body
    assert body["count"] == 20
    assert body["schema"] == {"array": "float64", "shape": [3]}
    assert (body["instead"]["what"], body["instead"]["root"]) == ("dataset", root(raw))


def test_rare_augmentation_is_found_out_by_what_it_draws():
    raw = [np.full(3, float(i)) for i in range(20)]
    body = dataset(MapStyle(raw, lambda record: record + (random.random() < 1e-12)))
    assert body["status"] == "not-deterministic"
    assert "draws from a global random generator" in body["reason"]
    assert body["instead"] is None


def test_augmentation_below_augmentation_is_unwrapped():
    raw = MapStyle([1.0, 2.0])
    inner = Wrapped(raw, lambda record: record + random.random())
    body = dataset(Wrapped(inner, lambda record: record + random.random()))
    assert body["instead"]["status"] == "not-deterministic"
    assert body["instead"]["instead"]["root"] == root([1.0, 2.0])


def test_arrays_and_targets_of_a_transforming_dataset_are_committed_together():
    pictures = MapStyle(range(3), lambda index: index + random.random())
    pictures.data, pictures.targets = np.arange(6).reshape(3, 2), [0, 1, 0]
    body = dataset(pictures)
    assert body["instead"]["what"] == "(data, targets)"
    assert body["instead"]["root"] == root({"data": pictures.data, "targets": pictures.targets})


def test_the_folder_below_a_transforming_dataset_is_committed(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    pictures = MapStyle(range(3), lambda index: index + random.random())
    pictures.root, pictures.samples = str(tmp_path), []
    assert dataset(pictures)["instead"]["root"] == root(tmp_path)


def test_a_dataset_with_a_format_is_read_without_it():
    class Formatted(MapStyle):
        def with_format(self, kind):
            assert kind is None
            return Formatted(self.records)

    body = dataset(Formatted([1.0, 2.0], lambda record: record + random.random()))
    assert (body["instead"]["what"], body["instead"]["root"]) == ("with_format(None)", root([1.0, 2.0]))


def test_a_large_file_is_cut_into_pieces_of_one_mebibyte(tmp_path):
    content = bytes(range(256)) * 8192 + b"tail"
    file = tmp_path / "data.bin"
    file.write_bytes(content)
    pieces = [[b".", at, content[at : at + 2**20]] for at in range(0, len(content), 2**20)]
    body = dataset(file)
    assert (body["root"], body["count"], body["bytes"]) == (by_hand(pieces), 3, len(content))
    file.write_bytes(content[: 2**21])
    assert dataset(str(file))["root"] == by_hand(pieces[:2])


def test_a_folder_is_its_files_under_their_names(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "1.png").write_bytes(b"one")
    (tmp_path / "empty").write_bytes(b"")
    first = root(tmp_path)
    assert first == by_hand([[b"cats/1.png", 0, b"one"], [b"empty", 0, b""]])
    (tmp_path / "cats").rename(tmp_path / "dogs")
    assert root(tmp_path) != first


def test_a_folder_is_committed_whole_or_not_at_all(tmp_path):
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(InputError, match="leads nowhere"):
        dataset(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no records"),
        (7, "give a dataset with len"),
        (b"bytes", "give a dataset with len"),
        ("/there/is/none", "neither a file nor a folder"),
        ({"x": np.zeros(3), "y": np.zeros(2)}, "differ in length"),
        ({"train": 1}, "differ in length"),
        ([object()], "no canonical encoding"),
    ],
)
def test_what_cannot_be_committed_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        dataset(data)
