"""Parquet and `datasets`: the laws of all formats, and what tables have beside them."""

import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wmplug.dataset.records import Added, Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError


def _features(names, **inputs):
    return datasets.Features({**inputs, "label": datasets.ClassLabel(names=names)})


@pytest.fixture(scope="module")
def tables(tmp_path_factory, texts, table, pictures, encoded):
    folder = tmp_path_factory.mktemp("tables")
    words = pa.table({"text": texts[0], "label": texts[1]})
    pq.write_table(words, folder / "texts.parquet", row_group_size=20, compression="zstd")
    rows, labels, names = table
    numbers = pa.table({**dict(zip(names, rows.T, strict=True)), "label": labels})
    pq.write_table(numbers, folder / "table.parquet")
    parts = folder / "parts"
    parts.mkdir()
    for part in range(3):
        pq.write_table(words.slice(part * 20, 20), parts / f"{part}.parquet")
    (parts / "README").write_text("three")
    cells = [{"bytes": encoded(picture), "path": f"{k * 7 % 24}.png"} for k, picture in enumerate(pictures[0])]
    features = _features(["china", "flower"], image=datasets.Image())
    photos = datasets.Dataset.from_dict({"image": cells, "label": pictures[1]}, features=features)
    datasets.disable_progress_bars()
    photos.save_to_disk(folder / "photos")
    photos.to_parquet(folder / "photos.parquet")
    grid = datasets.Features({"x": datasets.Array2D((5, 6), "float64"), "label": datasets.Value("int64")})
    arrays = datasets.Dataset.from_dict({"x": rows.reshape(-1, 5, 6).tolist(), "label": labels}, features=grid)
    datasets.enable_progress_bars()
    return {
        "texts.parquet": folder / "texts.parquet",
        "table.parquet": folder / "table.parquet",
        "parts": parts,
        "photos": folder / "photos",
        "photos.parquet": folder / "photos.parquet",
        "Dataset": datasets.Dataset.from_dict({"text": texts[0], "label": texts[1]}),
        "Dataset of pictures": photos,
        "Dataset of arrays": arrays,
        "IterableDataset": datasets.Dataset.from_dict({"text": texts[0], "label": texts[1]}).to_iterable_dataset(2),
    }


ALL = [
    "texts.parquet",
    "table.parquet",
    "parts",
    "photos",
    "photos.parquet",
    "Dataset",
    "Dataset of pictures",
    "Dataset of arrays",
    "IterableDataset",
]


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), in_memory=st.booleans())
def test_a_copy_is_the_set_with_its_changes(tables, check_copy, changes_of, name, data, in_memory):
    source = open_source(tables[name])
    changes = data.draw(changes_of(list(source.records()), len(source.classes)))
    with tempfile.TemporaryDirectory() as folder:
        out = None if in_memory and name.startswith("Dataset") else Path(folder, name)
        check_copy(tables[name], {}, changes, out)
        assert out is None or list(Path(folder).iterdir()) == [out]


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_picked_records_are_those_of_a_full_reading(tables, check_picked, name, data):
    check_picked(tables[name], {}, data)


@pytest.mark.parametrize("name", ALL)
def test_the_schema_the_class_names_and_the_groups_are_kept(tables, tmp_path, name):
    source = open_source(tables[name])
    written = source.write(tmp_path / name, Changes({3: 1, 4: 0}))
    assert open_source(written.data).classes == source.classes
    if name == "texts.parquet":
        before, after = (pq.ParquetFile(path) for path in (tables[name], written.data))
        assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
        groups = [[file.metadata.row_group(k) for k in range(file.num_row_groups)] for file in (before, after)]
        assert [group.num_rows for group in groups[0]] == [group.num_rows for group in groups[1]]
        assert {group.column(0).compression for group in groups[1]} == {"ZSTD"}
    if name == "parts":
        assert sorted(file.name for file in written.data.iterdir()) == ["0.parquet", "1.parquet", "2.parquet", "README"]
    if name in ("photos", "Dataset of pictures", "Dataset of arrays"):
        kept = datasets.load_from_disk(written.data)
        assert kept.features == (datasets.load_from_disk(tables[name]) if name == "photos" else tables[name]).features


def test_a_picture_that_stays_keeps_its_bytes_in_a_table(tables, tmp_path):
    written = open_source(tables["photos"]).write(tmp_path / "copy", Changes({3: 1}))
    before, after = (
        datasets.load_from_disk(path).with_format("arrow")[:]["image"] for path in (tables["photos"], written.data)
    )
    assert after.to_pylist() == before.to_pylist()


def test_a_row_group_larger_than_memory_should_be_is_divided(monkeypatch, tables, tmp_path):
    monkeypatch.setattr("wmplug.dataset.sources.parquet._GROUP_BYTES", 2000)
    monkeypatch.setattr("wmplug.dataset.sources.parquet._BATCH_ROWS", 4)
    open_source(tables["texts.parquet"]).write(tmp_path / "copy.parquet", Changes())
    assert (
        pq.ParquetFile(tmp_path / "copy.parquet").num_row_groups
        > pq.ParquetFile(tables["texts.parquet"]).num_row_groups
    )
    assert pq.read_table(tmp_path / "copy.parquet") == pq.read_table(tables["texts.parquet"])


def test_bad_tables_are_refused_and_leave_nothing(tables, tmp_path, texts):
    places = tmp_path / "sets"
    places.mkdir()
    out = tmp_path / "copy"
    with_ids = pa.table({"id": range(len(texts[0])), "text": texts[0], "label": texts[1]})
    pq.write_table(with_ids, places / "ids.parquet")
    with pytest.raises(InputError, match=r"and the values of id are unknown"):
        open_source(places / "ids.parquet").write(out, Changes(added=[Added(1, "new", 0)]))
    whole = pa.table({"n": pa.array([1, 2, 3], pa.int8()), "label": [0, 1, 0]})
    pq.write_table(whole, places / "small.parquet")
    for value in (1.5, 1000):
        with pytest.raises(InputError, match=r"does not fit the column n .* holds int8"):
            open_source(places / "small.parquet").write(out, Changes(inputs={1: np.array([value])}))
    holes = pa.table({"text": ["a", None, "c"], "label": [0, 1, 0]})
    pq.write_table(holes, places / "holes.parquet")
    with pytest.raises(InputError, match=r"holes.parquet, row 1 has None as text"):
        list(open_source(places / "holes.parquet").records())
    pq.write_table(pa.table({"text": ["a", "b"], "label": [0, None]}), places / "unlabelled.parquet")
    with pytest.raises(InputError, match=r"unlabelled.parquet, row 1 has no label"):
        list(open_source(places / "unlabelled.parquet").records())
    with pytest.raises(InputError, match=r"row \d+ has the label 'iris', which is not among the 1 classes wine"):
        list(open_source(tables["texts.parquet"], classes=["wine"]).records())
    data = bytearray(tables["texts.parquet"].read_bytes())
    (places / "cut.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"cut.parquet is not readable as Parquet"):
        open_source(places / "cut.parquet")
    data[200:4000] = bytes(3800)
    (places / "torn.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"torn.parquet is damaged after row 0"):
        open_source(places / "torn.parquet").write(out, Changes({30: 1}))
    other = places / "mixed"
    other.mkdir()
    pq.write_table(with_ids, other / "0.parquet")
    pq.write_table(holes, other / "1.parquet")
    with pytest.raises(InputError, match=r"1.parquet has other columns than .*0.parquet"):
        open_source(other)
    assert not out.exists()
    assert list(tmp_path.iterdir()) == [places]


FULL = """
import resource, sys
from wmplug.dataset.records import Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError
source = open_source(sys.argv[1])
source.classes
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
try:
    source.write(sys.argv[2], Changes({0: 1}))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["texts.parquet", "parts", "photos"])
def test_a_full_disk_half_way_leaves_nothing_and_names_the_place(tables, tmp_path, name):
    out = tmp_path / "copy"
    command = [sys.executable, "-c", FULL, str(tables[name]), str(out)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"{out} was not written: " in said
    assert "File too large at " in said
    assert not list(tmp_path.iterdir())


def test_a_copy_of_a_stream_gives_the_rows_that_the_stream_gives(tables, texts, tmp_path):
    written = open_source(tables["IterableDataset"]).write(tmp_path / "copy", Changes({0: 1, 50: 0}))
    copy = datasets.load_from_disk(written.data)
    assert copy["text"][:] == [row["text"] for row in tables["IterableDataset"]]
    names = open_source(tables["IterableDataset"]).classes
    expected = [row["label"] for row in tables["IterableDataset"]]
    expected[0], expected[50] = names[1], names[0]
    assert copy["label"][:] == expected


def test_streams_whose_rows_differ_are_refused():
    def rows():
        yield {"text": "a", "label": 0}
        yield {"text": "b", "label": 1}
        yield {"text": 7, "label": "x"}

    with pytest.raises(InputError, match="rows from 0 on that do not fit together"):
        list(open_source(datasets.IterableDataset.from_generator(rows)).records())


def test_several_splits_are_no_set(tables, tmp_path):
    both = datasets.DatasetDict({"train": tables["Dataset"], "test": tables["Dataset"]})
    with pytest.raises(InputError, match="splits train, test"):
        open_source(both)


def test_categories_that_are_more_than_their_index_counts_are_refused(tmp_path):
    values = [f"template {k}" for k in range(120)]
    words = pa.DictionaryArray.from_arrays(pa.array([row % 120 for row in range(400)], pa.int8()), values)
    pq.write_table(pa.table({"text": words, "label": [row % 2 for row in range(400)]}), tmp_path / "set.parquet")
    source = open_source(tmp_path / "set.parquet")
    few, many = (Changes(added=[Added(row, f"new {row}", 0) for row in range(count)]) for count in (7, 40))
    written = source.write(tmp_path / "few.parquet", few)
    assert [record.input for record in open_source(written.data).records()][:3] == ["template 0", "new 0", "template 1"]
    with pytest.raises(InputError, match=r"the column text of .*set.parquet, which holds dictionary.* wider index"):
        source.write(tmp_path / "many.parquet", many)
    assert not (tmp_path / "many.parquet").exists()


def test_columns_that_nobody_asks_for_may_have_one_name(tmp_path):
    columns = [pa.array(values) for values in (["a", "b", "c"], [0, 1, 0], [1, 2, 3], [4.0, float("nan"), 6.0])]
    pq.write_table(pa.Table.from_arrays(columns, ["text", "label", "x", "x"]), tmp_path / "set.parquet")
    written = open_source(tmp_path / "set.parquet").write(tmp_path / "copy.parquet", Changes({0: 1}))
    copy = pq.ParquetFile(written.data).read()
    assert copy.column(1).to_pylist() == [1, 1, 0]
    assert (copy.column(2).to_pylist(), copy.column(3).to_pylist()[::2]) == ([1, 2, 3], [4.0, 6.0])


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_text_that_is_no_utf8_is_named_whether_it_is_picked_or_not(tmp_path, kind):
    raw = pa.array([b"a", b"\xff\xfe", b"c"], kind)
    text = raw.view(pa.string() if kind == pa.binary() else pa.large_string())
    pq.write_table(pa.table({"text": text, "label": [0, 1, 0]}), tmp_path / "set.parquet")
    for read in (
        open_source(tmp_path / "set.parquet").records,
        lambda: open_source(tmp_path / "set.parquet").picked([0]),
    ):
        with pytest.raises(InputError, match=r"set.parquet, row 1 is not UTF-8 \(byte 0xff"):
            list(read())


def test_labels_in_the_names_of_folders_are_read(tmp_path):
    root = tmp_path / "set"
    for label in ("a", "b c"):
        place = root / f"label={label.replace(' ', '%20')}" / "part-0.parquet"
        place.parent.mkdir(parents=True)
        pq.write_table(pa.table({"text": [f"{label} {row}" for row in range(5)]}), place)
    source = open_source(root)
    assert source.classes == ("a", "b c")
    assert [source.classes[record.label] for record in source.records()] == ["a"] * 5 + ["b c"] * 5
    with pytest.raises(InputError, match=r"in the names of its folders \(label=\.\.\.\)"):
        source.write(tmp_path / "copy", Changes({0: 1}))
    assert [file.name for file in tmp_path.iterdir()] == ["set"]
    written = open_source(root).write(tmp_path / "copy", Changes(inputs={7: "new"}))
    assert [record.input for record in open_source(written.data).records()][6:9] == ["b c 1", "new", "b c 3"]
    assert pq.read_schema(written.data / "label=a" / "part-0.parquet").names == ["text"]
